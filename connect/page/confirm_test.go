package page_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

const home = "https://app.example/connected?tab=2"

// trusting sets up the pages with integrations that accept these proofs.
func (s *site) trusting(t connect.Trust) {
	s.t.Helper()
	var all []*connect.Integration
	for _, in := range s.conn.Setup.Integrations() {
		fresh := *in
		fresh.Trust = t
		all = append(all, &fresh)
	}
	setup, err := connect.NewSetup(nil, s.conn.Setup.PublicURL, s.conn.Setup.Client, all)
	must(s.t, err)
	setup.AppName = s.conn.Setup.AppName
	s.conn.Setup = setup
	s.renew()
}

var mallory = &connect.EndUser{ID: "m", DisplayName: "Mallory", Email: "mallory@evil.example"}

func (s *site) exchanges() int { return s.demo.Stats().TokenCalls["authorization_code"] }

func TestS1ThePersonIsAskedBeforeAnythingIsRedeemed(t *testing.T) {
	s := newSite(t, app)
	s.conn.Setup.AppName = "Acme & Co"
	token := s.open(connect.Session{EndUser: mallory})
	a := s.get(s.consent(s.depart("demo", token), "allow"))
	a.expect(t, 303)
	at := a.Header.Get("Location")
	if !strings.HasPrefix(at, "/connect/confirm?flow=") || strings.Contains(at, "code") || strings.Contains(at, "session") {
		t.Errorf("S21: redirect to %q", at)
	}
	for range 2 { // looking changes nothing
		s.get(at).expect(t, 200, "<h1>Is this meant for you?</h1>", "This user of Acme &amp; Co will be able to use your Name of demo account:",
			"<b>Mallory</b>", "mallory@evil.example", "If that isn’t you, stop here.", "Yes, this is me", "No, stop")
	}
	if s.exchanges() != 0 {
		t.Fatalf("%d token requests", s.exchanges())
	}
	a = s.decide(at, "no")
	a.expect(t, 303)
	done := a.Header.Get("Location")
	a = s.get(done)
	a.expect(t, 400, "This link is for somebody else, so nothing was connected", "link_user_mismatch")
	a.refuse(t, "Try again")
	if len(s.connections()) != 0 || s.exchanges() != 0 {
		t.Errorf("%d connections, %d token requests", len(s.connections()), s.exchanges())
	}
	for name := range s.cookies {
		if strings.Contains(name, "flow") {
			t.Errorf("cookie %s is left", name)
		}
	}
	// It can't be taken back, nor the code be brought again.
	s.get(at).expect(t, 400, "This sign-in is no longer valid")
}

func TestS1ASessionForNobodyIsToldSo(t *testing.T) {
	s := newSite(t, app)
	a := s.get(s.consent(s.depart("demo", s.open(connect.Session{})), "allow"))
	s.get(a.Header.Get("Location")).expect(t, 200, "The app has not said which of its users")
}

func TestS1OnlyTheBrowserThatBroughtItIsAsked(t *testing.T) {
	for name, change := range map[string]func(jar map[string]string, form url.Values) []string{
		"no cookies": func(jar map[string]string, _ url.Values) []string { clear(jar); return nil },
		"another key": func(jar map[string]string, _ url.Values) []string {
			for k, v := range jar {
				if strings.Contains(k, "flow") {
					_, token, _ := strings.Cut(v, ".")
					jar[k] = strings.Repeat("0", 64) + "." + token
				}
			}
			return nil
		},
		"no csrf key": func(_ map[string]string, form url.Values) []string { form.Del("csrf"); return nil },
		"another csrf key": func(_ map[string]string, form url.Values) []string {
			form.Set("csrf", strings.Repeat("0", 64))
			return nil
		},
		"from another site": func(map[string]string, url.Values) []string { return []string{"Sec-Fetch-Site", "cross-site"} },
		"from a sibling": func(map[string]string, url.Values) []string {
			return []string{"Sec-Fetch-Site", "same-site", "Origin", "http://evil.pages.test"}
		},
		"neither yes nor no": func(_ map[string]string, form url.Values) []string { form.Set("decision", "maybe"); return nil },
		"no flow":            func(_ map[string]string, form url.Values) []string { form.Del("flow"); return nil },
		"another's flow": func(_ map[string]string, form url.Values) []string {
			form.Set("flow", strings.Repeat("0", 32))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, app)
			a := s.get(s.consent(s.depart("demo", s.open(connect.Session{EndUser: mallory})), "allow"))
			at := a.Header.Get("Location")
			form := s.asked(at)
			form.Set("decision", "yes")
			own, bad := maps.Clone(s.cookies), url.Values(maps.Clone(form))
			headers := change(s.cookies, bad)
			if a := s.post("/connect/confirm", bad, headers...); a.StatusCode < 400 {
				t.Errorf("status %d", a.StatusCode)
			}
			if s.exchanges() != 0 || len(s.connections()) != 0 {
				t.Errorf("%d token requests, %d connections", s.exchanges(), len(s.connections()))
			}
			// And it hasn't cost the right one anything.
			s.cookies = own
			s.post("/connect/confirm", form).expect(t, 303)
			if s.exchanges() != 1 || len(s.connections()) != 1 {
				t.Errorf("afterwards: %d token requests, %d connections", s.exchanges(), len(s.connections()))
			}
		})
	}
}

func TestS15ASecondClickSeesTheFirstOnesResult(t *testing.T) {
	s := newSite(t, app)
	a := s.get(s.consent(s.depart("demo", s.open(connect.Session{EndUser: mallory})), "allow"))
	form := s.asked(a.Header.Get("Location"))
	form.Set("decision", "yes")
	own := maps.Clone(s.cookies)
	first := s.post("/connect/confirm", form)
	s.cookies = own // the second was on its way already
	second := s.post("/connect/confirm", form)
	second.expect(t, 303)
	if first.Header.Get("Location") != second.Header.Get("Location") || s.exchanges() != 1 || len(s.connections()) != 1 {
		t.Errorf("%d token requests, %d connections", s.exchanges(), len(s.connections()))
	}
	s.get(second.Header.Get("Location")).expect(t, 200, "is connected")
}

func TestS1TheAppGetsATicketAndNothingElse(t *testing.T) {
	s := newSite(t, app)
	s.trusting(connect.Trust{Proofs: []connect.Proof{connect.ByApp}, ReturnURLs: []string{home}})
	token := s.open(connect.Session{EndUser: mallory})
	a := s.get(s.consent(s.depart("demo", token), "allow"))
	a.expect(t, 303)
	ticket, ok := strings.CutPrefix(a.Header.Get("Location"), home+"&connect_ticket=")
	if !ok || len(ticket) != 64 {
		t.Fatalf("redirect to %q", a.Header.Get("Location"))
	}
	for name := range s.cookies {
		if strings.Contains(name, "flow") {
			t.Errorf("cookie %s is left", name)
		}
	}
	if _, err := s.conn.Confirm(t.Context(), ticket, connect.Evidence{By: connect.ByApp, User: "victim"}); err == nil {
		t.Error("the ticket works for the victim")
	}
	if s.exchanges() != 0 || len(s.connections()) != 0 {
		t.Errorf("%d token requests, %d connections", s.exchanges(), len(s.connections()))
	}
}

// Keys that are entered are asked about in the form itself, or go to the app.
func TestS1S25TheFormSaysWhoGetsTheKey(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{EndUser: mallory})
	s.get("/connect/with/demo-key?session_token="+token).expect(t, 200, "This user of the app will be able to use your Name of demo-key account:", "<b>Mallory</b>", "If that isn’t you, close this window.")
	s.trusting(connect.Trust{Proofs: []connect.Proof{connect.ByApp}, ReturnURLs: []string{home}})
	a := s.get("/connect/with/demo-key?session_token=" + token)
	a.refuse(t, "If that isn’t you")
	if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' https://app.example;") {
		t.Errorf("policy %q", csp)
	}
	a = s.submit("demo-key", token, "api_key", "demo_tryme1234")
	if a.StatusCode != http.StatusSeeOther || !strings.HasPrefix(a.Header.Get("Location"), home+"&connect_ticket=") || len(s.connections()) != 0 {
		t.Errorf("%d to %q, %d connections", a.StatusCode, a.Header.Get("Location"), len(s.connections()))
	}
	// The opener is asked by this site's own page.
	s.trusting(connect.Trust{Proofs: []connect.Proof{connect.ByOpener}, AppOrigins: []string{"https://app.example"}})
	a = s.submit("demo-key", token, "api_key", "demo_tryme1234")
	at := a.Header.Get("Location")
	a = s.get(at)
	a.expect(t, 200, `data-origins="https://app.example"`, "only be finished from the app’s own page")
	a.refuse(t, "Yes, this is me")
	a = s.decide(at, "yes") // as the person, who isn't believed here
	s.get(a.Header.Get("Location")).expect(t, 400, "proof_refused")
	if len(s.connections()) != 0 {
		t.Errorf("%d connections", len(s.connections()))
	}
	a = s.submit("demo-key", token, "api_key", "demo_tryme1234")
	a = s.decide(a.Header.Get("Location"), "yes", "opener", "https://app.example", "opener_token", token)
	s.get(a.Header.Get("Location")).expect(t, 200, "is connected")
}
