package page_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func TestFormShowsFields(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	a := s.get("/connect/with/desk?session_token=" + token)
	a.expect(t, 200, "<title>Connect Name of desk</title>", "An app you use wants to connect to your Name of desk account.",
		`<label for="field-subdomain">Your subdomain</label>`, ">https://</span>", ">.desk.example</span>",
		`placeholder="e.g. acme"`, `pattern="\s*(?:https\u{3a}\u{2f}\u{2f})?`, `maxlength="16384"`,
		`aria-describedby="field-subdomain-error field-subdomain-around field-subdomain-help"`, "https://….desk.example",
		`href="https://desk.example/help" target="_blank" rel="noopener noreferrer"`,
		"<option>us</option>", `<option value="">`, ">Optional<", ">Required<",
		`<textarea class="" id="field-certificate"`, "Only needed if Region is eu.",
		`type="email"`, `type="password"`, `autocomplete="off"`, "Choose something else")
	a.refuse(t, "form-action 'self' https:", "You will be sent")
}

func TestFormLinksToTheVendor(t *testing.T) {
	s := newSite(t, app)
	a := s.get("/connect/with/demo-key?session_token=" + s.open(connect.Session{Allowed: []string{"demo-key"}}))
	a.expect(t, 200, `href="https://vendor.example/keys" target="_blank" rel="noopener noreferrer"`,
		`href="https://docs.vendor.example/keys"`, "We check this with Name of demo-key")
	a.refuse(t, "Choose something else")
}

func TestFormTellsWhereEachValueIsFound(t *testing.T) {
	s := newSite(t, app)
	a := s.get("/connect/with/demo-key?session_token=" + s.open(connect.Session{Allowed: []string{"demo-key"}}))
	a.expect(t, 200, `<details class="guide"><summary>How to do this, step by step</summary><ol><li>Sign in to Name of demo-key`,
		`Made in the settings of your`, "Where is this found?")
	a = s.get("/connect/with/demo?session_token=" + s.open(connect.Session{Allowed: []string{"demo"}}))
	a.refuse(t, `<details class="guide"`)
}

func TestFormWithoutFields(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	a := s.get("/connect/with/demo?session_token=" + token)
	a.expect(t, 200, "Continue to Name of demo", "You will be sent to demo.example to sign in and to agree.")
	a.refuse(t, `class="field`)
	// Chromium holds redirects after a form against form-action.
	if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' https: http:;") {
		t.Errorf("policy %q", csp)
	}
	s.submit("open", token).expect(t, 303)
	if n := len(s.connections()); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestFormPresets(t *testing.T) {
	s := newSite(t, app)
	v := connect.Session{Defaults: map[string]connect.SessionDefaults{"desk": {Config: map[string]string{"subdomain": "not good"}}}}
	token := s.open(v)
	a := s.get("/connect/with/desk?session_token=" + token)
	a.refuse(t, "field.subdomain")
	a = s.submit("desk", token, "username", "ada@example.com", "password", "pw")
	a.expect(t, 422, "The app has sent a value that doesn’t fit", "(subdomain)")
}

func TestReconnectSaysSo(t *testing.T) {
	s := newSite(t, app)
	s.submit("open", s.open(connect.Session{Connection: "c1"})).expect(t, 303)
	token := s.open(connect.Session{Allowed: []string{"open"}, Connection: "c1", Reconnect: true})
	s.get("/connect/with/open?session_token="+token).expect(t, 200, "Reconnect Name of open")
	_, err := s.conn.Store.Delete(t.Context(), connect.ID{Integration: "open", Connection: "c1"}, nil)
	must(t, err)
	s.submit("open", token).expect(t, 410, "no longer exists")
}

func TestSubmitAccepted(t *testing.T) {
	for _, public := range []string{app, "https://pages.test"} {
		s := newSite(t, public)
		token := s.open(connect.Session{EndUser: &connect.EndUser{ID: "7"}})
		a := s.submit("demo-key", token, "api_key", "demo_tryme1234")
		a.expect(t, 303)
		if got := a.Header.Get("Location"); got != "/connect/done?integration=demo-key&session_token="+token {
			t.Errorf("redirect to %q", got)
		}
		s.get(a.Header.Get("Location")).expect(t, 200, "Name of demo-key is connected", "You can close this window")
		if all := s.connections(); len(all) != 1 || all[0].Integration != "demo-key" || all[0].EndUser.ID != "7" {
			t.Errorf("connections %v", all)
		}
	}
}

func TestS25FieldErrorsKeepWhatWasTypedButSecrets(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	a := s.submit("desk", token, "subdomain", `a b"><script>`, "region", "eu", "username", "", "password", "s3cret-pass ")
	a.expect(t, 422, "<title>Error: Connect Name of desk</title>", "3 answers need another look", `role="alert"`,
		`value="a b&#34;&gt;&lt;script&gt;"`, "<option selected>eu</option>",
		`aria-invalid="true" aria-describedby="field-subdomain-error field-subdomain-around field-subdomain-help" autofocus`,
		`>This does not have the form that is expected. e.g. acme</p>`, `id="field-username-error">This is needed here.`,
		`id="field-password-error">There is a space or a line break`)
	a.refuse(t, "s3cret-pass", "b\"><script>")
	if n := strings.Count(a.main(), "autofocus"); n != 1 {
		t.Errorf("%d elements have the focus", n)
	}
	if len(s.connections()) != 0 || s.calls.Load() != 0 {
		t.Error("something was stored or asked")
	}
}

func TestSubmitTakesOffWhatIsPastedAlong(t *testing.T) {
	s := newSite(t, app)
	var got, cert string
	s.answerWith(func(_ http.ResponseWriter, r *http.Request) {
		got, cert = r.Header.Get("Authorization"), r.Header.Get("X-Cert")
	})
	a := s.submit("desk", s.open(connect.Session{}), "subdomain", " https://acme.desk.example/ ", "username", "a@b.example ",
		"password", "pw", "region", "eu", "certificate", "YWJj\r\n")
	a.expect(t, 303)
	if c := s.connections()[0].Config["subdomain"]; c != "acme" {
		t.Errorf("subdomain is %q", c)
	}
	if got != "Basic YUBiLmV4YW1wbGU6cHc=" || cert != "YWJj" {
		t.Errorf("provider got %q, %q", got, cert)
	}
}

// A field that depends on another's answer is neither wanted nor kept without it.
func TestFieldsThatDependOnOthers(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	var cert string
	s.answerWith(func(_ http.ResponseWriter, r *http.Request) { cert = r.Header.Get("X-Cert") })
	s.get("/connect/with/desk?session_token="+token).expect(t, 200, `data-when="field-region" data-equals="eu"`)
	s.submit("desk", token, "subdomain", "acme", "username", "a@b.example", "password", "pw", "region", "us", "certificate", "YWJj").expect(t, 303)
	if c := s.connections()[0].Config; c["certificate"] != "" || cert != "" {
		t.Errorf("kept %q, sent %q", c, cert)
	}
}

func TestWhatIsNotNeededIsFolded(t *testing.T) {
	s := newSite(t, app)
	a := s.get("/connect/with/client?session_token=" + s.open(connect.Session{}))
	a.expect(t, 200, "<summary>More options</summary>")
	before, after, _ := strings.Cut(a.main(), "<summary>More options")
	if !strings.Contains(before, "field-client_id") || strings.Contains(before, "field-audience") || !strings.Contains(after, "field-audience") {
		t.Errorf("folded otherwise:\n%s", a.main())
	}
	// What is wrong there is not hidden.
	a = s.submit("client", s.open(connect.Session{}), "client_id", "x", "client_secret", "y", "audience", "no good")
	a.expect(t, 422)
	a.refuse(t, "<summary>More options</summary>")
}

func TestSubmitRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		key     string
		fake    http.HandlerFunc
		status  int
		texts   []string
		entries []string
	}{
		{"401", "desk", status(401), 422, []string{"Name of desk did not accept these details", "It answered 401.", "Nothing was stored."}, nil},
		{"403", "desk", status(403), 422, []string{"It answered 403.", "lack the permissions"}, nil},
		{"404", "desk", status(404), 422, []string{"It answered 404.", "Check the address"}, nil},
		{"redirect", "desk", status(302), 422, []string{"It answered 302."}, nil},
		{"503", "desk", status(503), 502, []string{"We could not reach Name of desk", "it answered 503", "Nothing was stored"}, nil},
		{"429", "desk", status(429), 502, []string{"too many requests"}, nil},
		{"down", "desk", abort, 502, []string{"We could not reach Name of desk", "Nothing was stored"}, nil},
		{"slow", "desk", hang, 502, []string{"took too long"}, nil},
		{"invalid_client", "client", oauthError(401, "invalid_client"), 422, []string{"did not accept these details", "It answered invalid_client."}, nil},
		{"client 401", "client", status(401), 422, []string{"It answered 401."}, nil},
		{"invalid_grant", "client", oauthError(400, "invalid_grant"), 422, []string{"It answered invalid_grant."}, nil},
		{"invalid_scope", "client", oauthError(400, "invalid_scope"), 502, []string{"only the people who run the app can mend it (invalid_scope)"}, nil},
		{"not_json", "client", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, 502, []string{"gave an answer that we don’t understand", "not_json"}, nil},
		{"no token", "client", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }, 502, []string{"no_access_token"}, nil},
		{"bad key", "demo-key", nil, 422, []string{"Name of demo-key did not accept this key", "It answered 401."}, []string{"api_key", "demo_wrongs3cret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, app)
			s.answerWith(c.fake)
			in := c.entries
			switch {
			case in == nil && c.key == "desk":
				in = []string{"subdomain", "acme", "username", "a@b.example", "password", "s3cret"}
			case in == nil:
				in = []string{"client_id", "acme", "client_secret", "s3cret"}
			}
			a := s.submit(c.key, s.open(connect.Session{}), in...)
			a.expect(t, c.status, append(c.texts, `role="alert" tabindex="-1" autofocus`)...)
			a.refuse(t, "s3cret")
			if c.key != "demo-key" {
				a.expect(t, c.status, `value="acme"`)
			}
			if n := len(s.connections()); n != 0 {
				t.Errorf("%d connections", n)
			}
			for _, e := range s.logs.All() {
				for _, f := range e.Context {
					if strings.Contains(f.String, "s3cret") {
						t.Errorf("log has the secret: %v", e)
					}
				}
			}
		})
	}
}

func status(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
}

// hang answers when nobody waits any more; only a body that was read lets the
// server see that.
func hang(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func oauthError(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write([]byte(`{"error":"` + code + `"}`))
	}
}

// Every form that isn't surely this browser's own is refused, and changes
// nothing.
func TestS20ForeignFormsAreRefused(t *testing.T) {
	s := newSite(t, app)
	token, other := s.open(connect.Session{}), s.open(connect.Session{})
	good := s.form("open", token)
	with := func(name, value string) url.Values {
		f := url.Values{}
		for k, v := range good {
			f[k] = v
		}
		f.Set(name, value)
		return f
	}
	for _, c := range []struct {
		name    string
		form    url.Values
		headers []string
		status  int
	}{
		{"no field", with("csrf", ""), nil, 403},
		{"wrong field", with("csrf", strings.Repeat("0", 64)), nil, 403},
		{"another session's", with("session_token", other), nil, 403},
		{"cross-site", good, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"same-site", good, []string{"Sec-Fetch-Site", "same-site", "Origin", "https://evil.pages.test"}, 403},
		{"old browser, other origin", good, []string{"Sec-Fetch-Site", "", "Origin", "https://evil.test"}, 403},
		{"old browser, no origin to tell", good, []string{"Sec-Fetch-Site", "", "Origin", "null"}, 403},
		{"other type", good, []string{"Content-Type", "text/plain"}, 415},
		{"multipart", good, []string{"Content-Type", "multipart/form-data; boundary=x"}, 415},
	} {
		a := s.post("/connect/with/open", c.form, c.headers...)
		if a.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.name, a.StatusCode, c.status)
		}
		a.refuse(t, token, other)
	}
	kept := s.cookies
	s.cookies = map[string]string{}
	s.post("/connect/with/open", good).expect(t, 403, "cookie")
	s.cookies = map[string]string{"keycaddy-visitor": ""}
	s.post("/connect/with/open", good).expect(t, 403)
	if n := len(s.connections()); n != 0 {
		t.Fatalf("%d connections", n)
	}
	s.cookies = kept
	s.post("/connect/with/open", good, "Sec-Fetch-Site", "", "Origin", app).expect(t, 303)
}

func TestVisitorCookieStaysAcrossTabs(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	first, second := s.form("open", token), s.form("demo-key", token)
	s.post("/connect/with/open", first).expect(t, 303)
	second.Set("field.api_key", "demo_tryme1234")
	s.post("/connect/with/demo-key", second).expect(t, 303)
	s.cookies["keycaddy-visitor"] = "planted"
	s.form("open", token)
	if s.cookies["keycaddy-visitor"] == "planted" {
		t.Error("a cookie of another form was kept")
	}
}

func TestS25BodyLimit(t *testing.T) {
	s := newSite(t, app)
	form := s.form("demo-key", s.open(connect.Session{}), "api_key", strings.Repeat("x", 64<<10))
	s.post("/connect/with/demo-key", form).expect(t, 413)
	r := httptest.NewRequest("POST", "/connect/with/demo-key", strings.NewReader("%zz"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	s.send(r).expect(t, 400)
}

// The token counts in the body only: an address alone submits nothing.
func TestSubmitIgnoresTheQuery(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	form := s.form("open", token)
	form.Del("session_token")
	s.post("/connect/with/open?session_token="+token, form).expect(t, 403)
}

func TestSubmitToAnEndedSession(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	form := s.form("open", token)
	must(t, s.conn.Close(t.Context(), token))
	s.post("/connect/with/open", form).expect(t, 410)
}

func TestFlowCookie(t *testing.T) {
	for _, public := range []string{app, "https://pages.test"} {
		s := newSite(t, public)
		token := s.open(connect.Session{})
		a := s.submit("demo", token)
		for _, c := range a.Cookies() {
			if !strings.Contains(c.Name, "keycaddy-flow-") {
				continue
			}
			if binding, tok, _ := strings.Cut(c.Value, "."); len(binding) != 64 || tok != token || c.MaxAge != int(10*time.Minute/time.Second) {
				t.Errorf("S2: cookie %v", c)
			}
			return
		}
		t.Errorf("S2: no flow cookie in %v", a.Cookies())
	}
}
