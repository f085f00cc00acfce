//go:build unix

package torture

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	once := []string{interrupted}
	tests := map[string]struct {
		outcome Outcome
		limit   bool
		wrong   string // part of what is said; empty: nothing
	}{
		"recovered":                    {Outcome{}, false, ""},
		"recovered although":           {Outcome{}, true, ""},
		"lost":                         {Outcome{Lost: true, Causes: once}, false, "lost"},
		"spent twice":                  {Outcome{Reused: 1}, false, "spent twice"},
		"told of a loss that is none":  {Outcome{Causes: once}, false, "that is none"},
		"left something behind":        {Outcome{Wrong: errors.New("its intent is left")}, false, "intent"},
		"lost, nobody could help":      {Outcome{Lost: true, Reused: 1, Causes: once}, true, ""},
		"… and nobody heard":           {Outcome{Lost: true, Reused: 1}, true, "not once"},
		"… and heard twice":            {Outcome{Lost: true, Causes: slices.Repeat(once, 2)}, true, "not once"},
		"… and heard of another cause": {Outcome{Lost: true, Causes: []string{"invalid_grant"}}, true, "not once"},
		"… and left something behind":  {Outcome{Lost: true, Causes: once, Wrong: errors.New("its intent is left")}, true, "intent"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &Report{Rows: []*Row{{Step: "asking", Fault: "killed", Limit: test.limit, Outcomes: []Outcome{{}, test.outcome}}}}
			err := r.Err()
			if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
				t.Errorf("got %v", err)
			}
		})
	}
	broken := &Report{Broken: []error{errors.New("the harness is broken")}}
	if broken.Err() == nil {
		t.Error("what was not judged counts as good")
	}
}

func TestTable(t *testing.T) {
	r := &Report{Rows: []*Row{
		{Step: "asking", Fault: "killed", Outcomes: []Outcome{{Took: time.Second}, {Took: 3 * time.Second, Reused: 2}, {Took: 2 * time.Second, Lost: true}}},
		{Step: "answered", Fault: "killed", Limit: true, Outcomes: []Outcome{{Lost: true, Causes: []string{interrupted}}, {Lost: true}}},
		{Step: "read", Fault: "not run"},
	}}
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"STEP FAULT RUNS LOST SPENT TWICE RECOVERED IN: MEDIAN MAX",
		"asking killed 3 1 1 2.0 s 3.0 s",
		"",
		"NOBODY CAN HELP LOST REPORTED ONCE KNOWN IN: MEDIAN MAX",
		"answered killed 2 2 1 0.0 s 0.0 s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", out.String())
	}
}
