package connect_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

// entries are the providers of the tests; BASE is the fake one's address.
var entries = map[string]string{
	"demo": `
auth_scheme: oauth2_code
conn_fields: [{name: region, regex: '^[a-z]+$'}]
authorize: {url: 'BASE/authorize', pkce: true}
token: {url: 'BASE/token', client_auth: basic}
revoke: {method: POST, url: 'BASE/revoke', auth: none, body: form, headers: {authorization: "Basic {base64(app.client_id, ':', app.client_secret)}"}, params: {token: '{token.refresh_token}'}}
request: {base_url: 'BASE/api', headers: {authorization: 'Bearer {token.access_token}', x-region: '{conn.region}'}}
`,
	"key": `
auth_scheme: api_key
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: 'BASE/keys/api', headers: {x-api-key: '{cred.api_key}'}}
verify: {method: GET, paths: [/whoami]}
`,
	"client": `
auth_scheme: oauth2_client_credentials
token: {url: 'BASE/token', client_auth: basic}
cred_fields: [{name: client_id, required: true}, {name: client_secret, required: true, secret: true}]
request: {base_url: 'BASE/api', headers: {authorization: 'Bearer {token.access_token}'}}
`,
	"desk": `
auth_scheme: basic
conn_fields: [{name: subdomain, required: true, regex: '^[A-Za-z0-9.-]+$'}]
cred_fields: [{name: username, required: true}, {name: password, required: true, secret: true}]
request: {base_url: 'https://{conn.subdomain}.desk.example', headers: {authorization: "Basic {base64(cred.username, ':', cred.password)}"}}
verify: {method: GET, paths: [/me]}
`,
	"domain": `
auth_scheme: oauth2_code
conn_fields: [{name: domain, required: true, format: hostname}]
authorize: {url: 'https://{conn.domain}/authorize', pkce: true}
token: {url: 'https://{conn.domain}/token'}
request: {base_url: 'https://{conn.domain}/api', headers: {authorization: 'Bearer {token.access_token}'}}
`,
}

const (
	public = "http://pages.test"
	// inBubble is the provider's address in tests with time of their own.
	inBubble = "http://provider.test"
)

// world is one fake provider and one keycaddy.
type world struct {
	t      testing.TB
	path   string
	base   string
	client *http.Client
	demo   *demo.Provider
	keys   *sealed.Keys
	logs   *observer.ObservedLogs
	log    *zap.Logger
	front  func(http.ResponseWriter, *http.Request) bool // answers in the provider's place
	rate   float64                                       // of token calls, for the nodes that are made from now on

	*node

	mu     sync.Mutex
	before demo.Fault // answers token requests before anything is spent
	after  demo.Fault // and after
}

// node is one process of it.
type node struct {
	*connect.Connector
	Refresher *connect.Refresher
	store     *hookedStore
	vault     *hookedVault
}

// newWorld makes a world whose provider is in this process and needs no
// network, so that a test may have time of its own (testing/synctest).
func newWorld(t testing.TB, o demo.Options) *world {
	t.Helper()
	w := &world{t: t, base: inBubble}
	w.client = &http.Client{Transport: inProcess{w}, Timeout: 10 * time.Second, CheckRedirect: notFollowed}
	w.start(o)
	return w
}

// newServer makes a world whose provider is a real server.
func newServer(t testing.TB, o demo.Options) *world {
	t.Helper()
	w := &world{t: t}
	srv := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(srv.Close)
	w.base, w.client = srv.URL, &http.Client{Timeout: 10 * time.Second, CheckRedirect: notFollowed}
	w.start(o)
	return w
}

func notFollowed(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (w *world) start(o demo.Options) {
	w.t.Helper()
	o.BaseURL, o.RedirectURIs = w.base, []string{public + "/oauth/callback"}
	o.TokenFault = func(rw http.ResponseWriter, r *http.Request, grant string) bool {
		return w.fault(&w.before, rw, r, grant)
	}
	o.AfterRotate = func(rw http.ResponseWriter, r *http.Request, grant string) bool {
		return w.fault(&w.after, rw, r, grant)
	}
	if o.AccessTTL == 0 {
		o.AccessTTL = time.Hour
	}
	w.demo = demo.New(o)
	core, logs := observer.New(zap.DebugLevel)
	w.logs, w.log = logs, zap.New(core)
	dir := w.t.TempDir()
	w.path = filepath.Join(dir, "db")
	var err error
	w.keys, err = sealed.OpenKeys(filepath.Join(dir, "keys"), true)
	must(w.t, err)
	w.node = w.newNode()
	must(w.t, w.Store.Migrate(w.t.Context()))
}

func (w *world) fault(f *demo.Fault, rw http.ResponseWriter, r *http.Request, grant string) bool {
	w.mu.Lock()
	fault := *f
	w.mu.Unlock()
	return fault != nil && fault(rw, r, grant)
}

// set changes what the token endpoint does.
func (w *world) set(before, after demo.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before, w.after = before, after
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if w.front != nil && w.front(rw, r) {
		return
	}
	w.demo.ServeHTTP(rw, r)
}

// newNode opens the store's file once more, as another process would.
func (w *world) newNode() *node {
	w.t.Helper()
	store, err := sqlite.Open(w.path)
	must(w.t, err)
	w.t.Cleanup(func() { store.Close() })
	n := &node{store: &hookedStore{Store: store}, vault: &hookedVault{Vault: sealed.New(store, w.keys)}}
	n.Refresher = &connect.Refresher{Store: n.store, Vault: n.vault, Logger: w.log}
	setup := w.setup()
	n.Refresher.Configure(setup)
	n.Connector = &connect.Connector{Setup: setup, Refresher: n.Refresher, Store: n.store, Vault: n.vault, Logger: w.log}
	return n
}

// run starts what a process does beside calls, and returns what stops it.
func (w *world) run(n *node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.Refresher.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func (w *world) setup() *connect.Setup {
	w.t.Helper()
	var all []*connect.Integration
	for id, body := range entries {
		in := &connect.Integration{Key: id, DisplayName: "Name of " + id, TokenRate: w.rate, Provider: parse(w.t, id, strings.ReplaceAll(body, "BASE", w.base))}
		if in.Provider.Mode == catalog.ModeOAuth2Code {
			in.App = scheme.App{ClientID: demo.DefaultClientID, ClientSecret: demo.DefaultClientSecret}
		}
		all = append(all, in)
	}
	u, err := url.Parse(public)
	must(w.t, err)
	s, err := connect.NewSetup(nil, u, w.client, all)
	must(w.t, err)
	return s
}

func parse(t testing.TB, id, body string) *catalog.Provider {
	t.Helper()
	p, err := catalog.Parse(id+".yaml", []byte("id: "+id+"\ndisplay_name: Name\nvendor: vendor\nvendor_domain: vendor.example\ncategories: [test]\n"+body))
	must(t, err)
	return p
}

// inProcess hands requests to the provider without a network.
type inProcess struct{ w *world }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme+"://"+r.URL.Host != inBubble {
		return nil, fmt.Errorf("test: request to %s", r.URL.Host)
	}
	in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), r.Body)
	in.Header, in.ContentLength = r.Header, r.ContentLength
	rec, done := httptest.NewRecorder(), make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		p.w.serve(rec, in)
	}()
	select {
	case dropped := <-done:
		if dropped != nil {
			return nil, errors.New("test: connection dropped")
		}
		res := rec.Result()
		res.Request = r
		return res, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// hookedStore is the store with places to interfere at.
type hookedStore struct {
	connect.Store
	extended func(connect.Lease)
	released func()       // before Release
	release  atomic.Bool  // fails
	create   error        // of Create
	update   func() error // before Update; an error is its own
}

func (s *hookedStore) Extend(ctx context.Context, l connect.Lease, ttl time.Duration) (connect.Lease, error) {
	l, err := s.Store.Extend(ctx, l, ttl)
	if err == nil && s.extended != nil {
		s.extended(l)
	}
	return l, err
}

func (s *hookedStore) Release(ctx context.Context, l connect.Lease) error {
	if s.released != nil {
		s.released()
	}
	if s.release.Load() {
		return connect.ErrStoreUnavailable
	}
	return s.Store.Release(ctx, l)
}

func (s *hookedStore) Create(ctx context.Context, c connect.Connection) (connect.Connection, error) {
	if s.create != nil {
		return connect.Connection{}, s.create
	}
	return s.Store.Create(ctx, c)
}

func (s *hookedStore) Update(ctx context.Context, id connect.ID, change func(*connect.Connection) error) (connect.Connection, error) {
	if s.update != nil {
		if err := s.update(); err != nil {
			return connect.Connection{}, err
		}
	}
	return s.Store.Update(ctx, id, change)
}

// hookedVault is the vault with places to interfere at.
type hookedVault struct {
	vault.Vault
	write   func() error // before Write; an error is its own
	written func()       // after Write
	down    atomic.Bool  // nothing is answered
}

func (v *hookedVault) Read(ctx context.Context, name string) (vault.Entry, error) {
	if v.down.Load() {
		return vault.Entry{}, vault.ErrUnavailable
	}
	return v.Vault.Read(ctx, name)
}

func (v *hookedVault) Write(ctx context.Context, name string, value []byte, after vault.Version) (vault.Version, error) {
	if v.down.Load() {
		return 0, vault.ErrUnavailable
	}
	if !strings.HasPrefix(name, "connections/") {
		return v.Vault.Write(ctx, name, value, after)
	}
	if v.write != nil {
		if err := v.write(); err != nil {
			return 0, err
		}
	}
	version, err := v.Vault.Write(ctx, name, value, after)
	if err == nil && v.written != nil {
		v.written()
	}
	return version, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) open(s connect.Session) string {
	w.t.Helper()
	token, _, err := w.Open(w.t.Context(), s)
	must(w.t, err)
	return token
}

var requestField = regexp.MustCompile(`name="request" value="([^"]*)"`)

// consent answers the demo provider's question and returns the callback.
func (w *world) consent(at, decision string) url.Values {
	w.t.Helper()
	u, err := url.Parse(at)
	must(w.t, err)
	rec := httptest.NewRecorder()
	w.demo.ServeHTTP(rec, httptest.NewRequest("GET", "/authorize?"+u.RawQuery, nil))
	m := requestField.FindStringSubmatch(rec.Body.String())
	if m == nil {
		w.t.Fatalf("no consent page: %d %s", rec.Code, rec.Body)
	}
	form := url.Values{"request": {html.UnescapeString(m[1])}, "decision": {decision}, "account": {"ada"}}
	r := httptest.NewRequest("POST", "/authorize", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	rec = httptest.NewRecorder()
	w.demo.ServeHTTP(rec, r)
	to, err := url.Parse(rec.Header().Get("Location"))
	must(w.t, err)
	return to.Query()
}

// with is the cookie jar of the browser that a step was made for.
func with(s connect.Step) func(string) string {
	return func(flow string) string {
		if flow != s.Flow {
			return ""
		}
		return s.Binding
	}
}

// authorize connects an account of the demo provider, all the way.
func (w *world) authorize(s connect.Session, answers map[string]string) connect.Connection {
	w.t.Helper()
	integration := "demo"
	if len(s.Allowed) == 1 {
		integration = s.Allowed[0]
	}
	step, err := w.Submit(w.t.Context(), w.open(s), integration, answers)
	must(w.t, err)
	a, err := w.arrive(w.t.Context(), w.consent(step.Redirect, "allow"), step)
	must(w.t, err)
	return a.Connection
}

// arrive is a callback, and then the person's word that it is meant so.
func (n *node) arrive(ctx context.Context, callback url.Values, step connect.Step) (connect.Arrival, error) {
	a, err := n.Arrive(ctx, public+"/oauth/callback", callback, with(step))
	if err != nil {
		return a, err
	}
	return n.Confirm(ctx, a.Waiting.Key, connect.Evidence{By: connect.ByPerson})
}

// account is authorize for tests that need any connection.
func (w *world) account() connect.ID {
	w.t.Helper()
	return w.authorize(connect.Session{Connection: "ada"}, nil).ID
}

func (w *world) current(id connect.ID) *connect.Bound {
	w.t.Helper()
	b, err := w.Refresher.Current(w.t.Context(), id)
	must(w.t, err)
	return b
}

// stored is what the vault holds of a connection, and its number.
func (w *world) stored(c connect.Connection) (scheme.Credential, uint64) {
	w.t.Helper()
	e, err := w.Vault.Read(w.t.Context(), c.VaultName())
	must(w.t, err)
	cred, err := scheme.DecodeCredential(e.Value)
	must(w.t, err)
	return cred, cred.Version
}

func (w *world) row(id connect.ID) connect.Connection {
	w.t.Helper()
	c, err := w.Store.Connection(w.t.Context(), id)
	must(w.t, err)
	return c
}

func (w *world) refreshes() int { return w.demo.Stats().TokenCalls["refresh_token"] }

func toText(v any) string { return fmt.Sprintf("%+v", v) }

func must2[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
