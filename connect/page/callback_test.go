package page_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

func TestCallbackSucceeds(t *testing.T) {
	for _, public := range []string{app, "https://pages.test"} {
		s := newSite(t, public)
		token := s.open(connect.Session{Connection: "c1"})
		to := s.consent(s.depart("demo", token), "allow")
		a := s.arrive(to)
		a.expect(t, 303)
		clean := a.Header.Get("Location")
		if !strings.HasPrefix(clean, "/connect/done?flow=") || !strings.HasSuffix(clean, "&session_token="+token) || strings.Contains(clean, "code") {
			t.Errorf("S21: redirect to %q", clean)
		}
		for name := range s.cookies {
			if strings.Contains(name, "flow") {
				t.Errorf("cookie %s is left", name)
			}
		}
		s.get(clean).expect(t, 200, "Name of demo is connected", "Connected. You can close this window")
		must(t, s.conn.Close(t.Context(), token)) // by the app, at once
		s.get(clean).expect(t, 200, "Name of demo is connected")
		if all := s.connections(); len(all) != 1 || all[0].ID.Connection != "c1" {
			t.Errorf("connections %v", all)
		}
	}
}

func TestS16DeniedByTheVisitor(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	a := s.get(s.consent(s.depart("demo", token), "deny"))
	a.expect(t, 303)
	a = s.get(a.Header.Get("Location"))
	a.expect(t, 400, "Name of demo is not connected", "Access was not given", "<code>access_denied</code>", "<q>The visitor said no.</q>",
		`href="/connect/with/demo?session_token=`+token+`">Try again`)
	if n := len(s.connections()); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestS4StateWorksOnce(t *testing.T) {
	s := newSite(t, app)
	to := s.consent(s.depart("demo", s.open(connect.Session{})), "allow")
	jar := map[string]string{}
	for k, v := range s.cookies {
		jar[k] = v
	}
	s.arrive(to).expect(t, 303)
	s.cookies = jar // with its cookie, as in a second tab
	a := s.get(to)
	a.expect(t, 400, "This sign-in is no longer valid", "start again")
	if n := s.demo.Stats().TokenCalls["authorization_code"]; n != 1 {
		t.Errorf("%d token requests", n)
	}
}

func TestS3CallbackOfAnotherBrowser(t *testing.T) {
	for name, jar := range map[string]func(map[string]string) map[string]string{
		"no cookies": func(map[string]string) map[string]string { return map[string]string{} },
		"another binding": func(own map[string]string) map[string]string {
			out := map[string]string{}
			for k, v := range own {
				if strings.Contains(k, "flow") {
					_, token, _ := strings.Cut(v, ".")
					v = strings.Repeat("0", 64) + "." + token
				}
				out[k] = v
			}
			return out
		},
		"broken cookie": func(own map[string]string) map[string]string {
			out := map[string]string{}
			for k := range own {
				out[k] = "x"
			}
			return out
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, app)
			to := s.consent(s.depart("demo", s.open(connect.Session{})), "allow")
			s.cookies = jar(s.cookies)
			a := s.get(to)
			a.expect(t, 400, "This sign-in was started in another browser")
			a.refuse(t, "nango_connect_session")
			if n := s.demo.Stats().TokenCalls["authorization_code"]; n != 0 {
				t.Errorf("S3: %d token requests", n)
			}
			if n := len(s.connections()); n != 0 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// What can't be told apart from a forgery is not repeated to the visitor.
func TestS16UnknownStateEchoesNothing(t *testing.T) {
	s := newSite(t, app)
	for _, q := range []string{"", "state=x", "state=x&state=y", "code=evil", "error=evil&error_description=evil&state=evil", "state=%00&error=%3Cscript%3Eevil"} {
		a := s.get("/oauth/callback?" + q)
		a.expect(t, 400, "This sign-in is no longer valid")
		a.refuse(t, "evil")
	}
}

func TestS17DuplicateParameters(t *testing.T) {
	s := newSite(t, app)
	to := s.consent(s.depart("demo", s.open(connect.Session{})), "allow")
	a := s.get(to + "&code=another")
	a.expect(t, 303)
	s.get(a.Header.Get("Location")).expect(t, 400, "contradicts itself", "duplicate_parameter")
}

func TestS5ExpiredFlow(t *testing.T) {
	s := newSite(t, app)
	s.conn.Store = hastyStore{s.conn.Store}
	s.get(s.consent(s.depart("demo", s.open(connect.Session{})), "allow")).expect(t, 400, "longer than ten minutes", "start again")
	if n := s.demo.Stats().TokenCalls["authorization_code"]; n != 0 {
		t.Errorf("%d token requests", n)
	}
}

func TestSessionEndedAtTheProvider(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	to := s.consent(s.depart("demo", token), "allow")
	must(t, s.conn.Close(t.Context(), token))
	a := s.get(to)
	a.expect(t, 303)
	a = s.get(a.Header.Get("Location"))
	a.expect(t, 400, "The link expired while you were at Name of demo")
	a.refuse(t, "Try again")
}

// callback starts an authorization at the hostile provider and comes back.
func (s *site) callback(token, query string) answer {
	s.t.Helper()
	state := s.depart("hostile", token).Query().Get("state")
	a := s.arrive("/oauth/callback?state=" + state + "&" + query)
	a.expect(s.t, 303)
	return s.get(a.Header.Get("Location"))
}

func TestS16ReasonsByCode(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	for query, want := range map[string]string{
		"error=access_denied":           "Access was not given",
		"error=temporarily_unavailable": "busy or down",
		"error=server_error":            "Something went wrong between us",
		"error=invalid_scope":           "tell the people who run the app",
		"error=unheard_of":              "did not let the sign-in finish",
		"error=http_503":                "a problem of its own",
		"nothing=here":                  "without an answer",
	} {
		s.callback(token, query).expect(t, 400, want)
	}
	if s.calls.Load() != 0 {
		t.Errorf("%d token requests", s.calls.Load())
	}
	for name, c := range map[string]struct {
		fake http.HandlerFunc
		want string
	}{
		"invalid_grant":   {oauthError(400, "invalid_grant"), "It may have taken too long"},
		"invalid_client":  {oauthError(401, "invalid_client"), "Trying again won’t help"},
		"http_502":        {status(502), "a problem of its own"},
		"http_429":        {status(429), "too many requests"},
		"not_json":        {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, "don’t understand"},
		"no_access_token": {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }, "did not hand over"},
		"redirect":        {status(307), "moved to another address"},
		"unreachable":     {abort, "We could not reach"},
		"timeout":         {hang, "too long to finish"},
		"too_large":       {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20+1)) }, "too long to be right"},
	} {
		s.answerWith(c.fake)
		s.callback(token, "code=x").expect(t, 400, c.want, "<code>"+name+"</code>")
	}
}

func TestS16HostileWordsAreQuotedAndEscaped(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	words := `</q><script>alert(1)</script><img src=x onerror=alert(1)>` + "\x1b[31m\r\n" + strings.Repeat("A", 5000)
	a := s.callback(token, "error=access_denied%3Cb%3E&error_description="+url.QueryEscape(words))
	a.expect(t, 400, "&lt;/q&gt;&lt;script&gt;alert(1)", "<details>")
	a.refuse(t, "<script>alert", "<img", "</q><script", "\x1b", strings.Repeat("A", 201), "<b>", "denied<")

	s.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		w.Write([]byte(`{"error":"<svg onload=alert(1)>","error_description":"\"><script>alert(2)</script>"}`))
	})
	a = s.callback(token, "code=x")
	a.expect(t, 400, "&gt;&lt;script&gt;alert(2)")
	a.refuse(t, "<svg onload", "<script>alert")
}

func TestDoneIsForTheSessionsVisitor(t *testing.T) {
	s := newSite(t, app)
	token, other := s.open(connect.Session{}), s.open(connect.Session{})
	a := s.arrive(s.consent(s.depart("demo", token), "allow"))
	done, err := url.Parse(a.Header.Get("Location"))
	must(t, err)
	flow := done.Query().Get("flow")
	s.get("/connect/done?flow="+flow+"&session_token="+other).expect(t, 410)
	s.get("/connect/done?flow="+flow).expect(t, 410)
	s.get("/connect/done?session_token="+token).expect(t, 404)
}

func TestDoneBeforeTheCallback(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{})
	s.depart("demo", token)
	for name := range s.cookies {
		if flow, ok := strings.CutPrefix(name, "keycaddy-flow-"); ok {
			s.get("/connect/done?flow="+flow+"&session_token="+token).expect(t, 400, "has not been finished yet", "Try again")
		}
	}
}
