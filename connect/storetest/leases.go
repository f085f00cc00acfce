package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func take(t *testing.T, s connect.Store, name string, ttl time.Duration) connect.Lease {
	t.Helper()
	l, err := s.Lease(t.Context(), name, "node", ttl)
	if err != nil {
		t.Fatalf("taking lease %s: %v", name, err)
	}
	return l
}

func lease(t *testing.T, s stores) {
	before := time.Now()
	l := take(t, s[0], "refresh/a 'b'", time.Hour)
	if l.Name != "refresh/a 'b'" || l.Holder == "" || l.Generation <= 0 {
		t.Errorf("lease %+v", l)
	}
	// A second either way, for the clock of a database elsewhere.
	if l.Until.Before(before.Add(time.Hour-time.Second)) || l.Until.After(time.Now().Add(time.Hour+time.Second)) {
		t.Errorf("until %v, an hour from %v", l.Until, before)
	}
	for _, s := range s {
		_, err := s.Lease(t.Context(), l.Name, "node", time.Hour)
		expectErr(t, err, connect.ErrHeld)
	}
	other := take(t, s[1], "refresh/other", time.Hour)
	if other.Holder == l.Holder {
		t.Error("two holdings have the same name")
	}
	must(t, s[1].Release(t.Context(), l)) // by the lease, not by the handle
	again := take(t, s[1], l.Name, time.Hour)
	if again.Holder == l.Holder {
		t.Error("two holdings have the same name")
	}
	must(t, s[0].Release(t.Context(), again))
	must(t, s[0].Release(t.Context(), again))
	for _, ttl := range []time.Duration{0, -time.Second} {
		if _, err := s[0].Lease(t.Context(), "never", "node", ttl); err == nil {
			t.Errorf("a lease for %v was given", ttl)
		}
	}
}

func leaseRunsOut(t *testing.T, s stores) {
	l := take(t, s[0], "a", soon)
	_, err := s[1].Lease(t.Context(), "a", "node", time.Hour)
	expectErr(t, err, connect.ErrHeld)
	time.Sleep(time.Until(l.Until) + 10*time.Millisecond)
	late := take(t, s[1], "a", time.Hour)
	if late.Generation <= l.Generation {
		t.Errorf("generation %d after %d", late.Generation, l.Generation)
	}
	// The first holder wakes up and releases: not its lease any more.
	must(t, s[0].Release(t.Context(), l))
	_, err = s[0].Lease(t.Context(), "a", "node", time.Hour)
	expectErr(t, err, connect.ErrHeld)
}

func leaseRace(t *testing.T, s stores) {
	var (
		mu  sync.Mutex
		won []connect.Lease
	)
	for round := range 3 {
		s.both(racers, func(_ int, s connect.Store) {
			l, err := s.Lease(t.Context(), "a", "node", time.Hour)
			switch {
			case err == nil:
				mu.Lock()
				won = append(won, l)
				mu.Unlock()
			case !errors.Is(err, connect.ErrHeld):
				t.Errorf("got %v, want ErrHeld", err)
			}
		})
		if len(won) != round+1 {
			t.Fatalf("%d leases after %d rounds", len(won), round+1)
		}
		must(t, s[0].Release(t.Context(), won[round]))
	}
}

func foreignRelease(t *testing.T, s stores) {
	l := take(t, s[0], "a", time.Hour)
	for _, foreign := range []connect.Lease{
		{Name: l.Name, Holder: "another", Generation: l.Generation},
		{Name: l.Name, Holder: l.Holder, Generation: l.Generation - 1},
		{Name: "b", Holder: l.Holder, Generation: l.Generation},
		{Name: l.Name},
	} {
		must(t, s[1].Release(t.Context(), foreign))
		_, err := s[1].Lease(t.Context(), "a", "node", time.Hour)
		expectErr(t, err, connect.ErrHeld)
	}
}

func generations(t *testing.T, s stores) {
	last := map[string]int64{}
	rises := func(l connect.Lease) {
		t.Helper()
		if l.Generation <= last[l.Name] {
			t.Fatalf("generation %d of %s after %d", l.Generation, l.Name, last[l.Name])
		}
		last[l.Name] = l.Generation
	}
	for n := range 4 {
		for _, name := range []string{"a", "b"} {
			l := take(t, s[n%2], name, time.Hour)
			rises(l)
			must(t, s[0].Release(t.Context(), l))
		}
	}
	for n := range 3 { // the row may go, but not what it has counted
		rises(take(t, s[n%2], "a", time.Millisecond))
		time.Sleep(20 * time.Millisecond)
		must(t, s[0].Sweep(t.Context(), time.Now().Add(time.Hour)))
	}
}

func intents(t *testing.T, s stores) {
	l := take(t, s[0], "refresh/a", time.Hour)
	if l.Intent != nil || l.Node != "node" {
		t.Errorf("a first lease: %+v", l)
	}
	want := &connect.Intent{
		ID: connect.ID{Integration: "a", Connection: "b 'c'"}, Version: 7, Token: "abc", Attempt: 2, Node: "node",
		Patience: time.Date(2030, 1, 2, 3, 4, 5, 678901000, time.UTC), Sealed: []byte{0, 1, 255},
	}
	found := func() []connect.Lease {
		t.Helper()
		all, err := s[1].Intents(t.Context(), 10)
		must(t, err)
		return all
	}
	l.Intent = want
	l, err := s[0].Extend(t.Context(), l, time.Hour)
	must(t, err)
	if all := found(); len(all) != 0 {
		t.Errorf("intents of held leases: %+v", all)
	}
	must(t, s[0].Release(t.Context(), l))
	all := found()
	if len(all) != 1 || all[0].Name != l.Name || all[0].Node != "node" {
		t.Fatalf("intents: %+v", all)
	}
	equal(t, all[0].Intent, want)
	// It survives sweeping, running out, and being handed on.
	must(t, s[0].Sweep(t.Context(), time.Now().Add(24*time.Hour)))
	l = take(t, s[1], "refresh/a", soon)
	equal(t, l.Intent, want)
	time.Sleep(time.Until(l.Until) + 10*time.Millisecond)
	equal(t, len(found()), 1)
	l = take(t, s[0], "refresh/a", time.Hour)
	equal(t, l.Intent, want)
	l.Intent = nil
	must(t, s[0].Release(t.Context(), l))
	equal(t, len(found()), 0)
	if l = take(t, s[1], "refresh/a", time.Hour); l.Intent != nil {
		t.Errorf("it was cleared: %+v", l.Intent)
	}
	for n := range 5 {
		l := take(t, s[0], fmt.Sprint("refresh/many", n), time.Hour)
		l.Intent = want
		must(t, s[0].Release(t.Context(), l))
	}
	all, err = s[0].Intents(t.Context(), 3)
	must(t, err)
	equal(t, len(all), 3)
}

func extend(t *testing.T, s stores) {
	l := take(t, s[0], "a", soon)
	longer, err := s[1].Extend(t.Context(), l, time.Hour)
	must(t, err)
	if d := time.Until(longer.Until); d < 59*time.Minute || d > 61*time.Minute {
		t.Errorf("lasts for %v more", d)
	}
	time.Sleep(time.Until(l.Until) + 10*time.Millisecond)
	_, err = s[1].Lease(t.Context(), "a", "node", time.Hour)
	expectErr(t, err, connect.ErrHeld)
	must(t, s[0].Release(t.Context(), longer))
	other := take(t, s[1], "a", time.Hour)
	l.Intent = &connect.Intent{Token: "late"}
	_, err = s[0].Extend(t.Context(), l, time.Hour)
	expectErr(t, err, connect.ErrHeld)
	must(t, s[0].Release(t.Context(), l))
	must(t, s[0].Release(t.Context(), other))
	if l := take(t, s[0], "a", time.Hour); l.Intent != nil {
		t.Errorf("whoever has lost the lease has left %+v", l.Intent)
	}
}

func vacate(t *testing.T, s stores) {
	dead, err := s[0].Lease(t.Context(), "a", "dead", time.Hour)
	must(t, err)
	dead.Intent = &connect.Intent{Token: "unfinished"}
	dead, err = s[0].Extend(t.Context(), dead, time.Hour)
	must(t, err)
	take(t, s[0], "b", time.Hour)
	must(t, s[1].Vacate(t.Context(), "dead"))
	if l := take(t, s[1], "a", time.Hour); l.Intent == nil || l.Intent.Token != "unfinished" || l.Generation <= dead.Generation {
		t.Errorf("after the node was found dead: %+v", l)
	}
	_, err = s[1].Extend(t.Context(), dead, time.Hour)
	expectErr(t, err, connect.ErrHeld)
	_, err = s[1].Lease(t.Context(), "b", "node", time.Hour)
	expectErr(t, err, connect.ErrHeld)
}
