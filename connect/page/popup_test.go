package page_test

import (
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

// What a running Nango has answered in the popup of its SDK, and what a popup is
// answered here: the SDK doesn't look at it, and is told by its socket how it
// went. docs/nango.md says so.
func TestNangosPopupIsAnsweredAsThere(t *testing.T) {
	docs, err := os.ReadFile("../../docs/nango.md")
	must(t, err)
	if !strings.Contains(string(docs), "\n- What a popup shows has its own statuses") || !strings.Contains(string(docs), "\n- The callback answers 303") {
		t.Error("docs/nango.md doesn't say how popups differ")
	}
	gone := connect.SessionPrefix + strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		key, decision string // to start, and what the visitor says
		session       connect.Session
		token         string
		break_        func(*site, string) string // changes the callback
		start, there  int                        // statuses: here and there
		back, thither int
		code          string // that the page is told
	}{
		"oauth2 ok":                      {key: "demo", decision: "allow", start: 303, there: 302, back: 303, thither: 200},
		"oauth2 reconnect":               {key: "demo", decision: "allow", session: connect.Session{Connection: "c"}, start: 303, there: 302, back: 303, thither: 200},
		"oauth2 session defaults":        {key: "demo", decision: "allow", session: connect.Session{Defaults: map[string]connect.SessionDefaults{"demo": {Scopes: []string{"read"}}}}, start: 303, there: 302, back: 303, thither: 200},
		"oauth2 denied":                  {key: "demo", decision: "deny", start: 303, there: 302, back: 303, thither: 400, code: "access_denied"},
		"oauth2 no code":                 {key: "demo", decision: "allow", break_: without("code"), start: 303, there: 302, back: 303, thither: 400, code: "missing_code"},
		"oauth2 no state":                {key: "demo", decision: "allow", break_: without("state"), start: 303, there: 302, back: 400, thither: 400},
		"oauth2 wrong state":             {key: "demo", decision: "allow", break_: func(_ *site, to string) string { return strings.Replace(to, "state=", "state=0", 1) }, start: 303, there: 302, back: 400, thither: 400},
		"oauth2 without cookie":          {key: "demo", decision: "allow", break_: func(s *site, to string) string { clear(s.cookies); return to }, start: 303, there: 302, back: 400, thither: 200, code: "other_browser"},
		"oauth2 unknown integration":     {key: "nope", start: 404, there: 400, code: "integration_not_allowed"},
		"oauth2 on api key integration":  {key: "demo-key", start: 404, there: 400, code: "integration_not_allowed"},
		"oauth2 integration not allowed": {key: "demo", session: connect.Session{Allowed: []string{"open"}}, start: 404, there: 400, code: "integration_not_allowed"},
		"oauth2 bad session token":       {key: "demo", token: gone, start: 410, there: 401},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, app)
			for _, in := range s.conn.Setup.Integrations() {
				in.Trust = connect.Trust{Proofs: []connect.Proof{connect.ByOpener}, AppOrigins: []string{"https://app.example"}}
			}
			s.renew()
			token := test.token
			if token == "" {
				token = s.open(test.session)
			}
			r := httptest.NewRequest("GET", "/oauth/connect/"+test.key+"?ws_client_id=w&connect_session_token="+token, nil)
			r.Header.Set("Referer", "https://app.example/")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
			a := s.send(r)
			a.expect(t, test.start)
			if test.start == 303 {
				at, err := url.Parse(a.Header.Get("Location"))
				must(t, err)
				q := at.Query()
				for _, name := range []string{"response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"} {
					if q.Get(name) == "" {
						t.Errorf("sent on without %s", name)
					}
				}
				to := s.consent(at, test.decision)
				if test.break_ != nil {
					to = test.break_(s, to)
				}
				s.get(to).expect(t, test.back)
			}
			ended, err := s.store.Ended(t.Context(), []connect.Digest{connect.DigestOf("w")})
			must(t, err)
			told := test.back == 303 || test.code != ""
			if told != (len(ended) == 1) || told && ended[0].Outcome.Code != test.code {
				t.Errorf("%d flows that the page is told of; want %q", len(ended), test.code)
			}
			if made := len(s.connections()); (made == 1) != (test.back == 303 && test.code == "") {
				t.Errorf("%d connections", made)
			}
		})
	}
}

func without(name string) func(*site, string) string {
	return func(_ *site, to string) string {
		path, query, _ := strings.Cut(to, "?")
		q, _ := url.ParseQuery(query)
		q.Del(name)
		return path + "?" + q.Encode()
	}
}

// Only the app's own page, by its script, is the proof; every other way to the
// same address leads to the question who is there (S1).
func TestS1HowAPopupMayHaveBeenLedHere(t *testing.T) {
	good := map[string]string{"Referer": "https://app.example/", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
	for name, change := range map[string]map[string]string{
		"the app's script":     {},
		"the app's page whole": {"Referer": "https://app.example/accounts?x=y"},
		"a click on a link":    {"Sec-Fetch-User": "?1"},
		"a frame":              {"Sec-Fetch-Dest": "iframe"},
		"a request of a page":  {"Sec-Fetch-Mode": "cors"},
		"no page":              {"Referer": ""},
		"another page":         {"Referer": "https://evil.example/"},
		"one that looks alike": {"Referer": "https://app.example.evil.example/"},
		"a user in the name":   {"Referer": "https://app.example@evil.example/"},
		"plain http":           {"Referer": "http://app.example/"},
		"another port":         {"Referer": "https://app.example:444/"},
		"nonsense":             {"Referer": "https://app.example\\@evil.example/"},
		"an old browser":       {"Sec-Fetch-Mode": "", "Sec-Fetch-Dest": ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, app)
			in, err := s.conn.Setup.Integration("demo")
			must(t, err)
			in.Trust = connect.Trust{Proofs: []connect.Proof{connect.ByOpener, connect.ByPerson}, AppOrigins: []string{"https://app.example"}}
			s.renew()
			r := httptest.NewRequest("GET", "/oauth/connect/demo?connect_session_token="+s.open(connect.Session{}), nil)
			for header, value := range good {
				r.Header.Set(header, value)
			}
			for header, value := range change {
				if r.Header.Set(header, value); value == "" {
					r.Header.Del(header)
				}
			}
			at, err := url.Parse(s.send(r).Header.Get("Location"))
			must(t, err)
			a := s.get(s.consent(at, "allow"))
			proved := strings.HasPrefix(a.Header.Get("Location"), "/connect/done?")
			if want := strings.HasPrefix(name, "the app's"); proved != want || (len(s.connections()) == 1) != want {
				t.Errorf("proved: %v, want %v; %d connections", proved, want, len(s.connections()))
			}
		})
	}
}
