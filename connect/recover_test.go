package connect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/spool"
	"github.com/keycaddy/keycaddy/vault"
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

// A credential that this process could not write was taken over from the store
// by another, which has renewed it since. This process, whose vault is still
// away, must not take it for the newest.
func TestS61S112KeptCredentialThatOthersHaveRenewedIsNotSpentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		w.spooled(w.node, "a")
		id := w.account()
		w.current(id)
		other := w.spooled(w.newNode(), "b")
		must2(other.Refresher.Current(t.Context(), id))(t)
		defer w.run(other)()
		stop := w.run(w.node)
		time.Sleep(2 * time.Second) // both know the key by now
		w.vault.down.Store(true)
		kept := must2(w.Refresher.Renew(t.Context(), w.current(id)))(t)
		b := must2(other.Refresher.Renew(t.Context(), must2(other.Refresher.Current(t.Context(), id))(t)))(t)
		time.Sleep(2 * time.Second) // it is in the vault now
		if b.Version == 2 {
			b = must2(other.Refresher.Renew(t.Context(), b))(t)
		}
		if kept.Version != 2 || b.Version != 3 {
			t.Fatalf("versions %d and %d", kept.Version, b.Version)
		}
		if b, err := w.Refresher.Renew(t.Context(), kept); !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("got %+v, %v", b, err)
		}
		w.vault.down.Store(false)
		time.Sleep(time.Minute)
		if b := w.current(id); b.Version != 3 || w.refreshes() != 2 || w.demo.Stats().ReuseDetected != 0 {
			t.Errorf("version %d, %+v", b.Version, w.demo.Stats())
		}
		stop()
	})
}

// A process that is started again finds something in its spool before it knows
// its configuration.
func TestS68SpoolIsDeliveredOnceThereIsASetup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		folder := filepath.Join(t.TempDir(), "a")
		w.Refresher.Spool = must2(spool.Open(folder))(t)
		id := w.account()
		b := w.current(id)
		stop := w.run(w.node)
		time.Sleep(2 * time.Second)
		w.vault.down.Store(true)
		must2(w.Refresher.Renew(t.Context(), b))(t)
		stop()
		must(t, w.Refresher.Spool.Close())
		w.vault.down.Store(false)

		again := w.newNode()
		fresh := &connect.Refresher{Store: again.store, Vault: again.vault, Logger: w.log, Spool: must2(spool.Open(folder))(t)}
		t.Cleanup(func() { fresh.Spool.Close() })
		stop = w.run(&node{Refresher: fresh})
		time.Sleep(5 * time.Second)
		if _, version := w.stored(w.row(id)); version != 1 {
			t.Errorf("version %d before there was a setup", version)
		}
		fresh.Configure(w.Connector.Setup)
		time.Sleep(2 * time.Second)
		if _, version := w.stored(w.row(id)); version != 2 || fresh.Unwritten() != 0 {
			t.Errorf("version %d", version)
		}
		stop()
	})
}

// A process that was killed with the new credential in its spool is asked for it
// as soon as it is back, before it has looked through its spool by itself.
func TestS65SpoolIsSearchedBeforeARefreshTokenIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		folder := filepath.Join(t.TempDir(), "a")
		first := w.node
		first.Refresher.Spool = must2(spool.Open(folder))(t)
		id := w.account()
		b := w.current(id)
		ctx, kill := context.WithCancel(t.Context())
		first.Refresher.Trace = func(step string, _ connect.ID) {
			if step == "spooled" {
				first.store.release.Store(true) // nothing of what a killed process would do
				first.vault.down.Store(true)
				kill()
			}
		}
		first.Refresher.Renew(ctx, b)
		synctest.Wait()
		must(t, first.Refresher.Spool.Close())

		second := w.newNode()
		second.Refresher.Spool = must2(spool.Open(folder))(t)
		t.Cleanup(func() { second.Refresher.Spool.Close() })
		must(t, second.store.Vacate(t.Context(), second.Refresher.Spool.Node()))
		b = must2(second.Refresher.Current(t.Context(), id))(t)
		b = must2(second.Refresher.Renew(t.Context(), b))(t)
		if b.Version != 2 || w.refreshes() != 1 || w.demo.Stats().ReuseDetected != 0 {
			t.Errorf("version %d, %+v", b.Version, w.demo.Stats())
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

// The vault is sealed: calls go on, on all nodes, also with a credential that
// was renewed meanwhile; and once it is back it has the newest, whoever was
// killed.
func TestS69S112RefreshWhileTheVaultIsSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		w.spooled(w.node, "a")
		id := w.account()
		w.current(id)
		other := w.spooled(w.newNode(), "b")
		must2(other.Refresher.Current(t.Context(), id))(t)
		stop, stopOther := w.run(w.node), w.run(other)
		time.Sleep(2 * time.Second) // both know the key by now
		for _, n := range []*node{w.node, other} {
			n.vault.down.Store(true)
		}
		time.Sleep(50 * time.Minute) // within the grace of an outage
		if b := w.current(id); b.Version != 1 {
			t.Fatalf("version %d", b.Version)
		}
		time.Sleep(7 * time.Minute)
		w.current(id)
		time.Sleep(10 * time.Second)
		if b := w.current(id); b.Version != 2 || w.refreshes() != 1 {
			t.Fatalf("version %d, %d token calls", b.Version, w.refreshes())
		}
		b, err := other.Refresher.Current(t.Context(), id)
		must(t, err)
		if b, err = other.Refresher.Renew(t.Context(), b); err != nil || b.Version != 2 || w.refreshes() != 1 {
			t.Fatalf("the other node: %v, %v, %d token calls", b, err, w.refreshes())
		}
		stop() // and this one never comes back
		for _, n := range []*node{w.node, other} {
			n.vault.down.Store(false)
		}
		time.Sleep(3 * time.Second)
		c := w.row(id)
		if _, version := w.stored(c); version != 2 || c.Version != 2 {
			t.Errorf("vault %d, row %d", version, c.Version)
		}
		time.Sleep(time.Minute)
		if all, err := w.Store.Intents(t.Context(), 10); err != nil || len(all) != 0 {
			t.Errorf("left behind: %v, %v", all, err)
		}
		stopOther()
		if s := w.demo.Stats(); s.ReuseDetected != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestS112KnownConnectionsStopWorkingAfterTheGraceOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{AccessTTL: 100 * time.Hour})
		id := w.account()
		w.current(id)
		defer w.run(w.node)()
		time.Sleep(3 * time.Second)
		w.vault.down.Store(true)
		time.Sleep(59 * time.Minute)
		w.current(id)
		time.Sleep(2 * time.Minute)
		_, err := w.Refresher.Current(t.Context(), id)
		var outage *connect.OutageError
		if !errors.As(err, &outage) || !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		w.vault.down.Store(false)
		time.Sleep(3 * time.Second)
		w.current(id)
	})
}

func TestS56MissingCredentialIsTold(t *testing.T) {
	w := newServer(t, demo.Options{})
	id := w.account()
	c := w.row(id)
	must(t, w.Vault.Delete(t.Context(), c.VaultName()))
	_, err := w.Refresher.Current(t.Context(), id)
	var needs *connect.NeedsReauthError
	if !errors.As(err, &needs) || needs.Cause != "credential_missing" || w.row(id).Cause != "credential_missing" {
		t.Errorf("got %v", err)
	}
}

// Postgres was restored from an hour ago: the vault is ahead, and is right.
func TestS57RowThatFellBehindCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		before := w.row(id)
		for range 3 {
			b := w.current(id)
			must2(w.Refresher.Renew(t.Context(), b))(t)
		}
		_, err := w.Store.Update(t.Context(), id, func(c *connect.Connection) error {
			c.Version, c.Expires, c.Due = before.Version, before.Expires, before.Due
			return nil
		})
		must(t, err)
		restarted := w.newNode()
		b, err := restarted.Refresher.Current(t.Context(), id)
		must(t, err)
		if b.Version != 4 {
			t.Errorf("version %d", b.Version)
		}
		b = must2(restarted.Refresher.Renew(t.Context(), b))(t)
		if c := w.row(id); b.Version != 5 || c.Version != 5 || w.demo.Stats().ReuseDetected != 0 {
			t.Errorf("version %d, row %d, %+v", b.Version, c.Version, w.demo.Stats())
		}
	})
}

// The vault was restored from an hour ago.
func TestS57VaultThatFellBehind(t *testing.T) {
	prepare := func(t *testing.T, o demo.Options) (*world, connect.ID) {
		w := newWorld(t, o)
		id := w.account()
		c := w.row(id)
		old, err := w.Vault.Read(t.Context(), c.VaultName())
		must(t, err)
		b := w.current(id)
		must2(w.Refresher.Renew(t.Context(), b))(t)
		now, err := w.Vault.Read(t.Context(), c.VaultName())
		must(t, err)
		must2(w.Vault.Write(t.Context(), c.VaultName(), old.Value, now.Version))(t)
		return w, id
	}
	t.Run("a node that has the newest puts it back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, id := prepare(t, demo.Options{})
			b := must2(w.Refresher.Renew(t.Context(), w.current(id)))(t)
			if b.Version != 3 || w.demo.Stats().ReuseDetected != 0 {
				t.Errorf("version %d, %+v", b.Version, w.demo.Stats())
			}
		})
	})
	t.Run("one that doesn't tries the old one once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, id := prepare(t, demo.Options{})
			n := w.newNode()
			b, err := n.Refresher.Current(t.Context(), id)
			must(t, err)
			_, err = n.Refresher.Renew(t.Context(), b)
			var needs *connect.NeedsReauthError
			if !errors.As(err, &needs) || needs.Cause != "vault_rolled_back" || w.refreshes() != 2 {
				t.Errorf("got %v after %d token calls", err, w.refreshes())
			}
		})
	})
	t.Run("which works where refresh tokens may be used again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, id := prepare(t, demo.Options{KeepRefreshToken: true})
			n := w.newNode()
			b, err := n.Refresher.Current(t.Context(), id)
			must(t, err)
			b = must2(n.Refresher.Renew(t.Context(), b))(t)
			if c := w.row(id); b.Version != 3 || c.Version != 3 {
				t.Errorf("version %d, row %d", b.Version, c.Version)
			}
		})
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

func TestDueConnectionsAreRenewedBeforeAnyoneWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		used := w.account()
		idle := w.authorize(connect.Session{Connection: "idle"}, nil).ID
		defer w.run(w.node)()
		b := w.current(used)
		must2(w.Refresher.Renew(t.Context(), b))(t)
		w.current(used)
		time.Sleep(65 * time.Minute) // no call meanwhile
		if c := w.row(used); c.Version != 3 {
			t.Errorf("the one in use has version %d", c.Version)
		}
		if c := w.row(idle); c.Version != 1 {
			t.Errorf("the idle one has version %d", c.Version)
		}
		// Idle ones are kept alive.
		if due := time.Until(w.row(idle).Due); due < 4*24*time.Hour || due > 5*24*time.Hour {
			t.Errorf("the idle one is due in %v", due)
		}
		must2(w.Store.Update(t.Context(), idle, func(c *connect.Connection) error { c.Due = time.Now(); return nil }))(t)
		time.Sleep(10 * time.Second)
		if c := w.row(idle); c.Version != 2 {
			t.Errorf("the idle one has version %d when it is due", c.Version)
		}
	})
}

// A token endpoint that allows so many calls a second gets no more, whoever
// asks, and those that somebody waits for come first.
func TestS76S79TokenRateIsKeptByAllNodesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Time
		w := newWorld(t, demo.Options{})
		w.rate = 20
		w.set(func(_ http.ResponseWriter, _ *http.Request, grant string) bool {
			if grant == "refresh_token" {
				mu.Lock()
				at = append(at, time.Now())
				mu.Unlock()
			}
			return false
		}, nil)
		nodes := []*node{w.newNode(), w.newNode(), w.newNode()}
		var ids []connect.ID
		for i := range 100 {
			ids = append(ids, w.authorize(connect.Session{Connection: fmt.Sprint("c", i)}, nil).ID)
		}
		time.Sleep(2 * time.Hour)
		var wg sync.WaitGroup
		for _, id := range ids {
			for _, n := range nodes {
				wg.Go(func() {
					b, err := n.Refresher.Current(t.Context(), id)
					if err != nil || b.Version != 2 {
						t.Errorf("%s: %v, %v", id, b, err)
					}
				})
			}
		}
		began := time.Now()
		wg.Wait()
		if len(at) != 100 {
			t.Errorf("%d token calls for 100 connections", len(at))
		}
		for i := 20; i < len(at); i++ {
			if d := at[i].Sub(at[i-20]); d < 950*time.Millisecond {
				t.Fatalf("21 token calls within %v", d)
			}
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func must2[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// What is on the disk and in the store while the vault is away is sealed.
func TestS53NothingReadableOutsideTheVault(t *testing.T) {
	w := newServer(t, demo.Options{})
	folder := t.TempDir()
	s, err := spool.Open(folder)
	must(t, err)
	defer s.Close()
	w.Refresher.Spool = s
	id := w.account()
	b := w.current(id)
	b = must2(w.Refresher.Renew(t.Context(), b))(t)
	w.vault.write = func() error { return fmt.Errorf("no: %w", vault.ErrUnavailable) }
	must2(w.Refresher.Renew(t.Context(), b))(t)
	_, cred, err := w.Refresher.Credential(t.Context(), id)
	must(t, err)
	items, err := s.Items()
	must(t, err)
	all, err := w.Store.Intents(t.Context(), 10)
	must(t, err)
	if len(items) != 1 || len(all) != 1 || all[0].Intent.Sealed == nil {
		t.Fatalf("%d items, intents %v", len(items), all)
	}
	for where, data := range map[string]string{"spool": string(items[0]), "intent": fmt.Sprintf("%s %+v", all[0].Intent.Sealed, all[0].Intent)} {
		for _, secret := range []string{cred.AccessToken.Reveal(), cred.RefreshToken.Reveal(), cred.Previous.Reveal()} {
			if strings.Contains(data, secret) {
				t.Errorf("%s has a token in it", where)
			}
		}
	}
}
