package connect_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// all runs n callers of Current at once, by turns on the nodes, and returns
// which versions they got.
func all(t *testing.T, n int, id connect.ID, nodes ...*node) map[uint64]int {
	t.Helper()
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		got = map[uint64]int{}
	)
	for i := range n {
		wg.Go(func() {
			b, err := nodes[i%len(nodes)].Refresher.Current(t.Context(), id)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[b.Version]++
		})
	}
	wg.Wait()
	return got
}

func TestS58ManyCallersOfAnExpiredCredentialMakeOneTokenCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{TokenDelay: func() time.Duration { return 50 * time.Millisecond }})
		id := w.account()
		time.Sleep(2 * time.Hour)
		if got := all(t, 200, id, w.node); got[2] != 200 || w.refreshes() != 1 {
			t.Errorf("versions %v, %d token calls", got, w.refreshes())
		}
		c := w.row(id)
		cred, version := w.stored(c)
		if c.Version != 2 || version != 2 || !c.Expires.Equal(cred.Expires.Truncate(time.Microsecond)) || cred.Previous == "" || cred.Previous == cred.RefreshToken {
			t.Errorf("row %+v, vault's version %d", c, version)
		}
	})
}

func TestS58TwoProcessesMakeOneTokenCall(t *testing.T) {
	w := newServer(t, demo.Options{AccessTTL: time.Second, TokenDelay: func() time.Duration { return 100 * time.Millisecond }})
	id := w.account()
	other := w.newNode()
	if got := all(t, 2, id, w.node, other); got[1] != 2 {
		t.Fatalf("before: %v", got)
	}
	time.Sleep(time.Second)
	if got := all(t, 200, id, w.node, other); got[2] != 200 || w.refreshes() != 1 {
		t.Errorf("versions %v, %d token calls", got, w.refreshes())
	}
	if s := w.demo.Stats(); s.ReuseDetected != 0 || s.FamiliesRevoked != 0 {
		t.Errorf("a refresh token was used twice: %+v", s)
	}
}

func TestS58RevokedIsTheSameErrorForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		time.Sleep(2 * time.Hour)
		w.set(refuse(400, "invalid_grant"), nil)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := w.Refresher.Current(t.Context(), id)
				var needs *connect.NeedsReauthError
				if !errors.As(err, &needs) || needs.ID != id || needs.Cause != "invalid_grant" {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if c := w.row(id); w.refreshes() != 1 || c.Status != connect.StatusNeedsReauth || c.Cause != "invalid_grant" {
			t.Errorf("%d token calls, row %+v", w.refreshes(), c)
		}
		// Nobody asks the provider any more, in this process or another.
		w.set(nil, nil)
		for _, n := range []*node{w.node, w.newNode()} {
			_, err := n.Refresher.Current(t.Context(), id)
			var needs *connect.NeedsReauthError
			if !errors.As(err, &needs) || w.refreshes() != 1 {
				t.Errorf("got %v and %d token calls", err, w.refreshes())
			}
		}
		// Connecting again mends it.
		c := w.authorize(connect.Session{Allowed: []string{"demo"}, Connection: "ada", Reconnect: true}, nil)
		if b := w.current(id); c.Status != connect.StatusActive || c.Cause != "" || b.Version != 2 {
			t.Errorf("after the reconnect: %+v, version %d", c, b.Version)
		}
	})
}

// refuse answers token requests with an error.
func refuse(status int, code string) demo.Fault {
	return func(w http.ResponseWriter, _ *http.Request, grant string) bool {
		if grant == "authorization_code" {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write([]byte(`{"error":"` + code + `","error_description":"No."}`))
		return true
	}
}

func TestS59RefreshOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{TokenDelay: func() time.Duration { return time.Second }})
		id := w.account()
		time.Sleep(2 * time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := w.Refresher.Current(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if b := w.current(id); b.Version != 2 || w.refreshes() != 1 {
			t.Errorf("version %d, %d token calls", b.Version, w.refreshes())
		}
	})
}

func TestS60LateWriterOfALostLeaseLosesAndAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{GraceWindow: time.Hour})
		id := w.account()
		slow, quick := w.node, w.newNode()
		time.Sleep(2 * time.Hour)
		var paused atomic.Bool
		w.set(nil, func(http.ResponseWriter, *http.Request, string) bool {
			if paused.CompareAndSwap(false, true) {
				time.Sleep(9 * time.Second) // with the answer on its way
			}
			return false
		})
		slow.store.extended = ranOut(t, slow)
		var got *connect.Bound
		var wg sync.WaitGroup
		wg.Go(func() { got = w.current(id) })
		time.Sleep(time.Second)
		b, err := quick.Refresher.Current(t.Context(), id)
		must(t, err)
		first, _ := w.stored(w.row(b.ID))
		wg.Wait()
		now, version := w.stored(w.row(b.ID))
		if b.Version != 2 || version != 2 || first.RefreshToken != now.RefreshToken {
			t.Errorf("the late writer wrote: version %d", version)
		}
		r, _ := http.NewRequest("GET", "/", nil)
		must(t, got.Inject(r))
		if got.Version != 2 || r.Header.Get("Authorization") != "Bearer "+now.AccessToken.Reveal() || w.refreshes() != 2 {
			t.Errorf("the late writer uses version %d after %d token calls", got.Version, w.refreshes())
		}
	})
}

// ranOut ends a lease as soon as its holder is about to ask the provider, as if
// he had been paused for long.
func ranOut(t *testing.T, n *node) func(connect.Lease) {
	return func(l connect.Lease) {
		l.Intent = nil
		must(t, n.store.Store.Release(t.Context(), l))
	}
}

func TestS61RefusedTokenThatWasReplacedMeanwhileIsNoRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		slow, quick := w.node, w.newNode()
		time.Sleep(2 * time.Hour)
		var refused atomic.Bool
		w.set(func(rw http.ResponseWriter, r *http.Request, grant string) bool {
			if refused.Swap(true) {
				return false
			}
			time.Sleep(5 * time.Second)
			return refuse(400, "invalid_grant")(rw, r, grant)
		}, nil)
		slow.store.extended = ranOut(t, slow)
		var got *connect.Bound
		var wg sync.WaitGroup
		wg.Go(func() { got = w.current(id) })
		time.Sleep(time.Second)
		b, err := quick.Refresher.Current(t.Context(), id)
		must(t, err)
		wg.Wait()
		if c := w.row(id); got.Version != 2 || b.Version != 2 || c.Status != connect.StatusActive {
			t.Errorf("versions %d and %d, row %+v", got.Version, b.Version, c)
		}
	})
}

func TestS78ConfigurationErrorKeepsConnections(t *testing.T) {
	for _, code := range []string{"invalid_client", "unauthorized_client"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, demo.Options{})
			id := w.account()
			stale := w.current(id)
			w.set(refuse(401, code), nil)
			_, err := w.Refresher.Renew(t.Context(), stale)
			var te *scheme.TokenError
			if !errors.As(err, &te) || te.Class != scheme.Misconfigured || te.Code != code {
				t.Errorf("%s: got %v", code, err)
			}
			if c := w.row(id); c.Status != connect.StatusActive || w.current(id).Version != 1 {
				t.Errorf("%s: row %+v", code, c)
			}
			// Mended by the operator, it works again by itself.
			w.set(nil, nil)
			time.Sleep(2 * time.Hour)
			if b := w.current(id); b.Version != 2 {
				t.Errorf("%s: version %d afterwards", code, b.Version)
			}
		})
	}
}

func TestRevokedClientCredentialsNeedTheirUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{Clients: map[string]string{"mine": "my-secret", demo.DefaultClientID: demo.DefaultClientSecret}})
		answers := map[string]string{"client_id": "mine", "client_secret": "my-secret"}
		step, err := w.Submit(t.Context(), w.open(connect.Session{}), "client", answers)
		must(t, err)
		id := step.Connection.ID
		time.Sleep(2 * time.Hour)
		if b := w.current(id); b.Version != 2 || !b.Renewable {
			t.Errorf("version %d", b.Version)
		}
		time.Sleep(2 * time.Hour)
		w.set(refuse(401, "invalid_client"), nil)
		var needs *connect.NeedsReauthError
		if _, err := w.Refresher.Current(t.Context(), id); !errors.As(err, &needs) || needs.Cause != "invalid_client" {
			t.Errorf("got %v", err)
		}
	})
}

func TestRenewWithoutARefreshTokenSaysSo(t *testing.T) {
	w := newServer(t, demo.Options{})
	step, err := w.Submit(t.Context(), w.open(connect.Session{}), "key", map[string]string{"api_key": demo.DefaultAPIKey})
	must(t, err)
	b := w.current(step.Connection.ID)
	if _, err := w.Refresher.Renew(t.Context(), b); !errors.Is(err, scheme.ErrNotRenewable) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownConnectionAndIntegration(t *testing.T) {
	w := newServer(t, demo.Options{})
	if _, err := w.Refresher.Current(t.Context(), connect.ID{Integration: "demo", Connection: "nobody"}); !errors.Is(err, connect.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	id := w.account()
	u := *w.Setup.PublicURL
	empty, err := connect.NewSetup(nil, &u, w.client, nil)
	must(t, err)
	w.Refresher.Configure(empty)
	var unknown *connect.UnknownIntegrationError
	if _, err := w.Refresher.Current(t.Context(), id); !errors.As(err, &unknown) || unknown.Key != "demo" {
		t.Errorf("got %v", err)
	}
}

func TestS52LogsHaveNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		first, _ := w.stored(w.row(id))
		time.Sleep(2 * time.Hour)
		w.current(id)
		second, _ := w.stored(w.row(id))
		time.Sleep(2 * time.Hour)
		w.set(func(rw http.ResponseWriter, r *http.Request, _ string) bool {
			rw.WriteHeader(400) // a provider that quotes what it doesn't like
			rw.Write([]byte(`{"error":"invalid_grant","error_description":"bad token ` + second.RefreshToken.Reveal() + `"}`))
			return true
		}, nil)
		if _, err := w.Refresher.Current(t.Context(), id); err == nil || strings.Contains(err.Error(), second.RefreshToken.Reveal()) {
			t.Errorf("got %v", err)
		}
		for _, e := range w.logs.All() {
			line := e.Message
			for k, v := range e.ContextMap() {
				line += " " + k + "=" + strings.TrimSpace(toText(v))
			}
			for _, s := range []scheme.Secret{first.AccessToken, first.RefreshToken, second.AccessToken, second.RefreshToken, demo.DefaultClientSecret} {
				if strings.Contains(line, s.Reveal()) {
					t.Errorf("a secret is in the log: %s", e.Message)
				}
			}
		}
	})
}
