package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func turns(t *testing.T, s stores) {
	const every = 50 * time.Millisecond
	began := time.Now()
	var (
		mu    sync.Mutex
		slots []time.Duration
		none  int
	)
	s.both(racers, func(_ int, s connect.Store) {
		wait, ok, err := s.Turn(t.Context(), "token 'a'", every, time.Second)
		told := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			t.Error(err)
		case ok:
			slots = append(slots, told+wait)
		default:
			none++
			if wait <= time.Second/2 { // it is a little earlier by the time that it is told
				t.Errorf("no turn, but one would be in %v", wait)
			}
		}
	})
	// Twenty in the second, and one for each 50 ms that asking has taken.
	took := int(time.Since(began)/every) + 1
	if len(slots) < 20 || len(slots) > 21+took || none != racers-len(slots) {
		t.Errorf("%d turns were given within a second and %d refused, asking took %d turns", len(slots), none, took)
	}
	slices.Sort(slots)
	if last := slots[len(slots)-1]; last < time.Duration(len(slots)-1)*every-every {
		t.Errorf("the last of %d turns is after %v", len(slots), last)
	}
	wait, ok, err := s[0].Turn(t.Context(), "token b", every, 0)
	must(t, err)
	if !ok || wait != 0 {
		t.Errorf("another name has to wait for %v, %v", wait, ok)
	}
}

func deferTurns(t *testing.T, s stores) {
	ask := func(n int, every, within time.Duration) (time.Duration, bool) {
		t.Helper()
		wait, ok, err := s[n].Turn(t.Context(), "a", every, within)
		must(t, err)
		return wait, ok
	}
	for range 3 {
		if wait, ok := ask(0, 0, 0); !ok || wait != 0 {
			t.Fatalf("without a rate: %v, %v", wait, ok)
		}
	}
	must(t, s[0].Defer(t.Context(), "a", time.Hour))
	must(t, s[1].Defer(t.Context(), "a", time.Minute)) // earlier than it is
	for _, every := range []time.Duration{0, time.Second} {
		wait, ok := ask(1, every, time.Second)
		if ok || wait < 59*time.Minute || wait > 61*time.Minute {
			t.Errorf("every %v: %v, %v", every, wait, ok)
		}
	}
	if wait, ok := ask(1, 0, 2*time.Hour); !ok || wait < 59*time.Minute {
		t.Errorf("who has time: %v, %v", wait, ok)
	}
	must(t, s[0].Sweep(t.Context(), time.Now().Add(24*time.Hour)))
	if _, ok := ask(1, 0, time.Second); ok {
		t.Error("sweeping has ended it")
	}
}

func due(t *testing.T, s stores) {
	past := time.Now().Add(-time.Hour)
	for n, at := range []time.Time{past.Add(2 * time.Minute), past, time.Now().Add(time.Hour), {}} {
		c := connection("a", string(rune('a'+n)))
		c.Due = at
		create(t, s[0], c)
	}
	ask := func(n, limit int, hold time.Duration) (ids []string) {
		t.Helper()
		found, err := s[n].Due(t.Context(), limit, hold)
		must(t, err)
		for _, c := range found {
			ids = append(ids, c.ID.Connection)
		}
		return ids
	}
	equal(t, ask(0, 1, soon), []string{"b"})
	equal(t, ask(1, 10, time.Hour), []string{"a"})
	equal(t, len(ask(0, 10, time.Hour)), 0)
	time.Sleep(soon + 20*time.Millisecond)
	equal(t, ask(1, 10, time.Hour), []string{"b"}) // whoever had it has not done it
	if _, err := s[0].Update(t.Context(), connect.ID{Integration: "a", Connection: "b"}, func(c *connect.Connection) error {
		c.Due = past
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		given int
	)
	s.both(racers, func(_ int, s connect.Store) {
		found, err := s.Due(t.Context(), 10, time.Hour)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		given += len(found)
	})
	equal(t, given, 1)
}
