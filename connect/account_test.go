package connect_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// signIn connects somebody's account of the demo provider by the integration
// that knows whose it is.
func (w *world) signIn(s connect.Session, who string) (connect.Arrival, error) {
	w.t.Helper()
	step, err := w.Submit(w.t.Context(), w.open(s), "named", nil)
	must(w.t, err)
	return w.arrive(w.t.Context(), w.consentAs(who, step.Redirect, "allow"), step)
}

// logged counts the log's lines with an event.
func (w *world) logged(event string) int {
	return w.logs.FilterField(zap.String("event", event)).Len()
}

// revocations counts from now on what the provider is told to revoke.
func (w *world) revocations() func() int {
	var n atomic.Int32
	w.front = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/revoke" {
			n.Add(1)
		}
		return false
	}
	return func() int { return int(n.Load()) }
}

func TestConnectionKnowsWhoseAccountItIs(t *testing.T) {
	w := newServer(t, demo.Options{})
	a, err := w.signIn(connect.Session{Connection: "c"}, "grace")
	must(t, err)
	want := scheme.Account{ID: "grace", Label: "Grace Hopper"}
	if got := w.row(a.Connection.ID).Account; got == nil || *got != want {
		t.Errorf("the account is %+v, not %+v", got, want)
	}
	found, err := w.Store.Connections(t.Context(), connect.Query{Account: "grace"})
	must(t, err)
	if len(found) != 1 {
		t.Errorf("%d connections of the account", len(found))
	}
	// A renewal leaves it as it is.
	_, err = w.Refresher.Renew(t.Context(), w.current(a.Connection.ID))
	must(t, err)
	if got := w.row(a.Connection.ID).Account; got == nil || *got != want {
		t.Errorf("after a renewal the account is %+v", got)
	}
}

func TestS51AnotherAccountIsRefused(t *testing.T) {
	w := newServer(t, demo.Options{})
	first, err := w.signIn(connect.Session{Connection: "c"}, "ada")
	must(t, err)
	id := first.Connection.ID
	before := w.row(id)
	cred, _ := w.stored(before)
	calls, revoked := w.demo.Stats().TokenCalls["authorization_code"], w.revocations()

	a, err := w.signIn(connect.Session{Allowed: []string{"named"}, Connection: "c", Reconnect: true}, "grace")
	if !errors.Is(err, connect.ErrOtherAccount) {
		t.Fatalf("connecting another account: %v", err)
	}
	if a.Flow.Outcome == nil || a.Flow.Outcome.Code != "other_account" {
		t.Errorf("the outcome is %+v", a.Flow.Outcome)
	}
	if w.demo.Stats().TokenCalls["authorization_code"] != calls+1 {
		t.Error("the code was not redeemed: nobody can have known whose account it was")
	}
	after := w.row(id)
	kept, _ := w.stored(after)
	if after.Version != before.Version || !after.Updated.Equal(before.Updated) || after.Account.ID != "ada" ||
		kept.AccessToken.Reveal() != cred.AccessToken.Reveal() || kept.RefreshToken.Reveal() != cred.RefreshToken.Reveal() {
		t.Errorf("the connection was changed: %+v, then %+v", before, after)
	}
	if w.logged("account_change_refused") != 1 || w.logged("account_changed") != 0 {
		t.Errorf("logged: %v", w.logs.All())
	}
	if n := revoked(); n != 1 {
		t.Errorf("the new grant was revoked %d times", n)
	}

	// The right account goes through, and gets a grant of its own.
	if _, err := w.signIn(connect.Session{Allowed: []string{"named"}, Connection: "c", Reconnect: true}, "ada"); err != nil {
		t.Fatalf("connecting the same account again: %v", err)
	}
	if w.row(id).Version <= before.Version {
		t.Error("connecting again has changed nothing")
	}
	must(t, w.Disconnect(t.Context(), id))
	if w.secrets() {
		t.Error("something is left of the grant that was refused")
	}
}

// Some providers end all that a user has given to a client with one of its
// grants: another connection's must not be lost that way.
func TestS51RefusedGrantOfAConnectedAccountIsNotRevoked(t *testing.T) {
	w := newServer(t, demo.Options{})
	revoked := w.revocations()
	_, err := w.signIn(connect.Session{Connection: "c"}, "ada")
	must(t, err)
	_, err = w.signIn(connect.Session{Connection: "other"}, "grace")
	must(t, err)
	if _, err := w.signIn(connect.Session{Connection: "c"}, "grace"); !errors.Is(err, connect.ErrOtherAccount) {
		t.Fatalf("connecting another account: %v", err)
	}
	if n := revoked(); n != 0 {
		t.Errorf("%d revocations", n)
	}
	for _, c := range []string{"c", "other"} {
		if _, err := w.Refresher.Renew(t.Context(), w.current(connect.ID{Integration: "named", Connection: c})); err != nil {
			t.Errorf("%s can't be renewed any more: %v", c, err)
		}
	}
}

func TestS51AccountChangeIsAllowedByName(t *testing.T) {
	for name, allow := range map[string]func(w *world, s *connect.Session){
		"by the session": func(_ *world, s *connect.Session) { s.AllowAccountChange = true },
		"by the operator": func(w *world, _ *connect.Session) {
			in, err := w.Setup.Integration("named")
			must(w.t, err)
			in.AllowAccountChange = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newServer(t, demo.Options{})
			revoked := w.revocations()
			first, err := w.signIn(connect.Session{Connection: "c"}, "ada")
			must(t, err)
			s := connect.Session{Allowed: []string{"named"}, Connection: "c", Reconnect: true}
			allow(w, &s)
			_, err = w.signIn(s, "grace")
			must(t, err)
			if got := w.row(first.Connection.ID); got.Account == nil || got.Account.ID != "grace" || got.UID != first.Connection.UID {
				t.Errorf("the connection is %+v", got)
			}
			if w.logged("account_changed") != 1 || revoked() != 0 {
				t.Errorf("logged: %v", w.logs.All())
			}
		})
	}
}

// A provider that doesn't tell whose account it is can't get around the
// comparison; a connection whose account was never known has none.
func TestS51UnknownAccount(t *testing.T) {
	w := newServer(t, demo.Options{})
	var silent bool
	revoked := 0
	w.front = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/revoke" {
			revoked++
		}
		if silent && r.URL.Path == "/api/me" {
			rw.WriteHeader(http.StatusForbidden)
		}
		return silent && r.URL.Path == "/api/me"
	}
	_, err := w.signIn(connect.Session{Connection: "c"}, "ada")
	must(t, err)
	silent = true
	a, err := w.signIn(connect.Session{Connection: "c"}, "ada")
	if !errors.Is(err, connect.ErrAccountUnknown) || a.Flow.Outcome.Code != "account_unknown" {
		t.Errorf("connecting with an account that isn't known: %v, %+v", err, a.Flow.Outcome)
	}
	if n := revoked; n != 0 {
		t.Errorf("%d revocations: it may be the connection's own account", n)
	}
	a, err = w.signIn(connect.Session{Connection: "new"}, "ada")
	must(t, err)
	if a.Connection.Account != nil {
		t.Errorf("the account is %+v", a.Connection.Account)
	}
	silent = false
	_, err = w.signIn(connect.Session{Connection: "new"}, "grace")
	must(t, err)
	if got := w.row(a.Connection.ID).Account; got == nil || got.ID != "grace" {
		t.Errorf("it is not known from then on: %+v", got)
	}
}

func TestS51AnotherAccountsKey(t *testing.T) {
	const other = "another-key-of-the-demo-provider"
	w := newServer(t, demo.Options{APIKeys: []string{demo.DefaultAPIKey, other}})
	first, err := w.Submit(t.Context(), w.open(connect.Session{Connection: "k"}), "named-key", map[string]string{"api_key": demo.DefaultAPIKey})
	must(t, err)
	if _, err := w.Submit(t.Context(), w.open(connect.Session{Connection: "k"}), "named-key", map[string]string{"api_key": other}); !errors.Is(err, connect.ErrOtherAccount) {
		t.Fatalf("another account's key: %v", err)
	}
	if cred, version := w.stored(w.row(first.Connection.ID)); version != 1 || cred.Fields["api_key"].Reveal() != demo.DefaultAPIKey {
		t.Error("the key was replaced")
	}
}

// narrowed lets the token endpoint grant other scopes than were asked for;
// absent: it doesn't say which.
func (w *world) narrowed(scope func(grant string) (scope any, absent bool)) {
	w.front = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/token" {
			return false
		}
		must(w.t, r.ParseForm())
		rec := httptest.NewRecorder()
		w.demo.ServeHTTP(rec, r)
		var body map[string]any
		must(w.t, json.Unmarshal(rec.Body.Bytes(), &body))
		if rec.Code == http.StatusOK {
			granted, absent := scope(r.PostForm.Get("grant_type"))
			body["scope"] = granted
			if absent {
				delete(body, "scope")
			}
		}
		data, err := json.Marshal(body)
		must(w.t, err)
		maps.Copy(rw.Header(), rec.Header())
		rw.WriteHeader(rec.Code)
		_, _ = rw.Write(data)
		return true
	}
}

func (w *world) scoped(scopes ...string) {
	in, err := w.Setup.Integration("named")
	must(w.t, err)
	in.App.Scopes = scopes
	in.Scheme, err = scheme.For(in.Provider, in.App, w.client)
	must(w.t, err)
}

func TestS47ScopesThatWereNotGranted(t *testing.T) {
	for name, c := range map[string]struct {
		asked   string
		granted any
		absent  bool
		want    string
	}{
		"all":                           {asked: "read write", granted: "write read"},
		"more":                          {asked: "read", granted: "read write admin"},
		"not told: as requested":        {asked: "read write", absent: true},
		"nothing told: as requested":    {asked: "read write", granted: ""},
		"narrower":                      {asked: "read write admin", granted: "read", want: "write admin"},
		"by commas, in another case":    {asked: "read write", granted: "Read,Write"},
		"as a list":                     {asked: "read write", granted: []string{"write"}, want: "read"},
		"within a wider one":            {asked: "read_files read_users", granted: "write_files", want: "read_users"},
		"a refresh token was given":     {asked: "read offline_access", granted: "read"},
		"openid stands for no API":      {asked: "read openid", granted: "read"},
		"asked twice, missing once":     {asked: "read write write", granted: "read", want: "write"},
		"not by a part of the name":     {asked: "read", granted: "readers unread", want: "read"},
		"nothing is asked for":          {granted: "read"},
		"a pattern alone grants it not": {asked: "read_", granted: "write_", want: "read_"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newServer(t, demo.Options{})
			w.scoped(strings.Fields(c.asked)...)
			w.narrowed(func(string) (any, bool) { return c.granted, c.absent })
			a, err := w.signIn(connect.Session{Connection: "c"}, "ada")
			must(t, err)
			row := w.row(a.Connection.ID)
			if got := strings.Join(row.MissingScopes, " "); got != c.want || row.Status != connect.StatusActive {
				t.Errorf("missing %q (%s), want %q", got, row.Status, c.want)
			}
			if got := w.logged("scopes_missing"); (got == 1) != (c.want != "") {
				t.Errorf("logged %d times", got)
			}
			if cred, _ := w.stored(row); c.absent && !slices.Equal(cred.Scopes, strings.Fields(c.asked)) {
				t.Errorf("recorded as granted: %v", cred.Scopes)
			}
		})
	}
}

func TestS47RenewalsThatNarrowAreNoticed(t *testing.T) {
	w := newServer(t, demo.Options{})
	w.scoped("read", "write")
	granted, absent := "read write", false
	w.narrowed(func(string) (any, bool) { return granted, absent })
	a, err := w.signIn(connect.Session{Connection: "c"}, "ada")
	must(t, err)
	id := a.Connection.ID
	for _, step := range []struct {
		granted, want string
		absent        bool
		events        int
	}{
		{"read write", "", false, 0},
		{"read", "write", false, 1},
		{"", "write", true, 1}, // as before (RFC 6749 section 6), and told once
		{"write read", "", false, 1},
	} {
		granted, absent = step.granted, step.absent
		_, err := w.Refresher.Renew(t.Context(), w.current(id))
		must(t, err)
		if got := strings.Join(w.row(id).MissingScopes, " "); got != step.want || w.logged("scopes_missing") != step.events {
			t.Errorf("granted %q: missing %q, want %q; told %d times, want %d", step.granted, got, step.want, w.logged("scopes_missing"), step.events)
		}
	}
}
