package storetest

import (
	"crypto/rand"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// soon is how long what expires in the contract lives: long enough to be used
// before on a slow machine.
const soon = 1500 * time.Millisecond

// session returns a new session with something in every field.
func session(expires time.Time) connect.Session {
	return connect.Session{
		Token:        digest(),
		EndUser:      &connect.EndUser{ID: "u1", Email: "u1@example.com", Tags: map[string]string{"a": "<&>"}},
		Organization: &connect.Organization{ID: "o1", DisplayName: "Söhne"},
		Tags:         map[string]string{"team": "blue"},
		Allowed:      []string{"github", "slack"},
		Connection:   "c/1",
		Reconnect:    true,

		AllowAccountChange: true,

		Defaults: map[string]connect.SessionDefaults{"github": {
			Config:              map[string]string{"subdomain": "acme"},
			Scopes:              []string{"repo", "read:user"},
			AuthorizationParams: map[string]string{"prompt": "consent"},
		}},
		WebhookURL: "https://app.example.com/hooks?a=b&c",
		ReturnURL:  "https://app.example.com/connected?a=b&c",
		Overrides:  map[string]connect.SessionOverrides{"github": {DocsConnect: "https://docs.example/<x>"}},
		Language:   "pt",
		Look:       &connect.Look{Title: "Acme & Söhne", Colors: map[string]string{"accent": "#ff5500"}, Texts: map[string]string{"Yes": "<Ja>"}},
		Created:    time.Date(2029, 1, 2, 3, 4, 5, 123456000, time.UTC),
		Expires:    expires.Truncate(time.Microsecond).UTC(),
	}
}

// flow returns a new flow with something in every field but Outcome.
func flow(expires time.Time) connect.Flow {
	return connect.Flow{
		ID:          rand.Text(),
		State:       digest(),
		Browser:     digest(),
		Session:     digest(),
		Integration: "github",
		Config:      map[string]string{"subdomain": "acme"},
		RedirectURL: "https://connect.example.com/oauth/callback?a=b&c=d",
		Opener:      "https://app.example.com",
		Waiter:      digest(),
		Expires:     expires.Truncate(time.Microsecond).UTC(),
	}
}

func sessions(t *testing.T, s stores) {
	ctx := t.Context()
	want := session(time.Now().Add(time.Hour))
	must(t, s[0].PutSession(ctx, want))
	got, err := s[1].Session(ctx, want.Token)
	must(t, err)
	equal(t, got, want)
	expectErr(t, s[1].PutSession(ctx, want), connect.ErrExists)

	for _, r := range []connect.Result{{Status: connect.Pending, Integration: "github"}, {Status: connect.Connected, Integration: "github", Connection: "c/1"}} {
		must(t, s[1].NoteResult(ctx, want.Token, r))
		got, err = s[0].Session(ctx, want.Token)
		must(t, err)
		equal(t, got.Result, &r)
		got.Result = nil
		equal(t, got, want)
	}
	expectErr(t, s[0].NoteResult(ctx, digest(), connect.Result{Status: connect.Failed}), connect.ErrNotFound)

	bare := connect.Session{Token: digest(), Created: want.Created, Expires: want.Expires}
	must(t, s[0].PutSession(ctx, bare))
	got, err = s[1].Session(ctx, bare.Token)
	must(t, err)
	equal(t, got, bare)

	for range 2 { // ending it again is no error
		must(t, s[1].DeleteSession(ctx, want.Token))
		_, err = s[0].Session(ctx, want.Token)
		expectErr(t, err, connect.ErrNotFound)
	}
	_, err = s[0].Session(ctx, bare.Token)
	must(t, err)

	ended := session(time.Now().Add(-time.Microsecond))
	must(t, s[0].PutSession(ctx, ended))
	_, err = s[0].Session(ctx, ended.Token)
	expectErr(t, err, connect.ErrNotFound)

	ends := session(time.Now().Add(soon))
	must(t, s[0].PutSession(ctx, ends))
	_, err = s[1].Session(ctx, ends.Token)
	must(t, err)
	time.Sleep(time.Until(ends.Expires) + time.Millisecond)
	_, err = s[1].Session(ctx, ends.Token)
	expectErr(t, err, connect.ErrNotFound)
}

func flows(t *testing.T, s stores) {
	ctx := t.Context()
	want := flow(time.Now().Add(time.Hour))
	must(t, s[0].PutFlow(ctx, want))
	sameState, sameID := flow(want.Expires), flow(want.Expires)
	sameState.State, sameID.ID = want.State, want.ID
	expectErr(t, s[1].PutFlow(ctx, sameState), connect.ErrExists)
	expectErr(t, s[1].PutFlow(ctx, sameID), connect.ErrExists)
	for range 2 { // looking doesn't take
		got, err := s[1].Flow(ctx, want.ID)
		must(t, err)
		equal(t, got, want)
	}
	got, err := s[1].TakeFlow(ctx, want.State)
	must(t, err)
	equal(t, got, want)
	for _, s := range s {
		_, err = s.TakeFlow(ctx, want.State)
		expectErr(t, err, connect.ErrNotFound)
	}
	got, err = s[0].Flow(ctx, want.ID) // taken, and still there for the page
	must(t, err)
	equal(t, got, want)

	bare := connect.Flow{ID: "bare", State: digest(), Expires: want.Expires}
	must(t, s[0].PutFlow(ctx, bare))
	got, err = s[1].TakeFlow(ctx, bare.State)
	must(t, err)
	equal(t, got, bare)
}

func takeRace(t *testing.T, s stores) {
	for range 3 {
		f, other := flow(time.Now().Add(time.Hour)), flow(time.Now().Add(time.Hour))
		must(t, s[0].PutFlow(t.Context(), f))
		must(t, s[0].PutFlow(t.Context(), other))
		var won atomic.Int64
		s.both(racers, func(_ int, s connect.Store) {
			got, err := s.TakeFlow(t.Context(), f.State)
			switch {
			case err == nil && got.ID == f.ID:
				won.Add(1)
			case err == nil:
				t.Errorf("took the flow %s", got.ID)
			case !errors.Is(err, connect.ErrNotFound):
				t.Errorf("got %v, want ErrNotFound", err)
			}
		})
		if n := won.Load(); n != 1 {
			t.Fatalf("%d callbacks took the flow", n)
		}
		_, err := s[1].TakeFlow(t.Context(), other.State)
		must(t, err)
	}
}

func takeExpired(t *testing.T, s stores) {
	ctx := t.Context()
	ended := flow(time.Now().Add(-time.Microsecond))
	must(t, s[0].PutFlow(ctx, ended))
	_, err := s[0].TakeFlow(ctx, ended.State)
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[0].Flow(ctx, ended.ID)
	expectErr(t, err, connect.ErrNotFound)

	ends := flow(time.Now().Add(soon))
	must(t, s[0].PutFlow(ctx, ends))
	_, err = s[1].Flow(ctx, ends.ID)
	must(t, err)
	time.Sleep(time.Until(ends.Expires) + time.Millisecond)
	_, err = s[1].TakeFlow(ctx, ends.State)
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[1].Flow(ctx, ends.ID)
	expectErr(t, err, connect.ErrNotFound)
}

func finishFlow(t *testing.T, s stores) {
	ctx := t.Context()
	for _, o := range []connect.Outcome{
		{Connection: "c/1"},
		{Code: "access_denied", Callback: true, Detail: `The user said "no" <b>&`},
		{},
	} {
		want := flow(time.Now().Add(time.Hour))
		must(t, s[0].PutFlow(ctx, want))
		_, err := s[0].TakeFlow(ctx, want.State)
		must(t, err)
		waiters := []connect.Digest{digest(), want.Waiter, {}}
		ended, err := s[0].Ended(ctx, waiters)
		must(t, err)
		equal(t, len(ended), 0)
		must(t, s[1].FinishFlow(ctx, want.ID, o))
		ended, err = s[0].Ended(ctx, waiters)
		must(t, err)
		equal(t, len(ended), 1)
		equal(t, ended[0].ID, want.ID)
		got, err := s[0].Flow(ctx, want.ID)
		must(t, err)
		want.Outcome = &o
		equal(t, got.Outcome, want.Outcome)
		got.Outcome, want.Outcome = nil, nil
		equal(t, got, want)
		// It does not come back into play.
		_, err = s[0].TakeFlow(ctx, want.State)
		expectErr(t, err, connect.ErrNotFound)
	}
}

func hold(until time.Time) connect.Hold {
	return connect.Hold{Key: digest(), Sealed: []byte("sealed\x00\xff"), Until: until.Truncate(time.Microsecond).UTC()}
}

func heldFlow(t *testing.T, s stores) {
	ctx := t.Context()
	f, h := flow(time.Now().Add(time.Minute)), hold(time.Now().Add(time.Hour))
	must(t, s[0].PutFlow(ctx, f))
	must(t, s[1].HoldFlow(ctx, f.ID, h))
	expectErr(t, s[0].HoldFlow(ctx, f.ID, hold(h.Until)), connect.ErrExists) // once
	other := flow(f.Expires)
	must(t, s[0].PutFlow(ctx, other))
	expectErr(t, s[0].HoldFlow(ctx, other.ID, h), connect.ErrExists) // that key
	expectErr(t, s[0].HoldFlow(ctx, "none", hold(h.Until)), connect.ErrNotFound)
	_, err := s[0].TakeHeld(ctx, digest())
	expectErr(t, err, connect.ErrNotFound)

	f.Expires = h.Until.Add(connect.FlowTTL)
	got, err := s[0].Flow(ctx, f.ID)
	must(t, err)
	equal(t, got, f) // looking doesn't show what is held
	got, err = s[1].TakeHeld(ctx, h.Key)
	must(t, err)
	equal(t, got.Hold, &h)
	got.Hold = nil
	equal(t, got, f)
	for _, s := range s {
		_, err = s.TakeHeld(ctx, h.Key)
		expectErr(t, err, connect.ErrNotFound)
		expectErr(t, s.HoldFlow(ctx, f.ID, hold(h.Until)), connect.ErrExists)
	}

	// What has ended is not held, and what is held ends.
	must(t, s[0].FinishFlow(ctx, other.ID, connect.Outcome{Code: "access_denied"}))
	expectErr(t, s[1].HoldFlow(ctx, other.ID, hold(h.Until)), connect.ErrExists)
	ended, h := flow(f.Expires), hold(h.Until)
	must(t, s[0].PutFlow(ctx, ended))
	must(t, s[0].HoldFlow(ctx, ended.ID, h))
	must(t, s[1].FinishFlow(ctx, ended.ID, connect.Outcome{Code: "link_user_mismatch"}))
	_, err = s[0].TakeHeld(ctx, h.Key)
	expectErr(t, err, connect.ErrNotFound)

	late, h := flow(time.Now().Add(time.Hour)), hold(time.Now().Add(soon))
	must(t, s[0].PutFlow(ctx, late))
	must(t, s[0].HoldFlow(ctx, late.ID, h))
	time.Sleep(time.Until(h.Until) + time.Millisecond)
	_, err = s[1].TakeHeld(ctx, h.Key)
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[1].Flow(ctx, late.ID)
	must(t, err)
}

func heldRace(t *testing.T, s stores) {
	for range 3 {
		f, h := flow(time.Now().Add(time.Hour)), hold(time.Now().Add(time.Hour))
		must(t, s[0].PutFlow(t.Context(), f))
		must(t, s[0].HoldFlow(t.Context(), f.ID, h))
		var won atomic.Int64
		s.both(racers, func(_ int, s connect.Store) {
			got, err := s.TakeHeld(t.Context(), h.Key)
			switch {
			case err == nil && got.ID == f.ID && string(got.Hold.Sealed) == string(h.Sealed):
				won.Add(1)
			case err == nil:
				t.Errorf("took the flow %s, %v", got.ID, got.Hold)
			case !errors.Is(err, connect.ErrNotFound):
				t.Errorf("got %v, want ErrNotFound", err)
			}
		})
		if n := won.Load(); n != 1 {
			t.Fatalf("%d proofs took what was held", n)
		}
	}
}
