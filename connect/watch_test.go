package connect_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// within waits for a second until something holds in a process that watches.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a second: %s", what)
		}
	}
}

// What one process removes, disables or connects again, no other one serves
// for longer than a second, though it has it in memory.
func TestS82OtherProcessesHearOfChangesWithinASecond(t *testing.T) {
	w := newServer(t, demo.Options{})
	other := w.newNode()
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { other.Refresher.Run(ctx) })
	t.Cleanup(func() { cancel(); watching.Wait() })

	id := w.account()
	first, err := other.Refresher.Current(t.Context(), id)
	must(t, err)

	w.authorize(connect.Session{Allowed: []string{id.Integration}, Connection: id.Connection}, nil)
	within(t, "the other process has the new credential", func() bool {
		b, err := other.Refresher.Current(t.Context(), id)
		must(t, err)
		return b.Version > first.Version
	})

	_, err = w.store.Update(t.Context(), id, func(c *connect.Connection) error {
		c.Status, c.Cause = connect.StatusNeedsReauth, "test"
		return nil
	})
	must(t, err)
	within(t, "the other process refuses the disabled connection", func() bool {
		_, err := other.Refresher.Current(t.Context(), id)
		var needs *connect.NeedsReauthError
		return errors.As(err, &needs)
	})

	w.authorize(connect.Session{Allowed: []string{id.Integration}, Connection: id.Connection}, nil)
	must(t, func() error { _, err := other.Refresher.Current(t.Context(), id); return err }())
	must(t, w.Disconnect(t.Context(), id))
	within(t, "the other process has forgotten the removed connection", func() bool {
		_, err := other.Refresher.Current(t.Context(), id)
		return errors.Is(err, connect.ErrNotFound)
	})
}

// A process that hears of its own renewals doesn't read them again.
func TestWatchKeepsWhatIsNew(t *testing.T) {
	w := newServer(t, demo.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { w.Refresher.Run(ctx) })
	t.Cleanup(func() { cancel(); watching.Wait() })

	id := w.account()
	fresh, err := w.Refresher.Renew(t.Context(), w.current(id))
	must(t, err)
	time.Sleep(1200 * time.Millisecond) // two looks
	if b := w.current(id); b != fresh {
		t.Errorf("version %d was read again", b.Version)
	}
}

// A process that can't write the vault spends no refresh token: it takes over
// what others have renewed.
func TestReadOnlyRenewsNothingAndAdopts(t *testing.T) {
	w := newServer(t, demo.Options{})
	reader := w.newNode()
	reader.Refresher.ReadOnly = true
	id := w.account()
	stale, err := reader.Refresher.Current(t.Context(), id)
	must(t, err)
	if _, err := reader.Refresher.Renew(t.Context(), stale); !errors.Is(err, scheme.ErrNotRenewable) || w.refreshes() != 0 {
		t.Fatalf("got %v, and %d refreshes", err, w.refreshes())
	}
	fresh, err := w.Refresher.Renew(t.Context(), w.current(id))
	must(t, err)
	var adopted *connect.Bound
	within(t, "the reader takes it over", func() bool { // after its back-off
		adopted, err = reader.Refresher.Renew(t.Context(), stale)
		return err == nil
	})
	if adopted.Version != fresh.Version || w.refreshes() != 1 {
		t.Errorf("got version %d of %d, after %d refreshes", adopted.Version, fresh.Version, w.refreshes())
	}
}
