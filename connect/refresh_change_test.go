package connect_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// inFlight starts a renewal of an expired credential, runs do while the token
// endpoint is at it, and returns what came of it.
func (w *world) inFlight(id connect.ID, do func()) (b *connect.Bound, err error) {
	time.Sleep(2 * time.Hour)
	w.set(nil, func(_ http.ResponseWriter, _ *http.Request, grant string) bool {
		if grant == "refresh_token" {
			time.Sleep(5 * time.Second)
		}
		return false
	})
	var wg sync.WaitGroup
	wg.Go(func() { b, err = w.Refresher.Current(w.t.Context(), id) })
	time.Sleep(time.Second)
	do()
	wg.Wait()
	return b, err
}

func TestS82RemovedWhileRenewedStaysRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		c := w.row(id)
		b, err := w.inFlight(id, func() { must(t, w.Disconnect(t.Context(), id)) })
		if b != nil || !errors.Is(err, connect.ErrNotFound) || w.refreshes() != 1 {
			t.Errorf("got %v, %v after %d token calls", b, err, w.refreshes())
		}
		w.gone(c)
	})
}

// gone checks that nothing is left of a connection.
func (w *world) gone(c connect.Connection) {
	w.t.Helper()
	if _, err := w.Vault.Read(w.t.Context(), c.VaultName()); !errors.Is(err, vault.ErrNotFound) {
		w.t.Errorf("S82: the vault has it still: %v", err)
	}
	if got, err := w.Store.Connection(w.t.Context(), c.ID); err == nil && got.UID == c.UID {
		w.t.Error("S82: the row is there still")
	}
}

func TestS82RemovedBetweenTheVaultAndTheRowIsBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		c := w.row(id)
		time.Sleep(2 * time.Hour)
		w.vault.written = func() { // the row goes first, and the process that removes it is cut off
			_, err := w.Store.Delete(t.Context(), id, nil)
			must(t, err)
		}
		if _, err := w.Refresher.Current(t.Context(), id); !errors.Is(err, connect.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		w.gone(c)
	})
}

func TestS82MadeAnewWhileRenewedIsUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		old := w.row(id)
		var made connect.Connection
		_, err := w.inFlight(id, func() {
			must(t, w.Disconnect(t.Context(), id))
			made = w.authorize(connect.Session{Connection: id.Connection}, nil)
		})
		if !errors.Is(err, connect.ErrNotFound) {
			t.Errorf("the old one: %v", err)
		}
		w.gone(old)
		b := w.current(id)
		if now := w.row(id); b.Version != 1 || b.UID != made.UID || now.UID != made.UID || now.Version != 1 || now.Status != connect.StatusActive {
			t.Errorf("version %d of %+v", b.Version, now)
		}
	})
}

func TestS82MadeAnewWhileRefusedIsUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		time.Sleep(2 * time.Hour)
		w.set(func(rw http.ResponseWriter, r *http.Request, grant string) bool {
			if grant != "refresh_token" {
				return false
			}
			time.Sleep(5 * time.Second)
			return refuse(400, "invalid_grant")(rw, r, grant)
		}, nil)
		var wg sync.WaitGroup
		wg.Go(func() { w.Refresher.Current(t.Context(), id) })
		time.Sleep(time.Second)
		must(t, w.Disconnect(t.Context(), id))
		w.authorize(connect.Session{Connection: id.Connection}, nil)
		wg.Wait()
		if c := w.row(id); c.Status != connect.StatusActive {
			t.Errorf("row %+v", c)
		}
	})
}

func TestReconnectDuringARenewalWins(t *testing.T) {
	again := connect.Session{Allowed: []string{"demo"}, Connection: "ada", Reconnect: true}
	for name, hook := range map[string]func(w *world, reconnect func()){
		// Where the reconnect comes in.
		"before the write": func(w *world, reconnect func()) { w.vault.write = func() error { reconnect(); return nil } },
		"after the write":  func(w *world, reconnect func()) { w.vault.written = reconnect },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, demo.Options{})
				id := w.authorize(connect.Session{Connection: "ada"}, map[string]string{"region": "us"}).ID
				time.Sleep(2 * time.Hour)
				var once sync.Once
				done := false
				hook(w, func() {
					once.Do(func() {
						w.vault.write, w.vault.written = nil, nil
						w.authorize(again, map[string]string{"region": "eu"})
						done = true
					})
				})
				b := w.current(id)
				c := w.row(id)
				cred, version := w.stored(c)
				if !done || c.Config["region"] != "eu" || c.Version != version || b.Version != version {
					t.Errorf("version %d (row %d, vault %d), config %v", b.Version, c.Version, version, c.Config)
				}
				r, _ := http.NewRequest("GET", "/", nil)
				must(t, b.Inject(r))
				if r.Header.Get("X-Region") != "eu" || r.Header.Get("Authorization") != "Bearer "+cred.AccessToken.Reveal() {
					t.Error("what is used is a mixture of both")
				}
			})
		})
	}
	t.Run("before its row is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, demo.Options{TokenDelay: func() time.Duration { return time.Second }})
			id := w.authorize(connect.Session{Connection: "ada"}, map[string]string{"region": "us"}).ID
			other := w.newNode()
			var wg sync.WaitGroup
			w.vault.written = func() { // another process renews the new credential, with the row as it was
				w.vault.written = nil
				b, err := other.Refresher.Current(t.Context(), id)
				must(t, err)
				wg.Go(func() {
					if _, err := other.Refresher.Renew(t.Context(), b); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(500 * time.Millisecond)
			}
			w.authorize(again, map[string]string{"region": "eu"})
			wg.Wait()
			c := w.row(id)
			if _, version := w.stored(c); version != 3 || c.Version != 3 || c.Config["region"] != "eu" {
				t.Errorf("version %d, row %d, config %v", version, c.Version, c.Config)
			}
		})
	})
	t.Run("and isn't marked as refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, demo.Options{})
			id := w.account()
			time.Sleep(2 * time.Hour)
			w.set(refuse(400, "invalid_grant"), nil)
			w.store.update = func() error { // the refresher has looked at the vault and is about to mark the row
				w.store.update = nil
				w.authorize(again, nil)
				return nil
			}
			b := w.current(id)
			if c := w.row(id); b.Version != c.Version || b.Version < 2 || c.Status != connect.StatusActive {
				t.Errorf("version %d, row %+v", b.Version, c)
			}
		})
	})
}

func TestReconnectOfARemovedConnectionLeavesNothing(t *testing.T) {
	w := newServer(t, demo.Options{})
	id := w.account()
	c := w.row(id)
	token := w.open(connect.Session{Allowed: []string{"demo"}, Connection: "ada", Reconnect: true})
	step, err := w.Submit(t.Context(), token, "demo", nil)
	must(t, err)
	w.vault.written = func() {
		w.vault.written = nil
		_, err := w.Store.Delete(t.Context(), id, nil)
		must(t, err)
	}
	if _, err := w.arrive(t.Context(), w.consent(step.Redirect, "allow"), step); !errors.Is(err, connect.ErrConnectionGone) {
		t.Errorf("got %v", err)
	}
	w.gone(c)
}

func TestConfigureDuringARenewalPublishesNothingOfTheOldSetup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		time.Sleep(2 * time.Hour)
		w.store.released = func() { // the credential is bound, by the old setup, and not published yet
			w.store.released = nil
			p := parse(t, "demo", `
auth_scheme: oauth2_code
authorize: {url: 'https://new.example/authorize', pkce: true}
token: {url: 'https://new.example/token'}
request: {base_url: 'https://new.example/api', headers: {authorization: 'Bearer {token.access_token}'}}
`)
			in := &connect.Integration{Key: "demo", Provider: p, App: scheme.App{ClientID: "id"}}
			setup, err := connect.NewSetup(nil, w.Setup.PublicURL, w.client, []*connect.Integration{in})
			must(t, err)
			w.Refresher.Configure(setup)
		}
		w.current(id)
		if b := w.current(id); b.Base.Host != "new.example" || b.Version != 2 || w.refreshes() != 1 {
			t.Errorf("calls go to %s with version %d after %d token calls", b.Base.Host, b.Version, w.refreshes())
		}
	})
}

func TestDrainWaitsForRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		must(t, w.Refresher.Drain(t.Context())) // none
		id := w.account()
		_, err := w.inFlight(id, func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := w.Refresher.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v while a renewal is under way", err)
			}
			began := time.Now()
			must(t, w.Refresher.Drain(t.Context()))
			if _, version := w.stored(w.row(id)); version != 2 || time.Since(began) < 2*time.Second {
				t.Errorf("drained after %v with version %d in the vault", time.Since(began), version)
			}
		})
		must(t, err)
	})
}

func TestDrainWhileCallsGoOn(t *testing.T) {
	w := newServer(t, demo.Options{})
	id := w.account()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				w.Refresher.Forget(id)
				w.current(id)
			}
		})
		wg.Go(func() {
			for range 50 {
				if err := w.Refresher.Drain(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestVaultThatWentBackInTimeMakesNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{GraceWindow: 1000 * time.Hour})
		id := w.account()
		c := w.row(id)
		first, err := w.Vault.Read(t.Context(), c.VaultName())
		must(t, err)
		for range 3 {
			time.Sleep(2 * time.Hour)
			w.current(id)
		}
		stale := w.current(id)
		// A backup is put back: the vault's version is lower than the one in memory.
		must(t, w.Vault.Delete(t.Context(), c.VaultName()))
		_, err = w.Vault.Write(t.Context(), c.VaultName(), first.Value, 0)
		must(t, err)
		before := w.refreshes()
		b, err := w.Refresher.Renew(t.Context(), stale)
		t.Logf("got %v, %v", b != nil, err)
		if n := w.refreshes() - before; n > 1 {
			t.Errorf("%d token calls", n)
		}
	})
}
