package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// report answers with the request's headers, one a line and sorted, as they
// came over the wire.
func report(w http.ResponseWriter, r *http.Request) {
	var lines []string
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, strings.ToLower(name)+": "+v)
		}
	}
	slices.Sort(lines)
	_, _ = fmt.Fprintf(w, "%s %s host=%s\n%s\n", r.Method, r.RequestURI, r.Host, strings.Join(lines, "\n"))
}

// raw writes a request's head as it is, and reads the answer.
func raw(t testing.TB, server *httptest.Server, head string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.ReplaceAll(head, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res, read(t, res)
}

// Nothing that is meant for keycaddy reaches the provider, however it is
// spelled, nor what would take the credential's place (S85, S86, S87).
func TestHeadersThatDontPass(t *testing.T) {
	t.Parallel()
	g := newRig(t, `{base_url: 'BASE/api', headers: {x-api-key: '{cred.key}', authorization: 'Bearer {cred.key}', x-version: '7'}}`, report)
	g.old = g.new
	_, body := raw(t, g.front, `GET /x?a=1 HTTP/1.1
Host: keycaddy.example
authorization: Bearer caller-key
AUTHORIZATION: Bearer caller-key-2
connection-ID: caller-c
Connection_Id: caller-c
PROVIDER-config-key: caller-p
provider_config_key: caller-p
Retries: caller
Retry-On: caller
Decompress: caller
Base_Url_Override: caller
Nango-Is-Sync: caller
X-API-KEY: caller-1
x-api-key: caller-2
X_Api_Key: caller-3
x_api-key: caller-4
X-Forwarded-For: 192.0.2.1
X-Forwarded-Host: caller
X-Forwarded-Proto: caller
X-Forwarded-Port: caller
X-Forwarded-Prefix: caller
X_Forwarded_For: caller
Forwarded: for=caller
Via: 1.1 caller
X-Real-IP: caller
X-Original-URL: /caller
X-Rewrite-URL: /caller
X-HTTP-Method-Override: CALLER
Proxy: caller
Proxy-Settings: caller
HTTP2-Settings: caller
Max-Forwards: 3
Proxy-Authorization: caller
Proxy-Connection: caller
Keep-Alive: caller
Connection: Authorization, X-Api-Key, X-Hop, close
X-Hop: caller
X-Own: kept
X_Own: kept too
Accept: text/plain

`)
	want := "GET /api/x?a=1 host=" + strings.TrimPrefix(g.provider.URL, "http://") + `
accept-encoding: gzip
accept: text/plain
authorization: Bearer new
x-api-key: new
x-own: kept
x-version: 7
x_own: kept too
`
	if body != want {
		t.Errorf("the provider saw\n%s\nwant\n%s", body, want)
	}
}

// The caller may set what is only a default, and headers of its own.
func TestDefaultsGiveWay(t *testing.T) {
	t.Parallel()
	g := newRig(t, `{base_url: 'BASE', headers: {authorization: 'Bearer {cred.key}', x-version: '7'}}`, report)
	req := g.get("/")
	req.Header.Set("X-Version", "8")
	if _, body := g.send(req); !strings.Contains(body, "x-version: 8\n") || strings.Contains(body, "x-version: 7") {
		t.Errorf("the provider saw\n%s", body)
	}
}

// The query's bytes are the provider's to understand; only the parameters that
// carry the credential are keycaddy's (S86).
func TestQueryIsUnchanged(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"", "a=1&b=2", "a;b=1;c", "%zz=%&&a=%2", "a=b=c&=&d", "q=/../..&r=%2e%2e%2f", "a+b=%20&c=\xc3\xa9"} {
		g := newRig(t, bearerRequest, report)
		_, body := raw(t, g.front, "GET /x?"+query+" HTTP/1.1\nHost: a\nConnection: close\n\n")
		if want := strings.TrimSuffix("GET /x?"+query, "?") + " host="; !strings.HasPrefix(body, want) {
			t.Errorf("%q: the provider saw %q", query, body)
		}
	}
	g := newRig(t, `{base_url: 'BASE', query: {key: '{cred.key}'}}`, report)
	_, body := raw(t, g.front, "GET /x?a;b=%zz&key=1&k%65y=2&c HTTP/1.1\nHost: a\nConnection: close\n\n")
	if want := "GET /x?a;b=%zz&c&key=old host="; !strings.HasPrefix(body, want) {
		t.Errorf("the provider saw %q", body)
	}
}

// Headers that ReverseProxy has nothing to do with don't go through it; what
// arrives is the same (S85, S86, S87).
func TestS85HeadersArriveAlikeWithAndWithoutHopByHopOnes(t *testing.T) {
	t.Parallel()
	g := newRig(t, `{base_url: 'BASE', headers: {x-api-key: '{cred.key}', authorization: 'Bearer {cred.key}', x-version: '7', user-agent: 'keycaddy'}}`, report)
	plain := newRig(t, bearerRequest, report) // whose provider says nothing of User-Agent
	all := []string{
		"User-Agent: x", "Accept: a", "Accept: b", "Cookie: a=b", "Authorization: Bearer mine", "authorization: Basic eA==", "X_Api_Key: shadow", "X-Api-Key: shadow",
		"Connection-Id: c1", "Provider-Config-Key: test", "Nango-Proxy-X-B: c", "nango-proxy-accept: z", "Nango-Proxy-Authorization: mine", "Nango-Proxy-Connection: close",
		"Forwarded: for=1", "X-Forwarded-For: 1", "Via: 1.1 a", "Proxy-Authorization: x", "X-HTTP-Method-Override: DELETE", "Retries: 0", "Accept-Encoding: br", "X-Version: 8", "Range: bytes=0-1", "Expect: x",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var headers strings.Builder
		for _, h := range all {
			if random.IntN(3) == 0 {
				headers.WriteString(h + "\n")
			}
		}
		for i, g := range []*rig{g, plain} {
			head := "GET /x HTTP/1.1\nHost: a\n" + headers.String()
			_, short := raw(t, g.front, head+"\n")
			_, long := raw(t, g.front, head+"Connection: keep-alive\n\n")
			if short != long {
				t.Fatalf("of\n%swithout hop-by-hop headers:\n%swith one:\n%s", head, short, long)
			}
			if strings.Contains(short, "mine") || strings.Contains(short, "go-http-client") || strings.Contains(short, "nango") || strings.Contains(short, "forwarded") || i == 0 && strings.Contains(short, "shadow") {
				t.Fatalf("of\n%sarrived\n%s", head, short)
			}
		}
	}
}

// credentials has one connection, c1 (and one with the longest name).
type credentials struct{ auth *connect.Bound }

func (c credentials) Current(_ context.Context, id connect.ID) (*connect.Bound, error) {
	if id.Connection == "c2" {
		return nil, connect.ErrNotFound
	}
	return c.auth, nil
}

func (credentials) Renew(context.Context, *connect.Bound) (*connect.Bound, error) {
	return nil, connect.ErrNotFound
}
func (c credentials) Whose(context.Context, connect.ID) (*connect.Connection, error) {
	row, err := c.auth.Connection()
	return &row, err
}
func (credentials) Accepted(*connect.Bound) {}
func (credentials) Refused(*connect.Bound)  {}

const testKey, boundKey = "b7f2a3de-51d7-4b0f-9d5c-2f0f5e2ac001", "b7f2a3de-51d7-4b0f-9d5c-2f0f5e2ac002"

var testKeys = connect.NewKeyring([]connect.APIKey{
	{Name: "k", Key: connect.DigestOf(testKey), Scopes: policy.DefaultScopes},
	{Name: "bound", Key: connect.DigestOf(boundKey), Scopes: policy.DefaultScopes, Limits: policy.Limits{Integrations: []string{"other"}}},
}, nil)

// testCaller is who testKey belongs to.
var testCaller, _ = testKeys.Named("k")

// testSetup has one integration, test.
func testSetup(t testing.TB) *connect.Setup {
	t.Helper()
	p, err := catalog.Parse("test.yaml", []byte("id: test\ndisplay_name: Test\nvendor: test\ncategories: [test]\nauth_scheme: none\nrequest: {base_url: 'https://api.example'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	setup, err := connect.NewSetup(nil, new(url.URL), nil, []*connect.Integration{{Key: "test", Provider: p}})
	if err != nil {
		t.Fatal(err)
	}
	return setup
}

// Who calls whom has to be clear, and an error says which header it is about.
func TestResolve(t *testing.T) {
	t.Parallel()
	const key, bound = testKey, boundKey
	setup := testSetup(t)
	auth := bind(t, "https://api.example", bearerRequest, "k")
	long := strings.Repeat("x", 256)
	type header = http.Header
	for name, c := range map[string]struct {
		method string
		key    string
		header header
		status int
		code   string
		fields []string
	}{
		"good":               {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 200, "", nil},
		"longest":            {"GET", key, header{HeaderConnection: {long[1:]}, HeaderIntegration: {"test"}}, 200, "", nil},
		"no key":             {"GET", "", header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 401, "missing_auth_header", nil},
		"not a key":          {"GET", "x", header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 401, "invalid_secret_key_format", nil},
		"unknown key":        {"GET", key[:35] + "9", header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 401, "unknown_account", nil},
		"another's key":      {"GET", bound, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 403, "forbidden", nil},
		"key first":          {"GET", "x", header{}, 401, "invalid_secret_key_format", nil},
		"CONNECT":            {"CONNECT", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 405, "method_not_allowed", nil},
		"TRACK":              {"TRACK", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 405, "method_not_allowed", nil},
		"TRACE":              {"TRACE", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}, 405, "method_not_allowed", nil},
		"no connection":      {"GET", key, header{HeaderIntegration: {"test"}}, 400, "invalid_headers", []string{"connection-id"}},
		"no integration":     {"GET", key, header{HeaderConnection: {"c1"}}, 400, "invalid_headers", []string{"provider-config-key"}},
		"neither":            {"GET", key, header{}, 400, "invalid_headers", []string{"provider-config-key", "connection-id"}},
		"empty":              {"GET", key, header{HeaderConnection: {""}, HeaderIntegration: {"test"}}, 400, "invalid_headers", []string{"connection-id"}},
		"two connections":    {"GET", key, header{HeaderConnection: {"c1", "c1"}, HeaderIntegration: {"test"}}, 400, "invalid_headers", []string{"connection-id"}},
		"two integrations":   {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test", "test"}}, 400, "invalid_headers", []string{"provider-config-key"}},
		"long connection":    {"GET", key, header{HeaderConnection: {long}, HeaderIntegration: {"test"}}, 400, "invalid_headers", []string{"connection-id"}},
		"long integration":   {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {long}}, 400, "invalid_headers", []string{"provider-config-key"}},
		"another base":       {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}, "Base-Url-Override": {"https://evil.example"}}, 400, "base_url_override_disabled", nil},
		"retries":            {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}, "Retries": {"3"}, "Retry-On": {"500, 503"}}, 200, "", nil},
		"no retries":         {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}, "Retries": {"0"}}, 200, "", nil},
		"bad retries":        {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}, "Retries": {"many"}, "Retry-On": {"5xx"}}, 400, "invalid_headers", []string{"retries", "retry-on"}},
		"negative retries":   {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}, "Retries": {"-1"}}, 400, "invalid_headers", []string{"retries"}},
		"no such integraton": {"GET", key, header{HeaderConnection: {"c1"}, HeaderIntegration: {"nope"}}, 404, "unknown_provider_config", nil},
		"no such connection": {"GET", key, header{HeaderConnection: {"c2"}, HeaderIntegration: {"test"}}, 404, "unknown_connection", nil},
	} {
		r := httptest.NewRequest(c.method, "/x", nil)
		r.Header = c.header.Clone()
		if c.key != "" {
			r.Header.Set("Authorization", "Bearer "+c.key)
		}
		call, err := new(Proxy).Resolve(r, testKeys, setup, credentials{auth})
		if c.status == 200 {
			if err != nil || call.Caller.Name != "k" || call.Auth != auth || call.ID.Integration != "test" {
				t.Errorf("%s: %+v, %v", name, call, err)
			}
			continue
		}
		p := problem.Of(err)
		var fields []string
		for _, f := range p.Errors {
			fields = append(fields, strings.Join(f.Path, "."))
		}
		if p.Status != c.status || p.Code != c.code || !slices.Equal(fields, c.fields) {
			t.Errorf("%s: got %d %s %v (%v)", name, p.Status, p.Code, fields, err)
		}
		if errors.As(err, new(*problem.Problem)) && strings.Contains(p.Error(), c.key) && c.key != "" {
			t.Errorf("%s: the key is in %v", name, err)
		}
	}
}
