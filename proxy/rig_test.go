package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// bearerRequest is the request part of a provider's entry with a bearer token.
const bearerRequest = `{base_url: 'BASE', headers: {authorization: 'Bearer {cred.key}'}}`

// bind makes a credential ready for use, with the catalog and the schemes as
// they are. BASE in the request part stands for base.
func bind(t testing.TB, base, request, key string) *connect.Bound {
	t.Helper()
	p, err := catalog.Parse("test.yaml", []byte(strings.ReplaceAll(`
id: test
display_name: Test
vendor: test
categories: [test]
auth_scheme: api_key
cred_fields: [{name: key, required: true, secret: true}]
docs: {reference: https://vendor.example/docs}
request: `+request, "BASE", base)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := scheme.For(p, scheme.App{}, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Bind(scheme.Grant{Credential: scheme.Credential{Fields: map[string]scheme.Secret{"key": scheme.Secret(key)}}})
	if err != nil {
		t.Fatal(err)
	}
	return boundTo(t, b, connect.Connection{ID: testID, UID: "u"}, key)
}

func boundTo(t testing.TB, b *scheme.Binding, c connect.Connection, key string) *connect.Bound {
	t.Helper()
	bound, err := connect.Bind(b, c, scheme.Credential{Version: 1, Fields: map[string]scheme.Secret{"key": scheme.Secret(key)}})
	if err != nil {
		t.Fatal(err)
	}
	return bound
}

var testID = connect.ID{Integration: "test", Connection: "c1"}

// renewals is a Renewer that has what it is told to have, and counts.
type renewals struct {
	to  *connect.Bound
	err error

	mu                         sync.Mutex
	renewed, accepted, refused int
	changed                    chan struct{} // one for each renewal
}

func newRenewals(to *connect.Bound, err error) *renewals {
	return &renewals{to: to, err: err, changed: make(chan struct{}, 100)}
}

func (r *renewals) Renew(context.Context, *connect.Bound) (*connect.Bound, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewed++
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return r.to, r.err
}

func (r *renewals) Accepted(*connect.Bound) { r.mu.Lock(); defer r.mu.Unlock(); r.accepted++ }
func (r *renewals) Refused(*connect.Bound)  { r.mu.Lock(); defer r.mu.Unlock(); r.refused++ }

func (r *renewals) counts() [3]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return [3]int{r.renewed, r.accepted, r.refused}
}

// rig is a proxy in front of a provider that knows one good token: "new". The
// connection has "old" until it is renewed.
type rig struct {
	t        testing.TB
	provider *httptest.Server
	old, new *connect.Bound
	renewals *renewals
	proxy    *Proxy
	front    *httptest.Server
	caller   *connect.Caller
	// got is what Serve returned last.
	mu  sync.Mutex
	got error
}

const testLimit = 1 << 10

// newRig starts the two servers. The front passes every path on, and answers
// errors as the module does.
func newRig(t testing.TB, request string, provider http.HandlerFunc) *rig {
	t.Helper()
	g := &rig{t: t, provider: httptest.NewServer(provider), caller: testCaller}
	t.Cleanup(g.provider.Close)
	base := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(base.CloseIdleConnections)
	g.old, g.new = bind(t, g.provider.URL, request, "old"), bind(t, g.provider.URL, request, "new")
	g.renewals = newRenewals(g.new, nil)
	g.proxy = &Proxy{Base: base, ReplayBuffer: testLimit, Logger: zap.NewNop()}
	g.proxy.Provision()
	g.front = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := g.proxy.Serve(w, r, r.URL.EscapedPath(), g.call())
		g.mu.Lock()
		g.got = err
		g.mu.Unlock()
		if err != nil {
			problem.Of(err).Write(w, "")
		}
	}))
	g.front.Config.Protocols = new(http.Protocols)
	g.front.Config.Protocols.SetHTTP1(true)
	g.front.Config.Protocols.SetUnencryptedHTTP2(true)
	g.front.Start()
	t.Cleanup(g.front.Close)
	return g
}

func (g *rig) call() *Call {
	return &Call{Caller: g.caller, ID: testID, Auth: g.old, base: g.old.Base, renewer: g.renewals}
}

// transport is the proxy's own.
func (g *rig) transport() *Transport { return g.proxy.forward.Transport.(*Transport) }

// request is one as ReverseProxy hands it to the transport. A length below zero
// is one that isn't known.
func (g *rig) request(method string, body io.Reader, length int64) *http.Request {
	g.t.Helper()
	req, err := http.NewRequestWithContext(context.WithValue(context.Background(), callKey{}, g.call()), method, g.provider.URL+"/x?a=1", body)
	if err != nil {
		g.t.Fatal(err)
	}
	req.GetBody, req.ContentLength = nil, length
	return req
}

// send sends a request to the front, and reads the answer.
func (g *rig) send(req *http.Request) (*http.Response, string) {
	g.t.Helper()
	res, err := g.front.Client().Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res, string(body)
}

func (g *rig) get(path string) *http.Request {
	g.t.Helper()
	req, err := http.NewRequest("GET", g.front.URL+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return req
}

const refusal = `{"message":"the provider's own words"}`

// strict lets calls with the good token through, and reads the bodies of the
// others to their end.
func strict(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer new" {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, refusal)
			return
		}
		next(w, r)
	}
}

// echo answers with method, query and body.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Method", r.Method)
	w.Header().Set("X-Query", r.URL.RawQuery)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

func read(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func parse(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var errBroken = errors.New("broken")
