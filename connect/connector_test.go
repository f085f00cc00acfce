package connect_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		token, s, err := w.Open(t.Context(), connect.Session{EndUser: &connect.EndUser{ID: "u1"}})
		must(t, err)
		if len(token) != len(connect.SessionPrefix)+64 || !strings.HasPrefix(token, connect.SessionPrefix) || s.Token != connect.DigestOf(token) || s.Expires.Sub(s.Created) != connect.SessionTTL {
			t.Errorf("got %q, %+v", token, s)
		}
		time.Sleep(connect.SessionTTL - time.Second)
		v, err := w.Visit(t.Context(), token)
		if err != nil || v.EndUser.ID != "u1" || len(v.Integrations) != len(entries) {
			t.Fatalf("got %+v, %v", v, err)
		}
		time.Sleep(time.Second)
		if _, err := w.Visit(t.Context(), token); !errors.Is(err, connect.ErrSessionExpired) {
			t.Errorf("after its time: %v", err)
		}
		if _, err := w.Submit(t.Context(), token, "key", map[string]string{"api_key": demo.DefaultAPIKey}); !errors.Is(err, connect.ErrSessionExpired) {
			t.Errorf("submitting after its time: %v", err)
		}
		token = w.open(connect.Session{})
		must(t, w.Close(t.Context(), token))
		if _, err := w.Visit(t.Context(), token); !errors.Is(err, connect.ErrSessionExpired) {
			t.Errorf("closed: %v", err)
		}
		w.empty()
	})
}

func TestSessionTokenIsUnknownToTheStore(t *testing.T) {
	w := newServer(t, demo.Options{})
	token := w.open(connect.Session{})
	for _, guess := range []string{"", "x", token + "0", strings.ToUpper(token), string(func() []byte { d := connect.DigestOf(token); return d[:] }())} {
		if _, err := w.Visit(t.Context(), guess); !errors.Is(err, connect.ErrSessionExpired) {
			t.Errorf("%q: %v", guess, err)
		}
	}
}

func TestSessionLimitsIntegrations(t *testing.T) {
	w := newServer(t, demo.Options{})
	token := w.open(connect.Session{Allowed: []string{"key", "desk"}})
	v, err := w.Visit(t.Context(), token)
	must(t, err)
	var keys []string
	for _, in := range v.Integrations {
		keys = append(keys, in.Key)
	}
	if !reflect.DeepEqual(keys, []string{"desk", "key"}) {
		t.Errorf("offers %v", keys)
	}
	for _, key := range []string{"demo", "nope", ""} {
		if _, err := w.Submit(t.Context(), token, key, nil); !errors.Is(err, connect.ErrNotAllowed) {
			t.Errorf("%q: %v", key, err)
		}
	}
	var unknown *connect.UnknownIntegrationError
	if _, _, err := w.Open(t.Context(), connect.Session{Allowed: []string{"key", "nope"}}); !errors.As(err, &unknown) || unknown.Key != "nope" {
		t.Errorf("opening for an unknown one: %v", err)
	}
	w.empty()
}

// empty checks that nothing is stored.
func (w *world) empty() {
	w.t.Helper()
	rows, err := w.Store.Connections(w.t.Context(), connect.Query{})
	must(w.t, err)
	if len(rows) > 0 {
		w.t.Errorf("there are connections: %+v", rows)
	}
	if w.secrets() {
		w.t.Error("there is something in the vault")
	}
}

// secrets tells whether the vault holds anything.
func (w *world) secrets() bool {
	w.t.Helper()
	has, err := w.store.Store.(interface {
		HasBlobs(context.Context) (bool, error)
	}).HasBlobs(w.t.Context())
	must(w.t, err)
	return has
}

func TestDefaultsOfTheAppWinOverAnswers(t *testing.T) {
	w := newServer(t, demo.Options{})
	defaults := map[string]connect.SessionDefaults{"demo": {
		Config:              map[string]string{"region": "eu"},
		Scopes:              []string{"read"},
		AuthorizationParams: map[string]string{"prompt": "consent", "state": "evil", "redirect_uri": "https://evil.example/", "scope": "all", "client_id": "x", "code_challenge": "y", "code_challenge_method": "plain", "response_type": "token", "response_mode": "fragment"},
	}}
	token := w.open(connect.Session{Defaults: defaults})
	v, err := w.Visit(t.Context(), token)
	must(t, err)
	in, err := v.Integration("demo")
	must(t, err)
	if fields := v.Fields(in); len(fields) != 0 {
		t.Errorf("asks for what the app has set: %v", fields[0].Name)
	}
	answers := map[string]string{"region": "us", "unknown": "x"}
	step, err := w.Submit(t.Context(), token, "demo", answers)
	must(t, err)
	if answers["region"] != "us" {
		t.Error("the caller's map was changed")
	}
	at, err := url.Parse(step.Redirect)
	must(t, err)
	q := at.Query()
	want := map[string]string{
		"prompt": "consent", "redirect_uri": public + "/oauth/callback", "scope": "read",
		"client_id": demo.DefaultClientID, "code_challenge_method": "S256", "response_type": "code", "response_mode": "",
	}
	for name, value := range want {
		if q.Get(name) != value || len(q[name]) > 1 {
			t.Errorf("%s is %q, want %q", name, q[name], value)
		}
	}
	if len(q.Get("state")) != 64 || len(q.Get("code_challenge")) != 43 {
		t.Errorf("state %q, challenge %q", q.Get("state"), q.Get("code_challenge"))
	}
	a, err := w.arrive(t.Context(), w.consent(step.Redirect, "allow"), step)
	must(t, err)
	if !reflect.DeepEqual(a.Connection.Config, map[string]string{"region": "eu"}) {
		t.Errorf("config %v", a.Connection.Config)
	}
	if cred, _ := w.stored(a.Connection); !reflect.DeepEqual(cred.Scopes, []string{"read"}) {
		t.Errorf("scopes %v", cred.Scopes)
	}
}

func TestConnectionIsMadeAsTheSessionSays(t *testing.T) {
	w := newServer(t, demo.Options{})
	user := &connect.EndUser{ID: "u1", Email: "u1@example.com"}
	org := &connect.Organization{ID: "o1"}
	c := w.authorize(connect.Session{EndUser: user, Organization: org, Tags: map[string]string{"team": "a"}}, nil)
	want := &connect.EndUser{ID: "u1", Email: "u1@example.com", Organization: org}
	if !reflect.DeepEqual(c.EndUser, want) || c.Tags["team"] != "a" || c.Status != connect.StatusActive || c.Version != 1 || c.Provider != "demo" || len(c.UID) != 32 || c.ID.Connection == "" {
		t.Errorf("got %+v", c)
	}
	if user.Organization != nil {
		t.Error("the session's own end user was changed")
	}
}

func TestReconnectKeepsWhatItIsAbout(t *testing.T) {
	w := newServer(t, demo.Options{})
	c := w.authorize(connect.Session{Connection: "ada", EndUser: &connect.EndUser{ID: "u1"}, Tags: map[string]string{"end_user_id": "u1"}}, nil)
	_, err := w.Store.Update(t.Context(), c.ID, func(row *connect.Connection) error {
		row.Metadata = json.RawMessage(`{"plan":"pro"}`)
		return nil
	})
	must(t, err)
	first, _ := w.stored(c)
	w.current(c.ID)
	again := w.authorize(connect.Session{Allowed: []string{"demo"}, Connection: "ada", Reconnect: true}, nil)
	second, version := w.stored(again)
	if again.ID != c.ID || again.UID != c.UID || again.Serial != c.Serial || !again.Created.Equal(c.Created) || string(again.Metadata) != `{"plan":"pro"}` || again.EndUser.ID != "u1" || again.Tags["end_user_id"] != "u1" {
		t.Errorf("was %+v, is %+v", c, again)
	}
	if again.Version != 2 || version != 2 || first.AccessToken == second.AccessToken {
		t.Errorf("version %d, vault's %d", again.Version, version)
	}
	if b := w.current(c.ID); b.Version != 2 {
		t.Errorf("version %d is used", b.Version)
	}
	// A session that says more of the user brings it up to date, as with Nango.
	again = w.authorize(connect.Session{Allowed: []string{"demo"}, Connection: "ada", Reconnect: true, EndUser: &connect.EndUser{ID: "u1", Email: "new@example.com"}, Tags: map[string]string{"end_user_email": "new@example.com"}}, nil)
	if again.EndUser.Email != "new@example.com" || again.Tags["end_user_email"] == "" || string(again.Metadata) != `{"plan":"pro"}` {
		t.Errorf("got %+v", again)
	}
}

func TestReconnectNeedsItsConnection(t *testing.T) {
	w := newServer(t, demo.Options{})
	for _, s := range []connect.Session{
		{Allowed: []string{"demo"}, Connection: "ada", Reconnect: true},
		{Allowed: []string{"demo", "key"}, Connection: "ada", Reconnect: true},
		{Connection: "ada", Reconnect: true},
	} {
		if _, _, err := w.Open(t.Context(), s); !errors.Is(err, connect.ErrConnectionGone) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	id := w.account()
	c := w.row(id)
	token := w.open(connect.Session{Allowed: []string{"demo"}, Connection: "ada", Reconnect: true})
	step, err := w.Submit(t.Context(), token, "demo", nil)
	must(t, err)
	must(t, w.Disconnect(t.Context(), id)) // while the visitor is at the provider
	a, err := w.arrive(t.Context(), w.consent(step.Redirect, "allow"), step)
	if !errors.Is(err, connect.ErrConnectionGone) || a.Flow.Outcome == nil || a.Flow.Outcome.Code != "connection_gone" {
		t.Errorf("got %+v, %v", a.Flow.Outcome, err)
	}
	w.gone(c)
	w.empty()
	if err := w.Disconnect(t.Context(), id); !errors.Is(err, connect.ErrNotFound) {
		t.Errorf("removing it again: %v", err)
	}
}

func TestFormSentTwiceMakesOneConnection(t *testing.T) {
	w := newServer(t, demo.Options{})
	token := w.open(connect.Session{Connection: "mine"})
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			_, err := w.Submit(t.Context(), token, "key", map[string]string{"api_key": demo.DefaultAPIKey})
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	rows, err := w.Store.Connections(t.Context(), connect.Query{})
	must(t, err)
	if len(rows) != 1 {
		t.Errorf("%d connections", len(rows))
	}
	if cred, version := w.stored(rows[0]); cred.Fields["api_key"] != demo.DefaultAPIKey || version != 8 {
		t.Errorf("version %d", version)
	}
}

func TestRefusedKeyIsNotStored(t *testing.T) {
	w := newServer(t, demo.Options{})
	_, err := w.Submit(t.Context(), w.open(connect.Session{}), "key", map[string]string{"api_key": "demo_wrong"})
	var verify *connect.VerifyError
	if !errors.As(err, &verify) || verify.Status != 401 || strings.Contains(err.Error(), "demo_wrong") {
		t.Errorf("got %v", err)
	}
	// The provider can't be asked: not stored either.
	answers := map[string]string{"subdomain": "acme", "username": "u", "password": "canary-password"}
	w.client.Transport = broken{}
	_, err = w.Submit(t.Context(), w.open(connect.Session{}), "desk", answers)
	var te *scheme.TokenError
	if !errors.As(err, &verify) || verify.Status != 0 || !errors.As(err, &te) || te.Code != "unreachable" || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
	w.empty()
}
