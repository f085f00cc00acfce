package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// A request's body goes on while its answer is read already, and nothing of it
// is lost, over both versions of HTTP.
func TestBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2], func(t *testing.T) {
			t.Parallel()
			g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
				c := http.NewResponseController(w)
				_ = c.EnableFullDuplex()
				lines := bufio.NewScanner(r.Body)
				for lines.Scan() {
					if _, err := fmt.Fprintf(w, "got %s\n", lines.Text()); err != nil || c.Flush() != nil {
						return
					}
				}
			})
			var p http.Protocols
			p.SetHTTP1(!h2)
			p.SetUnencryptedHTTP2(h2)
			client := &http.Client{Transport: &http.Transport{Protocols: &p}, Timeout: 20 * time.Second}
			defer client.CloseIdleConnections()
			r, w := io.Pipe()
			defer w.Close()
			req, err := http.NewRequest("POST", g.front.URL+"/x", r)
			if err != nil {
				t.Fatal(err)
			}
			go fmt.Fprintln(w, "line 0")
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			answer := bufio.NewReader(res.Body)
			for i := range 100 {
				line, err := answer.ReadString('\n')
				if want := fmt.Sprintf("got line %d\n", i); err != nil || line != want {
					t.Fatalf("got %q, %v; want %q", line, err, want)
				}
				fmt.Fprintf(w, "line %d\n", i+1)
			}
		})
	}
}

// A refusal comes before the switch of protocols, so that an upgrade is tried
// again as any other call, and its connection works both ways.
func TestUpgradeAfterRefusal(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, strict(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nKeycaddy-Error: x\r\n\r\n", r.Header.Get("Upgrade"))
		_, _ = io.Copy(conn, buf)
	}))
	conn, err := net.Dial("tcp", g.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	answer := bufio.NewReader(conn)
	res, err := http.ReadResponse(answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Keycaddy-Error") != "" {
		t.Fatalf("got %d %v", res.StatusCode, res.Header)
	}
	for i := range 3 {
		fmt.Fprintf(conn, "ping %d\n", i)
		if line, err := answer.ReadString('\n'); line != fmt.Sprintf("ping %d\n", i) {
			t.Fatalf("got %q, %v", line, err)
		}
	}
	if n := g.renewals.counts(); n != [3]int{1, 1, 0} {
		t.Errorf("renewed, accepted, refused: %v", n)
	}
}

// Trailers pass both ways, but none that could be taken for the credential or
// for keycaddy's own headers.
func TestTrailers(t *testing.T) {
	t.Parallel()
	g := newRig(t, `{base_url: 'BASE', headers: {authorization: 'Bearer {cred.key}', x-api-key: '{cred.key}'}}`, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v", body, r.Trailer)
		w.Header().Set("X-Sum", "7")
		w.Header().Set(http.TrailerPrefix+"X-Late", "8")
	})
	res, body := raw(t, g.front, "POST /x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTrailer: X-Digest, Authorization, X-Api-Key, X_Api_Key, Connection-Id\n\n"+
		"5\nhello\n0\nX-Digest: 9\nAuthorization: Bearer caller\nX-Api-Key: caller\nX_Api_Key: caller\nConnection-Id: caller\nX-Unannounced: caller\n\n")
	if want := "hello map[X-Digest:[9]]"; body != want {
		t.Errorf("the provider saw %s, want %s", body, want)
	}
	if got := res.Trailer; got.Get("X-Sum") != "7" || got.Get("X-Late") != "8" {
		t.Errorf("the caller saw the trailers %v", got)
	}
}

// What tells the caller of things to come passes at once.
func TestEarlyHints(t *testing.T) {
	t.Parallel()
	hints := make(chan string, 1)
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		select {
		case <-hints: // the caller has them already
			hints <- "in time"
		case <-time.After(5 * time.Second):
		}
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "ok")
	})
	req := g.get("/")
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints <- fmt.Sprint(code, h.Get("Link"))
			return nil
		},
	}))
	res, body := g.send(req)
	if res.StatusCode != 200 || body != "ok" || res.Header.Get("Link") != "" || len(hints) != 1 || <-hints != "in time" {
		t.Errorf("got %d %v %q", res.StatusCode, res.Header, body)
	}
}

// An answer that breaks off is no whole answer to the caller either (S110).
func TestTruncatedAnswer(t *testing.T) {
	t.Parallel()
	for _, head := range []string{
		"Content-Length: 100\r\n\r\nshort",
		"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
		"Transfer-Encoding: chunked\r\n\r\n5\r\nsho",
	} {
		g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s", head)
			conn.Close()
		})
		res, err := g.front.Client().Do(g.get("/"))
		if err != nil {
			continue // the connection ended before the answer began
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			t.Errorf("%q: got %q and a clean end", head, body)
		}
	}
}

// A provider that can't be reached, or doesn't answer, is a typed error.
func TestUpstreamErrors(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	res, _ := g.send(g.get("/"))
	if res.StatusCode != 502 || res.Header.Get("Keycaddy-Error") != "upstream_unreachable" {
		t.Errorf("no answer: got %d %v", res.StatusCode, res.Header)
	}
	g = newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	g.proxy.Base.(*http.Transport).ResponseHeaderTimeout = 50 * time.Millisecond
	res, _ = g.send(g.get("/"))
	if res.StatusCode != 504 || res.Header.Get("Keycaddy-Error") != "upstream_timeout" {
		t.Errorf("no answer in time: got %d %v", res.StatusCode, res.Header)
	}
}

// Bodies of all sizes around the buffers' arrive whole, both ways.
func TestBodiesArriveWhole(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, strict(echo))
	g.old = g.new
	for _, size := range []int{1, testLimit - 1, testLimit, testLimit + 1, 32 << 10, 32<<10 + 1, 3 << 20} {
		for _, known := range []bool{true, false} {
			sent := make([]byte, size)
			rand.Read(sent)
			var body io.Reader = bytes.NewReader(sent)
			if !known {
				body = io.MultiReader(body)
			}
			req, err := http.NewRequest("PUT", g.front.URL+"/x", body)
			if err != nil {
				t.Fatal(err)
			}
			if res, got := g.send(req); res.StatusCode != 200 || got != string(sent) {
				t.Errorf("%d bytes: got %d and %d bytes", size, res.StatusCode, len(got))
			}
		}
	}
}

// A redirect is the caller's to follow: the credential doesn't go along (S93).
func TestRedirectIsPassedOn(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/elsewhere") {
			t.Error("the redirect was followed")
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	res, err := g.front.Client().Transport.RoundTrip(g.get("/"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 307 || res.Header.Get("Location") != "/elsewhere" {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
}

// A body that is malformed is the caller's fault, and nothing that follows it
// is taken for another request (S84).
func TestMalformedBody(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, echo)
	for _, body := range []string{"5\nhello\nzz\nGET / HTTP/1.1\nHost: a\n\n", "+5\nhello\n0\n\n"} {
		res, answer := raw(t, g.front, "POST /x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n"+body)
		if res.StatusCode != 400 || res.Header.Get("Keycaddy-Error") != "incomplete_body" || !res.Close {
			t.Errorf("%q: got %d %v %s", body, res.StatusCode, res.Header, answer)
		}
	}
}

// An answer that comes before the body has been sent reaches the caller, who
// may never send the rest; and the body isn't read any more after that.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // or Go's server reads on before it answers
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too much")
	})
	for _, head := range []string{"Content-Length: 1000000\n\n", "Transfer-Encoding: chunked\n\n5\nhello\n"} {
		res, answer := raw(t, g.front, "POST /x HTTP/1.1\nHost: a\n"+head)
		if res.StatusCode != 413 || answer != "too much" || !res.Close {
			t.Errorf("%q: got %d %v %q", head, res.StatusCode, res.Header, answer)
		}
	}
	// A whole body leaves the connection as it is.
	res, _ := raw(t, g.front, "POST /x HTTP/1.1\nHost: a\nContent-Length: 2000\n\n"+strings.Repeat("x", 2000))
	if res.StatusCode != 413 {
		t.Errorf("got %d", res.StatusCode)
	}
}
