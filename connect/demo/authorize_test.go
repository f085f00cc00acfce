package demo_test

import (
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

func TestConsentPage(t *testing.T) {
	v := newVisit(t, demo.Options{})
	q := authorization()
	q.Set("state", `"><script>alert(1)</script>`)
	res := v.authorize(q)
	page, h := body(t, res), res.Header
	if res.StatusCode != 200 || strings.Contains(page, "<script") {
		t.Errorf("got %d, or the state as markup", res.StatusCode)
	}
	csp := h.Get("Content-Security-Policy")
	nonce := regexp.MustCompile(`'nonce-([^']+)'`).FindStringSubmatch(csp)
	if nonce == nil || !strings.Contains(page, `<style nonce="`+nonce[1]+`">`) {
		t.Errorf("the style has no nonce of the policy %q", csp)
	}
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("no %q in the policy %q", want, csp)
		}
	}
	if h.Get("Cache-Control") != "no-store" || h.Get("X-Frame-Options") != "DENY" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers missing: %v", h)
	}
}

func TestDeny(t *testing.T) {
	got := newVisit(t, demo.Options{}).decide(authorization(), "deny", "ada")
	if got.Get("error") != "access_denied" || got.Get("state") != "a state & more" || got.Get("via") != "test" || got.Has("code") {
		t.Errorf("got %v", got)
	}
}

// A request whose client or redirect URI is wrong is answered on the spot, so
// that the provider is no open redirector.
func TestAuthorizeSendsNobodyToAWrongPlace(t *testing.T) {
	tests := map[string]struct {
		options demo.Options
		change  func(q url.Values)
	}{
		"no client":                  {change: func(q url.Values) { q.Del("client_id") }},
		"unknown client":             {change: func(q url.Values) { q.Set("client_id", "x") }},
		"two clients":                {change: func(q url.Values) { q.Add("client_id", "x") }},
		"no redirect URI":            {change: func(q url.Values) { q.Del("redirect_uri") }},
		"two redirect URIs":          {change: func(q url.Values) { q.Add("redirect_uri", callback) }},
		"relative":                   {change: func(q url.Values) { q.Set("redirect_uri", "/oauth/callback") }},
		"without scheme":             {change: func(q url.Values) { q.Set("redirect_uri", "//demo.test/x") }},
		"other host":                 {change: func(q url.Values) { q.Set("redirect_uri", "http://evil.test/") }},
		"other host after our own":   {change: func(q url.Values) { q.Set("redirect_uri", "http://demo.test.evil.test/") }},
		"our host as user":           {change: func(q url.Values) { q.Set("redirect_uri", "http://demo.test@evil.test/") }},
		"other port":                 {change: func(q url.Values) { q.Set("redirect_uri", "http://demo.test:81/") }},
		"other scheme":               {change: func(q url.Values) { q.Set("redirect_uri", "https://demo.test/") }},
		"javascript":                 {change: func(q url.Values) { q.Set("redirect_uri", "javascript:alert(1)") }},
		"fragment":                   {change: func(q url.Values) { q.Set("redirect_uri", callback+"#x") }},
		"backslash":                  {change: func(q url.Values) { q.Set("redirect_uri", `http://evil.test\@demo.test/`) }},
		"registered, but not so":     {demo.Options{RedirectURIs: []string{callback}}, func(q url.Values) { q.Set("redirect_uri", callback+"&x") }},
		"own origin, not registered": {demo.Options{RedirectURIs: []string{"https://app.test/cb"}}, func(q url.Values) {}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			q := authorization()
			test.change(q)
			res := newVisit(t, test.options).authorize(q)
			if to := res.Header.Get("Location"); res.StatusCode != 400 || to != "" {
				t.Errorf("got %d to %q, want 400", res.StatusCode, to)
			}
		})
	}
}

func TestAuthorizeErrors(t *testing.T) {
	tests := map[string]struct {
		change func(q url.Values)
		want   string
	}{
		"no response type":     {func(q url.Values) { q.Del("response_type") }, "invalid_request"},
		"implicit":             {func(q url.Values) { q.Set("response_type", "token") }, "unsupported_response_type"},
		"no PKCE":              {func(q url.Values) { q.Del("code_challenge"); q.Del("code_challenge_method") }, "invalid_request"},
		"plain PKCE":           {func(q url.Values) { q.Set("code_challenge_method", "plain") }, "invalid_request"},
		"plain PKCE unsaid":    {func(q url.Values) { q.Del("code_challenge_method") }, "invalid_request"},
		"a verifier as hash":   {func(q url.Values) { q.Set("code_challenge", verifier) }, "invalid_request"},
		"a parameter twice":    {func(q url.Values) { q.Add("code_challenge", challenge("x")) }, "invalid_request"},
		"request object":       {func(q url.Values) { q.Set("request", "ey") }, "invalid_request"},
		"scope with a quote":   {func(q url.Values) { q.Set("scope", `read "all"`) }, "invalid_scope"},
		"scope with a newline": {func(q url.Values) { q.Set("scope", "read\nwrite") }, "invalid_scope"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			q := authorization()
			test.change(q)
			v := newVisit(t, demo.Options{RedirectURIs: []string{callback}})
			got := v.answer(v.authorize(q))
			if got.Get("error") != test.want || got.Get("state") != "a state & more" || got.Has("code") {
				t.Errorf("got %v, want error=%s", got, test.want)
			}
		})
	}
}

func TestDecisionHasToComeFromThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, demo.Options{})
		form := func() url.Values {
			m := sealed.FindStringSubmatch(body(t, v.authorize(authorization())))
			return url.Values{"request": {m[1]}, "decision": {"allow"}, "account": {"ada"}}
		}
		if got := v.post("/authorize", form(), "Sec-Fetch-Site", "cross-site").StatusCode; got != 403 {
			t.Errorf("from another site: got %d", got)
		}
		if got := v.post("/authorize", form(), "Origin", "http://evil.test").StatusCode; got != 403 {
			t.Errorf("from another origin: got %d", got)
		}
		altered := form()
		altered.Set("request", "A"+altered.Get("request")[1:])
		if altered.Get("request") == form().Get("request") {
			altered.Set("request", "B"+altered.Get("request")[1:])
		}
		if got := v.post("/authorize", altered).StatusCode; got != 400 {
			t.Errorf("altered: got %d", got)
		}
		foreign := newVisit(t, demo.Options{})
		if got := foreign.post("/authorize", form()).StatusCode; got != 400 {
			t.Errorf("another provider's: got %d", got)
		}
		stranger := form()
		stranger.Set("account", "mallory")
		if got := v.post("/authorize", stranger).StatusCode; got != 400 {
			t.Errorf("unknown account: got %d", got)
		}
		old := form()
		time.Sleep(11 * time.Minute)
		if got := v.post("/authorize", old).StatusCode; got != 400 {
			t.Errorf("too old: got %d", got)
		}
		r := httptest.NewRequest("PUT", "/authorize", nil)
		if got := v.send(r).StatusCode; got != 405 {
			t.Errorf("PUT: got %d", got)
		}
	})
}
