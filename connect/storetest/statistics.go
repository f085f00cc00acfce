package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func statistics(t *testing.T, s stores) {
	empty, err := s[0].Statistics(t.Context(), logAt)
	must(t, err)
	equal(t, empty, connect.Statistics{Connections: map[connect.Status]int{}})
	for id, status := range map[string]connect.Status{"a": connect.StatusActive, "b": connect.StatusActive, "c": connect.StatusNeedsReauth} {
		c := connection("github", id)
		c.Status = status
		create(t, s[0], c)
	}
	var logs []connect.Log
	for i, l := range []connect.Log{
		{Kind: connect.LogRefresh, Status: connect.LogSuccess, Took: time.Second},
		{Kind: connect.LogRefresh, Status: connect.LogSuccess, Took: 3 * time.Second},
		{Kind: connect.LogRefresh, Status: connect.LogFailure},
		{Kind: connect.LogCall, Status: connect.LogSuccess, Started: logAt.Add(time.Hour)},
		{Kind: connect.LogCall, Status: connect.LogSuccess, Started: logAt.Add(-time.Microsecond)},
	} {
		l.ID = newUID()
		if l.Started.IsZero() {
			l.Started = logAt.Add(time.Duration(i) * time.Minute)
		}
		logs = append(logs, l)
	}
	must(t, s[0].WriteLogs(t.Context(), logs))
	got, err := s[1].Statistics(t.Context(), logAt)
	must(t, err)
	slices.SortFunc(got.Hours, func(a, b connect.HourStatistics) int {
		return slices.Compare([]string{a.Hour.String(), string(a.Kind), string(a.Status)}, []string{b.Hour.String(), string(b.Kind), string(b.Status)})
	})
	hour := logAt.Truncate(time.Hour)
	equal(t, got, connect.Statistics{
		Connections: map[connect.Status]int{connect.StatusActive: 2, connect.StatusNeedsReauth: 1},
		Hours: []connect.HourStatistics{
			{Hour: hour, Kind: connect.LogRefresh, Status: connect.LogFailure, Count: 1},
			{Hour: hour, Kind: connect.LogRefresh, Status: connect.LogSuccess, Count: 2, Took: 2 * time.Second},
			{Hour: hour.Add(time.Hour), Kind: connect.LogCall, Status: connect.LogSuccess, Count: 1},
		},
	})
	bad, err := s[0].Connections(t.Context(), connect.Query{Status: connect.StatusNeedsReauth})
	must(t, err)
	if len(bad) != 1 || bad[0].ID.Connection != "c" {
		t.Errorf("connections by status: %v", bad)
	}
}
