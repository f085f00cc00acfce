package scheme

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	mcpServer = "https://mcp.example.com/v1/mcp"
	mcpIssuer = "https://auth.example.com/tenant"
)

// mcpWorld is an MCP server and its authorization server, by the book.
type mcpWorld struct {
	*endpoint
	t testing.TB
	// docs are served by host and path; a test may change them.
	docs map[string]any
	// challenge is what a call without a token is told.
	challenge string
	clients   map[string]map[string]any
	secret    string // of new clients
	challenged,
	registered int
	tokens []url.Values
}

func newMCPWorld(t testing.TB) *mcpWorld {
	w := &mcpWorld{t: t, clients: map[string]map[string]any{}, challenge: `Basic realm="x", Bearer error="invalid_token", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/v1/mcp", scope="mcp:read"`}
	w.docs = map[string]any{
		"mcp.example.com/.well-known/oauth-protected-resource/v1/mcp": map[string]any{
			"resource": mcpServer, "authorization_servers": []string{mcpIssuer}, "scopes_supported": []string{"mcp"},
		},
		"auth.example.com/.well-known/oauth-authorization-server/tenant": map[string]any{
			"issuer": mcpIssuer, "authorization_endpoint": mcpIssuer + "/authorize", "token_endpoint": mcpIssuer + "/token", "registration_endpoint": mcpIssuer + "/register",
			"code_challenge_methods_supported": []string{"plain", "S256"}, "token_endpoint_auth_methods_supported": []string{"none", "client_secret_basic"},
			"authorization_response_iss_parameter_supported": true,
		},
	}
	w.endpoint = newTLSEndpoint(t, w.serve)
	return w
}

func (w *mcpWorld) serve(rw http.ResponseWriter, r *http.Request) {
	_, body, _ := w.last(w.t)
	switch key := r.Host + r.URL.Path; {
	case w.docs[key] != nil:
		data, err := json.Marshal(w.docs[key])
		must(w.t, err)
		say(200, string(data))(rw, r)
	case key == "mcp.example.com/v1/mcp":
		w.challenged++
		if w.challenge != "" {
			rw.Header().Set("WWW-Authenticate", w.challenge)
		}
		rw.WriteHeader(401)
	case key == "auth.example.com/tenant/register":
		w.registered++
		doc := map[string]any{}
		if json.Unmarshal([]byte(body), &doc) != nil || r.Header.Get("Content-Type") != "application/json" {
			rw.WriteHeader(400)
			return
		}
		doc["client_id"] = "dyn1"
		if w.secret != "" {
			doc["client_secret"], doc["token_endpoint_auth_method"] = w.secret, "client_secret_basic"
		}
		w.clients["dyn1"] = doc
		data, err := json.Marshal(doc)
		must(w.t, err)
		say(201, string(data))(rw, r)
	case key == "auth.example.com/tenant/token":
		form, err := url.ParseQuery(body)
		must(w.t, err)
		w.tokens = append(w.tokens, form)
		say(200, `{"access_token":"`+accessToken+`","refresh_token":"`+refreshToken+`","expires_in":60}`)(rw, r)
	default:
		rw.WriteHeader(404)
	}
}

func (w *mcpWorld) scheme(app App) Scheme {
	s, err := For(provider(w.t, "", `
auth_scheme: mcp_oauth2_discovery
authorize: {pkce: true}
registration: {mode: discovery}
conn_fields: [{name: mcp_server_url, required: true, example: 'https://mcp.example.com/mcp', regex: '^https://[a-zA-Z0-9.-]+(?:/.*)?$'}]
request: {base_url: '{conn.mcp_server_url}', headers: {authorization: 'Bearer {token.access_token}'}}
`), app, w.named())
	must(w.t, err)
	return s
}

func mcpFlow() Flow {
	return Flow{State: "st", Verifier: verifier, RedirectURL: "https://k.example/oauth/callback", Config: map[string]string{"mcp_server_url": mcpServer}}
}

func TestMCPDiscoveryFromServerToToken(t *testing.T) {
	w := newMCPWorld(t)
	s := w.scheme(App{}).(Departer)
	f := mcpFlow()
	var err error
	f.Kept, err = s.Depart(t.Context(), f)
	must(t, err)
	c := w.clients["dyn1"]
	if w.registered != 1 || !reflect.DeepEqual(c["redirect_uris"], []any{f.RedirectURL}) || c["token_endpoint_auth_method"] != "none" || c["client_name"] != "keycaddy" {
		t.Errorf("registered %d: %v", w.registered, c)
	}
	at, err := s.AuthURL(f)
	must(t, err)
	u, err := url.Parse(at)
	must(t, err)
	sum := sha256.Sum256([]byte(verifier))
	want := url.Values{
		"client_id": {"dyn1"}, "response_type": {"code"}, "state": {"st"}, "redirect_uri": {f.RedirectURL}, "resource": {mcpServer},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}, "scope": {"mcp:read"},
	}
	if !reflect.DeepEqual(u.Query(), want) || u.Host+u.Path != "auth.example.com/tenant/authorize" {
		t.Errorf("address %s", at)
	}
	g, err := s.Exchange(t.Context(), f, url.Values{"code": {code}, "state": {"st"}, "iss": {mcpIssuer}})
	must(t, err)
	if got := w.tokens[0]; !reflect.DeepEqual(got, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {f.RedirectURL}, "client_id": {"dyn1"}, "code_verifier": {verifier}, "resource": {mcpServer}}) {
		t.Errorf("token request %v", got)
	}
	// What is stored is all that renewing needs, and goes where consent was given.
	data, err := g.Encode()
	must(t, err)
	cred, err := DecodeCredential(data)
	must(t, err)
	w.docs["auth.example.com/.well-known/oauth-authorization-server/tenant"] = map[string]any{"issuer": mcpIssuer, "token_endpoint": "https://evil.example/token"}
	w.docs["mcp.example.com/.well-known/oauth-protected-resource/v1/mcp"] = map[string]any{"resource": mcpServer, "authorization_servers": []string{"https://evil.example"}}
	g, err = s.(Renewer).Renew(t.Context(), Grant{Credential: cred, Config: f.Config})
	must(t, err)
	if got := w.tokens[1]; !reflect.DeepEqual(got, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}, "client_id": {"dyn1"}, "resource": {mcpServer}}) {
		t.Errorf("S34, S35, S43: renewal %v", got)
	}
	b, err := s.(Scheme).Bind(g)
	must(t, err)
	if !b.Renewable || b.Base.String() != mcpServer {
		t.Errorf("base %s", b.Base)
	}
	// RFC 9207: nothing of a callback from elsewhere is looked at.
	for name, q := range map[string]url.Values{
		"S9 no issuer":         {"code": {code}},
		"S8 other issuer":      {"code": {code}, "iss": {mcpIssuer + "/"}},
		"S10 error from there": {"error": {"access_denied"}, "error_description": {"call 555"}, "iss": {"https://evil.example"}},
		"S17 twice":            {"code": {code}, "iss": {mcpIssuer, mcpIssuer}},
	} {
		var ce *CallbackError
		if err := s.Check(f, q); !errors.As(err, &ce) || ce.Code != "issuer_mismatch" || ce.Description != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	lost := f
	lost.Kept = ""
	var ce *CallbackError
	if _, err := s.Exchange(t.Context(), lost, url.Values{"code": {code}, "iss": {mcpIssuer}}); !errors.As(err, &ce) || ce.Code != "missing_client" {
		t.Errorf("another browser: %v", err)
	}
}

func TestMCPClientsWithASecret(t *testing.T) {
	w := newMCPWorld(t)
	w.secret = clientSecret
	s := w.scheme(App{}).(Departer)
	f := mcpFlow()
	var err error
	f.Kept, err = s.Depart(t.Context(), f)
	must(t, err)
	g, err := s.Exchange(t.Context(), f, url.Values{"code": {code}, "iss": {mcpIssuer}})
	must(t, err)
	r, _, _ := w.last(t)
	if id, secret, _ := r.BasicAuth(); id != "dyn1" || secret != clientSecret || w.tokens[0].Has("client_secret") {
		t.Errorf("%s, %v", id, w.tokens[0])
	}
	w.answer = say(401, `{"error":"invalid_client"}`)
	var te *TokenError
	if _, err := s.(Renewer).Renew(t.Context(), g); !errors.As(err, &te) || te.Class != Revoked {
		t.Errorf("a client that is gone is the user's to renew: %v", err)
	}
	// The operator's own client is used as it is.
	w.answer = w.serve
	own := w.scheme(App{ClientID: "mine", ClientSecret: clientSecret}).(Departer)
	if f.Kept, err = own.Depart(t.Context(), f); err != nil || w.registered != 1 {
		t.Errorf("%v, %d registered", err, w.registered)
	}
	if at, err := own.AuthURL(f); err != nil || !strings.Contains(at, "client_id=mine&") {
		t.Errorf("%s, %v", at, err)
	}
}

func TestMCPServersOfTheFirstVersion(t *testing.T) {
	w := newMCPWorld(t)
	w.challenge = ""
	clear := map[string]any{}
	w.docs = clear
	clear["mcp.example.com/.well-known/oauth-authorization-server"] = map[string]any{
		"issuer": "https://mcp.example.com", "authorization_endpoint": "https://mcp.example.com/authorize", "token_endpoint": mcpIssuer + "/token",
		"registration_endpoint": mcpIssuer + "/register", "code_challenge_methods_supported": []string{"S256"},
	}
	s := w.scheme(App{}).(Departer)
	f := mcpFlow()
	var err error
	f.Kept, err = s.Depart(t.Context(), f)
	must(t, err)
	if _, err := s.Exchange(t.Context(), f, url.Values{"code": {code}}); err != nil {
		t.Error(err)
	}
}

func TestS31ToS36DiscoveryThatCanNotBeTrusted(t *testing.T) {
	const prm, asm = "mcp.example.com/.well-known/oauth-protected-resource/v1/mcp", "auth.example.com/.well-known/oauth-authorization-server/tenant"
	set := func(doc, name string, v any) func(*mcpWorld) {
		return func(w *mcpWorld) { w.docs[doc].(map[string]any)[name] = v }
	}
	answer := func(path string, h http.HandlerFunc) func(*mcpWorld) {
		return func(w *mcpWorld) {
			w.answer = func(rw http.ResponseWriter, r *http.Request) {
				if r.Host+r.URL.Path == path {
					h(rw, r)
					return
				}
				w.serve(rw, r)
			}
		}
	}
	tests := map[string]struct {
		change func(*mcpWorld)
		code   string
	}{
		"S31 issuer of another":           {set(asm, "issuer", "https://auth.example.com/other"), "issuer_mismatch"},
		"S31 issuer with a slash":         {set(asm, "issuer", mcpIssuer+"/"), "issuer_mismatch"},
		"S31 no issuer":                   {set(asm, "issuer", nil), "issuer_mismatch"},
		"S32 resource of another":         {set(prm, "resource", "https://mcp.example.com/v1/other"), "resource_mismatch"},
		"S32 resource elsewhere":          {set(prm, "resource", "https://evil.example/v1/mcp"), "resource_mismatch"},
		"S32 no resource":                 {set(prm, "resource", ""), "resource_mismatch"},
		"S33 issuer by http":              {set(prm, "authorization_servers", []string{"http://auth.example.com/tenant"}), "bad_issuer"},
		"S33 issuer with a user":          {set(prm, "authorization_servers", []string{"https://a@auth.example.com/tenant"}), "bad_issuer"},
		"S33 issuer in numbers":           {set(prm, "authorization_servers", []string{"https://169.254.169.254/latest"}), "bad_endpoint"},
		"S33 token endpoint by http":      {set(asm, "token_endpoint", "http://auth.example.com/token"), "bad_endpoint"},
		"S33 token endpoint in numbers":   {set(asm, "token_endpoint", "https://[::1]/token"), "bad_endpoint"},
		"S33 register in numbers":         {set(asm, "registration_endpoint", "https://0x7f000001/r"), "bad_endpoint"},
		"S33 metadata by http":            {func(w *mcpWorld) { w.challenge = `Bearer resource_metadata="http://mcp.example.com/x"` }, "bad_endpoint"},
		"S33 metadata within":             {func(w *mcpWorld) { w.challenge = `Bearer resource_metadata="https://10.0.0.1/x"` }, "bad_endpoint"},
		"S33 metadata that are not there": {func(w *mcpWorld) { w.challenge = `Bearer resource_metadata="https://mcp.example.com/x"` }, "no_metadata"},
		"S33 redirect":                    {answer(asm, say(302, "", "Location", "https://auth.example.com/elsewhere")), "bad_metadata"},
		"S33 too large":                   {answer(asm, say(200, `{"x":"`+strings.Repeat("a", maxMetadata)+`"}`)), "too_large"},
		"S33 HTML":                        {answer(asm, say(200, "<html>", "Content-Type", "text/html")), "bad_metadata"},
		"S33 no server":                   {set(prm, "authorization_servers", []string{}), "no_authorization_server"},
		"S13 no PKCE":                     {set(asm, "code_challenge_methods_supported", nil), "no_pkce"},
		"S13 plain only":                  {set(asm, "code_challenge_methods_supported", []string{"plain"}), "no_pkce"},
		"no registration":                 {set(asm, "registration_endpoint", ""), "no_registration"},
		"S36 refused":                     {answer("auth.example.com/tenant/register", say(400, `{"error":"invalid_redirect_uri"}`)), "invalid_redirect_uri"},
		"S36 no client id":                {answer("auth.example.com/tenant/register", say(201, `{}`)), "bad_registration"},
		"S36 client id of odd characters": {answer("auth.example.com/tenant/register", say(201, `{"client_id":"a\nb"}`)), "bad_registration"},
		"S36 other callback":              {answer("auth.example.com/tenant/register", say(201, `{"client_id":"a","redirect_uris":["https://evil.example/"]}`)), "bad_registration"},
		"S36 one callback more":           {answer("auth.example.com/tenant/register", say(201, `{"client_id":"a","redirect_uris":["https://k.example/oauth/callback","https://evil.example/"]}`)), "bad_registration"},
		"S36 unknown method":              {answer("auth.example.com/tenant/register", say(201, `{"client_id":"a","token_endpoint_auth_method":"tls_client_auth"}`)), "bad_registration"},
		"S36 secret that is missing":      {answer("auth.example.com/tenant/register", say(201, `{"client_id":"a","token_endpoint_auth_method":"client_secret_post"}`)), "bad_registration"},
		"S36 secret that has ended":       {answer("auth.example.com/tenant/register", say(201, `{"client_id":"a","client_secret":"s","client_secret_expires_at":1000,"token_endpoint_auth_method":"client_secret_post"}`)), "bad_registration"},
		"S36 huge":                        {answer("auth.example.com/tenant/register", say(201, `{"x":"`+strings.Repeat("a", maxMetadata)+`"}`)), "too_large"},
		"S33 metadata that drip": {answer(asm, func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(rw, " ")
				rw.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}), "bad_metadata"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newMCPWorld(t)
			test.change(w)
			_, err := w.scheme(App{}).(Departer).Depart(t.Context(), mcpFlow())
			var te *TokenError
			if !errors.As(err, &te) || te.Code != test.code {
				t.Errorf("got %v, want %s", err, test.code)
			}
			if len(w.tokens) > 0 {
				t.Error("a token was asked for")
			}
		})
	}
}

func TestMCPWithFixedEndpoints(t *testing.T) {
	w := newMCPWorld(t)
	entry := `
auth_scheme: mcp_oauth2
authorize: {url: 'https://auth.example.com/tenant/authorize', pkce: true, params: {resource: 'https://mcp.example.com/v1/mcp'}}
token: {url: 'https://auth.example.com/tenant/token', client_auth: none}
registration: {mode: rfc7591, url: 'https://auth.example.com/tenant/register', params: {grant_types: [authorization_code]}}
scopes: {default: [offline_access]}
request: {base_url: 'https://mcp.example.com', headers: {authorization: 'Bearer {token.access_token}'}}
`
	s, err := For(provider(t, "", entry), App{}, w.named())
	must(t, err)
	f := mcpFlow()
	f.Config = map[string]string{}
	f.Kept, err = s.(Departer).Depart(t.Context(), f)
	must(t, err)
	if c := w.clients["dyn1"]; !reflect.DeepEqual(c["grant_types"], []any{"authorization_code"}) || c["scope"] != "offline_access" {
		t.Errorf("registered %v", c)
	}
	at, err := s.(Departer).AuthURL(f)
	if err != nil || !strings.Contains(at, "client_id=dyn1&") || !strings.Contains(at, "code_challenge_method=S256") {
		t.Errorf("%s, %v", at, err)
	}
	g, err := s.(Departer).Exchange(t.Context(), f, url.Values{"code": {code}})
	must(t, err)
	if got := w.tokens[0]; got.Get("resource") != mcpServer || got.Get("client_id") != "dyn1" || got.Has("client_secret") || got.Get("code_verifier") != verifier {
		t.Errorf("token request %v", got)
	}
	if _, err = s.(Renewer).Renew(t.Context(), g); err != nil || w.tokens[1].Get("resource") != mcpServer || w.challenged != 0 {
		t.Errorf("%v, %v", err, w.tokens[1])
	}
	// A client of the operator's needs no registration.
	s, err = For(provider(t, "", entry), App{ClientID: "mine"}, w.named())
	must(t, err)
	if kept, err := s.(Departer).Depart(t.Context(), f); err != nil || kept != "" || w.registered != 1 {
		t.Errorf("%v, registered %d", err, w.registered)
	}
	f.Kept = ""
	if _, err := s.(Departer).Exchange(t.Context(), f, url.Values{"code": {code}}); err != nil || w.tokens[2].Get("client_id") != "mine" {
		t.Errorf("%v, %v", err, w.tokens)
	}
	manual := strings.Replace(entry, "{mode: rfc7591, url: 'https://auth.example.com/tenant/register', params: {grant_types: [authorization_code]}}", "{mode: manual}", 1)
	if _, err := For(provider(t, "", manual), App{}, w.named()); err == nil || !strings.Contains(err.Error(), "client_id") {
		t.Errorf("manual, without a client: %v", err)
	}
}

func TestChallengesAreReadAsTheyCome(t *testing.T) {
	for header, want := range map[string][]challenge{
		`Bearer`: {{"Bearer", map[string]string{}}},
		`Bearer resource_metadata="https://a/b?c=d,e", scope="x y"`: {{"Bearer", map[string]string{"resource_metadata": "https://a/b?c=d,e", "scope": "x y"}}},
		`Basic realm="a, Bearer x=\"y\"", Bearer Error=invalid`:     {{"Basic", map[string]string{"realm": `a, Bearer x="y"`}}, {"Bearer", map[string]string{"error": "invalid"}}},
		`Negotiate abc==, Bearer a="1",a="2"`:                       {{"Negotiate", map[string]string{}}, {"Bearer", map[string]string{"a": "1"}}},
		` , Bearer a = 1 , b= "2"`:                                  {{"Bearer", map[string]string{"a": "1", "b": "2"}}},
		`Bearer a="open`:                                            {{"Bearer", map[string]string{}}},
		"":                                                          nil,
	} {
		got := parseChallenges(header)
		if !slices.EqualFunc(got, want, func(a, b challenge) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s: got %v", header, got)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Bearer a="b", c=d`, `Negotiate abc==`, `Basic realm="\"", x`, `=,"`, "a b c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges(s) {
			if c.scheme == "" || c.params == nil {
				t.Errorf("%q: %v", s, c)
			}
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://a.example","token_endpoint":"https://a.example/t","authorization_endpoint":"https://a.example/a","code_challenge_methods_supported":["S256"]}`))
	f.Add([]byte(`{"issuer":1}`))
	f.Add([]byte(`{"issuer":"https://a.example","token_endpoint":"https://a.example/{t}","authorization_endpoint":"https://a.example/a#x","code_challenge_methods_supported":["S256"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var s server
		if json.Unmarshal(body, &s) != nil || s.check("https://a.example") != nil {
			return
		}
		for _, at := range []string{s.AuthorizationEndpoint, s.TokenEndpoint} {
			u, err := literal(at)
			must(t, err)
			if got, err := u.Fill(nil); err != nil || got.Scheme != "https" || got.User != nil || got.Fragment != "" {
				t.Errorf("%q: %v, %v", at, got, err)
			}
		}
		var r registered
		if json.Unmarshal(body, &r) == nil {
			_, _ = r.client("none", "https://k.example/cb", time.Now())
		}
	})
}
