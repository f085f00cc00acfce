//go:build unix

package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Run runs the plan that the options describe and returns the report, whose Err
// tells what is wrong. The error is of what kept the plan from being run.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "keycaddy-torture-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(folder, 0o711); err != nil { // PostgreSQL's user has to get through
		return nil, err
	}
	w, err := build(ctx, o, folder)
	report := new(Report)
	if err == nil {
		for _, n := range w.nodes {
			n.crashed = func(n *node) { report.broke(fmt.Errorf("a node has crashed; its log is in %s", n.folder)) }
		}
		err = w.run(ctx, report)
	}
	err = errors.Join(err, w.close())
	if err != nil || report.Err() != nil {
		w.say("What the nodes and servers have logged is in %s", folder)
		return report, err
	}
	return report, os.RemoveAll(folder)
}

func (o *Options) check() error {
	switch {
	case o.Nodes < 1 || o.Runs < 0 || o.Rotations < 0:
		return errors.New("there has to be a node, and no number can be negative")
	case o.Store != "postgres" && o.Store != "sqlite":
		return fmt.Errorf("store %q: there are postgres and sqlite", o.Store)
	case o.Vault != "hashicorp" && o.Vault != "sealed":
		return fmt.Errorf("vault %q: there are hashicorp and sealed", o.Vault)
	}
	for _, pattern := range o.Only {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("only %q: %w", pattern, err)
		}
	}
	if o.PostgresPrograms != "" {
		var err error
		if o.PostgresPrograms, err = filepath.Abs(o.PostgresPrograms); err != nil {
			return err
		}
	}
	if o.Vault != "hashicorp" {
		return nil
	}
	if o.VaultProgram == "" {
		o.VaultProgram = "vault"
	}
	found, err := exec.LookPath(o.VaultProgram)
	if err != nil {
		return fmt.Errorf("finding Vault's command: %w (name it with --vault-program)", err)
	}
	o.VaultProgram, err = filepath.Abs(found) // each has a folder of its own to run in
	return err
}

// wanted tells whether a row is to be run.
func (o *Options) wanted(step, fault string) bool {
	return len(o.Only) == 0 || slices.ContainsFunc(o.Only, func(pattern string) bool {
		ok, _ := path.Match(pattern, step+"/"+fault) // which was tried by check
		return ok
	})
}

// strike is one fault that strikes some renewals at once.
type strike struct {
	*fault
	rows []*Row
}

// plan makes the rows, and the strikes that fill them, in an order that the
// seed decides.
func (w *world) plan(report *Report, paused, alone bool) []strike {
	var strikes []strike
	for _, f := range faults() {
		if f.paused != paused || f.alone != alone || f.needs != nil && !f.needs(w.Options) {
			continue
		}
		var renewals []*Row
		for _, step := range f.steps {
			if !w.wanted(step, f.name) {
				continue
			}
			row := &Row{Step: step, Fault: f.name, Limit: slices.Contains(f.limit, step)}
			report.Rows = append(report.Rows, row)
			renewals = append(renewals, slices.Repeat([]*Row{row}, w.Runs)...)
		}
		chance := rand.New(rand.NewPCG(w.Seed, uint64(len(f.name))))
		chance.Shuffle(len(renewals), func(i, j int) { renewals[i], renewals[j] = renewals[j], renewals[i] })
		for rows := range slices.Chunk(renewals, f.together) {
			strikes = append(strikes, strike{f, rows})
		}
	}
	return strikes
}

func (w *world) run(ctx context.Context, report *Report) error {
	// Rows in the order of the table, strikes in that of what they need.
	ordinary, alone, long := w.plan(report, false, false), w.plan(report, false, true), w.plan(report, true, false)
	if len(long) > 0 {
		if err := w.lives(pausedLease); err != nil {
			return err
		}
		w.strikeAll(ctx, report, long, len(w.nodes))
	}
	if len(ordinary)+len(alone) > 0 || w.Rotations > 0 {
		if err := w.lives(0); err != nil {
			return err
		}
	}
	w.strikeAll(ctx, report, ordinary, len(w.nodes))
	w.strikeAll(ctx, report, alone, 1)
	if w.Rotations > 0 && ctx.Err() == nil {
		return w.bulk(ctx, report)
	}
	return ctx.Err()
}

// strikeAll lets a number of strikes at a time happen, each with a victim of its
// own.
func (w *world) strikeAll(ctx context.Context, report *Report, strikes []strike, atOnce int) {
	victims := make(chan *node, len(w.nodes))
	for _, n := range w.nodes {
		victims <- n
	}
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, s := range strikes {
		slots <- struct{}{}
		victim := <-victims
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			began := time.Now()
			if err := w.strike(ctx, report, s, victim); err != nil {
				report.broke(fmt.Errorf("%s: %w", s.name, err))
				w.say("BROKEN %s: %v", s.name, err)
			}
			w.say("%d of %d: %s, %d renewals, %.1f s", i+1, len(strikes), s.name, len(s.rows), time.Since(began).Seconds())
			victims <- victim
			<-slots
		})
	}
	all.Wait()
}

// strike lets one fault strike, and judges what comes of it.
func (w *world) strike(ctx context.Context, report *Report, s strike, victim *node) error {
	trials := make([]*trial, len(s.rows))
	for i, row := range s.rows {
		trials[i] = &trial{world: w, row: row, victim: victim}
	}
	var all sync.WaitGroup
	each := func(do func(*trial) error) error {
		errs := make([]error, len(trials))
		for i, t := range trials {
			all.Go(func() { errs[i] = do(t) })
		}
		all.Wait()
		return errors.Join(errs...)
	}
	// First all are prepared, so that they come to their steps together: others
	// aren't patient for long with those that are held.
	err := each(func(t *trial) error { return t.prepare(ctx, s.fault) })
	if err == nil {
		err = each(func(t *trial) error { return t.begin(ctx, s.fault) })
	}
	var since time.Time
	if err == nil {
		since, err = s.fault.strike(w, victim, trials)
	} else if gerr := goOn(trials); gerr != nil {
		err = errors.Join(err, gerr)
	}
	if !since.IsZero() {
		for _, t := range trials {
			all.Go(func() {
				o := t.end(ctx, since)
				if s.felt != "" && !w.board.hasFelt(o.Connection, s.felt) {
					o.Wrong = errors.Join(o.Wrong, errors.New("nothing tells that it was struck: the harness is wrong"))
				}
				report.add(t.row, o)
				if err := o.Err(t.row.Limit); err != nil {
					w.say("WRONG %s, %s (%s): %v", t.row.Step, t.row.Fault, o.Connection, err)
				}
			})
		}
		all.Wait()
	}
	if s.after != nil {
		err = errors.Join(err, s.after(victim))
	}
	return err
}

// callOthers keeps calling the connections through the other nodes. What they
// get is of no matter: that is looked at later.
func (w *world) callOthers(but *node, trials []*trial, during time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), during)
	defer cancel()
	for _, n := range w.nodes {
		for _, t := range trials {
			if n == but {
				continue
			}
			go func() {
				for ctx.Err() == nil {
					n.call(ctx, t.ID)
					select {
					case <-time.After(500 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}()
		}
	}
	<-ctx.Done()
}
