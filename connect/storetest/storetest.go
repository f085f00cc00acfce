// Package storetest is the contract that every connect.Store must pass. A store
// calls Run from a test of its own.
//
// It may import connect and the standard library only.
package storetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// racers is how many goroutines race for one thing in the contract; half of
// them use the second handle.
const racers = 50

// Run runs the contract. open returns two handles on one store, opened apart
// as two processes would: a new and empty one each time, that Migrate has not
// been called on. open also sees to it that both are closed.
func Run(t *testing.T, open func(t *testing.T) (first, second connect.Store)) {
	for _, part := range []struct {
		name string
		test func(*testing.T, stores)
	}{
		{"a connection is kept whole", wholeConnection},
		{"a bare connection is kept", bareConnection},
		{"what isn't there is ErrNotFound", notFound},
		{"Create refuses a taken ID or UID", createTaken},
		{"Create by many makes one", createRace},
		{"serials rise and never come again", serials},
		{"Delete leaves nothing and returns what was", deleteConnection},
		{"Update changes all but what tells a connection", update},
		{"Update by many loses none", updateRace},
		{"Update that fails changes nothing", updateFails},
		{"metadata has to be a JSON object", metadata},
		{"queries select", queries},
		{"queries search literally and without case", search},
		{"queries page from the newest", paging},
		{"odd ids are kept or refused", oddIDs},
		{"TestS82 changes and removals are told to others", changes},
		{"sessions are kept whole until they expire", sessions},
		{"flows are kept whole until they expire", flows},
		{"TestS4 a flow is taken once by 50 callbacks", takeRace},
		{"an expired flow can't be taken", takeExpired},
		{"a flow's outcome is kept", finishFlow},
		{"TestS1 what a flow holds is kept apart until it is taken", heldFlow},
		{"TestS4 what a flow holds is taken once by 50 proofs", heldRace},
		{"a lease is held by one", lease},
		{"a lease that ran out can be taken", leaseRunsOut},
		{"a lease is taken once by 50", leaseRace},
		{"only the holder can release", foreignRelease},
		{"TestS63 an intent stays until it is cleared", intents},
		{"a lease can be extended by its holder only", extend},
		{"a dead node's leases can be taken", vacate},
		{"TestS76 turns are apart, for all together", turns},
		{"turns can be put off", deferTurns},
		{"what is due is given to one", due},
		{"generations rise, whatever happens", generations},
		{"what is told goes with the change or not at all", tellings},
		{"a failed flow is told of", tellFlow},
		{"events are routed once by many", routeRace},
		{"an endpoint is held by one", endpoints},
		{"deliveries wait until their time", deliveries},
		{"an event can be delivered again", redeliver},
		{"what is delivered is given up and removed in time", sweepOutbox},
		{"Update of many is done whole or not at all", updateAll},
		{"integrations are kept and their changes counted", integrations},
		{"a key with connections stays", renameInUse},
		{"a log is kept whole", wholeLog},
		{"a log grows by steps, in any order, and repeated", growingLog},
		{"logs are queried", queryLogs},
		{"logs by many are all kept", logRace},
		{"old logs are removed", sweepLogs},
		{"what there is is counted", statistics},
		{"API keys are kept", apiKeys},
		{"API keys change and their version with them", apiKeyChanges},
		{"the use of API keys is noted", apiKeyUse},
		{"Sweep removes what has ended and nothing else", sweep},
		{"Migrate can be repeated and keeps everything", migrateAgain},
		{"a done context ends every call", canceled},
		{"Ping answers and Close can be repeated", pingAndClose},
	} {
		t.Run(part.name, func(t *testing.T) {
			first, second := open(t)
			s := stores{first, second}
			s.migrate(t)
			part.test(t, s)
		})
	}
}

// stores are two handles on one store.
type stores [2]connect.Store

// migrate migrates with both handles at once, as two processes that start.
func (s stores) migrate(t *testing.T) {
	t.Helper()
	s.both(2, func(_ int, s connect.Store) {
		if err := s.Migrate(t.Context()); err != nil {
			t.Errorf("Migrate: %v", err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

// both calls do n times at once, by turns with either handle.
func (s stores) both(n int, do func(n int, s connect.Store)) {
	var done sync.WaitGroup
	start := make(chan struct{})
	for n := range n {
		done.Go(func() {
			<-start
			do(n, s[n%2])
		})
	}
	close(start)
	done.Wait()
}

func sweep(t *testing.T, s stores) {
	ctx := t.Context()
	present := time.Now()
	kept, ended := session(present.Add(time.Hour)), session(present.Add(-time.Hour))
	keptFlow, endedFlow := flow(present.Add(time.Hour)), flow(present.Add(-time.Hour))
	must(t, s[0].PutSession(ctx, kept))
	must(t, s[0].PutSession(ctx, ended))
	must(t, s[0].PutFlow(ctx, keptFlow))
	must(t, s[0].PutFlow(ctx, endedFlow))
	held, err := s[0].Lease(ctx, "held", "node", time.Hour)
	must(t, err)
	c := create(t, s[0], connection("a", "b"))

	// A time in the future (a wrong clock) must not end what is still good.
	for _, before := range []time.Time{present.Add(-2 * time.Hour), present, present.Add(time.Hour * 24 * 365)} {
		must(t, s[1].Sweep(ctx, before))
		_, err := s[0].Session(ctx, kept.Token)
		must(t, err)
		_, err = s[0].Flow(ctx, keptFlow.ID)
		must(t, err)
		_, err = s[1].Lease(ctx, "held", "node", time.Hour)
		expectErr(t, err, connect.ErrHeld)
		_, err = s[0].Connection(ctx, c.ID)
		must(t, err)
		if before.Before(present) {
			// What ended later than before stays, and so its names stay taken.
			expectErr(t, s[0].PutSession(ctx, ended), connect.ErrExists)
			expectErr(t, s[0].PutFlow(ctx, endedFlow), connect.ErrExists)
		}
	}
	must(t, s[0].PutSession(ctx, ended))
	must(t, s[0].PutFlow(ctx, endedFlow))
	must(t, s[0].Release(ctx, held))
}

func migrateAgain(t *testing.T, s stores) {
	c := create(t, s[0], connection("a", "b"))
	for range 3 {
		s.migrate(t)
	}
	got, err := s[1].Connection(t.Context(), c.ID)
	must(t, err)
	equal(t, got, c)
}

func canceled(t *testing.T, s stores) {
	c := create(t, s[0], connection("a", "b"))
	f := flow(time.Now().Add(time.Hour))
	must(t, s[0].PutFlow(t.Context(), f))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Connection":  func() error { _, err := s[0].Connection(ctx, c.ID); return err },
		"Connections": func() error { _, err := s[0].Connections(ctx, connect.Query{}); return err },
		"Create":      func() error { _, err := s[0].Create(ctx, connection("a", "c")); return err },
		"Update": func() error {
			_, err := s[0].Update(ctx, c.ID, func(*connect.Connection) error { return nil })
			return err
		},
		"Delete":        func() error { _, err := s[0].Delete(ctx, c.ID, nil); return err },
		"PutSession":    func() error { return s[0].PutSession(ctx, session(time.Now())) },
		"Session":       func() error { _, err := s[0].Session(ctx, digest()); return err },
		"DeleteSession": func() error { return s[0].DeleteSession(ctx, digest()) },
		"PutFlow":       func() error { return s[0].PutFlow(ctx, flow(time.Now())) },
		"TakeFlow":      func() error { _, err := s[0].TakeFlow(ctx, f.State); return err },
		"FinishFlow":    func() error { return s[0].FinishFlow(ctx, f.ID, connect.Outcome{}) },
		"Flow":          func() error { _, err := s[0].Flow(ctx, f.ID); return err },
		"Lease":         func() error { _, err := s[0].Lease(ctx, "a", "node", time.Hour); return err },
		"Release":       func() error { return s[0].Release(ctx, connect.Lease{Name: "a"}) },
		"PutAPIKey":     func() error { return s[0].PutAPIKey(ctx, connect.APIKey{Name: "a"}) },
		"APIKeys":       func() error { _, _, err := s[0].APIKeys(ctx); return err },
		"Sweep":         func() error { return s[0].Sweep(ctx, time.Now()) },
		"Migrate":       func() error { return s[0].Migrate(ctx) },
		"Ping":          func() error { return s[0].Ping(ctx) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
	// None of it had an effect.
	_, err := s[1].Connection(t.Context(), c.ID)
	must(t, err)
	_, err = s[1].TakeFlow(t.Context(), f.State)
	must(t, err)
}

func pingAndClose(t *testing.T, s stores) {
	for _, s := range s {
		must(t, s.Ping(t.Context()))
	}
	must(t, s[0].Close())
	must(t, s[0].Close())
	must(t, s[1].Ping(t.Context()))
}

// digest returns the digest of a new token.
func digest() connect.Digest { return connect.DigestOf(rand.Text()) }

// newUID returns a new UID as connect makes them.
func newUID() string {
	p := make([]byte, 16)
	rand.Read(p)
	return hex.EncodeToString(p)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expectErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// equal compares all fields. The values are printed in full, since none of them
// is secret.
func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got\n%s\nwant\n%s", show(got), show(want))
	}
}

func show(v any) string { return fmt.Sprintf("%+v", v) }
