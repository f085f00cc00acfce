//go:build unix

package torture

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// Report is what came of it, row by row.
type Report struct {
	mu   sync.Mutex
	Rows []*Row
	// Broken are errors of the harness itself, which leave a run unjudged.
	Broken []error
}

// Row is one fault at one step.
type Row struct {
	Step, Fault string
	// Limit: nobody could help. The provider has spent the refresh token, and
	// its answer is lost.
	Limit    bool
	Outcomes []Outcome
}

// Outcome is what came of one renewal that a fault has struck.
type Outcome struct {
	Connection string
	// Lost: the connection needs its user again, or didn't come back in time.
	Lost bool
	// Reused is how often a spent refresh token was sent.
	Reused int
	// Took is how long it was until the connection worked everywhere again, or
	// its loss was known.
	Took time.Duration
	// Causes are those of the events that have reported its loss.
	Causes []string
	// Wrong is what else should not be.
	Wrong error
}

// interrupted is the cause of a loss that nobody could help.
const interrupted = "rotation_interrupted"

// Err tells what is wrong with the outcome, given whether it is of a row where
// nobody can help. There a loss has to be reported, once, by its cause.
func (o *Outcome) Err(limit bool) error {
	switch {
	case o.Wrong != nil:
		return o.Wrong
	case limit && o.Lost && !slices.Equal(o.Causes, []string{interrupted}):
		return fmt.Errorf("its loss was reported as %q, not once as %s", o.Causes, interrupted)
	case limit && o.Lost:
		return nil
	case o.Lost:
		return fmt.Errorf("it is lost, reported as %q", o.Causes)
	case o.Reused > 0:
		return fmt.Errorf("a refresh token was spent twice, %d times", o.Reused)
	case len(o.Causes) > 0:
		return fmt.Errorf("a loss was reported that is none: %q", o.Causes)
	}
	return nil
}

func (r *Report) add(row *Row, o Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row.Outcomes = append(row.Outcomes, o)
}

func (r *Report) broke(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Broken = append(r.Broken, err)
}

// Err returns everything that is wrong; nil: nothing was lost that could have
// been kept, and nothing spent twice.
func (r *Report) Err() error {
	errs := slices.Clone(r.Broken)
	for _, row := range r.Rows {
		for i := range row.Outcomes {
			if err := row.Outcomes[i].Err(row.Limit); err != nil {
				errs = append(errs, fmt.Errorf("%s, %s (%s): %w", row.Step, row.Fault, row.Outcomes[i].Connection, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Print writes the table.
func (r *Report) Print(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "STEP\tFAULT\tRUNS\tLOST\tSPENT TWICE\tRECOVERED IN: MEDIAN\tMAX\t")
	for _, row := range r.Rows {
		if len(row.Outcomes) > 0 && !row.Limit {
			row.print(out)
		}
	}
	fmt.Fprintln(out, "\t\t\t\t\t\t\t")
	fmt.Fprintln(out, "NOBODY CAN HELP\t\t\tLOST\tREPORTED ONCE\tKNOWN IN: MEDIAN\tMAX\t")
	for _, row := range r.Rows {
		if len(row.Outcomes) > 0 && row.Limit {
			row.print(out)
		}
	}
	return out.Flush()
}

func (row *Row) print(out io.Writer) {
	var lost, fifth int
	var took []time.Duration
	for i := range row.Outcomes {
		o := &row.Outcomes[i]
		if o.Lost {
			lost++
		}
		switch {
		case !row.Limit && o.Reused > 0, row.Limit && o.Lost && o.Err(true) == nil:
			fifth++
		}
		took = append(took, o.Took)
	}
	slices.Sort(took)
	fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%d\t%.1f s\t%.1f s\t\n", row.Step, row.Fault, len(row.Outcomes), lost, fifth,
		took[len(took)/2].Seconds(), took[len(took)-1].Seconds())
}
