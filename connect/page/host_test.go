package page_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

func TestS19AnotherHostIsRefused(t *testing.T) {
	for public, hosts := range map[string]struct{ good, bad []string }{
		app:                       {[]string{"pages.test", "PAGES.test", "pages.test:80"}, []string{"attacker.example", "pages.test.attacker.example", "pages.test:8080", "pages.test:443", "x@pages.test", "127.0.0.1", ""}},
		"https://pages.test:8443": {[]string{"pages.test:8443"}, []string{"pages.test", "pages.test:443"}},
	} {
		s := newSite(t, public)
		token := s.open(connect.Session{Allowed: []string{"demo-key"}})
		for _, path := range []string{"/connect?session_token=" + token, "/connect/with/demo-key?session_token=" + token, "/oauth/callback?state=x", "/connect/confirm", "/connect.js", "/connect/result"} {
			for _, host := range hosts.bad {
				r := httptest.NewRequest("GET", path, nil)
				r.Host = host
				r.Header.Set("X-Forwarded-Host", "pages.test")
				r.Header.Set("Forwarded", "host=pages.test")
				a := s.send(r)
				a.expect(t, 421, "Wrong address")
				a.refuse(t, token, "attacker")
				if len(a.Cookies()) != 0 {
					t.Errorf("%s at %q sets cookies", path, host)
				}
			}
		}
		for _, host := range hosts.good {
			r := httptest.NewRequest("GET", "/connect/with/demo-key?session_token="+token, nil)
			r.Host = host
			r.Header.Set("X-Forwarded-Host", "attacker.example")
			s.send(r).expect(t, 200)
		}
	}
}

func TestS20OnlyListedEmbeddersMayFrame(t *testing.T) {
	s := newSite(t, app)
	s.conn.Setup.Embedders = []string{"https://app.example", "https://other.example:8443"}
	s.renew()
	a := s.get("/connect?session_token=" + s.open(connect.Session{}))
	if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "; frame-ancestors https://app.example https://other.example:8443;") || a.Header.Get("X-Frame-Options") != "" {
		t.Errorf("policy %q, X-Frame-Options %q", csp, a.Header.Get("X-Frame-Options"))
	}
}

func TestS103OnlyListedPagesMayWaitOnASocket(t *testing.T) {
	s := newSite(t, app)
	s.conn.Setup.Embedders = []string{"https://app.example"}
	s.renew()
	for origin, status := range map[string]int{
		"https://app.example": 501, "https://evil.example": 403, "https://app.example.evil.example": 403, "http://app.example": 403, "null": 403, "": 403,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = "pages.test"
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-WebSocket-Version", "13")
		r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		if s.pages.ServeHTTP(w, r); w.Code != status { // 501: it would be opened, if a recorder could be
			t.Errorf("%q: got %d", origin, w.Code)
		}
	}
}
