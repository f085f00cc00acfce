package page_test

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/connect/page"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

// entries are the providers of the tests; BASE is the fake one's address.
var entries = map[string]string{
	"demo": `
authorize: {url: 'BASE/demo/authorize', pkce: true}
token: {url: 'BASE/demo/token', client_auth: basic}
request: {base_url: 'BASE/demo/api', headers: {authorization: 'Bearer {token.access_token}'}}
auth_scheme: oauth2_code
`,
	"demo-key": `
auth_scheme: api_key
cred_fields: [{name: api_key, required: true, secret: true, regex: '^demo_[a-z0-9]+$', example: demo_1234}]
request: {base_url: 'BASE/demo/keys/api', headers: {x-api-key: '{cred.api_key}'}}
verify: {method: GET, paths: [/whoami]}
docs: {host: docs.vendor.example, auth: 'https://docs.vendor.example/keys', console: 'https://vendor.example/keys'}
`,
	"desk": `
auth_scheme: basic
conn_fields:
  - {name: subdomain, label: Your subdomain, required: true, regex: '^[a-z0-9-]+$', example: acme, prefix: 'https://', suffix: .desk.example, help: 'The first part.', docs: 'https://desk.example/help', order: 1}
  - {name: region, enum: [us, eu], order: 2}
  - {name: certificate, format: pem_or_base64, order: 3, visible_when: {field: region, equals: eu}}
cred_fields:
  - {name: username, required: true, format: email}
  - {name: password, required: true, secret: true}
request: {base_url: 'BASE/fake', headers: {authorization: "Basic {base64(cred.username, ':', cred.password)}", x-cert: '{conn.certificate}'}}
verify: {method: GET, paths: [/verify]}
`,
	"client": `
auth_scheme: oauth2_client_credentials
token: {url: 'BASE/fake/token', client_auth: basic}
cred_fields:
  - {name: client_id, required: true}
  - {name: client_secret, required: true, secret: true}
conn_fields: [{name: audience, regex: '^[a-z]+$'}]
request: {base_url: 'BASE/fake', headers: {authorization: 'Bearer {token.access_token}', x-audience: '{conn.audience}'}}
`,
	"hostile": `
authorize: {url: 'BASE/fake/authorize', pkce: true}
token: {url: 'BASE/fake/token'}
request: {base_url: 'BASE/fake', headers: {authorization: 'Bearer {token.access_token}'}}
auth_scheme: oauth2_code
`,
	"named": `
auth_scheme: oauth2_code
authorize: {url: 'BASE/demo/authorize', pkce: true}
token: {url: 'BASE/demo/token', client_auth: basic}
request: {base_url: 'BASE/demo/api', headers: {authorization: 'Bearer {token.access_token}'}}
account: {request: {method: GET, url: /me}, id: '{answer.account}', label: '{answer.name}'}
`,
	"open": `
auth_scheme: none
request: {base_url: 'BASE/fake'}
`,
}

const (
	hostileName = `<script>alert(1)</script>"onmouseover='x`
	app         = "http://pages.test"
)

// site is the pages with everything that they need, and one browser.
type site struct {
	t       *testing.T
	conn    *connect.Connector
	pages   *page.Handler
	store   *sqlite.Store
	demo    *demo.Provider
	logs    *observer.ObservedLogs
	log     *zap.Logger
	fake    atomic.Value // the http.HandlerFunc that answers /fake/
	calls   atomic.Int32 // of the fake provider
	public  string
	cookies map[string]string
}

func newSite(t *testing.T, public string) *site {
	t.Helper()
	s := &site{t: t, public: public, cookies: map[string]string{}}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.demo = demo.New(demo.Options{BaseURL: srv.URL + "/demo", RedirectURIs: []string{public + "/oauth/callback"}})
	mux.Handle("/demo/", http.StripPrefix("/demo", s.demo))
	mux.HandleFunc("/fake/", func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		s.fake.Load().(http.HandlerFunc)(w, r)
	})
	s.answerWith(http.NotFound)

	core, logs := observer.New(zap.DebugLevel)
	s.logs = logs
	log := zap.New(core)
	dir := t.TempDir()
	store, err := sqlite.Open(filepath.Join(dir, "db"))
	must(t, err)
	t.Cleanup(func() { store.Close() })
	must(t, store.Migrate(t.Context()))
	s.store = store
	keys, err := sealed.OpenKeys(filepath.Join(dir, "keys"), true)
	must(t, err)

	var all []*connect.Integration
	for id, body := range entries {
		text := "id: " + id + "\ndisplay_name: Name of " + id + "\nvendor: vendor\nvendor_domain: " + id + ".example\ncategories: [test]\n" + body
		p, err := catalog.Parse(id+".yaml", []byte(strings.ReplaceAll(text, "BASE", srv.URL)))
		must(t, err)
		in := &connect.Integration{Key: id, DisplayName: p.DisplayName, Provider: p}
		switch id {
		case "demo", "named":
			in.App = scheme.App{ClientID: demo.DefaultClientID, ClientSecret: demo.DefaultClientSecret}
		case "hostile":
			in.App = scheme.App{ClientID: "id", ClientSecret: "secret"}
			in.DisplayName = hostileName
		}
		all = append(all, in)
	}
	u, err := url.Parse(public)
	must(t, err)
	client := egress.NewClient(egress.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, 2*time.Second)
	setup, err := connect.NewSetup(nil, u, client, all)
	must(t, err)
	v := sealed.New(store, keys)
	r := &connect.Refresher{Store: store, Vault: v, Logger: log}
	r.Configure(setup)
	s.conn = &connect.Connector{Setup: setup, Refresher: r, Store: store, Vault: v, Logger: log}
	s.log = log
	s.renew()
	return s
}

// more adds integrations, of a category of their own.
func (s *site) more(n int) {
	s.t.Helper()
	all := s.conn.Setup.Integrations()
	for i := range n {
		id := fmt.Sprintf("more-%d", i)
		p, err := catalog.Parse(id+".yaml", []byte("id: "+id+"\ndisplay_name: Name of "+id+"\nvendor: vendor\nvendor_domain: "+id+".example\ncategories: [crm]\nauth_scheme: none\nrequest: {base_url: 'https://x.example'}\n"))
		must(s.t, err)
		all = append(all, &connect.Integration{Key: id, DisplayName: p.DisplayName, Provider: p})
	}
	setup, err := connect.NewSetup(nil, s.conn.Setup.PublicURL, s.conn.Setup.Client, all)
	must(s.t, err)
	s.conn.Setup = setup
	s.renew()
}

// renew makes the pages anew, as a reload does.
func (s *site) renew() { s.pages = page.New(s.conn, s.log) }

// answerWith makes the fake provider answer so.
func (s *site) answerWith(f http.HandlerFunc) { s.fake.Store(f) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) open(v connect.Session) (token string) {
	s.t.Helper()
	token, _, err := s.conn.Open(s.t.Context(), v)
	must(s.t, err)
	return token
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	text string
}

// send sends a request as the browser would and checks what holds for every
// answer.
func (s *site) send(r *http.Request) answer {
	s.t.Helper()
	for name, value := range s.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	if r.Host == "example.com" { // httptest's; a test of other hosts sets one
		r.Host = strings.TrimPrefix(strings.TrimPrefix(s.public, "http://"), "https://")
	}
	w := httptest.NewRecorder()
	s.pages.ServeHTTP(w, r)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	must(s.t, err)
	for _, c := range res.Cookies() {
		s.checkCookie(c)
		if c.MaxAge < 0 {
			delete(s.cookies, c.Name)
		} else {
			s.cookies[c.Name] = c.Value
		}
	}
	a := answer{res, string(body)}
	s.checkHeaders(a)
	return a
}

func (s *site) checkCookie(c *http.Cookie) {
	s.t.Helper()
	secure := strings.HasPrefix(s.public, "https:")
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.Secure != secure ||
		strings.HasPrefix(c.Name, "__Host-") != secure {
		s.t.Errorf("S23: cookie with wrong attributes: %v", c)
	}
}

func (s *site) get(path string) answer {
	s.t.Helper()
	return s.send(httptest.NewRequestWithContext(context.Background(), "GET", path, nil))
}

func (s *site) post(path string, form url.Values, headers ...string) answer {
	s.t.Helper()
	r := httptest.NewRequestWithContext(context.Background(), "POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return s.send(r)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([0-9a-f]{64})"`)

// form opens a form and returns what it would send, with more names and values.
func (s *site) form(key, token string, more ...string) url.Values {
	s.t.Helper()
	a := s.get("/connect/with/" + key + "?session_token=" + token)
	m := csrfField.FindStringSubmatch(a.text)
	if a.StatusCode != 200 || m == nil {
		s.t.Fatalf("form of %s: status %d, csrf field %v", key, a.StatusCode, m)
	}
	form := url.Values{"session_token": {token}, "csrf": {m[1]}}
	for i := 0; i+1 < len(more); i += 2 {
		form.Set("field."+more[i], more[i+1])
	}
	return form
}

// submit opens a form, fills it in and sends it.
func (s *site) submit(key, token string, more ...string) answer {
	s.t.Helper()
	return s.post("/connect/with/"+key, s.form(key, token, more...))
}

// depart starts an authorization and returns the address at the provider.
func (s *site) depart(key, token string) *url.URL {
	s.t.Helper()
	a := s.submit(key, token)
	a.expect(s.t, http.StatusSeeOther)
	u, err := url.Parse(a.Header.Get("Location"))
	must(s.t, err)
	return u
}

var sealedRequest = regexp.MustCompile(`name="request" value="([^"]*)"`)

// consent answers the demo provider's question and returns the callback.
func (s *site) consent(at *url.URL, decision string) string {
	s.t.Helper()
	return s.consentAs("ada", at, decision)
}

func (s *site) consentAs(who string, at *url.URL, decision string) string {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.demo.ServeHTTP(w, httptest.NewRequest("GET", "/authorize?"+at.RawQuery, nil))
	m := sealedRequest.FindStringSubmatch(w.Body.String())
	if m == nil {
		s.t.Fatalf("no consent page: %d %s", w.Code, w.Body)
	}
	form := url.Values{"request": {html.UnescapeString(m[1])}, "decision": {decision}, "account": {who}}
	r := httptest.NewRequest("POST", "/authorize", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	w = httptest.NewRecorder()
	s.demo.ServeHTTP(w, r)
	to, ok := strings.CutPrefix(w.Header().Get("Location"), s.public)
	if !ok {
		s.t.Fatalf("consent led to %q", w.Header().Get("Location"))
	}
	return to
}

// arrive opens a callback, and says yes if asked who is there.
func (s *site) arrive(to string) answer {
	s.t.Helper()
	a := s.get(to)
	if at := a.Header.Get("Location"); strings.HasPrefix(at, "/connect/confirm?") {
		return s.decide(at, "yes")
	}
	return a
}

// decide opens the page that asks who is there, and answers.
func (s *site) decide(at, decision string, more ...string) answer {
	s.t.Helper()
	form := s.asked(at)
	form.Set("decision", decision)
	for i := 0; i+1 < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return s.post("/connect/confirm", form)
}

// asked opens the page that asks who is there and returns what it would send.
func (s *site) asked(at string) url.Values {
	s.t.Helper()
	a := s.get(at)
	m := csrfField.FindStringSubmatch(a.text)
	if a.StatusCode != 200 || m == nil {
		s.t.Fatalf("%s: status %d, csrf field %v", at, a.StatusCode, m)
	}
	u, err := url.Parse(at)
	must(s.t, err)
	return url.Values{"flow": u.Query()["flow"], "csrf": {m[1]}}
}

func (a answer) expect(t *testing.T, status int, texts ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("status %d, want %d: %s", a.StatusCode, status, a.text)
	}
	for _, want := range texts {
		if !strings.Contains(a.text, want) {
			t.Errorf("page doesn't have %q:\n%s", want, a.main())
		}
	}
}

func (a answer) refuse(t *testing.T, texts ...string) {
	t.Helper()
	for _, bad := range texts {
		if bad != "" && strings.Contains(a.text, bad) {
			t.Errorf("page has %q:\n%s", bad, a.main())
		}
	}
}

// main is what a page shows, without its style and script.
func (a answer) main() string {
	_, after, _ := strings.Cut(a.text, "<main")
	before, _, _ := strings.Cut(after, "<script")
	return before
}

func (s *site) connections() []connect.Connection {
	s.t.Helper()
	all, err := s.store.Connections(s.t.Context(), connect.Query{})
	must(s.t, err)
	return all
}
