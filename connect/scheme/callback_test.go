package scheme

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"testing"
)

const issuer = "https://login.vendor.example/tenant"

func callbackCode(err error) string {
	var ce *CallbackError
	if errors.As(err, &ce) {
		return ce.Code
	}
	return ""
}

func TestS8S10AnswerOfAnotherIssuer(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	s := forTest(t, oauth(t, e.URL, "authorize: {url: 'BASE/authorize', pkce: true, issuer: '"+issuer+"'}\n")).(Redirector)
	for _, other := range []string{
		"", issuer + "/", "https://login.vendor.example", "https://login.vendor.example:443/tenant", "https://LOGIN.vendor.example/tenant",
		"https://login.vendor.example/%74enant", "http://login.vendor.example/tenant", " " + issuer, issuer + "\x00", "https://evil.example",
	} {
		for name, callback := range map[string]url.Values{
			"code":  {"code": {code}, "iss": {other}},
			"error": {"error": {"access_denied"}, "error_description": {"call 555 to go on"}, "iss": {other}},
		} {
			err := s.Check(Flow{}, callback)
			if _, e2 := s.Exchange(t.Context(), Flow{}, callback); callbackCode(err) != "iss_mismatch" || callbackCode(e2) != "iss_mismatch" {
				t.Errorf("%s from %q: %v, %v", name, other, err, e2)
			}
			if ce := new(CallbackError); errors.As(err, &ce) && ce.Description != "" {
				t.Errorf("S10: told %q", ce.Description)
			}
		}
	}
	if err := s.Check(Flow{}, url.Values{"code": {code}, "iss": {issuer}}); err != nil {
		t.Error(err)
	}
	if err := s.Check(Flow{}, url.Values{"code": {code}}); err != nil {
		t.Errorf("from a server that doesn't say: %v", err)
	}
	if len(e.got) != 0 {
		t.Error("the token endpoint was asked")
	}
}

func TestS9IssuerThatIsPromisedIsMissing(t *testing.T) {
	s := forTest(t, oauth(t, "https://x.example", "conn_fields: [{name: tenant, required: true}]\nauthorize: {url: 'BASE/authorize', pkce: true, issuer: 'https://{conn.tenant}.example', issuer_sent: true}\n")).(Redirector)
	f := Flow{Config: map[string]string{"tenant": "acme"}}
	for _, callback := range []url.Values{{"code": {code}}, {"error": {"access_denied"}}, {"code": {code}, "iss": {"https://other.example"}}} {
		if err := s.Check(f, callback); callbackCode(err) != "iss_mismatch" {
			t.Errorf("%v: %v", callback, err)
		}
	}
	if err := s.Check(f, url.Values{"code": {code}, "iss": {"https://acme.example"}}); err != nil {
		t.Error(err)
	}
	if err := s.Check(Flow{}, url.Values{"code": {code}, "iss": {"https://.example"}}); callbackCode(err) != "iss_mismatch" {
		t.Errorf("with an issuer that isn't known: %v", err)
	}
}

func idToken(claims map[string]any) string {
	payload, _ := json.Marshal(claims)
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".sig"
}

func TestS14IDTokenOfAnotherFlow(t *testing.T) {
	for name, test := range map[string]struct {
		id   string
		good bool
	}{
		"this flow's":    {idToken(map[string]any{"nonce": "n1"}), true},
		"none":           {"", true},
		"another's":      {idToken(map[string]any{"nonce": "n2"}), false},
		"without nonce":  {idToken(map[string]any{"sub": "x"}), false},
		"nonce a number": {idToken(map[string]any{"nonce": 1}), false},
		"not a token":    {"nonsense", false},
		"not base64":     {"a.!.c", false},
	} {
		e := newEndpoint(t, say(200, `{"access_token":"`+accessToken+`","id_token":"`+test.id+`"}`))
		s := forTest(t, oauth(t, e.URL, "scopes: {default: [openid, email]}\n")).(Redirector)
		f := Flow{State: "s", Verifier: verifier, Nonce: "n1", Config: map[string]string{}}
		at, err := s.AuthURL(f)
		must(t, err)
		u, err := url.Parse(at)
		must(t, err)
		if u.Query().Get("nonce") != "n1" {
			t.Fatalf("asked for %s", at)
		}
		g, err := s.Exchange(t.Context(), f, url.Values{"code": {code}})
		if test.good != (err == nil) || !test.good && (callbackCode(err) != "nonce_mismatch" || g.AccessToken != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nobody is asked for a nonce that signs nobody in, and no session sets it.
	s := forTest(t, oauth(t, "https://x.example", "scopes: {default: [read]}\n")).(Redirector)
	at, err := s.AuthURL(Flow{State: "s", Verifier: verifier, Nonce: "n1", Params: map[string]string{"nonce": "evil", "prompt": "x"}})
	must(t, err)
	if u, err := url.Parse(at); err != nil || u.Query().Has("nonce") || u.Query().Get("prompt") != "x" {
		t.Errorf("asked for %s", at)
	}
}
