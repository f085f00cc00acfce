package page_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

var (
	noncePart = regexp.MustCompile(`style-src 'nonce-([A-Z2-7]{26})'; script-src 'nonce-([A-Z2-7]{26})'`)
	seen      = map[string]bool{}
)

// checkHeaders holds for every answer of every test (S20, S21, S22, S24).
func (s *site) checkHeaders(a answer) {
	s.t.Helper()
	cached := "no-store"
	if strings.HasPrefix(a.Header.Get("Content-Type"), "image/") {
		cached = "public, max-age=604800"
	}
	for name, want := range map[string]string{
		"Cache-Control": cached, "X-Frame-Options": s.frames("DENY", ""), "X-Content-Type-Options": "nosniff",
		"Cross-Origin-Opener-Policy": s.openerPolicy(),
	} {
		if got := a.Header.Get(name); got != want {
			s.t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if want := map[bool]string{true: "no-referrer", false: "same-origin"}[strings.HasPrefix(s.public, "https:")]; a.Header.Get("Referrer-Policy") != want {
		s.t.Errorf("S21: Referrer-Policy is %q, want %q", a.Header.Get("Referrer-Policy"), want)
	}
	if strings.HasPrefix(a.Header.Get("Content-Type"), "image/") {
		return
	}
	csp := a.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "base-uri 'none'", "frame-ancestors " + s.frames("'none'", ""), "form-action 'self'"} {
		if !strings.Contains(csp, part) {
			s.t.Errorf("S20: policy %q lacks %q", csp, part)
		}
	}
	if strings.Contains(csp, "unsafe") {
		s.t.Errorf("S24: policy %q", csp)
	}
	switch {
	case strings.HasPrefix(a.Header.Get("Content-Type"), "image/"):
	case a.StatusCode >= 300 && a.StatusCode < 400:
		if a.StatusCode != http.StatusSeeOther || a.text != "" {
			s.t.Errorf("S22: redirect with status %d and body %q", a.StatusCode, a.text)
		}
	default:
		m := noncePart.FindStringSubmatch(csp)
		if m == nil || m[1] != m[2] || seen[m[1]] {
			s.t.Errorf("S24: policy %q has no fresh nonce", csp)
		} else {
			seen[m[1]] = true
		}
		if strings.Count(a.text, "<script") != 1 || strings.Count(a.text, "<style") != 1 {
			s.t.Errorf("S24: page has a script or style too many:\n%s", a.text)
		}
		if n := len(a.text); n > 60<<10 {
			s.t.Errorf("page of %d bytes", n)
		}
		a.refuse(s.t, "ZgotmplZ", "%!", "attacker.example", "keycaddy", "Keycaddy")
	}
	if strings.Contains(a.Header.Get("Location"), "attacker.example") {
		s.t.Errorf("S19: redirect to the Host header: %q", a.Header.Get("Location"))
	}
}

// frames is none where nobody may embed the pages.
func (s *site) frames(none, some string) string {
	if len(s.conn.Setup.Embedders) > 0 {
		return some
	}
	return none
}

// openerPolicy is that of pages which nobody may answer for who has opened them.
func (s *site) openerPolicy() string {
	if len(s.conn.Setup.Embedders) > 0 {
		return "unsafe-none"
	}
	for _, in := range s.conn.Setup.Integrations() {
		if in.Trust.Accepts(connect.ByOpener) {
			return "unsafe-none"
		}
	}
	return "same-origin-allow-popups"
}

func TestChoose(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{Allowed: []string{"demo", "desk"}, EndUser: &connect.EndUser{ID: "7", Email: "ada@example.com", DisplayName: "Ada"}})
	for _, path := range []string{"/connect", "/connect/"} {
		a := s.get(path + "?session_token=" + token)
		a.expect(t, 200, "Name of demo", "demo.example", "/connect/with/desk?session_token="+token, "<b>Ada</b>", "ada@example.com", `aria-current="step"`)
		a.refuse(t, "Name of client")
		if len(a.Cookies()) != 0 {
			t.Errorf("S2: opening a link set %v", a.Cookies())
		}
	}
}

func TestChooseFindsWithoutAScript(t *testing.T) {
	s := newSite(t, app)
	s.more(6)
	token := s.open(connect.Session{})
	shown := func(q string) (keys []string) {
		for _, m := range regexp.MustCompile(`<li data-key="([^"]*)"[^>]*>`).FindAllStringSubmatch(s.get("/connect?session_token="+token+q).text, -1) {
			if !strings.Contains(m[0], " hidden") {
				keys = append(keys, m[1])
			}
		}
		return keys
	}
	if n := len(shown("")); n != 6+len(entries) {
		t.Errorf("%d are offered", n)
	}
	for q, want := range map[string]string{
		"&q=name+more-3": "more-3", "&q=DEMO-KEY.example": "demo-key", "&category=crm": "more-0 more-1 more-2 more-3 more-4 more-5", "&category=crm&q=more-1": "more-1", "&q=nothing": "", "&q=%3Cscript%3E&category=%22": "",
	} {
		if got := strings.Join(shown(q), " "); got != want {
			t.Errorf("%s finds %q, want %q", q, got, want)
		}
	}
	s.get("/connect?session_token="+token+"&q=nothing").expect(t, 200, "Nothing has that name", `value="nothing"`)
	s.get("/connect?session_token="+token+"&category=crm").expect(t, 200, `<option value="crm" selected>CRM</option>`)
}

func TestLogos(t *testing.T) {
	s := newSite(t, app)
	a := s.get("/connect/logo/github.svg")
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "image/svg+xml" || !strings.HasPrefix(a.text, "<svg ") {
		t.Errorf("%d %v %.80s", a.StatusCode, a.Header, a.text)
	}
	s.get("/connect/logo/..%2Fx.svg").expect(t, 404)
}

func TestChooseAllIsSmallEnough(t *testing.T) {
	s := newSite(t, app)
	s.get("/connect?session_token="+s.open(connect.Session{})).expect(t, 200, "Name of open", "&lt;script&gt;")
}

func TestChooseOneLeadsToItsForm(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{Allowed: []string{"desk"}})
	a := s.get("/connect?session_token=" + token)
	a.expect(t, 303)
	if got := a.Header.Get("Location"); got != "/connect/with/desk?session_token="+token {
		t.Errorf("redirect to %q", got)
	}
}

// Unknown, malformed, missing and closed sessions all look alike.
func TestS28UnknownSessionIsGone(t *testing.T) {
	s := newSite(t, app)
	closed := s.open(connect.Session{})
	must(t, s.conn.Close(t.Context(), closed))
	var first string
	for _, path := range []string{"/connect", "/connect/with/desk", "/connect/with/none-such", "/connect/done", "/connect/done?flow=x&", "/connect/done?integration=desk&"} {
		for _, token := range []string{"", closed, "nango_connect_session_0", "%00<script>"} {
			sep := "?"
			if strings.Contains(path, "?") {
				sep = ""
			}
			a := s.get(path + sep + "session_token=" + strings.ReplaceAll(token, "<", "%3C"))
			a.expect(t, http.StatusGone, "This link has expired")
			if first == "" {
				first = a.main()
			}
			if a.main() != first {
				t.Errorf("%s with %q looks different", path, token)
			}
		}
	}
}

func TestNotAllowedIsNotFound(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{Allowed: []string{"demo"}})
	for _, key := range []string{"desk", "none-such", "%2e%2e", "a%2Fb", "%3Cscript%3E"} {
		s.get("/connect/with/"+key+"?session_token="+token).expect(t, 404, "can’t be connected here")
	}
	s.get("/connect/with/?session_token="+token).expect(t, 404, "Page not found")
	s.get("/connect/done?integration=desk&session_token="+token).expect(t, 404)
	form := s.form("demo", token)
	s.post("/connect/with/desk", form).expect(t, 404)
	s.get("/other").expect(t, 404)
}

func TestHandles(t *testing.T) {
	s := newSite(t, app)
	for path, want := range map[string]bool{
		"/connect": true, "/connect/": true, "/connect/with/a": true, "/connect/done": true, "/oauth/callback": true,
		"/connect/session": false, "/connect/sessions": false, "/connections": false, "/": false, "/oauth/token": false, "/connect/withal": false,
	} {
		if got := s.pages.Handles(httptest.NewRequest("GET", path, nil)); got != want {
			t.Errorf("Handles(%s) = %v", path, got)
		}
	}
}

func TestOtherMethods(t *testing.T) {
	s := newSite(t, app)
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/connect", "GET, HEAD"},
		{"PUT", "/connect/with/desk", "GET, HEAD, POST"},
		{"DELETE", "/connect/done", "GET, HEAD"},
		{"POST", "/oauth/callback", "GET"},
		{"HEAD", "/oauth/callback", "GET"}, // must not spend a code
	} {
		a := s.send(httptest.NewRequest(c.method, c.path, nil))
		a.expect(t, 405)
		if got := a.Header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s allows %q, want %q", c.method, c.path, got, c.allow)
		}
	}
}

func TestStoreDown(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	s.conn.Store = downStore{s.conn.Store}
	for _, path := range []string{"/connect?", "/connect/with/desk?", "/connect/done?flow=1&", "/oauth/callback?state=1&"} {
		a := s.get(path + "session_token=" + token)
		a.expect(t, 503)
		a.refuse(t, "secret detail")
	}
	s.conn.Store = brokenStore{s.conn.Store}
	s.get("/connect?session_token="+token).expect(t, 500, "This is our fault")
}

func TestMonogramsAndEscapingS24(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{
		Allowed: []string{"hostile"}, EndUser: &connect.EndUser{ID: "1", DisplayName: hostileName, Email: "<b>@x"},
		Organization: &connect.Organization{ID: "1", DisplayName: "</p><script>"},
	})
	a := s.get("/connect/with/hostile?session_token=" + token)
	a.expect(t, 200, "&lt;script&gt;alert(1)", "&lt;b&gt;@x", "&lt;/p&gt;&lt;script&gt;", ">SA</span>")
	a.refuse(t, "<script>alert", `"onmouseover`, "<b>@x")
}

type downStore struct{ connect.Store }

var errDown = fmt.Errorf("secret detail: %w", connect.ErrStoreUnavailable)
