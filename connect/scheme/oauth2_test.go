package scheme

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/egress"
)

const good = `{"access_token":"` + accessToken + `","expires_in":3600}`

func TestS38BasicClientAuthenticationIsFormEncoded(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	for _, test := range []struct{ id, secret string }{
		{"my-client", "my-secret"}, {"a b:c", "p%+:ö&=/"}, {"ключ", "\u00a0 "}, {"x", "a:b:c"},
	} {
		s, err := For(oauth(t, e.URL, "token: {url: 'BASE/token', client_auth: basic}\n"), App{ClientID: test.id, ClientSecret: Secret(test.secret)}, client())
		must(t, err)
		_, err = s.(Renewer).Renew(t.Context(), Grant{Credential: Credential{RefreshToken: "r"}})
		must(t, err)
		r, form := e.form(t)
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(test.id)+":"+url.QueryEscape(test.secret)))
		if r.Header.Get("Authorization") != want || form.Has("client_secret") || form.Has("client_id") {
			t.Errorf("%q: %s, %v", test.id, r.Header.Get("Authorization"), form)
		}
	}
	if _, _, n := e.last(t); n != 4 {
		t.Errorf("S38: %d requests for four renewals; the style is probed", n)
	}
}

func TestExchangeIsOneStandardRequest(t *testing.T) {
	e := newEndpoint(t, say(200, `{"access_token":"`+accessToken+`","refresh_token":"`+refreshToken+`","scope":"read","team":{"id":7}}`))
	s := forTest(t, oauth(t, e.URL, "conn_fields: [{name: team, source: token_response}, {name: account, source: callback}]\ntoken_response: {capture: {team: team.id}}\nauthorize: {url: 'BASE/authorize', pkce: true, capture_callback_params: {account: acct}}\n"))
	f := Flow{State: "s", Verifier: verifier, RedirectURL: "https://keycaddy.example/oauth/callback", Config: map[string]string{}}
	g, err := s.(Redirector).Exchange(t.Context(), f, url.Values{"code": {code}, "state": {"s"}, "acct": {"a1\r\n"}})
	must(t, err)
	r, form := e.form(t)
	want := url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {f.RedirectURL}, "code_verifier": {verifier},
		"client_id": {"my-client"}, "client_secret": {clientSecret},
	}
	if !reflect.DeepEqual(form, want) || r.Method != "POST" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Accept") != "application/json" || r.URL.RawQuery != "" {
		t.Errorf("%s %s %v: %v", r.Method, r.URL, r.Header, form)
	}
	if g.AccessToken != accessToken || g.RefreshToken != refreshToken || g.Previous != "" || !g.Expires.IsZero() || g.Issued.IsZero() || !reflect.DeepEqual(g.Scopes, []string{"read"}) {
		t.Errorf("got %+v", g.Scopes)
	}
	if !reflect.DeepEqual(g.Config, map[string]string{"team": "7", "account": "a1"}) || len(f.Config) != 0 {
		t.Errorf("config %v, the flow's %v", g.Config, f.Config)
	}
}

func TestS53SecretsThatAreEnteredBeforeTheRedirectAreNoPlainValues(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	s := forTest(t, oauth(t, e.URL, "conn_fields: [{name: team}]\ncred_fields: [{name: api_key, required: true, secret: true}, {name: password, secret: true, ephemeral: true}]\n"+
		"authorize: {url: 'BASE/authorize', pkce: true, params: {password: '{cred.password}'}}\ntoken: {url: 'BASE/token', headers: {x-api-key: '{cred.api_key}'}}\n"))
	r := s.(Redirector)
	var bad FieldErrors
	if _, err := r.Prepare(map[string]string{"team": "7"}); !errors.As(err, &bad) || bad["api_key"] == "" {
		t.Errorf("got %v", err)
	}
	g, err := r.Prepare(map[string]string{"team": "7", "api_key": userKey, "password": "pw"})
	must(t, err)
	if !reflect.DeepEqual(g.Config, map[string]string{"team": "7"}) {
		t.Errorf("plain values %v", g.Config)
	}
	f := Flow{State: "s", Verifier: verifier, RedirectURL: "https://keycaddy.example/oauth/callback", Config: g.Config, Fields: g.Fields}
	to, err := r.AuthURL(f)
	must(t, err)
	if u, err := url.Parse(to); err != nil || u.Query().Get("password") != "pw" {
		t.Errorf("sent to %s, %v", to, err)
	}
	g, err = r.Exchange(t.Context(), f, url.Values{"code": {code}, "state": {"s"}})
	must(t, err)
	if sent, _, _ := e.last(t); sent.Header.Get("X-Api-Key") != userKey {
		t.Errorf("sent %v", sent.Header)
	}
	if !reflect.DeepEqual(g.Fields, map[string]Secret{"api_key": userKey}) || !reflect.DeepEqual(g.Config, map[string]string{"team": "7"}) {
		t.Errorf("kept %d secrets, plain values %v", len(g.Fields), g.Config)
	}
}

func TestS49RefreshTokenIsKeptOrReplaced(t *testing.T) {
	for name, test := range map[string]struct{ body, token, previous string }{
		"omitted": {`{"access_token":"n"}`, refreshToken, ""},
		"empty":   {`{"access_token":"n","refresh_token":""}`, refreshToken, ""},
		"null":    {`{"access_token":"n","refresh_token":null}`, refreshToken, ""},
		"same":    {`{"access_token":"n","refresh_token":"` + refreshToken + `"}`, refreshToken, ""},
		"rotated": {`{"access_token":"n","refresh_token":"next"}`, "next", refreshToken},
	} {
		e := newEndpoint(t, say(200, test.body))
		g, err := renew(t, e, "")
		must(t, err)
		if g.AccessToken != "n" || g.RefreshToken.Reveal() != test.token || g.Previous.Reveal() != test.previous {
			t.Errorf("%s: got %q before %q", name, g.RefreshToken.Reveal(), g.Previous.Reveal())
		}
		if _, form := e.form(t); form.Get("grant_type") != "refresh_token" || form.Get("refresh_token") != refreshToken || form.Has("redirect_uri") || form.Has("code_verifier") {
			t.Errorf("%s: sent %v", name, form)
		}
	}
	e := newEndpoint(t, say(200, good))
	s := forTest(t, oauth(t, e.URL, ""))
	if _, err := s.(Renewer).Renew(t.Context(), Grant{}); !errors.Is(err, ErrNotRenewable) {
		t.Errorf("without one: %v", err)
	}
}

func TestS47ScopesThatWereNotToldStay(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	s := forTest(t, oauth(t, e.URL, ""))
	g, err := s.(Renewer).Renew(t.Context(), Grant{Credential: Credential{RefreshToken: "r", Scopes: []string{"a", "b"}}})
	if err != nil || !reflect.DeepEqual(g.Scopes, []string{"a", "b"}) {
		t.Errorf("got %v, %v", g.Scopes, err)
	}
	e.answer = say(200, `{"access_token":"x","scope":"a"}`)
	if g, err = s.(Renewer).Renew(t.Context(), g); err != nil || !reflect.DeepEqual(g.Scopes, []string{"a"}) {
		t.Errorf("narrower: got %v, %v", g.Scopes, err)
	}
}

func TestTokenRequestsAsTheEntrySays(t *testing.T) {
	tests := map[string]struct {
		more  string
		check func(r *http.Request, body string) bool
	}{
		"JSON": {"token: {url: 'BASE/token', body: json, params: {count: 3, flag: true, list: {a: b}}}\n", func(r *http.Request, body string) bool {
			var got map[string]any
			want := map[string]any{"grant_type": "refresh_token", "refresh_token": refreshToken, "client_id": "my-client", "client_secret": clientSecret, "count": 3.0, "flag": true, "list": map[string]any{"a": "b"}}
			return json.Unmarshal([]byte(body), &got) == nil && reflect.DeepEqual(got, want) && r.Header.Get("Content-Type") == "application/json"
		}},
		"query": {"token: {url: 'BASE/token?x=1', body: query}\n", func(r *http.Request, body string) bool {
			q := r.URL.Query()
			return body == "" && q.Get("x") == "1" && q.Get("refresh_token") == refreshToken && q.Get("client_secret") == clientSecret && r.Header.Get("Content-Type") == ""
		}},
		"more parameters and headers": {"token: {url: 'BASE/token', params: {audience: api, grant_type: custom}, headers: {notion-version: '1', user-agent: x, accept: text/html}}\n", func(r *http.Request, body string) bool {
			q, _ := url.ParseQuery(body)
			return q.Get("audience") == "api" && q.Get("grant_type") == "custom" && r.Header.Get("Notion-Version") == "1" && r.Header.Get("User-Agent") == "x" && r.Header.Get("Accept") == "text/html"
		}},
		"refresh overrides": {"token: {url: 'BASE/token', params: {a: b}, headers: {x-a: a}}\nrefresh: {url: 'BASE/refresh', params: {c: d}, headers: {x-c: c}, body: json, client_auth: basic}\n", func(r *http.Request, body string) bool {
			return r.URL.Path == "/refresh" && strings.Contains(body, `"c":"d"`) && !strings.Contains(body, `"a":"b"`) && r.Header.Get("X-C") == "c" && r.Header.Get("X-A") == "" && strings.HasPrefix(r.Header.Get("Authorization"), "Basic ") && !strings.Contains(body, clientSecret)
		}},
	}
	for name, test := range tests {
		e := newEndpoint(t, say(200, good))
		if _, err := renew(t, e, test.more); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r, body, n := e.last(t); n != 1 || r.Method != "POST" || !test.check(r, body) {
			t.Errorf("%s: %s %s %v %s", name, r.Method, r.URL, r.Header, body)
		}
	}
}

func TestClientCredentialsAskWithTheUsersOwnClient(t *testing.T) {
	e := newEndpoint(t, say(200, `{"access_token":"`+accessToken+`"}`))
	s := forTest(t, provider(t, e.URL, `
auth_scheme: oauth2_client_credentials
token: {url: 'BASE/token', client_auth: basic, params: {audience: api}}
scopes: {default: [a, b], separator: ','}
cred_fields: [{name: client_id, required: true}, {name: client_secret, required: true, secret: true}]
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`))
	answers := map[string]string{"client_id": "theirs", "client_secret": userKey}
	g, err := s.(Prompter).Accept(t.Context(), answers)
	must(t, err)
	r, form := e.form(t)
	id, secret, _ := r.BasicAuth()
	if id != "theirs" || secret != userKey || !reflect.DeepEqual(form, url.Values{"grant_type": {"client_credentials"}, "audience": {"api"}, "scope": {"a,b"}}) {
		t.Errorf("%s %v", id, form)
	}
	b, err := s.Bind(g)
	if err != nil || !b.Renewable || g.Expires.Sub(g.Issued) < 59*time.Minute {
		t.Errorf("%v, expires %v", err, g.Expires)
	}
	e.answer = say(401, `{"error":"invalid_client","error_description":"`+userKey+`"}`)
	var te *TokenError
	if _, err := s.(Renewer).Renew(t.Context(), g); !errors.As(err, &te) || te.Class != Revoked {
		t.Errorf("renewing with a client that is gone: %v", err)
	}
	_, err = s.(Prompter).Accept(t.Context(), answers)
	clear(t, "the error", err)
}

func TestAuthURLCarriesTheFlow(t *testing.T) {
	p := oauth(t, "https://api.example", "authorize: {url: 'BASE/authorize?x=1', pkce: true, params: {access_type: offline, nothing: '{conn.absent}'}}\nconn_fields: [{name: absent}]\nscopes: {default: [a], separator: ','}\n")
	s, err := For(p, App{ClientID: "id", ClientSecret: clientSecret, Scopes: []string{"b", "c"}, AuthorizationParams: map[string]string{"prompt": "login"}}, client())
	must(t, err)
	f := Flow{State: "st", Verifier: verifier, RedirectURL: "https://k.example/cb", Params: map[string]string{"hd": "x", "state": "evil", "redirect_uri": "https://evil.example"}}
	at, err := s.(Redirector).AuthURL(f)
	must(t, err)
	u, err := url.Parse(at)
	must(t, err)
	want := url.Values{
		"x": {"1"}, "client_id": {"id"}, "response_type": {"code"}, "redirect_uri": {f.RedirectURL}, "state": {"st"}, "scope": {"b,c"}, "access_type": {"offline"},
		"prompt": {"login"}, "hd": {"x"}, "code_challenge_method": {"S256"}, "code_challenge": u.Query()["code_challenge"],
	}
	if got := u.Query(); !reflect.DeepEqual(got, want) || len(got.Get("code_challenge")) != 43 || u.Host != "api.example" {
		t.Errorf("got %v", got)
	}
	clear(t, "the address", at)
	p = oauth(t, "https://api.example", "authorize: {url: 'BASE/authorize', pkce: false}\n")
	at, err = forTest(t, p).(Redirector).AuthURL(f)
	if err != nil || strings.Contains(at, "code_challenge") {
		t.Errorf("without PKCE: %s, %v", at, err)
	}
}

func TestForSaysWhatIsMissing(t *testing.T) {
	base := "https://api.example"
	tests := map[string]struct {
		entry string
		app   App
		says  string
	}{
		"no client":       {"", App{}, "client_id is missing"},
		"no field":        {"app_fields: [{name: tenant, required: true}]\n", App{ClientID: "x"}, "tenant"},
		"wrong field":     {"app_fields: [{name: tenant, regex: '^a$'}]\n", App{ClientID: "x", Fields: map[string]string{"tenant": "b"}}, "tenant"},
		"unknown field":   {"", App{ClientID: "x", Fields: map[string]string{"tenant": "b"}}, "no field"},
		"installed there": {"authorize: {mode: vendor_install}\n", App{ClientID: "x"}, "doesn't do yet"},
	}
	for name, test := range tests {
		if _, err := For(oauth(t, base, test.entry), test.app, client()); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestS91RefusedAddressIsTheOperatorsToOpen(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	p := oauth(t, e.URL, "")
	g := Grant{Credential: Credential{RefreshToken: refreshToken}}
	s, err := For(p, App{ClientID: "x"}, egress.NewClient(egress.Policy{}, time.Second))
	must(t, err)
	_, err = s.(Renewer).Renew(t.Context(), g)
	var te *TokenError
	if !errors.As(err, &te) || te.Code != "refused_address" || te.Class != Misconfigured || !errors.Is(err, egress.ErrRefused) {
		t.Errorf("got %v", err)
	}
	s, err = For(p, App{ClientID: "x"}, egress.NewClient(egress.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, time.Second))
	must(t, err)
	if _, err := s.(Renewer).Renew(t.Context(), g); err != nil {
		t.Errorf("allowed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.(Renewer).Renew(ctx, g); !errors.As(err, &te) || te.Class != Transient {
		t.Errorf("given up: %v", err)
	}
}
