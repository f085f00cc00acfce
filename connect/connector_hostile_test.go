package connect_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// broken is a network that counts what would leave, and lets nothing out.
type broken struct{ sent *atomic.Int32 }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) {
	if b.sent != nil {
		b.sent.Add(1)
	}
	return nil, errors.New("no network")
}

func (w *world) exchanges() int { return w.demo.Stats().TokenCalls["authorization_code"] }

// depart starts an authorization.
func (w *world) depart() connect.Step {
	w.t.Helper()
	step, err := w.Submit(w.t.Context(), w.open(connect.Session{}), "demo", nil)
	must(w.t, err)
	return step
}

func TestS4StateIsGoodOnce(t *testing.T) {
	w := newServer(t, demo.Options{})
	step := w.depart()
	callback := w.consent(step.Redirect, "allow")
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch _, err := w.arrive(t.Context(), callback, step); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, connect.ErrFlowExpired):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rows, err := w.Store.Connections(t.Context(), connect.Query{})
	must(t, err)
	if won.Load() != 1 || lost.Load() != 19 || w.exchanges() != 1 || len(rows) != 1 {
		t.Errorf("%d won, %d lost, %d token calls, %d connections", won.Load(), lost.Load(), w.exchanges(), len(rows))
	}
	f, err := w.Flow(t.Context(), step.Flow)
	if err != nil || f.Outcome == nil || f.Outcome.Connection != rows[0].ID.Connection || f.Outcome.Code != "" {
		t.Errorf("flow %+v, %v", f.Outcome, err)
	}
}

func TestS3CallbackWithoutItsState(t *testing.T) {
	w := newServer(t, demo.Options{})
	step := w.depart()
	good := w.consent(step.Redirect, "allow")
	state := good.Get("state")
	for name, states := range map[string][]string{
		"none": nil, "empty": {""}, "unknown": {strings.Repeat("0", 64)}, "twice": {state, state},
		"two":  {state, "x"},
		"cut":  {state[:63]},
		"case": {strings.ToUpper(state)},
	} {
		callback := url.Values{"code": good["code"], "state": states}
		if a, err := w.arrive(t.Context(), callback, step); !errors.Is(err, connect.ErrFlowExpired) || a.Flow.ID != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.exchanges() != 0 {
		t.Error("the token endpoint was asked")
	}
	w.empty()
	if _, err := w.arrive(t.Context(), good, step); err != nil {
		t.Errorf("the true callback: %v", err)
	}
}

func TestS3S6CallbackFromAnotherBrowser(t *testing.T) {
	for name, cookie := range map[string]string{"none": "", "another": strings.Repeat("a", 64)} {
		w := newServer(t, demo.Options{})
		step := w.depart()
		a, err := w.Arrive(t.Context(), public+"/oauth/callback", w.consent(step.Redirect, "allow"), func(string) string { return cookie })
		if !errors.Is(err, connect.ErrOtherBrowser) || a.Flow.ID != step.Flow || a.Flow.Outcome.Code != "other_browser" || w.exchanges() != 0 {
			t.Errorf("%s: %v, %d token calls", name, err, w.exchanges())
		}
		w.empty()
	}
}

func TestS5StateExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		step := w.depart()
		callback := w.consent(step.Redirect, "allow")
		time.Sleep(connect.FlowTTL)
		if _, err := w.arrive(t.Context(), callback, step); !errors.Is(err, connect.ErrFlowExpired) || w.exchanges() != 0 {
			t.Errorf("got %v, %d token calls", err, w.exchanges())
		}
		if _, err := w.Flow(t.Context(), step.Flow); !errors.Is(err, connect.ErrFlowExpired) {
			t.Errorf("got %v", err)
		}
		// The session may end while the visitor is away, too.
		token := w.open(connect.Session{})
		time.Sleep(connect.SessionTTL - 5*time.Minute)
		step, err := w.Submit(t.Context(), token, "demo", nil)
		must(t, err)
		callback = w.consent(step.Redirect, "allow")
		time.Sleep(6 * time.Minute)
		if a, err := w.arrive(t.Context(), callback, step); !errors.Is(err, connect.ErrSessionExpired) || a.Flow.Outcome.Code != "session_expired" || w.exchanges() != 0 {
			t.Errorf("got %v, %d token calls", err, w.exchanges())
		}
		w.empty()
	})
}

func TestS16S17CallbacksThatBringNoCode(t *testing.T) {
	hostile := "<script>alert(1)</script>\x1b[31m\r\nSet-Cookie: x=y" + strings.Repeat("x", 4096)
	tests := map[string]struct {
		callback url.Values
		code     string
	}{
		"denied":                {url.Values{"error": {"access_denied"}, "error_description": {"The user said no."}}, "access_denied"},
		"hostile":               {url.Values{"error": {"bad\r\n<b>code" + strings.Repeat("x", 100)}, "error_description": {hostile}}, "badbcode" + strings.Repeat("x", 56)},
		"error beside a code":   {url.Values{"error": {"access_denied"}, "code": {"c"}}, "access_denied"},
		"code twice":            {url.Values{"code": {"a", "b"}}, "duplicate_parameter"},
		"error twice":           {url.Values{"error": {"a", "b"}}, "duplicate_parameter"},
		"something else twice":  {url.Values{"code": {"a"}, "iss": {"a", "a"}}, "duplicate_parameter"},
		"nothing":               {url.Values{}, "missing_code"},
		"empty code":            {url.Values{"code": {""}}, "missing_code"},
		"error with no letters": {url.Values{"error": {"<>"}}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newServer(t, demo.Options{})
			step := w.depart()
			test.callback.Set("state", w.consent(step.Redirect, "allow").Get("state"))
			a, err := w.arrive(t.Context(), test.callback, step)
			var ce *scheme.CallbackError
			if !errors.As(err, &ce) || ce.Code != test.code {
				t.Fatalf("got %v", err)
			}
			if len(ce.Description) > 200 || strings.ContainsAny(ce.Description+ce.Code, "\r\n\x1b") {
				t.Errorf("description %q", ce.Description)
			}
			if o := a.Flow.Outcome; o.Connection != "" || o.Code == "" && test.code != "" || o.Detail != ce.Description {
				t.Errorf("outcome %+v", o)
			}
			if f, err := w.Flow(t.Context(), step.Flow); err != nil || *f.Outcome != *a.Flow.Outcome {
				t.Errorf("kept %+v, %v", f.Outcome, err)
			}
			if w.exchanges() != 0 {
				t.Error("the token endpoint was asked")
			}
			w.empty()
		})
	}
}

func TestS15RefusedCodeStoresNothing(t *testing.T) {
	w := newServer(t, demo.Options{})
	step := w.depart()
	callback := w.consent(step.Redirect, "allow")
	callback.Set("code", "canary-code-that-nobody-knows")
	a, err := w.arrive(t.Context(), callback, step)
	var te *scheme.TokenError
	if !errors.As(err, &te) || te.Code != "invalid_grant" || a.Flow.Outcome.Code != "invalid_grant" || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v, %+v", err, a.Flow.Outcome)
	}
	w.empty()
}

func TestFinishedFlowIsKeptWhenTheVisitorGoesAway(t *testing.T) {
	w := newServer(t, demo.Options{})
	step := w.depart()
	callback := w.consent(step.Redirect, "allow")
	ctx, cancel := context.WithCancel(t.Context())
	w.vault.write = func() error { cancel(); return nil } // the code is spent by now
	a, err := w.arrive(ctx, callback, step)
	must(t, err)
	if f, err := w.Flow(t.Context(), step.Flow); err != nil || f.Outcome == nil || f.Outcome.Connection != a.Connection.ID.Connection {
		t.Errorf("flow %+v, %v", f.Outcome, err)
	}
}

func TestVaultOrStoreThatFailsLeavesNoHalfConnection(t *testing.T) {
	w := newServer(t, demo.Options{})
	boom := errors.New("boom")
	w.vault.write = func() error { return boom }
	answers := map[string]string{"api_key": demo.DefaultAPIKey}
	if _, err := w.Submit(t.Context(), w.open(connect.Session{}), "key", answers); !errors.Is(err, boom) || strings.Contains(err.Error(), demo.DefaultAPIKey) {
		t.Errorf("got %v", err)
	}
	w.empty()
	w.vault.write = nil
	w.store.create = boom
	if _, err := w.Submit(t.Context(), w.open(connect.Session{}), "key", answers); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	w.empty()
}

// hostiles are values for a connection field that becomes part of a host (S27).
var hostiles = []string{
	"evil.com/", "evil.com", "a@b", "a:b@evil.com", "x#", "x?", "x/../..", "..", ".", ".x", "x.", "a..b", "-x", "x-", "%2e%2e",
	"evil.com%2f", "127.0.0.1", "0x7f.1", "2130706433", "017700000001", "127.1", "[::1]", "::1", "localhost:80", "x:80",
	"x\r\nHost: evil.com", "x\n", "x\x00", "x y", "x\ty", "x\\", "evil。com", "evil．com", "ⓔvil", "exämple", "x\u200b", "xn--\u0430", "\ufeffx",
	"https://evil.com", "//evil.com", strings.Repeat("a", 64), strings.Repeat("a.", 200) + "a", "{conn.subdomain}", "${x}",
}

func TestS27HostileConnectionFieldsAreNeitherSentNorStored(t *testing.T) {
	w := newServer(t, demo.Options{})
	var sent atomic.Int32
	w.client.Transport = broken{&sent}
	for _, v := range hostiles {
		switch v {
		case "evil.com", "127.0.0.1", "0x7f.1", "2130706433", "017700000001", "127.1", "x\n":
			continue // names under desk.example: harmless there
		}
		_, err := w.Submit(t.Context(), w.open(connect.Session{}), "desk", map[string]string{"subdomain": v, "username": "u", "password": "p"})
		refused(t, "desk", v, "subdomain", err)
	}
	for _, v := range hostiles {
		switch v {
		case "evil.com", "x\n":
			continue // good host names, once they are trimmed
		}
		_, err := w.Submit(t.Context(), w.open(connect.Session{}), "domain", map[string]string{"domain": v})
		refused(t, "domain", v, "domain", err)
	}
	// What the app presets is checked all the same.
	preset := map[string]connect.SessionDefaults{"desk": {Config: map[string]string{"subdomain": "evil.com/"}}}
	_, err := w.Submit(t.Context(), w.open(connect.Session{Defaults: preset}), "desk", map[string]string{"username": "u", "password": "p"})
	refused(t, "preset", "evil.com/", "subdomain", err)
	if sent.Load() != 0 {
		t.Errorf("%d requests were sent", sent.Load())
	}
	w.empty()
}

func refused(t *testing.T, in, value, field string, err error) {
	t.Helper()
	var fe scheme.FieldErrors
	switch {
	case !errors.As(err, &fe) || fe[field] == "":
		t.Errorf("%s: %q: %v", in, value, err)
	case len(value) > 6 && strings.Contains(fe[field], value):
		t.Errorf("%s: the message quotes %q", in, value)
	}
}

func TestPKCEVerifierIsOfEachFlowAlone(t *testing.T) {
	w := newServer(t, demo.Options{})
	seen := map[string]bool{}
	var verifier string
	w.set(func(_ http.ResponseWriter, r *http.Request, _ string) bool {
		r.ParseForm()
		verifier = r.PostForm.Get("code_verifier")
		return false
	}, nil)
	for range 5 {
		w.authorize(connect.Session{}, nil)
		if len(verifier) != 43 || strings.Trim(verifier, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || seen[verifier] {
			t.Errorf("verifier %q", verifier)
		}
		seen[verifier] = true
	}
}
