package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// shortly is how long holds and pauses last here.
const shortly = 700 * time.Millisecond

// routed routes all events to the endpoints and returns them.
func routed(t *testing.T, s connect.Store, endpoints ...connect.Target) []connect.Event {
	t.Helper()
	var all []connect.Event
	for {
		var some []connect.Event
		n, err := s.Route(t.Context(), 7, func(e *connect.Event) []connect.Target {
			some = append(some, *e)
			return endpoints
		})
		must(t, err)
		if n == 0 {
			return all
		}
		equal(t, n, len(some))
		all = append(all, some...)
	}
}

func kinds(events []connect.Event) (out []connect.EventKind) {
	for _, e := range events {
		out = append(out, e.Kind)
	}
	return out
}

func tellings(t *testing.T, s stores) {
	ctx := t.Context()
	c := full(t)
	c.Tell(connect.EventCreated, nil)
	before := time.Now().Add(-time.Second)
	created := create(t, s[0], c)
	events := routed(t, s[1])
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	if e.ID == "" || e.At.Before(before) || e.At.After(time.Now().Add(time.Second)) {
		t.Errorf("event %q at %v", e.ID, e.At)
	}
	equal(t, e, connect.Event{
		ID: e.ID, Kind: connect.EventCreated, At: e.At, Integration: c.Integration, Connection: c.ID.Connection, UID: c.UID,
		Provider: c.Provider, Tags: c.Tags, EndUser: c.EndUser, WebhookURL: c.WebhookURL,
	})

	// The event has the connection as the change has left it.
	_, err := s[1].Update(ctx, c.ID, func(row *connect.Connection) error {
		row.Tell(connect.EventRefreshFailed, &connect.EventError{Type: "http_502", Detail: "\x00<b>ü"})
		row.Tell(connect.EventDegraded, nil)
		row.Tags = map[string]string{"team": "red"}
		return nil
	})
	must(t, err)
	events = routed(t, s[0])
	equal(t, kinds(events), []connect.EventKind{connect.EventRefreshFailed, connect.EventDegraded})
	equal(t, events[0].Error, &connect.EventError{Type: "http_502", Detail: "\x00<b>ü"})
	equal(t, events[0].Tags, map[string]string{"team": "red"})
	if events[0].ID == events[1].ID {
		t.Error("two events have one id")
	}

	// What fails tells nothing.
	expectErr(t, func() error {
		_, err := s[0].Update(ctx, c.ID, func(row *connect.Connection) error {
			row.Tell(connect.EventNeedsReauth, nil)
			return connect.ErrHeld
		})
		return err
	}(), connect.ErrHeld)
	again := created
	again.Tell(connect.EventCreated, nil)
	_, err = s[0].Create(ctx, again)
	expectErr(t, err, connect.ErrExists)
	_, err = s[0].Delete(ctx, connect.ID{Integration: "none", Connection: "none"}, func(c *connect.Connection) { c.Tell(connect.EventDeleted, nil) })
	expectErr(t, err, connect.ErrNotFound)
	equal(t, len(routed(t, s[1])), 0)

	_, err = s[1].Delete(ctx, c.ID, func(c *connect.Connection) { c.Tell(connect.EventDeleted, nil) })
	must(t, err)
	events = routed(t, s[0])
	equal(t, kinds(events), []connect.EventKind{connect.EventDeleted})
	equal(t, events[0].Tags, map[string]string{"team": "red"})
}

func tellFlow(t *testing.T, s stores) {
	f := flow(time.Now().Add(time.Hour))
	must(t, s[0].PutFlow(t.Context(), f))
	e := connect.Event{ID: "evt_1", Kind: connect.EventConnectFailed, At: time.Now().UTC().Truncate(time.Microsecond), Integration: "github", Connection: f.ID,
		Reconnect: true, Error: &connect.EventError{Type: "access_denied"}}
	must(t, s[0].FinishFlow(t.Context(), f.ID, connect.Outcome{Code: "access_denied"}, e))
	equal(t, routed(t, s[1]), []connect.Event{e})
	expectErr(t, s[0].FinishFlow(t.Context(), "gone", connect.Outcome{}, connect.Event{ID: "evt_2", At: e.At}), connect.ErrNotFound)
	equal(t, len(routed(t, s[1])), 0)
}

// told makes n events and returns their ids.
func told(t *testing.T, s connect.Store, n int) (ids []string) {
	t.Helper()
	f := flow(time.Now().Add(time.Hour))
	must(t, s.PutFlow(t.Context(), f))
	var events []connect.Event
	for range n {
		id := "evt_" + newUID()
		ids = append(ids, id)
		events = append(events, connect.Event{ID: id, Kind: connect.EventConnectFailed, At: time.Now().UTC().Truncate(time.Microsecond), Integration: "github", Connection: f.ID})
	}
	must(t, s.FinishFlow(t.Context(), f.ID, connect.Outcome{Code: "no"}, events...))
	return ids
}

func routeRace(t *testing.T, s stores) {
	const n = 60
	ids := told(t, s[0], n)
	s.both(16, func(_ int, s connect.Store) {
		for {
			n, err := s.Route(t.Context(), 5, func(*connect.Event) []connect.Target {
				return []connect.Target{{Endpoint: "a"}, {Endpoint: "b"}}
			})
			if err != nil {
				t.Error(err)
			}
			if n == 0 || err != nil {
				return
			}
		}
	})
	routed(t, s[0], connect.Target{Endpoint: "a"}, connect.Target{Endpoint: "b"}) // what a racer held when another looked
	for _, endpoint := range []string{"a", "b"} {
		due, err := s[1].DueDeliveries(t.Context(), endpoint, 1000)
		must(t, err)
		found := make(map[string]int)
		for _, d := range due {
			found[d.Event.ID]++
		}
		for _, id := range ids {
			if found[id] != 1 {
				t.Errorf("%d deliveries of %s to %s", found[id], id, endpoint)
			}
		}
		equal(t, len(due), n)
	}
	depth, err := s[0].OutboxDepth(t.Context())
	must(t, err)
	equal(t, depth, 2*n)
}

func endpoints(t *testing.T, s stores) {
	ctx := t.Context()
	told(t, s[0], 3)
	routed(t, s[0], connect.Target{Endpoint: "mine"}, connect.Target{Endpoint: "other"}, connect.Target{Endpoint: "https://own", URL: "https://own?a"})
	claim := func(s connect.Store, hold time.Duration) (found []connect.Endpoint) {
		t.Helper()
		found, err := s.ClaimEndpoints(ctx, []string{"mine"}, 10, hold)
		must(t, err)
		return found
	}
	var mu sync.Mutex
	var won []connect.Endpoint
	s.both(racers, func(_ int, s connect.Store) {
		found, err := s.ClaimEndpoints(ctx, []string{"mine"}, 10, time.Hour)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		won = append(won, found...)
	})
	if len(won) != 2 || won[0].Name == won[1].Name || won[0].Name == "other" || won[1].Name == "other" {
		t.Fatalf("claimed %s", show(won))
	}
	mine, own := won[0], won[1]
	if mine.Name != "mine" {
		mine, own = own, mine
	}
	equal(t, own.URL, "https://own?a")

	// Somebody else's holding can't be given back.
	foreign := mine
	foreign.Holder = "x"
	must(t, s[1].ReleaseEndpoint(ctx, foreign))
	equal(t, len(claim(s[0], time.Hour)), 0)
	// One that was given back can be claimed, as it is; if it isn't paused.
	mine.Failures = 4
	must(t, s[1].ReleaseEndpoint(ctx, mine))
	found := claim(s[0], shortly)
	if len(found) != 1 || found[0].Failures != 4 || found[0].Holder == mine.Holder || !found[0].PausedUntil.IsZero() {
		t.Fatalf("claimed %s", show(found))
	}
	found[0].PausedUntil = time.Now().Add(shortly).UTC().Truncate(time.Microsecond)
	must(t, s[0].ReleaseEndpoint(ctx, found[0]))
	equal(t, len(claim(s[1], shortly)), 0)
	all, err := s[1].Endpoints(ctx)
	must(t, err)
	equal(t, all, []connect.Endpoint{
		{Name: "https://own", URL: "https://own?a", Waiting: 3},
		{Name: "mine", Failures: 4, PausedUntil: found[0].PausedUntil, Waiting: 3},
		{Name: "other", Waiting: 3},
	})
	time.Sleep(time.Until(found[0].PausedUntil) + 10*time.Millisecond)
	equal(t, len(claim(s[1], shortly)), 1)
	equal(t, len(claim(s[0], shortly)), 0)
	// A holding ends by itself, too.
	time.Sleep(shortly + 10*time.Millisecond)
	equal(t, len(claim(s[0], time.Hour)), 1)
}

func deliveries(t *testing.T, s stores) {
	ctx := t.Context()
	before := time.Now().Add(-time.Second)
	ids := told(t, s[0], 3)
	routed(t, s[1], connect.Target{Endpoint: "a"})
	due, err := s[0].DueDeliveries(ctx, "a", 2)
	must(t, err)
	equal(t, len(due), 2)
	d := due[0]
	if d.Event.ID != ids[0] || d.State != connect.DeliveryWaiting || d.Attempts != 0 || d.Since.Before(before) || d.Next != d.Since || !d.Tried.IsZero() {
		t.Fatalf("due: %s", show(d))
	}
	d.Attempts, d.Status, d.Error = 1, 503, "it said <no>"
	d.Tried = time.Now().UTC().Truncate(time.Microsecond)
	d.Next = d.Tried.Add(shortly)
	must(t, s[1].NoteAttempt(ctx, d))
	got, err := s[0].Deliveries(ctx, connect.DeliveryQuery{Event: ids[0]})
	must(t, err)
	equal(t, got, []connect.Delivery{d})

	// The endpoint is looked at again when the earliest is due.
	for _, d := range due[1:] {
		d.State, d.Attempts, d.Status = connect.DeliveryDelivered, 1, 204
		must(t, s[0].NoteAttempt(ctx, d))
		d.State = connect.DeliveryWaiting // what has come to its end stays there
		must(t, s[0].NoteAttempt(ctx, d))
	}
	due, err = s[0].DueDeliveries(ctx, "a", 10)
	must(t, err)
	equal(t, len(due), 1)
	last := due[0]
	last.State, last.Attempts = connect.DeliveryGivenUp, 9
	must(t, s[0].NoteAttempt(ctx, last))
	claimed, err := s[0].ClaimEndpoints(ctx, []string{"a"}, 10, time.Hour)
	must(t, err)
	equal(t, len(claimed), 1)
	must(t, s[0].ReleaseEndpoint(ctx, claimed[0]))
	claimed, err = s[1].ClaimEndpoints(ctx, []string{"a"}, 10, time.Hour)
	must(t, err)
	equal(t, len(claimed), 0)
	time.Sleep(time.Until(d.Next) + 10*time.Millisecond)
	claimed, err = s[1].ClaimEndpoints(ctx, []string{"a"}, 10, time.Hour)
	must(t, err)
	equal(t, len(claimed), 1)
	due, err = s[1].DueDeliveries(ctx, "a", 10)
	must(t, err)
	equal(t, due, []connect.Delivery{d})

	for want, q := range map[int]connect.DeliveryQuery{
		3: {}, 2: {Limit: 2}, 1: {State: connect.DeliveryGivenUp}, 0: {Endpoint: "b"},
	} {
		got, err := s[0].Deliveries(ctx, q)
		must(t, err)
		equal(t, len(got), want)
	}
	got, err = s[0].Deliveries(ctx, connect.DeliveryQuery{Integration: "github", Connection: d.Event.Connection, Before: last.Serial, State: connect.DeliveryDelivered})
	must(t, err)
	if len(got) != 1 || got[0].Event.ID != ids[1] {
		t.Errorf("got %s", show(got))
	}
}

func redeliver(t *testing.T, s stores) {
	ctx := t.Context()
	ids := told(t, s[0], 1)
	routed(t, s[0], connect.Target{Endpoint: "a"}, connect.Target{Endpoint: "b"})
	for _, endpoint := range []string{"a", "b"} {
		due, err := s[0].DueDeliveries(ctx, endpoint, 10)
		must(t, err)
		due[0].State, due[0].Attempts, due[0].Status = connect.DeliveryGivenUp, 7, 500
		must(t, s[0].NoteAttempt(ctx, due[0]))
	}
	claimed, err := s[0].ClaimEndpoints(ctx, []string{"a", "b"}, 10, time.Hour)
	must(t, err)
	for _, e := range claimed {
		must(t, s[0].ReleaseEndpoint(ctx, e))
	}
	for endpoint, want := range map[string]int{"b": 1, "": 2} {
		n, err := s[1].Redeliver(ctx, ids[0], endpoint)
		must(t, err)
		equal(t, n, want)
		due, err := s[0].DueDeliveries(ctx, "b", 10)
		must(t, err)
		if len(due) != 1 || due[0].Attempts != 0 {
			t.Fatalf("due: %s", show(due))
		}
	}
	claimed, err = s[0].ClaimEndpoints(ctx, []string{"a", "b"}, 10, time.Hour)
	must(t, err)
	equal(t, len(claimed), 2)
	for _, bad := range [][2]string{{"evt_none", ""}, {ids[0], "c"}, {"a\x00", ""}} {
		_, err := s[1].Redeliver(ctx, bad[0], bad[1])
		if !errors.Is(err, connect.ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func sweepOutbox(t *testing.T, s stores) {
	ctx := t.Context()
	f := flow(time.Now().Add(time.Hour))
	must(t, s[0].PutFlow(ctx, f))
	var events []connect.Event
	for n, age := range []time.Duration{connect.EventsKept + 2*time.Hour, connect.EventsKept + time.Hour, connect.EventsKept - time.Hour} {
		events = append(events, connect.Event{ID: fmt.Sprint("evt_", n), At: time.Now().Add(-age).UTC().Truncate(time.Microsecond), Connection: "c"})
	}
	must(t, s[0].FinishFlow(ctx, f.ID, connect.Outcome{Code: "no"}, events...))
	// The first is still to be delivered, the second was.
	routed(t, s[0], connect.Target{Endpoint: "a"})
	due, err := s[0].DueDeliveries(ctx, "a", 10)
	must(t, err)
	due[1].State = connect.DeliveryDelivered
	must(t, s[0].NoteAttempt(ctx, due[1]))
	must(t, s[1].Sweep(ctx, time.Now()))
	left, err := s[0].Deliveries(ctx, connect.DeliveryQuery{})
	must(t, err)
	var ids []string
	for _, d := range left {
		ids = append(ids, d.Event.ID)
		equal(t, d.State, connect.DeliveryWaiting)
	}
	equal(t, ids, []string{"evt_2", "evt_0"})
}
