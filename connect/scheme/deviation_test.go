package scheme

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

// exchange redeems a code at an endpoint.
func exchange(t *testing.T, e *endpoint, more string, callback url.Values) (Scheme, Grant, error) {
	t.Helper()
	s, err := For(oauth(t, e.URL, more), App{ClientID: "my-client", ClientSecret: clientSecret, Scopes: []string{"a", "b"}}, client())
	must(t, err)
	if callback == nil {
		callback = url.Values{"code": {code}}
	}
	g, err := s.(Redirector).Exchange(t.Context(), Flow{State: "st", Verifier: verifier, RedirectURL: "https://k.example/cb", Config: map[string]string{}}, callback)
	return s, g, err
}

func TestTokenRequestsThatDeviate(t *testing.T) {
	const redirect = "https://k.example/cb"
	tests := map[string]struct {
		token    string
		callback url.Values
		want     url.Values // of the body
		check    func(r *http.Request, body string) bool
	}{
		"other names": {token: "{url: 'BASE/token', code_name: auth_code, client_auth_names: {client_id: app_id, client_secret: secret}, no_grant_type: true, no_redirect_uri: true}",
			want: url.Values{"auth_code": {code}, "app_id": {"my-client"}, "secret": {clientSecret}, "code_verifier": {verifier}}},
		"redirect in the query": {token: "{url: 'BASE/token', redirect_uri_in_query: true}",
			want:  url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {"my-client"}, "client_secret": {clientSecret}, "code_verifier": {verifier}},
			check: func(r *http.Request, _ string) bool { return r.URL.Query().Get("redirect_uri") == redirect }},
		"public client": {token: "{url: 'BASE/token', client_auth: none}",
			want: url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "client_id": {"my-client"}, "code_verifier": {verifier}}},
		"the secret as user": {token: "{url: 'BASE/token', client_auth: basic, basic_user: '{app.client_secret}', basic_password: ''}",
			want: url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}},
			check: func(r *http.Request, _ string) bool {
				u, p, ok := r.BasicAuth()
				return ok && u == clientSecret && p == ""
			}},
		"id beside Basic": {token: "{url: 'BASE/token', client_auth: basic, extra_client_id_in_body: true}",
			want: url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}, "client_id": {"my-client"}}},
		"no code": {token: "{url: 'BASE/token', no_code: true, sends_scope: true, params: {grant_type: client_credentials}}",
			want: url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "client_id": {"my-client"}, "client_secret": {clientSecret}}},
		"GET": {token: "{url: 'BASE/token', method: GET, body: query}",
			check: func(r *http.Request, body string) bool {
				return r.Method == "GET" && r.URL.Query().Get("code") == code && body == ""
			}},
		"spelled out in XML": {token: "{url: 'BASE/token', body: xml, client_auth: basic, params: {credentials: {code: '{flow.code}', grant-type: authorization_code}}}",
			check: func(r *http.Request, body string) bool {
				u, _, _ := r.BasicAuth()
				return strings.HasSuffix(body, "<credentials><code>"+code+"</code><grant-type>authorization_code</grant-type></credentials>") && u == "my-client"
			}},
		"signed headers": {token: "{url: 'BASE/token', body: json, client_auth: none, no_grant_type: true, no_redirect_uri: true, no_client_id: true, headers: {sign: '{hmac_sha256_hex(app.client_secret, req.body)}'}}",
			check: func(r *http.Request, body string) bool {
				mac := hmac.New(sha256.New, []byte(clientSecret))
				mac.Write([]byte(body))
				var doc map[string]any
				return json.Unmarshal([]byte(body), &doc) == nil && reflect.DeepEqual(doc, map[string]any{"code": code, "code_verifier": verifier}) && r.Header.Get("Sign") == hex.EncodeToString(mac.Sum(nil))
			}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, say(200, good))
			_, g, err := exchange(t, e, "token: "+test.token+"\n", test.callback)
			must(t, err)
			r, body, n := e.last(t)
			form, _ := url.ParseQuery(body)
			if n != 1 || g.AccessToken != accessToken || test.want != nil && !reflect.DeepEqual(form, test.want) || test.check != nil && !test.check(r, body) {
				t.Errorf("%s %s %v %s", r.Method, r.URL, r.Header, body)
			}
		})
	}
}

func TestAuthorizationAddressesThatDeviate(t *testing.T) {
	for name, test := range map[string]struct{ authorize, want string }{
		"other names":   {"{url: 'BASE/a', pkce: false, rename_params: {client_id: appKey, redirect_uri: redirectUri, response_type: responseType, state: customField}}", "https://api.example/a?appKey=my-client&customField=st&redirectUri=https%3A%2F%2Fk.example%2Fcb&responseType=code&scope=r%3Aa+w"},
		"left out":      {"{url: 'BASE/a', pkce: false, omit_params: [response_type, scope]}", "https://api.example/a?client_id=my-client&redirect_uri=https%3A%2F%2Fk.example%2Fcb&state=st"},
		"raw scope":     {"{url: 'BASE/a', pkce: false, raw_scope: true}", "https://api.example/a?client_id=my-client&redirect_uri=https%3A%2F%2Fk.example%2Fcb&response_type=code&state=st&scope=r:a%20w"},
		"behind a hash": {"{url: 'BASE/', pkce: false, fragment_path: oauth/authorize, omit_params: [scope]}", "https://api.example/#/oauth/authorize?client_id=my-client&redirect_uri=https%3A%2F%2Fk.example%2Fcb&response_type=code&state=st"},
		"another state": {"{url: 'BASE/a', pkce: false, state_param: payload, omit_params: [scope]}", "https://api.example/a?client_id=my-client&payload=st&redirect_uri=https%3A%2F%2Fk.example%2Fcb&response_type=code"},
		"no empty ones": {"{url: 'BASE/a', pkce: false, omit_empty_params: true, omit_params: [scope], params: {x: ''}}", "https://api.example/a?client_id=my-client&redirect_uri=https%3A%2F%2Fk.example%2Fcb&response_type=code&state=st"},
	} {
		s, err := For(oauth(t, "https://api.example", "authorize: "+test.authorize+"\n"), App{ClientID: "my-client", Scopes: []string{"r:a", "w"}}, client())
		must(t, err)
		if got, err := s.(Redirector).AuthURL(Flow{State: "st", Verifier: verifier, RedirectURL: "https://k.example/cb"}); err != nil || got != test.want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, test.want)
		}
	}
}

func TestS27CallbackValuesDecideNoHostUnchecked(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	entry := "authorize: {url: 'BASE/a', pkce: true, capture_callback_params: {server: srv}}\ntoken: {url: ['{conn.server}/token', 'BASE/token']}\nconn_fields: [{name: server, automatic: true, source: callback RULE}]\n"
	rule := strings.Replace(entry, " RULE", `, regex: '^https://accounts\.vendor\.(com|eu)$'`, 1)
	for value, ok := range map[string]bool{"https://evil.example": false, "https://accounts.vendor.com.evil.example": false, "https://accounts.vendor.com\nx": false, strings.Repeat("a", 3000): false, "": true} {
		_, _, err := exchange(t, e, rule, url.Values{"code": {code}, "srv": {value}})
		var ce *CallbackError
		if (err == nil) != ok || err != nil && (!errors.As(err, &ce) || ce.Code != "bad_parameter") {
			t.Errorf("%.40q: %v", value, err)
		}
	}
	var unsupported *UnsupportedError
	if _, _, err := exchange(t, e, strings.Replace(entry, " RULE", "", 1), url.Values{"code": {code}, "srv": {"https://evil.example"}}); !errors.As(err, &unsupported) {
		t.Errorf("a field without a rule: %v", err)
	}
	if _, _, n := e.last(t); n != 1 {
		t.Errorf("%d token requests", n)
	}
	// A label of a host is held by the address around it.
	label := "authorize: {url: 'BASE/a', pkce: true, capture_callback_params: {server: srv}}\nconn_fields: [{name: server, automatic: true, source: callback}]\nrequest: {base_url: 'https://{conn.server}.vendor.example'}\n"
	s, g, err := exchange(t, e, label, url.Values{"code": {code}, "srv": {"acme"}})
	must(t, err)
	if b, err := s.Bind(g); err != nil || b.Base.Host != "acme.vendor.example" {
		t.Errorf("%v", err)
	}
}

func TestTokensThatAreTradedOrRepeated(t *testing.T) {
	e := newEndpoint(t, say(200, `{"access_token":"next","expires_in":60}`))
	old := Grant{Credential: Credential{AccessToken: accessToken}, Config: map[string]string{}}
	s := forTest(t, oauth(t, e.URL, "refresh: {url: 'BASE/refresh', mode: exchange_access_token, method: GET, client_auth: none, body: query, params: {grant_type: ig_refresh, access_token: '{token.access_token}'}}\n"))
	g, err := s.(Renewer).Renew(t.Context(), old)
	must(t, err)
	if r, body, _ := e.last(t); g.AccessToken != "next" || r.Method != "GET" || r.URL.RawQuery != "access_token="+accessToken+"&grant_type=ig_refresh" || body != "" {
		t.Errorf("%s %s %s", r.Method, r.URL, body)
	}
	b, err := s.Bind(old)
	if err != nil || !b.Renewable {
		t.Errorf("not renewable: %v", err)
	}
	none := forTest(t, oauth(t, e.URL, "refresh: {mode: none}\n"))
	if b, err := none.Bind(Grant{Credential: Credential{AccessToken: "a", RefreshToken: "r"}}); err != nil || b.Renewable {
		t.Errorf("renewable: %v", err)
	}
	if _, err := none.(Renewer).Renew(t.Context(), old); !errors.Is(err, ErrNotRenewable) {
		t.Errorf("got %v", err)
	}
	// The lifetime is extended, the token stays.
	e.answer = say(200, `{"result":"0000","message":"OK"}`)
	keeps := forTest(t, oauth(t, e.URL, "refresh: {keeps_access_token: true, lifetime_s: 3600}\ntoken_response: {ok: {path: result, equals: '0000', on: refresh}}\n"))
	old.RefreshToken = refreshToken
	g, err = keeps.(Renewer).Renew(t.Context(), old)
	if err != nil || g.AccessToken != accessToken || time.Until(g.Expires) < 59*time.Minute {
		t.Errorf("%v, expires %v", err, g.Expires)
	}
	e.answer = say(200, `{"result":"1001"}`)
	if _, err := keeps.(Renewer).Renew(t.Context(), old); err == nil {
		t.Error("an error with status 200 is taken for a success")
	}
}

func TestTwoTokensOfOneAnswerAreRenewedEach(t *testing.T) {
	e := newEndpoint(t, say(200, `{"ok":true,"access_token":"bot1","refresh_token":"rbot1","expires_in":7200,"authed_user":{"access_token":"user1","refresh_token":"ruser1","expires_in":3600}}`))
	const more = "refresh: {each_root: true}\ntoken_response: {alternate_root: authed_user, expires: min_of_roots, ok: {path: ok, equals: true}}\n"
	s, g, err := exchange(t, e, more, nil)
	must(t, err)
	if u := g.Extra["authed_user"]; g.AccessToken != "bot1" || u.AccessToken != "user1" || time.Until(g.Expires) > time.Hour {
		t.Errorf("%v, expires %v", u, g.Expires)
	}
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		_, form := e.form(t)
		who := strings.TrimPrefix(strings.TrimSuffix(form.Get("refresh_token"), "1"), "r")
		say(200, fmt.Sprintf(`{"ok":true,"access_token":"%s2","refresh_token":"r%s2","expires_in":7200}`, who, who))(w, r)
	}
	g, err = s.(Renewer).Renew(t.Context(), g)
	must(t, err)
	if u := g.Extra["authed_user"]; g.AccessToken != "bot2" || g.RefreshToken != "rbot2" || u.AccessToken != "user2" || u.RefreshToken != "ruser2" {
		t.Error("not both are new")
	}
	// The second one fails: the first must not be lost.
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		if _, form := e.form(t); strings.HasPrefix(form.Get("refresh_token"), "ruser") {
			w.WriteHeader(503)
			return
		}
		say(200, `{"ok":true,"access_token":"bot3","refresh_token":"rbot3","expires_in":7200}`)(w, r)
	}
	g, err = s.(Renewer).Renew(t.Context(), g)
	if u := g.Extra["authed_user"]; err != nil || g.RefreshToken != "rbot3" || u.RefreshToken != "ruser2" || time.Until(g.Expires) > rootRetry {
		t.Errorf("%v, expires %v", err, g.Expires)
	}
}

func TestAppsInstalledAtTheVendor(t *testing.T) {
	e := newEndpoint(t, nil)
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		_, claims := checkJWS(t, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), &rsaKey().PublicKey)
		if r.URL.Path != "/app/installations/77/access_tokens" || claims["iss"] != "app-9" || claims["exp"].(float64)-claims["iat"].(float64) > 600 {
			w.WriteHeader(404)
			return
		}
		say(201, `{"token":"`+accessToken+`","expires_at":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)(w, r)
	}
	entry := `
auth_scheme: github_app
authorize: {url: '{app.public_link}/installations/new', capture_callback_params: {installation_id: installation_id}}
token: {url: 'BASE/app/installations/{conn.installation_id}/access_tokens', body: none, client_auth: none, headers: {authorization: 'Bearer {signed.assertion}'}}
token_response: {access_token: token, expires_at: expires_at}
refresh: {mode: reissue}
signed: {kind: jwt, alg: RS256, key: '{app.private_key}', lifetime_s: 600, claims: {iss: '{app.app_id}'}}
app_fields: [{name: app_id, required: true}, {name: private_key, required: true, secret: true}, {name: public_link, required: true}]
conn_fields: [{name: installation_id, automatic: true, source: callback}]
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`
	fields := map[string]string{"app_id": "app-9", "private_key": pemOf(t, rsaKey()), "public_link": "https://vendor.example/apps/me"}
	s, err := For(provider(t, e.URL, entry), App{Fields: fields}, client())
	must(t, err)
	f := Flow{State: "st", RedirectURL: "https://k.example/cb"}
	if at, err := s.(Redirector).AuthURL(f); err != nil || at != "https://vendor.example/apps/me/installations/new?state=st" {
		t.Errorf("%s, %v", at, err)
	}
	for want, callback := range map[string]url.Values{"missing_code": {}, "approval_pending": {"setup_action": {"request"}}} {
		var ce *CallbackError
		if _, err := s.(Redirector).Exchange(t.Context(), f, callback); !errors.As(err, &ce) || ce.Code != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	g, err := s.(Redirector).Exchange(t.Context(), f, url.Values{"installation_id": {"77"}})
	must(t, err)
	g, err = s.(Renewer).Renew(t.Context(), g)
	if left := time.Until(g.Expires); err != nil || g.AccessToken != accessToken || left < 59*time.Minute {
		t.Errorf("%v, %v left", err, left)
	}
	g.Config["installation_id"] = "78"
	var te *TokenError
	if _, err := s.(Renewer).Renew(t.Context(), g); !errors.As(err, &te) || te.Class != Revoked {
		t.Errorf("uninstalled: %v", err)
	}
	fields["private_key"] = "nonsense"
	if _, err := For(provider(t, e.URL, entry), App{Fields: fields}, client()); err == nil || !strings.Contains(err.Error(), "private_key") {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestKeysThatTheOperatorPlaces(t *testing.T) {
	const entry = `
auth_scheme: api_key
app_fields: [{name: key_placement, enum: [header, query], default: header}, {name: key_name, required: true}, {name: value_template, default: '{cred.api_key}'}, {name: base_url, required: true}, {name: key_label}]
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: '{app.base_url}'}
flags: [placement_from_app_fields]
`
	placed := func(fields map[string]string) (Scheme, error) {
		fields["base_url"] = "https://private.example/v1"
		return For(provider(t, "", entry), App{Fields: fields}, client())
	}
	for want, fields := range map[string]map[string]string{
		"X-Key: " + userKey:                 {"key_name": "X-Key"},
		"Authorization: Api-Key " + userKey: {"key_name": "Authorization", "value_template": "Api-Key {cred.api_key}", "key_label": "Token"},
		"?k=" + userKey:                     {"key_name": "k", "key_placement": "query"},
	} {
		s, err := placed(fields)
		must(t, err)
		g, err := s.(Prompter).Accept(t.Context(), map[string]string{"api_key": userKey})
		must(t, err)
		b, err := s.Bind(g)
		must(t, err)
		r := request(t, "/?k=mine", "X-Key", "mine", "Authorization", "mine")
		must(t, b.Inject(r))
		got := "?" + r.URL.RawQuery
		if name, _, ok := strings.Cut(want, ": "); ok {
			got = name + ": " + r.Header.Get(name)
		}
		if got != want || b.Base.String() != "https://private.example/v1" {
			t.Errorf("got %s, want %s", got, want)
		}
		if label := fields["key_label"]; label != "" && s.Fields()[0].Title() != label {
			t.Errorf("the form calls it %s", s.Fields()[0].Title())
		}
	}
	for says, fields := range map[string]map[string]string{
		"owns": {"key_name": "Host"}, "not a header": {"key_name": "a b"}, "no place": {"key_name": "X-Key", "value_template": "x"}, "app.client_secret": {"key_name": "X-Key", "value_template": "{app.client_secret}{cred.api_key}"},
		"missing }": {"key_name": "X-Key", "value_template": "{cred.api_key"},
	} {
		if _, err := placed(fields); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
