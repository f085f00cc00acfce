package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// What a provider says to browsers about its own origin would be taken to be
// about keycaddy's; none of it passes unless the operator lets it.
func TestS106HeadersAboutTheOriginAreHeldBack(t *testing.T) {
	t.Parallel()
	held := []string{
		"Set-Cookie", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Service-Worker-Allowed", "Refresh", "Nel", "Report-To",
		"Reporting-Endpoints", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers",
		"Content-Security-Policy-Report-Only", "Accept-Ch", "Speculation-Rules", "Origin-Agent-Cluster", "Cdn-Cache-Control",
		"Cloudflare-Cdn-Cache-Control", "Surrogate-Control", "X-Accel-Redirect", "X-Sendfile", "Set-Login", "Public-Key-Pins", "Expect-Ct",
	}
	provider := func(w http.ResponseWriter, r *http.Request) {
		for _, name := range held {
			w.Header().Set(name, "provider")
		}
		w.Header().Set("Content-Security-Policy", "script-src *")
		w.Header().Set("Location", "https://elsewhere.example/")
		w.Header().Set("Www-Authenticate", `Basic realm="x"`)
		w.Header().Set("X-Ratelimit-Remaining", "3")
		w.WriteHeader(http.StatusForbidden)
	}
	g := newRig(t, bearerRequest, provider)
	res, _ := g.send(g.get("/"))
	for _, name := range held {
		if v := res.Header.Values(name); v != nil {
			t.Errorf("%s: %q has passed", name, v)
		}
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": sandboxed[0], "X-Content-Type-Options": "nosniff", "Location": "https://elsewhere.example/",
		"Www-Authenticate": `Basic realm="x"`, "X-Ratelimit-Remaining": "3",
	} {
		if v := res.Header.Values(name); !slices.Equal(v, []string{want}) {
			t.Errorf("%s: got %q, want %q", name, v, want)
		}
	}
	g = newRig(t, bearerRequest, provider)
	g.proxy.Answers.Pass = map[string]bool{"Set-Cookie": true, "Access-Control-*": true, "Content-Security-Policy": true}
	res, _ = g.send(g.get("/"))
	for _, name := range held {
		passes := name == "Set-Cookie" || strings.HasPrefix(name, "Access-Control-")
		if got := res.Header.Get(name) == "provider"; got != passes {
			t.Errorf("%s has passed: %v, and the operator says %v", name, got, passes)
		}
	}
	if v := res.Header.Get("Content-Security-Policy"); v != "script-src *" {
		t.Errorf("got the policy %q", v)
	}
}

// No cache in front may give one connection's answer to another; if the
// operator lets providers decide, answers at least differ by who asks for whom.
func TestS107NoSharedCacheMayKeepAnswers(t *testing.T) {
	t.Parallel()
	provider := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, s-maxage=600")
		w.Header().Set("Vary", "Accept")
		w.Header().Set("Etag", `"1"`)
	}
	g := newRig(t, bearerRequest, provider)
	res, _ := g.send(g.get("/"))
	if v := res.Header.Values("Cache-Control"); !slices.Equal(v, uncached) || res.Header.Get("Etag") != `"1"` {
		t.Errorf("got %v", res.Header)
	}
	g = newRig(t, bearerRequest, provider)
	g.proxy.Answers.Pass = map[string]bool{"Cache-Control": true}
	res, _ = g.send(g.get("/"))
	if v := res.Header.Values("Vary"); res.Header.Get("Cache-Control") != "public, s-maxage=600" || !slices.Equal(v, []string{"Accept", varies}) {
		t.Errorf("got %v", res.Header)
	}
}

// A page of the provider's is no page of keycaddy's.
func TestS108PagesAreNotShown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, disposition, want string }{
		{"text/html", "", "attachment"},
		{"TEXT/HTML; charset=utf-8", "", "attachment"},
		{"image/svg+xml", "inline; filename=x.svg", "attachment; filename=x.svg"},
		{"application/xhtml+xml", "attachment; filename=\"a b.html\"", `attachment; filename="a b.html"`},
		{"text/html", "inline; filename*=UTF-8''%e2%82%ac.html", "attachment; filename*=utf-8''%E2%82%AC.html"},
		{"text/html", "filename=", "attachment"},
		{"application/xml", "", "attachment"},
		{"application/json", "", ""},
		{"text/plain", "inline; filename=x.txt", "inline; filename=x.txt"},
		{"text/event-stream", "", ""},
	} {
		g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			if c.disposition != "" {
				w.Header().Set("Content-Disposition", c.disposition)
			}
			_, _ = io.WriteString(w, "<script>alert(1)</script>")
		})
		res, body := g.send(g.get("/"))
		if got := res.Header.Get("Content-Disposition"); got != c.want || res.Header.Get("Content-Security-Policy") != sandboxed[0] || res.Header.Get("X-Content-Type-Options") != "nosniff" || body != "<script>alert(1)</script>" {
			t.Errorf("%s %q: got %v %q", c.kind, c.disposition, res.Header, body)
		}
	}
}

// Keycaddy-Error tells keycaddy's own answers from a provider's, so that no
// provider may set it, not even after the body.
func TestS109ProviderCantPassForKeycaddy(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set(problem.Header, "needs_reauth")
		w.Header().Set("X-Own", "1")
		w.WriteHeader(http.StatusFailedDependency)
		_, _ = io.WriteString(w, "x")
		w.Header().Set("X-Sum", "1")
		w.Header().Set(http.TrailerPrefix+problem.Header, "needs_reauth")
		w.Header().Set(http.TrailerPrefix+"Set-Cookie", "a=b")
	})
	res, _ := g.send(g.get("/"))
	if res.Header.Get(problem.Header) != "" || res.Header.Get("X-Own") != "1" || res.StatusCode != 424 {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
	if len(res.Trailer) != 1 || res.Trailer.Get("X-Sum") != "1" {
		t.Errorf("got the trailers %v", res.Trailer)
	}
}

// sends is a provider that answers every request with these very bytes.
func sends(t *testing.T, answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, answer)
	}
}

// An answer that could be read in two ways, or has no end, is none (RFC 9112
// sections 6.3 and 11.1), and is never followed by what it hides.
func TestS104AnswersThatAreNone(t *testing.T) {
	t.Parallel()
	const hidden = "HTTP/1.1 200 OK\r\nX-Hidden: 1\r\nContent-Length: 6\r\n\r\nhidden"
	for name, c := range map[string]struct {
		answer string
		body   string // what may reach the caller; with a status of 502, nothing
	}{
		"two lengths":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", ""},
		"length below zero":       {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc", ""},
		"length with a sign":      {"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", ""},
		"name with a space":       {"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 3\r\n\r\nabc", "abc"}, // Go leaves the header out
		"name with a NUL":         {"HTTP/1.1 200 OK\r\nX\x00A: b\r\nContent-Length: 3\r\n\r\nabc", ""},
		"no name":                 {"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 3\r\n\r\nabc", ""},
		"unknown coding":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nabc", ""},
		"two codings":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", ""},
		"no status":               {"HTTP/1.1 OK\r\n\r\n", ""},
		"not HTTP":                {"hello\r\n\r\n", ""},
		"nothing":                 {"", ""},
		"switch nobody asked for": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc", ""},
		"bare switch":             {"HTTP/1.1 101 Switching Protocols\r\n\r\nabc", ""},
		"without end":             {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("b", 1000)+"\r\n", 11000), ""},
		"early ones without end":  {strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("b", 1000)+"\r\n\r\n", 11000), ""},
		"length and chunked":      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + hidden, "abc"},
		"more than its length":    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + hidden, "abc"},
		"204 with a body":         {"HTTP/1.1 204 No Content\r\n\r\n" + hidden, ""},
		"bare line feeds":         {"HTTP/1.1 200 OK\nX-A: b\nContent-Length: 3\n\nabc" + hidden, "abc"},
		"carriage return inside":  {"HTTP/1.1 200 OK\r\nX-A: b\rX-Hidden: 1\r\nContent-Length: 3\r\n\r\nabc", ""},
		"folded":                  {"HTTP/1.1 200 OK\r\nX-A: b\r\n X-Hidden: 1\r\nContent-Length: 3\r\n\r\nabc", "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, bearerRequest, sends(t, c.answer))
			g.proxy.Base.(*http.Transport).MaxResponseHeaderBytes = 1 << 20
			for range 2 { // the second one would get what the first has left
				conn, err := net.Dial("tcp", g.front.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				in := bufio.NewReader(conn)
				res, err := http.ReadResponse(in, nil)
				for err == nil && res.StatusCode == http.StatusEarlyHints {
					res, err = http.ReadResponse(in, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if res.StatusCode == http.StatusBadGateway {
					if c.body != "" || res.Header.Get(problem.Header) == "" {
						t.Errorf("got %v %s", res.Header, body)
					}
					continue
				}
				if string(body) != c.body || err != nil || c.body == "" && res.StatusCode != 204 || res.Header.Get("X-Hidden") != "" {
					t.Errorf("got %d %v %q, %v", res.StatusCode, res.Header, body, err)
				}
			}
		})
	}
}

// A provider that doesn't know WebSocket's handshake is not a WebSocket (RFC
// 6455 section 4.1), and one that answers without a switch gets no tunnel.
func TestS103TheSwitchHasToBeWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	for name, c := range map[string]struct {
		answer string
		status int
	}{
		"good":           {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", 101},
		"wrong accept":   {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + key + "\r\n\r\n", 502},
		"no accept":      {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 502},
		"other protocol": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 502},
		"no switch":      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200},
	} {
		g := newRig(t, bearerRequest, sends(t, c.answer))
		conn, err := net.Dial("tcp", g.front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", key)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != c.status {
			t.Errorf("%s: got %v, %v", name, res, err)
		}
	}
}

// Whatever is larger than providers take is refused before anything is sent.
func TestS95OversizedHeads(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(r *http.Request)
		status int
		code   string
	}{
		"long query":   {func(r *http.Request) { r.URL.RawQuery = strings.Repeat("a", maxTarget) }, 414, "uri_too_long"},
		"long path":    {func(r *http.Request) { r.URL.Path += strings.Repeat("a", maxTarget) }, 414, "uri_too_long"},
		"long header":  {func(r *http.Request) { r.Header.Set("Cookie", strings.Repeat("a", maxHeader)) }, 431, "headers_too_large"},
		"many headers": {func(r *http.Request) { r.Header["X"] = make([]string, maxHeaders+1) }, 431, "headers_too_large"},
		"many names": {func(r *http.Request) {
			for i := range maxHeaders {
				r.Header.Set(fmt.Sprint("X-", i), "1")
			}
		}, 431, "headers_too_large"},
		"large, but not too large": {func(r *http.Request) {
			r.URL.RawQuery = strings.Repeat("a", maxTarget-10)
			r.Header.Set("Cookie", strings.Repeat("a", maxHeader-1000))
		}, 200, ""},
	} {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header = http.Header{"Authorization": {"Bearer " + testKey}, HeaderConnection: {"c1"}, HeaderIntegration: {"test"}}
		c.change(r)
		_, err := new(Proxy).Resolve(r, testKeys, testSetup(t), credentials{bind(t, "https://api.example", bearerRequest, "k")})
		if c.status == 200 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if p := problem.Of(err); p.Status != c.status || p.Code != c.code {
			t.Errorf("%s: got %d %s", name, p.Status, p.Code)
		}
	}
}
