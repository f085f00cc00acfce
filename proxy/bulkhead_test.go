package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

func TestS127CallsBeyondTheLimitWaitInTurnAndOtherConnectionsDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBulkheads[connect.ID](2, "The connection", func(int) {})
		slow, other := connect.ID{Integration: "crm", Connection: "slow"}, connect.ID{Integration: "crm", Connection: "other"}
		enter := func(id connect.ID) {
			t.Helper()
			if err := b.enter(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		enter(slow)
		enter(slow)
		var (
			mu    sync.Mutex
			order []int
		)
		for n := range 5 {
			go func() {
				if err := b.enter(t.Context(), slow); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, n)
			}()
			synctest.Wait()
		}
		if len(order) != 0 {
			t.Fatalf("%v came in beyond the limit", order)
		}
		enter(other) // would never come back, if it waited with them
		b.leave(other)
		for n := range 7 {
			b.leave(slow)
			synctest.Wait()
			if mu.Lock(); len(order) != min(n+1, 5) {
				t.Errorf("after %d that left, %v have come in", n+1, order)
			}
			mu.Unlock()
		}
		if !slices.IsSorted(order) {
			t.Errorf("they came in as %v", order)
		}
		if held := len(b.shard(slow).ofs) + len(b.shard(other).ofs); held != 0 {
			t.Errorf("%d connections without a call are held", held)
		}
	})
}

func TestS127WhoeverWaitsInVainTakesNobodysTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, id := newBulkheads[connect.ID](1, "The connection", func(int) {}), connect.ID{Integration: "crm", Connection: "slow"}
		if err := b.enter(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		gone, leave := context.WithCancel(t.Context())
		go func() {
			if err := b.enter(gone, id); !errors.Is(err, context.Canceled) {
				t.Errorf("a caller that went away: %v", err)
			}
		}()
		synctest.Wait()
		began := time.Now()
		for range waitingFactor - 1 {
			go func() {
				var p *problem.Problem
				if err := b.enter(t.Context(), id); !errors.As(err, &p) || p.Status != 429 || time.Since(began) != turnWait {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			}()
		}
		synctest.Wait()
		var p *problem.Problem
		if err := b.enter(t.Context(), id); !errors.As(err, &p) || p.RetryAfter == 0 || time.Since(began) != 0 {
			t.Errorf("one more than may wait: %v after %v", err, time.Since(began))
		}
		leave()
		time.Sleep(turnWait + time.Second)
		b.leave(id)
		if err := b.enter(t.Context(), id); err != nil {
			t.Error(err)
		}
		b.leave(id)
	})
}

func TestS127NoMoreThanTheLimitReachTheProvider(t *testing.T) {
	const limit, calls = 3, 60
	var running, most atomic.Int64
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(5 * time.Millisecond)
		running.Add(-1)
		_, _ = io.WriteString(w, "ok")
	})
	g.proxy.Concurrency = limit
	g.proxy.Provision()
	var (
		all              sync.WaitGroup
		passed, answered atomic.Int64
	)
	for range calls {
		all.Go(func() {
			res, err := g.front.Client().Do(g.get("/x"))
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			answered.Add(1)
			if res.StatusCode == http.StatusOK {
				passed.Add(1)
			} else if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
				t.Errorf("got %d, %v", res.StatusCode, res.Header)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n > limit || n == 0 {
		t.Errorf("%d calls at a time reached the provider, the limit is %d", n, limit)
	}
	if passed.Load() < limit*(waitingFactor+1) || answered.Load() != calls {
		t.Errorf("%d of %d calls passed, %d were answered", passed.Load(), calls, answered.Load())
	}
}
