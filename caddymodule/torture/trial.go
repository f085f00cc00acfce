//go:build unix

package torture

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

const (
	// backWithin is how long a connection may take to work again, once what was
	// broken is whole.
	backWithin = 60 * time.Second
	// heldWithin is how long a renewal may take to come to the step that it is
	// to be held at.
	heldWithin = 60 * time.Second
)

// trial is one renewal that a fault strikes.
type trial struct {
	*world
	*account
	row    *Row
	victim *node
	// reached is closed when the provider holds the renewal's token call, in
	// faults that strike there.
	reached chan struct{}
	// called is the status of the call that the renewal is for.
	called chan int
}

// spoolFile is the name of the file that a connection's credential has in a spool.
func spoolFile(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return hex.EncodeToString(sum[:]) + ".sealed"
}

// prepare makes a connection and warms it up.
func (t *trial) prepare(ctx context.Context, f *fault) (err error) {
	if t.account, err = t.connect(ctx, f.grace); err != nil {
		return err
	}
	for _, n := range t.nodes {
		if err := eventually(backWithin, func() error { return works(ctx, n, t.ID) }); err != nil {
			return fmt.Errorf("before anything is broken: %w", err)
		}
	}
	return nil
}

// begin lets its renewal come to the fault's step.
func (t *trial) begin(ctx context.Context, f *fault) error {
	if f.arm != nil {
		f.arm(t)
	} else if err := t.victim.tell("hold", t.row.Step, t.ID.Connection); err != nil {
		return err
	}
	t.family.EndAccess()
	t.called = make(chan int, 1)
	go func() {
		status, _, err := t.victim.call(ctx, t.ID)
		if err != nil {
			status = 0
		}
		t.called <- status
	}()
	if f.arm != nil {
		select {
		case <-t.reached:
			return nil
		case <-time.After(heldWithin):
			return errors.New("the provider was not asked for a token")
		}
	}
	return eventually(heldWithin, func() error {
		if t.board.heldAt(place{t.victim, t.ID.Connection}) != t.row.Step {
			return fmt.Errorf("step %s was not reached", t.row.Step)
		}
		return nil
	})
}

// goOn lets the renewal go on.
func (t *trial) goOn() error { return t.victim.tell("go", t.ID.Connection) }

// served waits for the answer to the call, which has to be a good one: what is
// broken must not be felt.
func (t *trial) served() error {
	select {
	case status := <-t.called:
		if status != http.StatusOK {
			return fmt.Errorf("%s: a call during the outage was answered with %d", t.ID, status)
		}
		return nil
	case <-time.After(backWithin):
		return fmt.Errorf("%s: a call during the outage was not answered", t.ID)
	}
}

// works makes a call that has to succeed.
func works(ctx context.Context, n *node, id connect.ID) error {
	status, code, err := n.call(ctx, id)
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return &statusError{status, code}
	}
	return nil
}

// statusError is an answer that is not what it should be.
type statusError struct {
	status int
	code   string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d %s", e.status, e.code) }

// everywhere waits until the connection works on all nodes, or is known there
// to be lost.
func (w *world) everywhere(ctx context.Context, a *account, within time.Duration) (lost bool, err error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, n := range w.nodes {
		all.Go(func() {
			err2 := eventually(within, func() error {
				err := works(ctx, n, a.ID)
				var status *statusError
				if errors.As(err, &status) && status.status == http.StatusFailedDependency {
					mu.Lock()
					defer mu.Unlock()
					lost = true
					return nil
				}
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, err2)
		})
	}
	all.Wait()
	return lost, err
}

// end waits until the connection has recovered and finds out what has become of
// it. Since is when it could begin to.
func (t *trial) end(ctx context.Context, since time.Time) (o Outcome) {
	o.Connection = t.ID.Connection
	var err error
	if o.Lost, err = t.everywhere(ctx, t.account, backWithin); err == nil && !o.Lost {
		err = eventually(backWithin, func() error {
			version, err := t.held(ctx, t.account)
			if err == nil && version < 2 {
				err = errors.New("the vault has no newer credential")
			}
			return err
		})
	}
	o.Took = time.Since(since)
	if err != nil {
		o.Wrong = fmt.Errorf("not within %v: %w", backWithin, err)
	}
	if !o.Lost && err == nil {
		o.Wrong = t.again(ctx, t.account)
	}
	t.judge(ctx, t.account, &o)
	return o
}

// again makes sure that the next renewal goes well, and that nothing is left.
func (w *world) again(ctx context.Context, a *account) error {
	before := a.family.Stats().Refreshes
	a.family.EndAccess()
	lost, err := w.everywhere(ctx, a, backWithin)
	switch {
	case err != nil:
		return fmt.Errorf("the next renewal: %w", err)
	case lost:
		return errors.New("it was lost in the next renewal")
	case a.family.Stats().Refreshes == before:
		return errors.New("it was not renewed again, and works: the harness is wrong")
	}
	return eventually(2*backWithin, func() error { return w.tidy(ctx, a) })
}

// judge asks the provider, the store and the logs.
func (w *world) judge(ctx context.Context, a *account, o *Outcome) {
	if o.Lost { // the log may come a moment later than the answer
		eventually(5*time.Second, func() error {
			if len(w.board.reports(a.ID.Connection)) == 0 {
				return errors.New("not reported yet")
			}
			return nil
		})
		time.Sleep(time.Second) // and a second report after the first
	}
	stats := a.family.Stats()
	o.Reused, o.Causes = stats.Reused, w.board.reports(a.ID.Connection)
	c, err := w.store.Connection(ctx, a.ID)
	switch {
	case err != nil:
		o.Wrong = errors.Join(o.Wrong, err)
	case c.Status != connect.StatusActive:
		o.Lost = true
	case stats.Revoked:
		o.Wrong = errors.Join(o.Wrong, errors.New("the provider has revoked it, and it counts as active"))
	}
}
