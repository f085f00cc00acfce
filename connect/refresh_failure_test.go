package connect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// answer answers refreshes in the provider's place.
func answer(status int, body string, headers ...string) demo.Fault {
	return func(w http.ResponseWriter, _ *http.Request, grant string) bool {
		if grant != "refresh_token" {
			return false
		}
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
		return true
	}
}

func TestS76S77TransientFailuresKeepTheConnection(t *testing.T) {
	// waits is the least time until the next attempt, and the most.
	type wait struct{ least, most time.Duration }
	usual := wait{500 * time.Millisecond, time.Second}
	tests := map[string]struct {
		fault demo.Fault
		code  string
		wait  wait
	}{
		"500":                      {answer(500, `{"error":"invalid_grant"}`), "http_500", usual},
		"503 for two minutes":      {answer(503, "", "Retry-After", "120"), "http_503", wait{2 * time.Minute, 2 * time.Minute}},
		"429 for ten days":         {answer(429, "", "Retry-After", "864000"), "http_429", wait{time.Hour, time.Hour}},
		"429 for a googol":         {answer(429, "", "Retry-After", "1"+strings.Repeat("0", 100)), "http_429", wait{time.Hour, time.Hour}},
		"429 for less than none":   {answer(429, "", "Retry-After", "-9223372036854775807"), "http_429", usual},
		"429 until a date":         {answer(429, "", "Retry-After", "Sat, 01 Jan 2000 01:00:30 GMT"), "http_429", wait{10 * time.Second, 3 * time.Minute}},
		"429 until a past date":    {answer(429, "", "Retry-After", "Fri, 31 Dec 1999 01:00:30 GMT"), "http_429", usual},
		"429 until who knows":      {answer(429, "", "Retry-After", "soon"), "http_429", usual},
		"HTML":                     {answer(200, "<html>Maintenance</html>", "Content-Type", "text/html"), "not_json", usual},
		"nothing":                  {answer(200, ""), "not_json", usual},
		"no token":                 {answer(200, `{}`), "no_access_token", usual},
		"redirect":                 {answer(302, "", "Location", "https://evil.example/"), "redirect", usual},
		"redirect with the body":   {answer(307, "", "Location", inBubble+"/elsewhere"), "redirect", usual},
		"2 MiB":                    {answer(200, `{"access_token":"`+strings.Repeat("a", 2<<20)+`"}`), "too_large", usual},
		"400 that says nothing":    {answer(400, "Bad Request"), "http_400", usual},
		"an error with status 200": {answer(200, `{"ok":false,"error":"ratelimited"}`), "ratelimited", usual},
		"dropped":                  {func(http.ResponseWriter, *http.Request, string) bool { panic(http.ErrAbortHandler) }, "unreachable", usual},
		"silence":                  {func(_ http.ResponseWriter, r *http.Request, _ string) bool { <-r.Context().Done(); return true }, "timeout", usual},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, demo.Options{})
				id := w.account()
				w.current(id)
				w.set(test.fault, nil)
				time.Sleep(59 * time.Minute) // five minutes early it is renewed in the background
				if b := w.current(id); b.Version != 1 {
					t.Fatalf("version %d serves", b.Version)
				}
				time.Sleep(11 * time.Second) // the client's timeout
				synctest.Wait()
				if n := w.refreshes(); n != 1 {
					t.Fatalf("%d token calls in the background", n)
				}
				began := time.Now()
				_, err := w.Refresher.Renew(t.Context(), w.current(id))
				var te *scheme.TokenError
				if !errors.As(err, &te) || te.Class != scheme.Transient || te.Code != test.code {
					t.Errorf("got %v", err)
				}
				// The end is past: what there is goes on serving, the provider's
				// own answer says more than ours would.
				time.Sleep(2 * time.Hour)
				settle(t, w, id)
				if c := w.row(id); c.Status != connect.StatusActive || c.Version != 1 {
					t.Errorf("row %+v after %v", c, time.Since(began))
				}
				before := w.refreshes()
				for range 50 {
					if b := w.current(id); b.Version != 1 {
						t.Fatalf("version %d", b.Version)
					}
				}
				if n := w.refreshes(); n != before {
					t.Errorf("%d more token calls in spite of the backoff", n-before)
				}
				// The provider recovers, and so does the connection.
				w.set(nil, nil)
				time.Sleep(2 * time.Hour)
				if b := w.current(id); b.Version != 2 {
					t.Errorf("version %d after it has recovered", b.Version)
				}
			})
		})
	}
	for name, test := range tests {
		t.Run("backoff after "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, demo.Options{})
				id := w.account()
				b := w.current(id)
				w.set(test.fault, nil)
				if strings.HasSuffix(name, "a date") && !strings.Contains(name, "past") {
					time.Sleep(time.Hour - time.Minute) // the date is 90 seconds from here
				}
				if _, err := w.Refresher.Renew(t.Context(), b); err == nil {
					t.Fatal("renewed")
				}
				failed := time.Now()
				for w.refreshes() == 1 && time.Since(failed) < 2*time.Hour {
					time.Sleep(100 * time.Millisecond)
					w.Refresher.Renew(t.Context(), b)
				}
				waited := time.Since(failed)
				if name == "silence" {
					waited -= 10 * time.Second
				}
				if waited < test.wait.least || waited > test.wait.most+100*time.Millisecond {
					t.Errorf("next attempt after %v, want %v to %v", waited, test.wait.least, test.wait.most)
				}
			})
		})
	}
}

// settle asks for the credential until it is held back by the backoff.
func settle(t *testing.T, w *world, id connect.ID) {
	t.Helper()
	for range 5 {
		before := w.refreshes()
		w.current(id)
		if w.refreshes() == before {
			return
		}
	}
	t.Error("every call makes a token call")
}

func TestBackoffGrowsToFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		b := w.current(id)
		w.set(answer(500, ""), nil)
		began := time.Now()
		for time.Since(began) < 24*time.Hour {
			w.Refresher.Renew(t.Context(), b)
			time.Sleep(time.Second)
		}
		// Between 288 (every five minutes) and 576 (half of it), and a dozen to get there.
		if n := w.refreshes(); n < 280 || n > 600 {
			t.Errorf("%d token calls in a day", n)
		}
	})
}

func TestEarlyRefreshServesTheOldOneMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{TokenDelay: func() time.Duration { return time.Second }})
		id := w.account()
		w.current(id)
		time.Sleep(54 * time.Minute)
		w.current(id)
		synctest.Wait()
		if w.refreshes() != 0 {
			t.Fatal("renewed too early")
		}
		time.Sleep(90 * time.Second)
		began := time.Now()
		for range 10 {
			if b := w.current(id); b.Version != 1 || time.Since(began) != 0 {
				t.Fatalf("version %d after %v", b.Version, time.Since(began))
			}
		}
		time.Sleep(2 * time.Second)
		if b := w.current(id); b.Version != 2 || w.refreshes() != 1 {
			t.Errorf("version %d, %d token calls", b.Version, w.refreshes())
		}
	})
}

func TestS71RefusedRenewalsAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{AccessTTL: 1000 * time.Hour})
		id := w.account()
		b := w.current(id)
		// An API that always answers 401: each call renews, is refused again.
		calls := func(d time.Duration) int {
			before, end := w.refreshes(), time.Now().Add(d)
			for time.Now().Before(end) {
				fresh, err := w.Refresher.Renew(t.Context(), b)
				switch {
				case err == nil:
					b = fresh
					w.Refresher.Refused(fresh)
				case !errors.Is(err, connect.ErrFutile):
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
			return w.refreshes() - before
		}
		if n := calls(30 * time.Second); n != 1 {
			t.Errorf("%d token calls in the first half minute", n)
		}
		if n := calls(24 * time.Hour); n > 60 {
			t.Errorf("%d token calls in a day", n)
		}
		w.Refresher.Accepted(b)
		if n := calls(30 * time.Second); n != 1 {
			t.Errorf("%d token calls after it worked once", n)
		}
	})
}

func TestS69VaultThatFailsAfterTheRotationGetsTheCredentialLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		time.Sleep(2 * time.Hour)
		var failing atomic.Bool
		failing.Store(true)
		w.vault.write = func() error {
			if failing.Load() {
				return fmt.Errorf("writing: %w", vault.ErrUnavailable)
			}
			return nil
		}
		stop := w.run(w.node)
		defer stop()
		began := time.Now()
		b := w.current(id)
		if b.Version != 2 || time.Since(began) > 5*time.Second || w.refreshes() != 1 || w.Refresher.Unwritten() != 1 {
			t.Fatalf("version %d after %v, %d token calls", b.Version, time.Since(began), w.refreshes())
		}
		if _, version := w.stored(w.row(b.ID)); version != 1 {
			t.Fatalf("the vault has version %d", version)
		}
		// The outage is longer than the new token lives: it is renewed all the same.
		time.Sleep(2 * time.Hour)
		if b := w.current(id); b.Version != 3 || w.refreshes() != 2 {
			t.Errorf("version %d, %d token calls", b.Version, w.refreshes())
		}
		failing.Store(false)
		time.Sleep(3 * time.Second)
		c := w.row(id)
		if _, version := w.stored(c); version != 3 || c.Version != 3 || w.Refresher.Unwritten() != 0 {
			t.Errorf("vault %d, row %d", version, c.Version)
		}
		time.Sleep(2 * time.Hour)
		if b := w.current(id); b.Version < 4 || w.demo.Stats().ReuseDetected != 0 {
			t.Errorf("the next renewal: version %d, %+v", b.Version, w.demo.Stats())
		}
	})
}

func TestWriteWhoseAnswerWasLostIsFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		w.current(id)
		time.Sleep(2 * time.Hour)
		lost := &lostAnswer{Vault: w.vault.Vault}
		w.vault.Vault = lost
		stop := w.run(w.node)
		defer stop()
		if b := w.current(id); b.Version != 2 || w.refreshes() != 1 {
			t.Errorf("version %d, %d token calls", b.Version, w.refreshes())
		}
		time.Sleep(2 * time.Second)
		if n := w.Refresher.Unwritten(); n != 0 || lost.writes.Load() != 2 {
			t.Errorf("%d not written, %d writes", n, lost.writes.Load())
		}
		if b := w.current(id); b.Version != 2 || w.refreshes() != 1 {
			t.Errorf("version %d, %d token calls", b.Version, w.refreshes())
		}
	})
}

// lostAnswer is a vault whose first write succeeds without saying so.
type lostAnswer struct {
	vault.Vault
	writes atomic.Int32
}

func (v *lostAnswer) Write(ctx context.Context, name string, value []byte, after vault.Version) (vault.Version, error) {
	version, err := v.Vault.Write(ctx, name, value, after)
	if strings.HasPrefix(name, "connections/") && v.writes.Add(1) == 1 {
		return 0, vault.ErrUnavailable
	}
	return version, err
}

func TestS66RowThatWasNotUpdatedRollsForwardFromTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		time.Sleep(2 * time.Hour)
		w.store.update = func() error { return connect.ErrStoreUnavailable }
		if b := w.current(id); b.Version != 2 {
			t.Errorf("version %d", b.Version)
		}
		if c := w.row(id); c.Version != 1 {
			t.Fatalf("row %+v", c)
		}
		w.store.update = nil
		// Until the row has caught up, the intent says that it is behind.
		if all, err := w.Store.Intents(t.Context(), 10); err != nil || len(all) != 1 {
			t.Errorf("intents %v, %v", all, err)
		}
		restarted := w.newNode()
		b, err := restarted.Refresher.Current(t.Context(), id)
		must(t, err)
		if b.Version != 2 || w.refreshes() != 1 {
			t.Errorf("version %d after a restart, %d token calls", b.Version, w.refreshes())
		}
	})
}

func TestDeadLeaseHolderDelaysButDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		time.Sleep(2 * time.Hour)
		_, err := w.Store.Lease(t.Context(), "refresh/"+w.row(id).UID, "dead", 90*time.Second) // and then its holder crashed
		must(t, err)
		began := time.Now()
		if b := w.current(id); b.Version != 1 || time.Since(began) > 30*time.Second {
			t.Errorf("version %d after %v", b.Version, time.Since(began))
		}
		time.Sleep(2 * time.Minute)
		if b := w.current(id); b.Version != 2 || w.refreshes() != 1 {
			t.Errorf("version %d, %d token calls after the lease ran out", b.Version, w.refreshes())
		}
	})
}
