package storetest

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// logAt is when the logs of the contract begin.
var logAt = time.Date(2029, 1, 2, 3, 4, 5, 123456000, time.UTC)

func wholeLog(t *testing.T, s stores) {
	want := connect.Log{
		Serial: -1, ID: newUID(), Kind: connect.LogCall, Status: connect.LogFailure, Integration: "github", Connection: "c/1", Provider: "github",
		EndUser: "u1", Caller: "config 1", Code: "http_502", Message: "ünï <b>", Detail: "\"they\" said", Method: "POST", Path: "/a%2Fb", Answer: 502,
		Retries: 2, Replayed: true, Started: logAt, Changed: logAt, Took: 1234567 * time.Microsecond,
		Steps: []connect.LogStep{{At: logAt, Name: "sent", Message: "a", Detail: "b"}, {At: logAt.Add(time.Microsecond), Name: "answered"}},
	}
	for n := range reflect.ValueOf(want).NumField() {
		if reflect.ValueOf(want).Field(n).IsZero() {
			t.Fatalf("the contract does not cover the field %s", reflect.TypeOf(want).Field(n).Name)
		}
	}
	before := time.Now().Add(-time.Second)
	must(t, s[0].WriteLogs(t.Context(), []connect.Log{want}))
	got, err := s[1].Log(t.Context(), want.ID)
	must(t, err)
	if got.Serial <= 0 || got.Changed.Before(before) || got.Changed.After(time.Now().Add(time.Second)) {
		t.Errorf("serial %d, changed %v", got.Serial, got.Changed)
	}
	want.Serial, want.Changed = got.Serial, got.Changed
	equal(t, got, want)
	list, err := s[1].Logs(t.Context(), connect.LogQuery{})
	must(t, err)
	want.Steps = nil
	equal(t, list, []connect.Log{want})
	for _, id := range []string{"none", "a\x00"} {
		_, err = s[0].Log(t.Context(), id)
		expectErr(t, err, connect.ErrNotFound)
	}
}

func growingLog(t *testing.T, s stores) {
	id := newUID()
	part := func(n int, name string) connect.Log {
		at := logAt.Add(time.Duration(n) * time.Second)
		return connect.Log{ID: id, Kind: connect.LogConnect, Status: connect.LogRunning, Integration: "github", Started: at, Steps: []connect.LogStep{{At: at, Name: name}}}
	}
	first, second, last := part(0, "started"), part(1, "callback"), part(5, "failed")
	first.EndUser, first.Provider = "u1", "github"
	last.Status, last.Connection, last.Code, last.Message = connect.LogFailure, "ada", "access_denied", "No"
	for _, logs := range [][]connect.Log{{first}, {last, second}, {second}, {last}, {first, second, last}} {
		must(t, s[0].WriteLogs(t.Context(), logs))
	}
	got, err := s[1].Log(t.Context(), id)
	must(t, err)
	want := last
	want.Serial, want.Changed, want.Started = got.Serial, got.Changed, first.Started
	want.EndUser, want.Provider, want.Took = "u1", "github", 5*time.Second
	want.Steps = append(append(first.Steps, second.Steps...), last.Steps...)
	equal(t, got, want)
	for _, text := range []string{"ACCESS_denied", "u1", "ada"} {
		found, err := s[0].Logs(t.Context(), connect.LogQuery{Text: text})
		must(t, err)
		equal(t, len(found), 1)
	}
}

func queryLogs(t *testing.T, s stores) {
	var logs []connect.Log
	for n := range 6 {
		logs = append(logs, connect.Log{
			ID: fmt.Sprint("log", n), Kind: connect.LogKinds[n%2], Status: connect.LogStatuses[n%3], Integration: fmt.Sprint("i", n%2), Connection: fmt.Sprint("c", n%3),
			Message: fmt.Sprintf("100%% of É%d_", n), Started: logAt.Add(time.Duration(n) * time.Minute),
		})
	}
	must(t, s[0].WriteLogs(t.Context(), logs[:3]))
	all, err := s[0].Logs(t.Context(), connect.LogQuery{})
	must(t, err)
	changed := all[0].Changed
	time.Sleep(2 * time.Millisecond)
	must(t, s[0].WriteLogs(t.Context(), logs[3:]))
	all, err = s[0].Logs(t.Context(), connect.LogQuery{})
	must(t, err)
	for name, c := range map[string]struct {
		query connect.LogQuery
		want  string
	}{
		"everything":                {connect.LogQuery{}, "[5 4 3 2 1 0]"},
		"by kind":                   {connect.LogQuery{Kind: connect.LogKinds[1]}, "[5 3 1]"},
		"by status":                 {connect.LogQuery{Status: connect.LogSuccess}, "[4 1]"},
		"by integration":            {connect.LogQuery{Integration: "i0"}, "[4 2 0]"},
		"by connection":             {connect.LogQuery{Connection: "c2"}, "[5 2]"},
		"by text without case":      {connect.LogQuery{Text: "é3_"}, "[3]"},
		"by text literally":         {connect.LogQuery{Text: "100_ of"}, "[]"},
		"by text that nobody keeps": {connect.LogQuery{Text: "a\x00"}, "[]"},
		"since":                     {connect.LogQuery{Since: logAt.Add(4 * time.Minute)}, "[5 4]"},
		"until":                     {connect.LogQuery{Until: logAt.Add(2 * time.Minute)}, "[1 0]"},
		"changed since":             {connect.LogQuery{ChangedSince: changed}, "[5 4 3]"},
		"the first two":             {connect.LogQuery{Limit: 2}, "[5 4]"},
		"those before":              {connect.LogQuery{Before: all[3].Serial, Limit: 2}, "[1 0]"},
		"together":                  {connect.LogQuery{Kind: connect.LogKinds[1], Connection: "c1", Since: logAt, Text: "of"}, "[1]"},
	} {
		found, err := s[1].Logs(t.Context(), c.query)
		must(t, err)
		got := []string{}
		for _, l := range found {
			got = append(got, l.ID[len("log"):])
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}

func logRace(t *testing.T, s stores) {
	const n, steps = 8, 5
	s.both(n, func(i int, s connect.Store) {
		for step := range steps {
			var logs []connect.Log
			for id := range 3 { // all write to the same ones, in the same order
				logs = append(logs, connect.Log{ID: fmt.Sprint("log", id), Kind: connect.LogConnect, Status: connect.LogRunning, Started: logAt,
					Steps: []connect.LogStep{{At: logAt.Add(time.Duration(step) * time.Second), Name: fmt.Sprint("by ", i)}}})
			}
			if err := s.WriteLogs(t.Context(), logs); err != nil {
				t.Error(err)
			}
		}
	})
	for id := range 3 {
		l, err := s[0].Log(t.Context(), fmt.Sprint("log", id))
		must(t, err)
		equal(t, len(l.Steps), n*steps)
	}
}

func sweepLogs(t *testing.T, s stores) {
	var logs []connect.Log
	for n := range 10 {
		at := logAt.Add(time.Duration(n) * time.Hour)
		logs = append(logs, connect.Log{ID: fmt.Sprint("log", n), Kind: connect.LogCall, Started: at, Steps: []connect.LogStep{{At: at, Name: "sent"}}})
	}
	must(t, s[0].WriteLogs(t.Context(), logs))
	for _, want := range []int{4, 3, 0} {
		n, err := s[1].SweepLogs(t.Context(), logAt.Add(7*time.Hour), 4)
		must(t, err)
		equal(t, n, want)
	}
	left, err := s[0].Logs(t.Context(), connect.LogQuery{})
	must(t, err)
	equal(t, len(left), 3)
	_, err = s[0].Log(t.Context(), "log6")
	expectErr(t, err, connect.ErrNotFound)
	// One that comes again has no steps of its former life.
	must(t, s[0].WriteLogs(t.Context(), []connect.Log{{ID: "log0", Kind: connect.LogCall, Started: logAt}}))
	l, err := s[0].Log(t.Context(), "log0")
	must(t, err)
	equal(t, len(l.Steps), 0)
}
