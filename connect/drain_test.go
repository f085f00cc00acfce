package connect_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/vault"
)

// A process that is told to end in the middle of a rotation ends when the new
// credential is in the vault.
func TestS121DrainWaitsForTheRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{TokenDelay: func() time.Duration { return 5 * time.Second }})
		id := w.account()
		b := w.current(id)
		caller, gone := context.WithCancel(t.Context())
		go w.Refresher.Renew(caller, b)
		time.Sleep(time.Second)
		gone()
		must(t, w.Refresher.Drain(t.Context()))
		if _, version := w.stored(w.row(id)); version != 2 || w.refreshes() != 1 {
			t.Errorf("the vault has version %d after %d token calls", version, w.refreshes())
		}
	})
}

// If the vault is away, the spool will do; without one, the process holds on for
// as long as it is given, and says what it loses.
func TestS121DrainEndsWhenNothingIsLostWithTheProcess(t *testing.T) {
	for _, spooled := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, demo.Options{})
			if spooled {
				w.spooled(w.node, "a")
			}
			id := w.account()
			b := w.current(id)
			w.vault.write = func() error { return fmt.Errorf("no: %w", vault.ErrUnavailable) }
			must2(w.Refresher.Renew(t.Context(), b))(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began := time.Now()
			err := w.Refresher.Drain(ctx)
			switch took := time.Since(began); {
			case spooled && (err != nil || took > 10*time.Second):
				t.Errorf("with a spool: %v after %v", err, took)
			case !spooled && (!errors.Is(err, context.DeadlineExceeded) || took < time.Minute):
				t.Errorf("without: %v after %v", err, took)
			}
		})
	}
}

// Nobody is sent to a provider whose answer could not be kept.
func TestS112ConnectingWaitsForTheVault(t *testing.T) {
	w := newServer(t, demo.Options{})
	token := w.open(connect.Session{})
	w.vault.down.Store(true)
	for _, integration := range []string{"demo", "key"} {
		step, err := w.Submit(t.Context(), token, integration, map[string]string{"api_key": demo.DefaultAPIKey})
		if !errors.Is(err, vault.ErrUnavailable) || step.Redirect != "" {
			t.Errorf("%s: %v, %v", integration, step, err)
		}
	}
	if n := w.demo.Stats(); len(n.APICalls) != 0 {
		t.Errorf("the provider was asked: %+v", n)
	}
	w.vault.down.Store(false)
	if step, err := w.Submit(t.Context(), token, "demo", nil); err != nil || step.Redirect == "" {
		t.Errorf("when it is back: %v, %v", step, err)
	}
}

// Where a token endpoint allows little, renewals that a call waits for take all
// of it, and those that have time come later.
func TestS79InteractiveRenewalsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 10
		w := newWorld(t, demo.Options{})
		w.rate = 1
		n := w.newNode()
		make := func(name string) (ids []connect.ID) {
			for i := range each {
				ids = append(ids, w.authorize(connect.Session{Connection: fmt.Sprint(name, i)}, nil).ID)
			}
			return ids
		}
		urgent := make("urgent")
		time.Sleep(3 * time.Minute)
		early := make("early")
		for _, id := range append(urgent, early...) {
			must2(n.Refresher.Current(t.Context(), id))(t)
		}
		time.Sleep(57*time.Minute + 10*time.Second) // the first have ended, the others end soon
		var wg sync.WaitGroup
		began := time.Now()
		for i := range each {
			wg.Go(func() { n.Refresher.Current(t.Context(), early[i]) })
			wg.Go(func() {
				if b, err := n.Refresher.Current(t.Context(), urgent[i]); err != nil || b.Version != 2 {
					t.Errorf("%s: %v, %v", urgent[i], b, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > (each+1)*time.Second {
			t.Errorf("those that wait have waited for %v", took)
		}
		late := 0
		for _, id := range early {
			if w.row(id).Version == 1 {
				late++
			}
		}
		if late < each-1 {
			t.Errorf("%d of %d early renewals took a turn before", each-late, each)
		}
	})
}
