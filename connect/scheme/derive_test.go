package scheme

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// derived runs an entry's look-ups for a grant.
func derived(t *testing.T, e *endpoint, look string, g Grant) (Grant, error) {
	t.Helper()
	s, err := For(provider(t, vendor, `
auth_scheme: oauth2_code
authorize: {url: 'BASE/authorize', pkce: true}
token: {url: 'BASE/token'}
conn_fields: [{name: subdomain}, {name: id, automatic: true, source: derive}, {name: other, automatic: true, source: derive}, {name: dc, automatic: true, source: derive, enum: [us, eu]}, {name: password, secret: true}]
request: {base_url: 'BASE/api', headers: {authorization: 'Bearer {token.access_token}', x-org: '{conn.id}'}}
derive:
`+look), App{ClientID: "x"}, e.named())
	must(t, err)
	if g.AccessToken == "" {
		g.AccessToken = accessToken
	}
	return s.Derive(t.Context(), g)
}

func TestLookupsFillFields(t *testing.T) {
	tests := map[string]struct {
		answer, look string
		config       map[string]string
		want         map[string]string // nil: *LookupError
	}{
		"a path":            {`{"org":{"id":7}}`, "  - {request: {method: GET, url: /me}, set: {id: org.id}}", nil, map[string]string{"id": "7"}},
		"a list":            {`{"accounts":[{"id":1},{"id":2}]}`, "  - {request: {method: GET, url: /me}, set: {other: accounts, id: accounts.0.id}}", nil, map[string]string{"id": "1", "other": `[{"id":1},{"id":2}]`}},
		"the first":         {`[{"id":"a"},{"id":"b"}]`, "  - {request: {method: GET, url: /me}, pick: {default: first}, set: {id: id}}", nil, map[string]string{"id": "a"}},
		"one by its host":   {`[{"id":"a","url":"https://x.example"},{"id":"b","url":"https://Acme.example"}]`, "  - {request: {method: GET, url: /me}, pick: {default: first, match: [{path: url, host_label_equals: '{conn.subdomain}'}]}, set: {id: id}}", map[string]string{"subdomain": "acme"}, map[string]string{"subdomain": "acme", "id": "b"}},
		"one by a flag":     {`{"a":[{"id":"a","d":false},{"id":"b","d":true}]}`, "  - {request: {method: GET, url: /me}, pick: {array: a, match: [{path: d, equals: true}]}, set: {id: id}}", nil, map[string]string{"id": "b"}},
		"one by a field":    {`{"a":[{"id":5},{"id":6}]}`, "  - {request: {method: GET, url: /me}, pick: {array: a, match: [{path: id, equals: '{conn.subdomain}'}]}, set: {other: id}}", map[string]string{"subdomain": "6"}, map[string]string{"subdomain": "6", "other": "6"}},
		"none that fits":    {`{"a":[{"id":5}]}`, "  - {request: {method: GET, url: /me}, pick: {array: a, match: [{path: id, equals: '{conn.subdomain}'}]}, set: {other: id}}", map[string]string{"subdomain": "6"}, nil},
		"only one":          {`[{"id":"a"},{"id":"b"}]`, "  - {request: {method: GET, url: /me}, pick: {default: only}, set: {id: id}}", nil, nil},
		"the last segment":  {`{"u":"https://a/orgs/X1/"}`, "  - {request: {method: GET, url: /me}, set: {id: u}, transform: last_path_segment}", nil, map[string]string{"id": "X1"}},
		"unless it is set":  {`{"id":"new"}`, "  - {request: {method: GET, url: /me}, set: {id: id}, unless_set: true}", map[string]string{"id": "old"}, map[string]string{"id": "old"}},
		"a condition":       {`{"type":"User","id":1}`, "  - {request: {method: GET, url: /me}, when: {path_equals: [type, Company]}, set: {id: id}}", nil, map[string]string{}},
		"a length":          {`{"a":[{"id":9}]}`, "  - {request: {method: GET, url: /me}, when: {array_length: [a, 1]}, set: {id: a.0.id}}", nil, map[string]string{"id": "9"}},
		"no rule kept":      {`{"dc":"evil.example"}`, "  - {request: {method: GET, url: /me}, set: {dc: dc}}", nil, map[string]string{}},
		"success":           {`{}`, "  - {request: {method: GET, url: /me}, set_success: other}", nil, map[string]string{"other": "true"}},
		"a copy":            {``, "  - {copy: '{conn.subdomain}', to: id}", map[string]string{"subdomain": "s"}, map[string]string{"subdomain": "s", "id": "s"}},
		"a claim":           {``, "  - {jwt_claim: tid, of: access_token, to: id}", nil, map[string]string{"id": "t1"}},
		"of the token":      {``, "  - {from_token_response: true, set: {dc: api}, transform: 'after:zohoapis.'}", nil, map[string]string{"dc": "eu"}},
		"unknown":           {``, "  - {unknown: true}", nil, map[string]string{}},
		"optional, refused": {`-403`, "  - {request: {method: GET, url: /me}, set: {id: id}, optional: true}", nil, map[string]string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/api/me" || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
					t.Errorf("%s %v", r.URL, r.Header)
				}
				if test.answer == "-403" {
					say(403, `{"error":"no"}`)(w, r)
					return
				}
				say(200, test.answer)(w, r)
			})
			g := Grant{Config: test.config, Credential: Credential{Raw: `{"api":"https://www.zohoapis.eu"}`}}
			if name == "a claim" {
				g.AccessToken = Secret(jwt(`{"tid":"t1"}`))
			}
			got, err := derived(t, e, test.look, g)
			if test.want == nil {
				var le *LookupError
				if !errors.As(err, &le) {
					t.Errorf("got %v, %v", got.Config, err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got.Config, test.want) {
				t.Errorf("got %v, %v", got.Config, err)
			}
		})
	}
}

func TestLookupsThatFailTellNoSecret(t *testing.T) {
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		say(400, `{"error":"bad","error_description":"token `+accessToken+`"}`)(w, r)
	})
	_, err := derived(t, e, "  - {request: {method: GET, url: /me}, set: {id: id}}", Grant{})
	var te *TokenError
	if !errors.As(err, &te) || te.Status != 400 {
		t.Errorf("got %v", err)
	}
	clear(t, "the error", err)
}

func TestFurtherTokensAreKeptAndRenewed(t *testing.T) {
	e := newEndpoint(t, nil)
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		_, form := e.form(t)
		if r.URL.Path == "/other" {
			if r.Header.Get("Authorization") != "" || form.Get("scope") != "bot" {
				t.Errorf("%v %v", r.Header, form)
			}
			say(200, `{"access_token":"other-`+form.Get("n")+`","expires_in":60}`)(w, r)
			return
		}
		say(200, `{"access_token":"`+accessToken+`","expires_in":3600}`)(w, r)
	}
	look := "  - {request: {method: POST, url: 'BASE/other', body: form, params: {scope: bot, n: '{token.refresh_token}'}}, extra_token: bot, path: access_token, expires_in: expires_in}\n"
	look = strings.ReplaceAll(look, "BASE", vendor)
	g, err := derived(t, e, look, Grant{Credential: Credential{RefreshToken: refreshToken}})
	must(t, err)
	if got := g.Extra["bot"]; got.AccessToken.Reveal() != "other-"+refreshToken || got.Expires.IsZero() {
		t.Errorf("got %v", got.AccessToken.Reveal())
	}
	data, err := g.Encode()
	must(t, err)
	if cred, err := DecodeCredential(data); err != nil || !reflect.DeepEqual(cred.Extra["bot"].AccessToken, g.Extra["bot"].AccessToken) {
		t.Errorf("stored: %v", err)
	}
	clear(t, "print", g.Credential, g.Extra["bot"])
}
