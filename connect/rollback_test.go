package connect_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
)

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
