package connect_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/spool"
	"github.com/keycaddy/keycaddy/vault"
)

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
