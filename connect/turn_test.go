package connect_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
)

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
		// Every third is held up after its turn, and then they would all go at once.
		var n atomic.Int64
		for _, node := range nodes {
			node.store.extended = func(connect.Lease) {
				if n.Add(1)%3 == 0 {
					time.Sleep(time.Until(time.Now().Truncate(3 * time.Second).Add(3 * time.Second)))
				}
			}
		}
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
			if d := at[i].Sub(at[i-20]); d < time.Second {
				t.Fatalf("21 token calls within %v", d)
			}
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("took %v", took)
		}
	})
}
