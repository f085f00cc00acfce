package caddymodule

import (
	"bytes"
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

type noLogs struct{ connect.LogStore }

func (noLogs) WriteLogs(context.Context, []connect.Log) error { return nil }

func TestCallsAreSampled(t *testing.T) {
	now := time.Now()
	for said, c := range map[string]struct {
		ok, failed [2]int // the least and the most, of 1000 in a second
	}{
		"":       {[2]int{0, 0}, [2]int{20, 20}},
		"failed": {[2]int{0, 0}, [2]int{20, 20}},
		"none":   {[2]int{0, 0}, [2]int{0, 0}},
		"all":    {[2]int{1000, 1000}, [2]int{1000, 1000}},
		"30%":    {[2]int{200, 400}, [2]int{220, 420}},
	} {
		_, calls, err := (&Logs{Calls: said}).make()
		if err != nil {
			t.Fatal(err)
		}
		j := connect.NewJournal(noLogs{}, zap.NewNop(), nil)
		count := func(failed bool) (n int) {
			for range 1000 {
				if calls.wants(j, failed, now) {
					n++
				}
			}
			return n
		}
		if n := count(false); n < c.ok[0] || n > c.ok[1] {
			t.Errorf("%q: %d of 1000", said, n)
		}
		if n := count(true); n < c.failed[0] || n > c.failed[1] {
			t.Errorf("%q: %d of 1000 that failed", said, n)
		}
	}
}

// What is followed is shown once, and again when it has changed.
func TestLogsAreFollowed(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	line := func(id, status string, changed int) logLine {
		return logLine{ID: id, Kind: "connect", Status: status, ProviderConfigKey: "i", ConnectionID: "c", ChangedAt: at.Add(time.Duration(changed) * time.Second)}
	}
	answers := [][]logLine{
		{line("b", "running", 1), line("a", "success", 0)}, // newest first
		{line("b", "running", 1), line("a", "success", 0)},
		{line("c", "running", 9), line("b", "success", 8)},
		{line("c", "failure", 10), line("b", "success", 8)},
	}
	var out bytes.Buffer
	var asked []url.Values
	f := follower{out: &out, query: url.Values{"kind": {"connect"}, "limit": {"2"}}, shown: make(map[string]string), ask: func(q url.Values) ([]logLine, error) {
		asked = append(asked, q)
		next := answers[0]
		answers = answers[1:]
		return next, nil
	}}
	if err := f.once(); err != nil {
		t.Fatal(err)
	}
	f.mark = at // as if it were then
	for len(answers) > 0 {
		if err := f.more(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for l := range strings.Lines(out.String()) {
		fields := strings.Fields(l)
		got = append(got, fields[0]+" "+fields[2])
	}
	if s := strings.Join(got, ", "); s != "a success, b running, b success, c running, c failure" {
		t.Errorf("shown: %s", s)
	}
	if q := asked[3]; q.Get("kind") != "connect" || q.Get("limit") != "1000" || q.Get("changed_since") != at.Add(9*time.Second-followOverlap).Format(time.RFC3339Nano) {
		t.Errorf("asked %v", q)
	}
}
