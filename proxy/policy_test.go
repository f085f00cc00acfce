package proxy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// limitedCaller is one with limits.
func limitedCaller(t testing.TB, limits policy.Limits) *connect.Caller {
	t.Helper()
	const key = "b7f2a3de-51d7-4b0f-9d5c-2f0f5e2ac009"
	ring := connect.NewKeyring([]connect.APIKey{{Name: "limited", Key: connect.DigestOf(key), Scopes: policy.DefaultScopes, Limits: limits}}, nil)
	c, err := ring.Check(key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestS98ACallerMakesTheCallsThatItMay(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, report)
	g.old = g.new
	g.caller = limitedCaller(t, policy.Limits{Calls: []string{"GET,HEAD /repos/*/issues/**", "POST /search"}})
	for line, status := range map[string]int{
		"GET /repos/a/issues": 200, "GET /repos/a/issues/1": 200, "GET /repos/%61/%69ssues": 200, "POST /search?q=_method": 200, "GET //repos/a/issues": 200,
		"DELETE /repos/a/issues": 403, "GET /repos/a": 403, "GET /repos//issues": 403, "GET /": 403, "GET /Search": 403, "POST /search/": 403, "POST /search;x": 403,
		"POST /search?_method=DELETE": 403, "get /repos/a/issues": 403, "GET /repos/a/issues/../../../admin": 400, "GET /repos/a%2Fb/issues": 400, "GET /repos/a/issues/%2e%2e/x": 400,
	} {
		method, target, _ := strings.Cut(line, " ")
		res, body := raw(t, g.front, method+" "+target+" HTTP/1.1\nHost: keycaddy.example\nContent-Length: 0\nX-HTTP-Method-Override: DELETE\nConnection: close\n\n")
		if res.StatusCode != status || status == 200 && (!strings.HasPrefix(body, method+" ") || strings.Contains(body, "override")) {
			t.Errorf("%s: got %d %s", line, res.StatusCode, body)
		}
		if want := map[int]string{400: "invalid_path", 403: "forbidden"}[status]; res.Header.Get(problem.Header) != want {
			t.Errorf("%s: got %s, want %s", line, res.Header.Get(problem.Header), want)
		}
	}
}

// TestS99AConnectionOutOfReachIsAsIfThereWereNone: no secret is read for it.
func TestS99AConnectionOutOfReachIsAsIfThereWereNone(t *testing.T) {
	t.Parallel()
	auth := boundTo(t, &bind(t, "https://api.example", bearerRequest, "k").Binding, connect.Connection{
		ID: testID, UID: "u", EndUser: &connect.EndUser{ID: "ada"}, Tags: map[string]string{"team": "a"},
	}, "k")
	setup := testSetup(t)
	for name, c := range map[string]struct {
		limits policy.Limits
		status int
		code   string
	}{
		"everything":       {policy.Limits{}, 200, ""},
		"the integration":  {policy.Limits{Integrations: []string{"test"}}, 200, ""},
		"the connection":   {policy.Limits{Connections: []string{"c1"}}, 200, ""},
		"its user":         {policy.Limits{EndUsers: []string{"bob", "ada"}}, 200, ""},
		"its tag":          {policy.Limits{Tags: map[string]string{"team": "a"}}, 200, ""},
		"no integration":   {policy.Limits{Integrations: []string{"other"}}, 403, "forbidden"},
		"other connection": {policy.Limits{Connections: []string{"c2"}}, 404, "unknown_connection"},
		"other user":       {policy.Limits{EndUsers: []string{"bob"}}, 404, "unknown_connection"},
		"other tag":        {policy.Limits{Tags: map[string]string{"team": "b"}}, 404, "unknown_connection"},
		"user, not tag":    {policy.Limits{EndUsers: []string{"ada"}, Tags: map[string]string{"x": "y"}}, 404, "unknown_connection"},
	} {
		read := &reading{credentials: credentials{auth}}
		_, err := resolve(t.Context(), limitedCaller(t, c.limits), testID, setup, read)
		if c.status == 200 {
			if err != nil || read.n != 1 {
				t.Errorf("%s: %v, %d read", name, err, read.n)
			}
			continue
		}
		if p := problem.Of(err); p.Status != c.status || p.Code != c.code || read.n != 0 {
			t.Errorf("%s: got %d %s, %d read", name, p.Status, p.Code, read.n)
		}
	}
}

// reading counts how often a credential is read.
type reading struct {
	credentials
	n int
}

func (r *reading) Current(ctx context.Context, id connect.ID) (*connect.Bound, error) {
	r.n++
	return r.credentials.Current(ctx, id)
}

func TestACallerThatIsTooFastIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	const key = "b7f2a3de-51d7-4b0f-9d5c-2f0f5e2ac009"
	ring := connect.NewKeyring([]connect.APIKey{{Name: "slow", Key: connect.DigestOf(key), Scopes: policy.DefaultScopes, Limits: policy.Limits{Rate: "1/1h"}}}, nil)
	auth, setup := bind(t, "https://api.example", bearerRequest, "k"), testSetup(t)
	call := func() error {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header = http.Header{HeaderConnection: {"c1"}, HeaderIntegration: {"test"}, "Authorization": {key}}
		_, err := new(Proxy).Resolve(r, ring, setup, credentials{auth})
		return err
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	if p := problem.Of(call()); p.Status != 429 || p.Code != "too_many_request" || !p.Retryable || p.RetryAfter < 59*time.Minute {
		t.Errorf("got %+v", p)
	}
}

var paths = flag.Int("paths", 1000, "how many made-up paths are sent to each server")

// patterns are limits, and what they mean for a path that a server has decoded.
var patterns = map[string]*regexp.Regexp{
	"/a":            regexp.MustCompile(`^/a$`),
	"/a/**":         regexp.MustCompile(`^/a(/.*)?$`),
	"/a/*":          regexp.MustCompile(`^/a/[^/]+$`),
	"/a/*/b":        regexp.MustCompile(`^/a/[^/]+/b$`),
	"/a/*/b/**":     regexp.MustCompile(`^/a/[^/]+/b(/.*)?$`),
	"/*:x/**":       regexp.MustCompile(`^/[^/]*:x(/.*)?$`),
	"/a%20b/*%2F*":  regexp.MustCompile(`^/a b/[^/]*/[^/]*$`),
	"/%C3%A9*/a;b":  regexp.MustCompile(`^/é[^/]*/a;b$`),
	"/a/b/":         regexp.MustCompile(`^/a/b/$`),
	"/*/*/*":        regexp.MustCompile(`^(/[^/]+){3}$`),
	"/v*.json/**":   regexp.MustCompile(`^/v[^/]*\.json(/.*)?$`),
	"/a/%25*":       regexp.MustCompile(`^/a/%[^/]*$`),
	"/a/b/*/c/d/**": regexp.MustCompile(`^/a/b/[^/]+/c/d(/.*)?$`),
}

// TestS89WhatPolicySawIsWhatTheProviderGot sends paths to servers that read them
// each in its way. What a server made of a path has to be what the limits were
// held against: where they let it through, the decoded path is one that they
// mean. With -paths more of them are sent.
func TestS89WhatPolicySawIsWhatTheProviderGot(t *testing.T) {
	dir := t.TempDir()
	goServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	t.Cleanup(goServer.Close)
	for name, socket := range map[string]string{"go": "", "nginx": startNginx(t, dir), "node": startNode(t, dir)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := &http.Transport{MaxIdleConnsPerHost: 8}
			defer base.CloseIdleConnections()
			at := goServer.URL
			if socket != "" {
				at = "http://" + name + ".example"
				base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "unix", socket)
				}
			}
			p := &Proxy{Base: base, Logger: zap.NewNop()}
			p.Provision()
			auth := bind(t, at, bearerRequest, "k")
			rules := make(map[string]*policy.Rules, len(patterns))
			for pattern := range patterns {
				rules[pattern] = limitedCaller(t, policy.Limits{Calls: []string{pattern}}).Rules
			}
			random := rand.New(rand.NewPCG(1, uint64(*paths)))
			sent, allowed := 0, 0
			for n := range *paths {
				path := madeUp(random)
				p.Paths = Paths{EncodedSlash: n%2 == 1}
				canonical, err := p.Paths.Canonical(path)
				if err != nil {
					continue
				}
				w := httptest.NewRecorder()
				call := &Call{Caller: testCaller, ID: testID, Auth: auth, base: auth.Base, renewer: newRenewals(auth, nil)}
				if err := p.Serve(w, httptest.NewRequest("GET", "/", nil), path, call); err != nil {
					t.Fatalf("%q: %v", path, err)
				}
				if w.Code != http.StatusOK {
					t.Fatalf("%q: %d %s", path, w.Code, w.Body)
				}
				sent++
				seen := w.Body.String()
				for pattern, means := range patterns {
					_, err := rules[pattern].Decide("GET", canonical, "")
					if err == nil && !means.MatchString(seen) {
						t.Errorf("%q is let through by %q, and the server got %q", path, pattern, seen)
					}
					if err == nil {
						allowed++
					}
				}
			}
			if sent < *paths/10 || allowed < *paths/20 {
				t.Errorf("of %d paths %d were sent, and %d let through: that shows nothing", *paths, sent, allowed)
			}
			t.Logf("%d of %d paths sent, %d times let through", sent, *paths, allowed)
		})
	}
}

// madeUp is a path of the pieces that servers read in different ways.
func madeUp(r *rand.Rand) string {
	pieces := []string{"a", "b", "c", "d", "x", "/", "/", "/", "/a/", "/b", "/a", "%61", "%2F", "%2f", ";", ";v=1", "%3B", ":x", "%3ax", ".", "..", "%2e", "é", "%C3%A9", "%25", "%2561", "%20", "a%20b/", "v1.json", "v.json/", "//", "*", "%2A", "+", "&", "|", "%7C", "~", "%7e", "A", "%00", `\`, "%5c", "?", "a/b/"}
	var b strings.Builder
	if r.IntN(2) == 0 { // one that is near to what is allowed
		b.WriteString([]string{"/a", "/a/", "/a/x", "/a/x/b", "/a%20b/", "/é", "/v", "/a/b/", "/a/b/c/c/d"}[r.IntN(9)])
	}
	for range r.IntN(6) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// startNginx starts an nginx that answers with the path as it has read it, and
// returns its socket.
func startNginx(t *testing.T, dir string) string {
	t.Helper()
	socket, file := filepath.Join(dir, "nginx.sock"), filepath.Join(dir, "nginx.conf")
	config := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr error;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	keepalive_requests 1000000000;
	server {
		listen unix:%[2]s;
		location / { return 200 $uri; }
	}
}
`, dir, socket)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	start(t, socket, "nginx", "-p", dir, "-c", file)
	return socket
}

// startNode starts a Node.js server that does the same.
func startNode(t *testing.T, dir string) string {
	t.Helper()
	socket := filepath.Join(dir, "node.sock")
	start(t, socket, "node", "-e", `require("http").createServer((q, s) => s.end(decodeURIComponent(new URL(q.url, "http://x").pathname))).listen(process.argv[1])`, socket)
	return socket
}

func start(t *testing.T, socket, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has no other end
		_ = cmd.Wait()
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// FuzzPolicy holds limits against paths as a Go server reads them.
func FuzzPolicy(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 50 {
		f.Add(madeUp(random), n%2 == 0)
	}
	rules := make(map[string]*policy.Rules, len(patterns))
	for pattern := range patterns {
		rules[pattern] = limitedCaller(f, policy.Limits{Calls: []string{pattern}}).Rules
	}
	base := &url.URL{Scheme: "https", Host: "api.example"}
	f.Fuzz(func(t *testing.T, path string, encodedSlash bool) {
		canonical, err := Paths{EncodedSlash: encodedSlash}.Canonical(path)
		var bad *PathError
		if err != nil {
			if !errors.As(err, &bad) {
				t.Fatal(err)
			}
			return
		}
		u, err := below(base, canonical, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := url.ParseRequestURI(u.RequestURI())
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", path, u.RequestURI(), err)
		}
		for pattern, means := range patterns {
			if _, err := rules[pattern].Decide("GET", canonical, ""); err == nil && !means.MatchString(got.Path) {
				t.Errorf("%q is let through by %q, and a server gets %q", path, pattern, got.Path)
			}
		}
	})
}
