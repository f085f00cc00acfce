package connect_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/spool"
)

// killAt makes the node stop for good when a rotation comes to the step: its
// flight never goes on, as that of a killed process wouldn't.
func (n *node) killAt(step string) (reached chan struct{}) {
	reached = make(chan struct{})
	var once sync.Once
	n.Refresher.Trace = func(s string, _ connect.ID) {
		if s != step {
			return
		}
		once.Do(func() { close(reached) })
		select {} // a killed process does nothing any more
	}
	return reached
}

// spooled gives a node a spool in the folder.
func (w *world) spooled(n *node, folder string) *node {
	w.t.Helper()
	s, err := spool.Open(filepath.Join(w.t.TempDir(), folder))
	must(w.t, err)
	w.t.Cleanup(func() { s.Close() })
	n.Refresher.Spool = s
	return n
}

// A process is killed at each step of a rotation. Started again, it has the
// credential back without its user, and no refresh token was spent twice. Only
// between the provider's answer and the disk is there nothing to be done; that
// step has a test of its own.
func TestS62S63S65S66S67S68KilledAtAnyStepLosesNothing(t *testing.T) {
	for _, step := range connect.Steps {
		if step == "answered" {
			continue
		}
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := newServer(t, demo.Options{AccessTTL: time.Second})
			folder := t.TempDir()
			s, err := spool.Open(folder)
			must(t, err)
			first := w.node
			first.Refresher.Spool = s
			id := w.account()
			w.current(id)
			time.Sleep(time.Second)
			reached := first.killAt(step)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			go first.Refresher.Current(ctx, id)
			select {
			case <-reached:
			case <-time.After(10 * time.Second):
				t.Fatalf("step %s was not reached", step)
			}
			must(t, s.Close()) // as the kernel would
			again, err := spool.Open(folder)
			must(t, err)
			defer again.Close()
			if again.Node() != s.Node() {
				t.Fatalf("the node is called %s now", again.Node())
			}
			second := w.newNode()
			second.Refresher.Spool = again
			defer w.run(second)()
			var b *connect.Bound
			for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if b, err = second.Refresher.Current(t.Context(), id); err == nil && b.Version >= 2 {
					break
				}
			}
			if err != nil || b.Version < 2 {
				t.Fatalf("after the restart: %v, %v", b, err)
			}
			time.Sleep(time.Second)
			b, err = second.Refresher.Current(t.Context(), id)
			must(t, err)
			if b.Version < 3 || w.demo.Stats().ReuseDetected != 0 {
				t.Errorf("version %d, %+v", b.Version, w.demo.Stats())
			}
		})
	}
}

func TestS64AnswerLostOnTheWireIsHadAgainWithinTheGraceWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{GraceWindow: time.Minute})
		id := w.account()
		b := w.current(id)
		var lost atomic.Bool
		w.set(nil, func(http.ResponseWriter, *http.Request, string) bool {
			if lost.CompareAndSwap(false, true) {
				panic(http.ErrAbortHandler)
			}
			return false
		})
		if _, err := w.Refresher.Renew(t.Context(), b); err == nil {
			t.Fatal("renewed without an answer")
		}
		time.Sleep(2 * time.Second)
		fresh, err := w.Refresher.Renew(t.Context(), b)
		must(t, err)
		if fresh.Version != 2 || w.refreshes() != 2 || w.logs.FilterMessageSnippet("was interrupted").Len() != 1 {
			t.Errorf("version %d, %d token calls", fresh.Version, w.refreshes())
		}
	})
}

// The honest limit: a strict provider has spent the refresh token, and nobody
// has the answer. It is found out at once, told by its cause, and told once.
func TestS64AnswerOfAStrictProviderLostOnTheWireIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		b := w.current(id)
		w.set(nil, func(http.ResponseWriter, *http.Request, string) bool { panic(http.ErrAbortHandler) })
		if _, err := w.Refresher.Renew(t.Context(), b); err == nil {
			t.Fatal("renewed without an answer")
		}
		w.set(nil, nil)
		time.Sleep(2 * time.Second)
		_, err := w.Refresher.Renew(t.Context(), b)
		var needs *connect.NeedsReauthError
		if !errors.As(err, &needs) || needs.Cause != "rotation_interrupted" {
			t.Errorf("got %v", err)
		}
		if c := w.row(id); c.Status != connect.StatusNeedsReauth || c.Cause != "rotation_interrupted" {
			t.Errorf("row %+v", c)
		}
		for range 3 {
			w.Refresher.Current(t.Context(), id)
		}
		if n := w.logs.FilterMessage("connection needs its user again").Len(); n != 1 || w.refreshes() != 2 {
			t.Errorf("told %d times, %d token calls", n, w.refreshes())
		}
		if all, err := w.Store.Intents(t.Context(), 10); err != nil || len(all) != 0 {
			t.Errorf("left behind: %v, %v", all, err)
		}
	})
}

// A process that is paused with the provider's answer on its way outlives its
// lease. Others leave its refresh token alone for a while, and it brings the
// new one home.
func TestS60OthersArePatientWithAPausedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		w.spooled(w.node, "a")
		id := w.account()
		w.current(id)
		other := w.spooled(w.newNode(), "b")
		time.Sleep(2 * time.Hour)
		resume := make(chan struct{})
		w.Refresher.Trace = func(step string, _ connect.ID) {
			if step == "answered" {
				<-resume
			}
		}
		go w.Refresher.Current(t.Context(), id)
		time.Sleep(connect.DefaultLeaseTTL + 10*time.Second)
		b, err := other.Refresher.Current(t.Context(), id)
		must(t, err)
		_, err = other.Refresher.Renew(t.Context(), b)
		var busy *connect.BusyError
		if !errors.As(err, &busy) || busy.RetryAfter <= 0 || busy.RetryAfter > time.Minute {
			t.Errorf("got %v", err)
		}
		close(resume)
		time.Sleep(busy.RetryAfter)
		b, err = other.Refresher.Renew(t.Context(), b)
		must(t, err)
		if b.Version != 2 || w.refreshes() != 1 || w.demo.Stats().ReuseDetected != 0 {
			t.Errorf("version %d, %+v", b.Version, w.demo.Stats())
		}
	})
}

// The store is away just when a renewal has come to its end. Its lease lasts for
// a while, and must not keep the next renewal off once the store is back.
func TestS117LeaseThatTheStoreDidNotTakeBackIsGivenBackLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		b := w.current(id)
		defer w.run(w.node)()
		w.store.release.Store(true)
		b = must2(w.Refresher.Renew(t.Context(), b))(t)
		time.Sleep(2 * time.Second)
		w.store.release.Store(false)
		time.Sleep(2 * time.Second)
		began := time.Now()
		b = must2(w.newNode().Refresher.Renew(t.Context(), b))(t)
		if took := time.Since(began); b.Version != 3 || took > time.Second {
			t.Errorf("version %d after %v", b.Version, took)
		}
	})
}

// What is kept is written to the vault by whoever is first: the renewal itself,
// or what looks after kept credentials every second.
func TestS70RenewalWhoseCredentialWasDeliveredBeforeItsOwnWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		w.spooled(w.node, "a")
		id := w.account()
		b := w.current(id)
		defer w.run(w.node)()
		w.Refresher.Trace = func(step string, _ connect.ID) {
			if step == "spooled" {
				time.Sleep(3 * time.Second)
			}
		}
		b = must2(w.Refresher.Renew(t.Context(), b))(t)
		if c := w.row(id); b.Version != 2 || c.Version != 2 || w.refreshes() != 1 || w.Refresher.Unwritten() != 0 {
			t.Errorf("version %d, row %d, %d token calls", b.Version, c.Version, w.refreshes())
		}
		if all, err := w.Store.Intents(t.Context(), 10); err != nil || len(all) != 0 {
			t.Errorf("left behind: %v, %v", all, err)
		}
	})
}

// One that is paused before it has asked doesn't ask any more.
func TestS60PausedHolderDoesNotSpendATokenThatOthersHaveTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		w.spooled(w.node, "a")
		id := w.account()
		w.current(id)
		other := w.spooled(w.newNode(), "b")
		time.Sleep(2 * time.Hour)
		paused := true
		w.Refresher.Trace = func(step string, _ connect.ID) {
			if step == "intended" && paused {
				paused = false
				time.Sleep(connect.DefaultLeaseTTL * 8 / 5)
			}
		}
		var got *connect.Bound
		var wg sync.WaitGroup
		wg.Go(func() { got, _ = w.Refresher.Current(context.Background(), id) })
		time.Sleep(connect.DefaultLeaseTTL * 3 / 2)
		synctest.Wait()
		time.Sleep(time.Second)
		b, err := other.Refresher.Current(t.Context(), id)
		must(t, err)
		wg.Wait()
		if b.Version != 2 || got == nil || got.Version != 2 || w.refreshes() != 1 || w.demo.Stats().ReuseDetected != 0 {
			t.Errorf("versions %d and %+v, %+v", b.Version, got, w.demo.Stats())
		}
	})
}

func TestS82DisconnectedCallsAreCutOff(t *testing.T) {
	w := newServer(t, demo.Options{})
	id := w.account()
	other := w.newNode()
	defer w.run(other)()
	var cut [2]atomic.Int32
	var bounds []*connect.Bound
	for i, n := range []*node{w.node, other} {
		b, err := n.Refresher.Current(t.Context(), id)
		must(t, err)
		bounds = append(bounds, b)
		for range 3 {
			if !b.Attach(&connect.Call{Cut: func() { cut[i].Add(1) }}) {
				t.Fatal("not attached")
			}
		}
		done := &connect.Call{Cut: func() { t.Error("a call that has ended was cut") }}
		b.Attach(done)
		done.Detach()
		done.Detach()
	}
	must(t, w.Disconnect(t.Context(), id))
	if n := cut[0].Load(); n != 3 {
		t.Errorf("%d of 3 calls were cut at once", n)
	}
	for end := time.Now().Add(time.Second); cut[1].Load() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of 3 calls were cut on the other node after a second", cut[1].Load())
		}
	}
	for _, b := range bounds {
		if b.Attach(&connect.Call{}) {
			t.Error("a call with what was got before the removal is let through")
		}
	}
}

func TestDisabledConnectionIsRefusedAndNotRenewed(t *testing.T) {
	w := newServer(t, demo.Options{})
	id := w.account()
	w.current(id)
	must2(w.SetDisabled(t.Context(), id, true))(t)
	_, err := w.Refresher.Current(t.Context(), id)
	var disabled *connect.DisabledError
	if !errors.As(err, &disabled) {
		t.Errorf("got %v", err)
	}
	must2(w.SetDisabled(t.Context(), id, false))(t)
	if b := w.current(id); b.Version != 1 || w.refreshes() != 0 {
		t.Errorf("version %d, %d token calls", b.Version, w.refreshes())
	}
}
