package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// upstream is a provider inside the test: the demo's strict OAuth server, and
// an API of the test's own behind its tokens, under /own/.
type upstream struct {
	*demo.Provider
	URL string
	// API has the handlers by path. A path that isn't there is answered 404.
	API map[string]http.HandlerFunc

	mu   sync.Mutex
	seen []string // method and target of every call of the API
}

func startUpstream(t *testing.T, port int, o demo.Options) *upstream {
	t.Helper()
	u := &upstream{API: map[string]http.HandlerFunc{}}
	server := httptest.NewUnstartedServer(u)
	u.URL = "http://" + server.Listener.Addr().String()
	o.BaseURL, o.RedirectURIs = u.URL, []string{fmt.Sprintf("http://localhost:%d/oauth/callback", port)}
	if o.AccessTTL == 0 {
		o.AccessTTL = time.Hour
	}
	u.Provider = demo.New(o)
	server.Start()
	t.Cleanup(func() { u.Close(); server.CloseClientConnections(); server.Close() })
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/own")
	if !ok {
		u.Provider.ServeHTTP(w, r)
		return
	}
	u.mu.Lock()
	u.seen = append(u.seen, r.Method+" "+r.RequestURI)
	u.mu.Unlock()
	// The demo's own API says whether the token is good.
	check := httptest.NewRequest("GET", "/api/me", nil)
	check.Header["Authorization"] = r.Header["Authorization"]
	answer := httptest.NewRecorder()
	if u.Provider.ServeHTTP(answer, check); answer.Code != http.StatusOK {
		w.Header().Set("WWW-Authenticate", answer.Header().Get("WWW-Authenticate"))
		w.WriteHeader(answer.Code)
		_, _ = answer.Body.WriteTo(w)
		return
	}
	if h := u.API[path]; h != nil {
		h(w, r)
		return
	}
	http.NotFound(w, r)
}

// calls returns what has reached the API so far.
func (u *upstream) calls() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.seen...)
}

// config is a Caddy's configuration with the provider as integration "own".
func (u *upstream) config(t *testing.T, dir string, port int, site string) string {
	t.Helper()
	folder := t.TempDir()
	entry := `id: own
display_name: Own
vendor: own
categories: [test]
auth_scheme: oauth2_code
authorize: {url: "{app.server}/authorize", pkce: true}
token: {url: "{app.server}/token", client_auth: basic}
refresh: {declared: true}
app_fields: [{name: server, required: true, source: operator, format: uri}]
request: {base_url: "{app.server}/own", headers: {authorization: "Bearer {token.access_token}"}}
`
	if err := os.WriteFile(filepath.Join(folder, "own.yaml"), []byte(entry), 0o600); err != nil {
		t.Fatal(err)
	}
	return caddyfile(dir, port, fmt.Sprintf(`
		catalog %s
		integration own {
			client_id %s
			client_secret %s
			field server %s
		}`, folder, demo.DefaultClientID, demo.DefaultClientSecret, u.URL), site)
}

// startOwn starts an upstream and a Caddy, and connects "alice" of integration
// "own".
func startOwn(t *testing.T, o demo.Options, site string) (u *upstream, c *caddy, config string) {
	t.Helper()
	port, dir := freePort(t), t.TempDir()
	u = startUpstream(t, port, o)
	config = u.config(t, dir, port, site)
	c = startCaddy(t, dir, port, config)
	connectForm(t, c, "own", "alice", nil)
	return u, c, config
}

var formInput = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// connectForm connects an account as a user would, without a browser: it sends
// the forms with the answers, and says yes at the demo provider.
func connectForm(t *testing.T, c *caddy, integration, connection string, answers map[string]string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	finish := func(res *http.Response, err error) (*url.URL, url.Values) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		page, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("connecting: %s: %d %v\n%s", res.Request.URL.Path, res.StatusCode, err, page)
		}
		form := url.Values{}
		for _, m := range formInput.FindAllSubmatch(page, -1) {
			form.Set(string(m[1]), html.UnescapeString(string(m[2])))
		}
		return res.Request.URL, form
	}
	_, form := finish(client.Get(c.link(integration, connection)))
	for name, value := range answers {
		form.Set("field."+name, value)
	}
	at, form := finish(client.PostForm(c.URL+"/connect/with/"+integration, form))
	if at.Path == "/authorize" {
		form.Set("decision", "allow")
		form.Set("account", "ada")
		at, form = finish(client.PostForm(at.Scheme+"://"+at.Host+at.Path, form))
	}
	if at.Path == "/connect/confirm" { // that it is his own account
		form.Set("decision", "yes")
		at, _ = finish(client.PostForm(c.URL+at.Path, form))
	}
	if at.Path != "/connect/done" {
		t.Fatalf("connecting ended at %s", at.Path)
	}
	var got struct {
		Data struct{ Connections []struct{ ID string } }
	}
	if status := c.call("GET", "/connections/"+connection+"?provider_config_key="+integration, nil, nil); status != http.StatusOK {
		t.Fatalf("the connection isn't there: %d %v", status, got)
	}
}

// wire is a connection to a Caddy that is spoken to byte by byte.
type wire struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, c *caddy) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wire{conn, bufio.NewReader(conn)}
}

// send writes lines with the ends that HTTP has.
func (w *wire) send(t *testing.T, lines string) {
	t.Helper()
	if _, err := io.WriteString(w, strings.ReplaceAll(lines, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
}

// answer reads the next answer, 1xx too, with its body.
func (w *wire) answer(t *testing.T) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(w.in, nil)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	if res.StatusCode < 200 {
		return res, ""
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("reading the answer's body: %v", err)
	}
	return res, string(body)
}

// named is the headers of a call of alice's.
const named = "Host: localhost\nAuthorization: Bearer " + apiKey + "\nProvider-Config-Key: own\nConnection-Id: alice\n"

// pattern is an endless stream of bytes that a mistake in their order shows in.
type pattern struct {
	block []byte
	at    int
}

func newPattern() *pattern {
	block := make([]byte, 1<<20+7)
	for i := range block {
		block[i] = byte(i*i>>5 ^ i)
	}
	return &pattern{block: block}
}

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, p.block[p.at:])
	p.at = (p.at + n) % len(p.block)
	return n, nil
}

// matches is a writer that compares what it gets with the pattern.
type matches struct {
	*pattern
	n int64
}

func (m *matches) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		part := m.block[m.at:]
		part = part[:min(len(part), len(rest))]
		if !bytes.Equal(part, rest[:len(part)]) {
			return 0, fmt.Errorf("other bytes than were sent, after %d", m.n)
		}
		rest = rest[len(part):]
		m.at = (m.at + len(part)) % len(m.block)
	}
	m.n += int64(len(b))
	return len(b), nil
}
