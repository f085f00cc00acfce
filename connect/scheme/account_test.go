package scheme

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// tokenOf writes an ID token, whose signature nobody looks at: it comes over TLS
// from its issuer.
func tokenOf(t *testing.T, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + "." + encode([]byte("signature"))
}

func accountScheme(t *testing.T, block string, client *http.Client) Scheme {
	t.Helper()
	p, err := catalog.Parse("x.yaml", []byte(`{id: x, display_name: X, vendor: x, categories: [test], auth_scheme: oauth2_code,
authorize: {url: 'https://x.example/a', pkce: true}, token: {url: 'https://x.example/t'},
token_response: {capture: {team: team}},
request: {base_url: 'https://x.example/api', headers: {authorization: 'Bearer {token.access_token}'}},
account: {`+block+`}}`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := For(p, App{ClientID: "client-1", ClientSecret: "s"}, client)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What OpenID Connect Core 1.0 section 3.1.3.7 asks of a token that comes
// straight from the token endpoint.
func TestS51IDTokenIsBelievedOnlyIfItIsForUs(t *testing.T) {
	now := time.Now()
	const block = "issuer: 'https://login.example/{claim.tid}/v2', id: '{claim.tid}/{claim.sub}', label: '{claim.email}'"
	good := map[string]any{
		"iss": "https://login.example/t1/v2", "tid": "t1", "aud": "client-1", "sub": "u1", "email": "u1@example.com",
		"exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
	}
	for name, c := range map[string]struct {
		change map[string]any // nil: without it
		token  string
		reason string
	}{
		"good":                              {},
		"several audiences, given to us":    {change: map[string]any{"aud": []any{"other", "client-1"}, "azp": "client-1"}},
		"ended within the clocks' leeway":   {change: map[string]any{"exp": now.Add(-time.Minute).Unix()}},
		"another issuer":                    {change: map[string]any{"iss": "https://login.example/t2/v2"}, reason: "another issuer"},
		"an issuer with a slash more":       {change: map[string]any{"iss": "https://login.example/t1/v2/"}, reason: "another issuer"},
		"no issuer":                         {change: map[string]any{"iss": nil}, reason: "another issuer"},
		"another client's":                  {change: map[string]any{"aud": "client-2"}, reason: "another client"},
		"our client's name in it":           {change: map[string]any{"aud": "client-1-2"}, reason: "another client"},
		"several audiences, to nobody":      {change: map[string]any{"aud": []any{"other", "client-1"}}, reason: "another client"},
		"given to another":                  {change: map[string]any{"azp": "client-2"}, reason: "another client"},
		"no audience":                       {change: map[string]any{"aud": nil}, reason: "another client"},
		"ended":                             {change: map[string]any{"exp": now.Add(-time.Hour).Unix()}, reason: "ended"},
		"no end":                            {change: map[string]any{"exp": nil}, reason: "ended"},
		"an end that is none":               {change: map[string]any{"exp": "soon"}, reason: "ended"},
		"no subject":                        {change: map[string]any{"sub": ""}, reason: "no subject"},
		"encrypted":                         {token: "a.b.c.d.e", reason: "no signed JWT"},
		"no JWT":                            {token: "opaque", reason: "no signed JWT"},
		"claims that are no JSON":           {token: "e30.bm90IGpzb24.c2ln", reason: "can't be read"},
		"claims that are no object":         {token: "e30.W10.c2ln", reason: "issuer of provider"},
		"an issuer made by the token's own": {change: map[string]any{"tid": "t1/../t2"}, reason: "another issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			claims := map[string]any{}
			for k, v := range good {
				claims[k] = v
			}
			for k, v := range c.change {
				if claims[k] = v; v == nil {
					delete(claims, k)
				}
			}
			token := c.token
			if token == "" {
				token = tokenOf(t, claims)
			}
			raw, err := json.Marshal(map[string]any{"access_token": "at", "id_token": token})
			if err != nil {
				t.Fatal(err)
			}
			a, err := accountScheme(t, block, nil).Account(t.Context(), Grant{Credential: Credential{AccessToken: "at", Raw: Secret(raw)}})
			if c.reason == "" {
				if err != nil || a != (Account{"t1/u1", "u1@example.com"}) {
					t.Errorf("got %+v, %v", a, err)
				}
				return
			}
			if err == nil || a != (Account{}) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("got %+v, %v", a, err)
			}
			if err != nil && strings.Contains(err.Error(), token) {
				t.Errorf("the error has the token in it: %v", err)
			}
		})
	}
}

func TestAccountIsReadFromWhatIsKnownFirst(t *testing.T) {
	asked := 0
	answer := `{"data": {"id": 12345678901234567890, "name": "A\u0000da\nL."}}`
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/api/me" || r.Header.Get("Authorization") != "Bearer at" {
			t.Errorf("asked for %s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer srv.Close()
	client := srv.Client()
	client.Transport = redirectTo{srv, client.Transport}
	grant := func(raw string) Grant {
		return Grant{Credential: Credential{AccessToken: "at", Raw: Secret(raw)}, Config: map[string]string{"team": "t9"}}
	}
	for name, c := range map[string]struct {
		block, raw string
		want       Account
		asked      int
	}{
		"the token answer":               {"id: '{resp.team.id}', label: '{resp.team.name}'", `{"team": {"id": "T1", "name": "Acme"}}`, Account{"T1", "Acme"}, 0},
		"a connection's field":           {"id: '{conn.team}'", `{}`, Account{"t9", ""}, 0},
		"a request, as the others fail":  {"id: ['{resp.user}', '{answer.data.id}'], label: '{answer.data.name}', request: {method: GET, url: /me}", `{}`, Account{"12345678901234567890", "Ada L."}, 1},
		"no request, as another tells":   {"id: ['{resp.user}', '{answer.data.id}'], label: '{answer.data.name}', request: {method: GET, url: /me}", `{"user": 7}`, Account{"7", ""}, 0},
		"the first alternative of two":   {"id: ['{resp.a}', '{resp.b}']", `{"a": "1", "b": "2"}`, Account{"1", ""}, 0},
		"the second where it's the only": {"id: ['{resp.a}', '{resp.b}']", `{"b": "2"}`, Account{"2", ""}, 0},
	} {
		asked = 0
		a, err := accountScheme(t, c.block, client).Account(t.Context(), grant(c.raw))
		if err != nil || a != c.want || asked != c.asked {
			t.Errorf("%s: got %+v, %v, asked %d times", name, a, err, asked)
		}
	}
	var lookup *LookupError
	for name, c := range map[string]struct{ block, raw string }{
		"nothing tells":     {"id: '{resp.a}'", `{}`},
		"an empty id":       {"id: '{resp.a}'", `{"a": ""}`},
		"control character": {"id: '{resp.a}'", `{"a": "x\u0000y"}`},
		"far too long":      {"id: '{resp.a}'", `{"a": "` + strings.Repeat("x", 300) + `"}`},
		"a list":            {"id: '{resp.a}'", `{"a": ["x"]}`},
	} {
		if a, err := accountScheme(t, c.block, client).Account(t.Context(), grant(c.raw)); !errors.As(err, &lookup) || a != (Account{}) {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}

// redirectTo sends every request to the test's server.
type redirectTo struct {
	srv  *httptest.Server
	base http.RoundTripper
}

func (d redirectTo) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = strings.TrimPrefix(d.srv.URL, "https://")
	return d.base.RoundTrip(r)
}
