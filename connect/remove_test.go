package connect_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/vault"
)

func TestS83RemovedConnectionIsRevokedAtTheProvider(t *testing.T) {
	w := newServer(t, demo.Options{})
	id := w.account()
	c := w.row(id)
	w.current(id)
	must(t, w.Disconnect(t.Context(), id))
	if s := w.demo.Stats(); s.FamiliesRevoked != 1 || s.RefreshValid != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := w.Vault.Read(t.Context(), c.VaultName()); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the vault still has it: %v", err)
	}
	if err := w.Disconnect(t.Context(), id); !errors.Is(err, connect.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if all, err := w.Store.Intents(t.Context(), 10); err != nil || len(all) != 0 {
		t.Errorf("left behind: %v, %v", all, err)
	}
}

// The provider is down when a connection is removed, and the process is
// restarted before it is back: the grant is revoked all the same. Until then the
// connection is as gone as can be.
func TestS83RevocationThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		c := w.row(id)
		w.current(id)
		var down atomic.Bool
		down.Store(true)
		w.front = func(rw http.ResponseWriter, r *http.Request) bool {
			if down.Load() && r.URL.Path == "/revoke" {
				rw.Header().Set("Retry-After", "3")
				rw.WriteHeader(503)
				return true
			}
			return false
		}
		must(t, w.Disconnect(t.Context(), id))
		if _, err := w.Refresher.Current(t.Context(), id); !errors.Is(err, connect.ErrNotFound) {
			t.Errorf("it can still be used: %v", err)
		}
		if _, err := w.Vault.Read(t.Context(), c.VaultName()); err != nil {
			t.Errorf("what is to be revoked is gone: %v", err)
		}
		restarted := w.newNode()
		defer w.run(restarted)()
		time.Sleep(time.Minute)
		if s := w.demo.Stats(); s.FamiliesRevoked != 0 {
			t.Errorf("%+v", s)
		}
		down.Store(false)
		time.Sleep(2 * time.Minute)
		if s := w.demo.Stats(); s.FamiliesRevoked != 1 {
			t.Errorf("%+v", s)
		}
		if _, err := w.Vault.Read(t.Context(), c.VaultName()); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the vault still has it: %v", err)
		}
	})
}

// A vault that is down doesn't keep a connection from being removed.
func TestS83SecretIsRemovedWhenTheVaultIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		c := w.row(id)
		w.vault.down.Store(true)
		must(t, w.Disconnect(t.Context(), id))
		w.vault.down.Store(false)
		defer w.run(w.node)()
		time.Sleep(time.Minute)
		if _, err := w.Vault.Read(t.Context(), c.VaultName()); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the vault still has it: %v", err)
		}
	})
}

// What a renewal brings for a connection that was removed meanwhile is revoked.
func TestS82LateResultIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		_, err := w.inFlight(id, func() { must(t, w.Disconnect(t.Context(), id)) })
		if !errors.Is(err, connect.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		if s := w.demo.Stats(); s.RefreshValid != 0 || s.AccessValid != 0 {
			t.Errorf("still good: %+v", s)
		}
	})
}
