package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/api"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

const (
	key        = "b2c1f6a0-3d1e-4c8b-9a57-0f1e2d3c4b5a"
	modest     = "0a0b0c0d-1111-4222-8333-444455556667" // has the scopes that a key has by default
	powerless  = "0a0b0c0d-1111-4222-8333-444455556668" // has none
	restricted = "0a0b0c0d-1111-4222-8333-444455556666"
	public     = "https://connect.example"
)

var entries = map[string]string{
	"g-oauth2": `
auth_scheme: oauth2_code
authorize: {url: 'BASE/authorize', pkce: true}
token: {url: 'BASE/token'}
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}', x-version: '1'}, query: {tenant: '{conn.tenant}'}}
conn_fields: [{name: tenant}]
`,
	"g-cc": `
auth_scheme: oauth2_client_credentials
token: {url: 'BASE/token'}
cred_fields: [{name: client_id, required: true}, {name: client_secret, required: true, secret: true}]
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`,
	"g-apikey": `
auth_scheme: api_key
cred_fields: [{name: api_key, label: The key, required: true, secret: true, regex: '^[a-z-]+$', example: abc}]
request: {base_url: 'BASE/bot{cred.api_key}', headers: {x-api-key: '{cred.api_key}'}}
`,
	"g-basic": `
auth_scheme: basic
cred_fields: [{name: username, required: true}, {name: password, required: true, secret: true}]
request: {base_url: 'BASE', headers: {authorization: "Basic {base64(cred.username, ':', cred.password)}"}}
`,
	"g-none": `
auth_scheme: none
request: {base_url: 'BASE'}
`,
}

// service is the API over a real store and vault.
type service struct {
	t         *testing.T
	api       *api.API
	connector *connect.Connector
	store     *sqlite.Store
	logs      *observer.ObservedLogs
	token     http.HandlerFunc // the providers' token endpoint
}

// newService has an integration for each of the entries.
func newService(t *testing.T) *service { return serve(t, entries, true) }

func serve(t *testing.T, entries map[string]string, integrated bool) *service {
	t.Helper()
	s := &service{t: t}
	s.token = func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"access_token":"canary-access","refresh_token":"canary-refresh","expires_in":3600,"big":12345678901234567890,"nested":[{"refresh_token":"canary-refresh","rt":"canary-refresh"}]}`))
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.token(w, r) }))
	t.Cleanup(srv.Close)
	files := fstest.MapFS{}
	for id, body := range entries {
		text := "id: " + id + "\ndisplay_name: Name of " + id + "\nvendor: vendor\nvendor_domain: vendor.example\ncategories: [test]\ndocs: {reference: 'https://docs.example'}\n" + strings.ReplaceAll(body, "BASE", srv.URL)
		files[id+".yaml"] = &fstest.MapFile{Data: []byte(text)}
	}
	cat, err := catalog.Load(files)
	must(t, err)
	var all []*connect.Integration
	for id := range entries {
		if !integrated {
			break
		}
		p, err := cat.Provider(id)
		must(t, err)
		in := &connect.Integration{Key: id, DisplayName: p.DisplayName, Provider: p, Created: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)}
		if p.Mode == catalog.ModeOAuth2Code {
			in.App = scheme.App{ClientID: "id", ClientSecret: "canary-client-secret"}
		}
		all = append(all, in)
	}
	u, err := url.Parse(public)
	must(t, err)
	setup, err := connect.NewSetup(cat, u, &http.Client{Timeout: 5 * time.Second}, all)
	must(t, err)
	dir := t.TempDir()
	s.store, err = sqlite.Open(filepath.Join(dir, "db"))
	must(t, err)
	t.Cleanup(func() { s.store.Close() })
	must(t, s.store.Migrate(t.Context()))
	keys, err := sealed.OpenKeys(filepath.Join(dir, "keys"), true)
	must(t, err)
	core, logs := observer.New(zap.DebugLevel)
	s.logs = logs
	log, v := zap.New(core), sealed.New(s.store, keys)
	r := &connect.Refresher{Store: s.store, Vault: v, Logger: log}
	r.Configure(setup)
	s.connector = &connect.Connector{Setup: setup, Refresher: r, Store: s.store, Vault: v, Logger: log}
	stored := &connect.StoredKeys{Store: s.store, Logger: log}
	must(t, stored.Load(t.Context()))
	s.api = &api.API{
		APIKeys:   &connect.Keys{Store: s.store, Stored: stored, Logger: log},
		Connector: s.connector, Logger: log, RequestID: func(*http.Request) string { return "req1" },
		Keys: connect.NewKeyring(append(limited(), []connect.APIKey{
			{Name: "app", Key: connect.DigestOf(key), Scopes: policy.AllScopes},
			{Name: "modest", Key: connect.DigestOf(modest), Scopes: policy.DefaultScopes},
			{Name: "powerless", Key: connect.DigestOf(powerless)},
			{Name: "proxy", Key: connect.DigestOf(restricted), Scopes: policy.AllScopes, Limits: policy.Limits{Integrations: []string{"g-apikey"}}},
		}...), stored),
	}
	s.api.Callers = s.api.Keys
	s.api.Aim = func(c *connect.Caller, b *connect.Bound, method, path, query string) (url.URL, string, error) {
		rule, err := c.Rules.Decide(method, strings.TrimPrefix(path, "/"), query) // the proxy says more of paths
		u := b.Base.JoinPath(path)
		u.RawQuery = query
		return *u, rule, err
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// call sends a request with an API key, a session's token or, if it is "-",
// without either.
func (s *service) call(method, target, auth, body string, headers ...string) answer {
	s.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if auth == "" {
		auth = "Bearer " + key
	}
	if auth != "-" {
		r.Header.Set("Authorization", auth)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.api.Handler().ServeHTTP(w, r)
	data, err := io.ReadAll(w.Result().Body)
	must(s.t, err)
	a := answer{w.Code, w.Result().Header, string(data)}
	s.documented(method, r.URL.Path, a)
	if a.status != 204 && (a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") == "") {
		s.t.Errorf("%s %s: headers %v", method, target, a.header)
	}
	return a
}

func (s *service) get(target string) answer { s.t.Helper(); return s.call("GET", target, "", "") }

var patterns = []struct{ re, as string }{
	{`"nango_connect_session_[0-9a-f]{64}"`, `"<TOKEN>"`},
	{`session_token=nango_connect_session_[0-9a-f]{64}`, `session_token=<TOKEN>`},
	{`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`, `"<ISO_MS_Z>"`},
	{`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"`, `"<ISO_MS_OFFSET>"`},
	{`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`, `<UUIDV4>`},
}

// expect compares a body, what differs from run to run replaced.
func (a answer) expect(t *testing.T, status int, want string) {
	t.Helper()
	got := a.body
	for _, p := range patterns {
		got = regexp.MustCompile(p.re).ReplaceAllString(got, p.as)
	}
	if a.status != status || !same(t, got, want) {
		t.Errorf("got %d %s\nwant %d %s", a.status, got, status, want)
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	if a == "" || b == "" {
		return a == b
	}
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Errorf("not JSON: %s", a)
		return false
	}
	must(t, json.Unmarshal([]byte(b), &y))
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

// fails checks an error's status, code and the paths of its fields.
func (a answer) fails(t *testing.T, status int, code string, paths ...string) {
	t.Helper()
	var got struct {
		Error struct {
			Code   string `json:"code"`
			Errors []struct {
				Code string   `json:"code"`
				Path []string `json:"path"`
			} `json:"errors"`
			RequestID string `json:"request_id"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	var at []string
	for _, e := range got.Error.Errors {
		at = append(at, e.Code+":"+strings.Join(e.Path, "."))
	}
	if a.status != status || got.Error.Code != code || a.header.Get("Keycaddy-Error") != code || got.Error.RequestID != "req1" || strings.Join(at, " ") != strings.Join(paths, " ") {
		t.Errorf("got %d %s %v, want %d %s %v", a.status, a.body, at, status, code, paths)
	}
}

// connect makes a connection without a page.
func (s *service) connect(integration, id string, user *connect.EndUser, answers map[string]string) connect.Connection {
	s.t.Helper()
	session := connect.Session{Connection: id, EndUser: user}
	if user != nil {
		session.Tags = map[string]string{"end_user_id": user.ID}
	}
	token, _, err := s.connector.Open(s.t.Context(), session)
	must(s.t, err)
	step, err := s.connector.Submit(s.t.Context(), token, integration, answers)
	must(s.t, err)
	if step.Redirect == "" {
		return step.Connection
	}
	to, err := url.Parse(step.Redirect)
	must(s.t, err)
	callback := url.Values{"state": {to.Query().Get("state")}, "code": {"c"}}
	a, err := s.connector.Arrive(s.t.Context(), to.Query().Get("redirect_uri"), callback, func(string) string { return step.Binding })
	must(s.t, err)
	a, err = s.connector.Confirm(s.t.Context(), a.Waiting.Key, connect.Evidence{By: connect.ByPerson})
	must(s.t, err)
	return a.Connection
}
