package connect_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
)

const (
	home   = "https://app.test/connected"
	origin = "https://app.test"
)

// eventField is what the log says of a link that was passed on.
var eventField = zap.String("event", "link_user_mismatch")

// trusting is the world's setup with integrations that accept these proofs.
func (w *world) trusting(t connect.Trust) {
	w.t.Helper()
	var all []*connect.Integration
	for _, in := range w.Setup.Integrations() {
		fresh := *in
		fresh.Trust = t
		all = append(all, &fresh)
	}
	s, err := connect.NewSetup(nil, w.Setup.PublicURL, w.client, all)
	must(w.t, err)
	w.Setup = s
	w.Connector.Setup = s
	w.Refresher.Configure(s)
}

// brought starts an authorization in a session and returns what waits for a
// proof.
func (w *world) brought(s connect.Session) (token string, a connect.Arrival) {
	w.t.Helper()
	token = w.open(s)
	step, err := w.Submit(w.t.Context(), token, "demo", nil)
	must(w.t, err)
	a, err = w.Arrive(w.t.Context(), public+"/oauth/callback", w.consent(step.Redirect, "allow"), with(step))
	must(w.t, err)
	if a.Waiting == nil || w.exchanges() != 0 {
		w.t.Fatalf("not waiting: %+v, %d token calls", a, w.exchanges())
	}
	return token, a
}

func user(id string) connect.Session { return connect.Session{EndUser: &connect.EndUser{ID: id}} }

// The published attack: somebody starts a session for himself and lets a victim
// finish it. Whoever then turns out to be at the browser is not the session's
// user, and what was brought is gone, whichever the proof.
func TestS1AnotherUserMeansNothingIsRedeemed(t *testing.T) {
	everything := connect.Trust{ReturnURLs: []string{home}, AppOrigins: []string{origin}}
	for name, test := range map[string]struct {
		trust    connect.Trust
		session  connect.Session
		evidence func(token string) connect.Evidence
		want     error
	}{
		"app: the victim": {everything, user("mallory"), func(string) connect.Evidence {
			return connect.Evidence{By: connect.ByApp, User: "victim"}
		}, connect.ErrUserMismatch},
		"app: nobody signed in": {everything, user("mallory"), func(string) connect.Evidence {
			return connect.Evidence{By: connect.ByApp}
		}, connect.ErrUserMismatch},
		"app: a session for nobody": {everything, connect.Session{}, func(string) connect.Evidence {
			return connect.Evidence{By: connect.ByApp}
		}, connect.ErrUserMismatch},
		"app: a name that only looks alike": {everything, user("mallory"), func(string) connect.Evidence {
			return connect.Evidence{By: connect.ByApp, User: "Mallory"}
		}, connect.ErrUserMismatch},
		"opener: of another origin": {everything, user("mallory"), func(token string) connect.Evidence {
			return connect.Evidence{By: connect.ByOpener, Origin: "https://evil.test", Token: token}
		}, connect.ErrUserMismatch},
		"opener: an origin that only begins so": {everything, user("mallory"), func(token string) connect.Evidence {
			return connect.Evidence{By: connect.ByOpener, Origin: origin + ".evil.test", Token: token}
		}, connect.ErrUserMismatch},
		"opener: null": {everything, user("mallory"), func(token string) connect.Evidence {
			return connect.Evidence{By: connect.ByOpener, Origin: "null", Token: token}
		}, connect.ErrUserMismatch},
		"opener: the app's page, in the victim's session": {everything, user("mallory"), func(string) connect.Evidence {
			return connect.Evidence{By: connect.ByOpener, Origin: origin, Token: "nango_connect_session_of_the_victim"}
		}, connect.ErrUserMismatch},
		"person, where only the app is believed": {connect.Trust{Proofs: []connect.Proof{connect.ByApp}, ReturnURLs: []string{home}}, user("mallory"), func(string) connect.Evidence {
			return connect.Evidence{By: connect.ByPerson}
		}, connect.ErrProofRefused},
		"opener, where only the person is believed": {connect.Trust{}, user("mallory"), func(token string) connect.Evidence {
			return connect.Evidence{By: connect.ByOpener, Origin: origin, Token: token}
		}, connect.ErrProofRefused},
		"person, where the session wants the app": {everything, connect.Session{EndUser: &connect.EndUser{ID: "mallory"}, ReturnURL: home}, func(string) connect.Evidence {
			return connect.Evidence{By: connect.ByPerson}
		}, connect.ErrProofRefused},
		"no proof": {everything, user("mallory"), func(string) connect.Evidence { return connect.Evidence{} }, connect.ErrProofRefused},
	} {
		t.Run(name, func(t *testing.T) {
			w := newServer(t, demo.Options{})
			w.trusting(test.trust)
			token, a := w.brought(test.session)
			got, err := w.Confirm(t.Context(), a.Waiting.Key, test.evidence(token))
			if !errors.Is(err, test.want) || got.Flow.Outcome == nil || got.Flow.Outcome.Connection != "" {
				t.Fatalf("got %v, %+v", err, got.Flow.Outcome)
			}
			if test.want == connect.ErrUserMismatch {
				if n := w.logs.FilterField(eventField).Len(); n != 1 || got.Flow.Outcome.Code != "link_user_mismatch" {
					t.Errorf("%d events, outcome %+v", n, got.Flow.Outcome)
				}
			}
			// It is gone, for whatever comes after it.
			for _, e := range []connect.Evidence{{By: connect.ByPerson}, {By: connect.ByApp, User: "mallory"}, {By: connect.ByOpener, Origin: origin, Token: token}} {
				if _, err := w.Confirm(t.Context(), a.Waiting.Key, e); !errors.Is(err, connect.ErrFlowExpired) {
					t.Errorf("%s after it: %v", e.By, err)
				}
			}
			if w.exchanges() != 0 {
				t.Errorf("%d codes were redeemed", w.exchanges())
			}
			w.empty()
		})
	}
}

func TestS1ARightProofIsRedeemedOnce(t *testing.T) {
	everything := connect.Trust{ReturnURLs: []string{home}, AppOrigins: []string{origin}}
	tagged := connect.Session{Tags: map[string]string{"end_user_id": "ada"}}
	for name, test := range map[string]struct {
		session  connect.Session
		evidence func(token string) connect.Evidence
	}{
		"app":       {connect.Session{EndUser: &connect.EndUser{ID: "ada"}, ReturnURL: home}, func(string) connect.Evidence { return connect.Evidence{By: connect.ByApp, User: "ada"} }},
		"app, tags": {tagged, func(string) connect.Evidence { return connect.Evidence{By: connect.ByApp, User: "ada"} }},
		"opener": {user("ada"), func(token string) connect.Evidence {
			return connect.Evidence{By: connect.ByOpener, Origin: origin, Token: token}
		}},
		"person": {user("ada"), func(string) connect.Evidence { return connect.Evidence{By: connect.ByPerson} }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newServer(t, demo.Options{})
			w.trusting(everything)
			token, a := w.brought(test.session)
			if (a.Waiting.ReturnURL == home) != (name == "app") {
				t.Errorf("return address %q", a.Waiting.ReturnURL)
			}
			got, err := w.Confirm(t.Context(), a.Waiting.Key, test.evidence(token))
			must(t, err)
			if _, err := w.Confirm(t.Context(), a.Waiting.Key, test.evidence(token)); !errors.Is(err, connect.ErrFlowExpired) || w.exchanges() != 1 {
				t.Errorf("S15: again: %v, %d token calls", err, w.exchanges())
			}
			if f, err := w.Flow(t.Context(), a.Flow.ID); err != nil || f.Outcome.Connection != got.Connection.ID.Connection {
				t.Errorf("flow %+v, %v", f.Outcome, err)
			}
		})
	}
}

func TestS1ThePersonSaysNo(t *testing.T) {
	w := newServer(t, demo.Options{})
	_, a := w.brought(user("mallory"))
	got, err := w.Refuse(t.Context(), a.Waiting.Key)
	must(t, err)
	if got.Flow.Outcome.Code != "link_user_mismatch" || w.logs.FilterField(eventField).Len() != 1 || w.exchanges() != 0 {
		t.Errorf("outcome %+v, %d token calls", got.Flow.Outcome, w.exchanges())
	}
	if _, err := w.Confirm(t.Context(), a.Waiting.Key, connect.Evidence{By: connect.ByPerson}); !errors.Is(err, connect.ErrFlowExpired) {
		t.Errorf("after it: %v", err)
	}
	w.empty()
}

func TestS1ACodeIsHeldForAWhileOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		_, a := w.brought(user("ada"))
		if left := time.Until(a.Waiting.Until); left > connect.HoldTTL || left < connect.HoldTTL-time.Second {
			t.Errorf("held for %v", left)
		}
		time.Sleep(connect.HoldTTL)
		if _, err := w.Confirm(t.Context(), a.Waiting.Key, connect.Evidence{By: connect.ByPerson}); !errors.Is(err, connect.ErrFlowExpired) || w.exchanges() != 0 {
			t.Errorf("got %v, %d token calls", err, w.exchanges())
		}
		w.empty()
	})
}

// What the store has doesn't do: neither the code nor the verifier can be had
// without what is in the browser (S53).
func TestS1S53TheStoreCannotOpenWhatIsHeld(t *testing.T) {
	w := newServer(t, demo.Options{})
	token := w.open(user("ada"))
	step, err := w.Submit(t.Context(), token, "demo", nil)
	must(t, err)
	callback := w.consent(step.Redirect, "allow")
	a, err := w.Arrive(t.Context(), public+"/oauth/callback", callback, with(step))
	must(t, err)
	files, err := filepath.Glob(w.path + "*")
	must(t, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		for what, secret := range map[string]string{"code": callback.Get("code"), "state": callback.Get("state"), "binding": step.Binding, "key": a.Waiting.Key, "session token": token} {
			if bytes.Contains(data, []byte(secret)) || bytes.Contains(data, []byte(hex.EncodeToString([]byte(secret)))) {
				t.Errorf("%s has the %s", filepath.Base(file), what)
			}
		}
	}
	// What is held belongs to its flow: put into another, it doesn't open.
	_, b := w.brought(user("mallory"))
	db, err := sql.Open("sqlite", w.path)
	must(t, err)
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `UPDATE flows SET held = (SELECT held FROM flows WHERE id = ?) WHERE id = ?`, a.Flow.ID, b.Flow.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Confirm(t.Context(), b.Waiting.Key, connect.Evidence{By: connect.ByPerson}); err == nil || w.exchanges() != 0 {
		t.Errorf("got %v, %d token calls", err, w.exchanges())
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE flows SET integration = 'domain' WHERE id = ?`, a.Flow.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Confirm(t.Context(), a.Waiting.Key, connect.Evidence{By: connect.ByPerson}); err == nil || w.exchanges() != 0 {
		t.Errorf("S12: got %v, %d token calls", err, w.exchanges())
	}
	w.empty()
}

// A form is answered by whoever is there, too: with a proof that isn't the
// person's own, what was entered waits.
func TestS1S25AFormWaitsForItsProof(t *testing.T) {
	w := newServer(t, demo.Options{})
	answers := map[string]string{"api_key": demo.DefaultAPIKey}
	w.trusting(connect.Trust{Proofs: []connect.Proof{connect.ByApp}, ReturnURLs: []string{home}})
	for user, want := range map[string]error{"victim": connect.ErrUserMismatch, "mallory": nil} {
		step, err := w.Submit(t.Context(), w.open(connect.Session{EndUser: &connect.EndUser{ID: "mallory"}, Connection: "c"}), "key", answers)
		must(t, err)
		if step.Waiting == nil || step.Waiting.ReturnURL != home || step.Redirect != "" || step.Connection.UID != "" {
			t.Fatalf("step %+v", step)
		}
		w.empty()
		a, err := w.Confirm(t.Context(), step.Waiting.Key, connect.Evidence{By: connect.ByApp, User: user})
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v", user, err)
		}
		if want != nil {
			w.empty()
			continue
		}
		if c, _ := w.stored(a.Connection); c.Fields["api_key"].Reveal() != demo.DefaultAPIKey {
			t.Error("the key is not what was entered")
		}
		must(t, w.Disconnect(t.Context(), a.Connection.ID))
	}
	// A wrong key is told at once: it need not wait.
	var refused *connect.VerifyError
	if _, err := w.Submit(t.Context(), w.open(user("ada")), "key", map[string]string{"api_key": "wrong"}); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	// Where the person is believed, the form that names the user is enough.
	w.trusting(connect.Trust{})
	if step, err := w.Submit(t.Context(), w.open(user("ada")), "key", answers); err != nil || step.Connection.UID == "" {
		t.Errorf("%+v, %v", step, err)
	}
}

func TestS18ReturnURLIsOneOfTheListed(t *testing.T) {
	w := newServer(t, demo.Options{})
	w.trusting(connect.Trust{ReturnURLs: []string{home, "http://localhost:3000/back?a=b"}})
	for _, bad := range []string{
		"https://app.test/", "https://app.test/connected/", "https://app.test/connected?x", "https://app.test/connected#x", "https://app.test/CONNECTED", "https://APP.test/connected",
		"https://app.test:443/connected", "http://app.test/connected", "https://app.test.evil.com/connected", "https://evil.com/https://app.test/connected", "//app.test/connected", `/\app.test/connected`,
		"https://user@app.test/connected", "https://app.test@evil.com/connected", "javascript:alert(1)", "data:text/html,x", "https://app.test/connected\r\nSet-Cookie: a=b", " " + home, home + " ",
		"https://app。test/connected", "https://app.test/./connected", "https://app.test/connected%2f", "*", "https://*.test/connected",
	} {
		if _, _, err := w.Open(t.Context(), connect.Session{ReturnURL: bad}); !errors.Is(err, connect.ErrReturnURL) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"", home, "http://localhost:3000/back?a=b"} {
		if _, _, err := w.Open(t.Context(), connect.Session{ReturnURL: good}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	// One that is struck off the list meanwhile is not gone to.
	token := w.open(connect.Session{ReturnURL: home, EndUser: &connect.EndUser{ID: "ada"}})
	step, err := w.Submit(t.Context(), token, "demo", nil)
	must(t, err)
	w.trusting(connect.Trust{ReturnURLs: []string{"https://app.test/other"}})
	a, err := w.Arrive(t.Context(), public+"/oauth/callback", w.consent(step.Redirect, "allow"), with(step))
	if err != nil || a.Waiting.ReturnURL != "" {
		t.Errorf("%+v, %v", a.Waiting, err)
	}
}

func TestS18TrustThatWouldNotHoldIsRefused(t *testing.T) {
	w := newServer(t, demo.Options{})
	for _, bad := range []connect.Trust{
		{Proofs: []connect.Proof{"none"}},
		{Proofs: []connect.Proof{""}},
		{Proofs: []connect.Proof{connect.ByApp}},
		{Proofs: []connect.Proof{connect.ByOpener}, ReturnURLs: []string{home}},
		{ReturnURLs: []string{"http://app.test/x"}},
		{ReturnURLs: []string{"app.test"}}, {ReturnURLs: []string{"//app.test/"}}, {ReturnURLs: []string{"javascript:alert(1)"}},
		{ReturnURLs: []string{"https://*.app.test/"}}, {ReturnURLs: []string{"https://a@app.test/"}}, {ReturnURLs: []string{"https://app.test/#x"}}, {ReturnURLs: []string{"https://app.test/\r\n"}},
		{ReturnURLs: []string{`https://app.test\x`}}, {ReturnURLs: []string{"https:///x"}}, {ReturnURLs: []string{"https://äpp.test/"}},
		{AppOrigins: []string{"https://app.test/"}}, {AppOrigins: []string{"https://APP.test"}}, {AppOrigins: []string{"https://app.test:443"}}, {AppOrigins: []string{"null"}}, {AppOrigins: []string{"*"}},
		{AppOrigins: []string{"http://app.test"}}, {AppOrigins: []string{"https://app.test; script-src *"}},
	} {
		in := *w.Setup.Integrations()[0]
		in.Trust = bad
		if _, err := connect.NewSetup(nil, w.Setup.PublicURL, w.client, []*connect.Integration{&in}); err == nil || !strings.Contains(err.Error(), in.Key) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A callback that brings no code has nothing to wait for.
func TestS16NoCodeDoesNotWait(t *testing.T) {
	w := newServer(t, demo.Options{})
	step := w.depart()
	callback := url.Values{"state": w.consent(step.Redirect, "allow")["state"], "error": {"access_denied"}}
	if a, err := w.Arrive(t.Context(), public+"/oauth/callback", callback, with(step)); err == nil || a.Waiting != nil || a.Flow.Outcome.Code != "access_denied" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestS1ConfirmOutlivesTheVisitor(t *testing.T) {
	w := newServer(t, demo.Options{})
	_, a := w.brought(user("ada"))
	ctx, cancel := context.WithCancel(t.Context())
	w.vault.write = func() error { cancel(); return nil } // the code is spent by now
	got, err := w.Confirm(ctx, a.Waiting.Key, connect.Evidence{By: connect.ByPerson})
	must(t, err)
	if f, err := w.Flow(t.Context(), a.Flow.ID); err != nil || f.Outcome == nil || f.Outcome.Connection != got.Connection.ID.Connection {
		t.Errorf("flow %+v, %v", f.Outcome, err)
	}
}

// Cross-app attacks: an answer that was made for one integration is brought to
// another's address, or to the one that all share.
func TestS7S12AnswerForAnotherIntegration(t *testing.T) {
	w := newServer(t, demo.Options{})
	own := func() {
		w.trusting(connect.Trust{})
		for _, in := range w.Setup.Integrations() {
			in.OwnCallback = true
		}
	}
	own()
	w.demo = demo.New(demo.Options{BaseURL: w.base, RedirectURIs: []string{public + "/oauth/callback/demo"}})
	for _, at := range []string{public + "/oauth/callback/key", public + "/oauth/callback", public + "/oauth/callback/", public + "/oauth/callback/demo/", public + "/oauth/callback/DEMO", ""} {
		step := w.depart()
		callback := w.consent(step.Redirect, "allow")
		a, err := w.Arrive(t.Context(), at, callback, with(step))
		if !errors.Is(err, connect.ErrOtherCallback) || a.Flow.Outcome.Code != "other_callback" || a.Waiting != nil {
			t.Errorf("%s: %v, %+v", at, err, a)
		}
		// And there is no second try at the right one.
		if _, err := w.Arrive(t.Context(), public+"/oauth/callback/demo", callback, with(step)); !errors.Is(err, connect.ErrFlowExpired) {
			t.Errorf("%s, then: %v", at, err)
		}
	}
	if w.exchanges() != 0 {
		t.Errorf("%d codes were redeemed", w.exchanges())
	}
	w.empty()
	step := w.depart()
	a, err := w.Arrive(t.Context(), public+"/oauth/callback/demo", w.consent(step.Redirect, "allow"), with(step))
	must(t, err)
	if _, err := w.Confirm(t.Context(), a.Waiting.Key, connect.Evidence{By: connect.ByPerson}); err != nil {
		t.Errorf("at its own: %v", err)
	}
}
