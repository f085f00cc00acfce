package proxy

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/problem"
)

const echoedKey = "sk-live/9f8a7b6c5d4e3f2a1b0c"

// newEcho is a rig whose credential is long enough to be looked for.
func newEcho(t testing.TB, mode Redaction, provider http.HandlerFunc) *rig {
	g := newRig(t, bearerRequest, provider)
	g.old = bind(t, g.provider.URL, bearerRequest, echoedKey)
	g.new = g.old
	g.proxy.Redaction = mode
	g.proxy.Provision()
	return g
}

// echoer answers with the credential that it got, in all places that there are.
func echoer(coding string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		w.Header().Set("Link", "<https://a.example/?auth="+url.QueryEscape(auth)+">")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Echo", auth)
		w.Header().Set("Trailer", "X-Sum")
		var body io.WriteCloser
		switch coding {
		case "":
			body = struct {
				io.Writer
				io.Closer
			}{w, io.NopCloser(nil)}
		case "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			body = gzip.NewWriter(w)
		case "deflate":
			w.Header().Set("Content-Encoding", "deflate")
			body = zlib.NewWriter(w)
		}
		_, _ = fmt.Fprintf(body, `{"authorization":"%s","basic":"%s"}`, auth, base64.StdEncoding.EncodeToString([]byte("x"+auth)))
		if coding != "" {
			_ = body.Close()
		}
		w.Header().Set("X-Sum", auth)
	}
}

// What the caller gets never has the credential in it, wherever the provider
// puts it and however it is compressed; what is around it stays.
func TestS105EchoedCredentialIsBlottedOut(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"", "gzip", "deflate"} {
		g := newEcho(t, RedactBlot, echoer(coding))
		req := g.get("/")
		req.Header.Set("Accept-Encoding", "gzip, br")
		var early []string
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			early = append(early, h.Get("Link"))
			return nil
		}}))
		res, body := g.send(req)
		stars := strings.Repeat("*", len(echoedKey))
		if res.StatusCode != 200 || res.Header.Get("Content-Encoding") != "" || !strings.HasPrefix(body, `{"authorization":"Bearer `+stars+`","basic":"`) || !strings.HasSuffix(body, `"}`) {
			t.Errorf("%s: got %d %v %s", coding, res.StatusCode, res.Header, body)
		}
		if basic := body[len(`{"authorization":"Bearer `+stars+`","basic":"`):]; strings.Count(basic, "*") < len(echoedKey) {
			t.Errorf("%s: in base64: %s", coding, basic)
		}
		if res.Header.Get("X-Echo") != "Bearer "+stars || res.Trailer.Get("X-Sum") != "Bearer "+stars {
			t.Errorf("%s: got %v and trailers %v", coding, res.Header, res.Trailer)
		}
		if len(early) != 1 || !strings.HasPrefix(early[0], "<https://a.example/?auth=Bearer+***") || !strings.HasSuffix(early[0], "***>") {
			t.Errorf("%s: early: %q", coding, early)
		}
	}
}

// An operator may rather have such answers refused, or only hear of them.
func TestS105OtherModes(t *testing.T) {
	t.Parallel()
	g := newEcho(t, RedactBlock, echoer(""))
	res, body := g.send(g.get("/"))
	if res.StatusCode != 502 || res.Header.Get(problem.Header) != "invalid_answer" || strings.Contains(body, echoedKey) {
		t.Errorf("block: got %d %v %s", res.StatusCode, res.Header, body)
	}
	// In the body it is too late for another answer.
	g = newEcho(t, RedactBlock, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100<<10)+r.Header.Get("Authorization")+strings.Repeat("y", 100<<10))
	})
	res, err := g.front.Client().Do(g.get("/"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err == nil || strings.Contains(string(got), echoedKey[:4]) || strings.Contains(string(got), "y") {
		t.Errorf("block in the body: got %d bytes, %v", len(got), err)
	}
	for _, mode := range []Redaction{RedactAlert, RedactOff} {
		g = newEcho(t, mode, echoer(""))
		call := g.call()
		w := &quiet{http.Header{}}
		if err := g.proxy.Serve(w, g.get("/"), "/", call); err != nil || call.Echoed.Load() != (mode == RedactAlert) || w.header.Get("X-Echo") != "Bearer "+echoedKey {
			t.Errorf("mode %d: %v, echoed: %v, %v", mode, err, call.Echoed.Load(), w.header)
		}
	}
}

// What can't be looked into doesn't pass, unless nobody wants it looked into.
func TestS105UnreadableAnswers(t *testing.T) {
	t.Parallel()
	for mode, want := range map[Redaction]int{RedactOff: 200, RedactAlert: 200, RedactBlot: 502, RedactBlock: 502} {
		g := newEcho(t, mode, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "\x0b\x02\x80hello\x03")
		})
		if res, body := g.send(g.get("/")); res.StatusCode != want {
			t.Errorf("mode %d: got %d %s", mode, res.StatusCode, body)
		}
	}
	// Broken compression is a broken answer (S110).
	g := newEcho(t, RedactBlot, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "no gzip at all")
	})
	res, err := g.front.Client().Do(g.get("/"))
	if err == nil {
		var body []byte
		body, err = io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			t.Errorf("got %d %q and a clean end", res.StatusCode, body)
		}
	}
}

// Streams of events and switched connections go on at once, and have no
// credential in them either.
func TestS105EchoInStreams(t *testing.T) {
	t.Parallel()
	g := newEcho(t, RedactBlot, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Websocket-Extensions") != "" {
			t.Error("the provider may compress what it sends")
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		fmt.Fprintf(conn, "\x81%c%s\n", len(r.Header.Get("Authorization")), r.Header.Get("Authorization"))
		_, _ = io.Copy(conn, buf)
	})
	conn, err := net.Dial("tcp", g.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	answer := bufio.NewReader(conn)
	res, err := http.ReadResponse(answer, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("got %v, %v", res, err)
	}
	if line, err := answer.ReadString('\n'); line != fmt.Sprintf("\x81%cBearer %s\n", len("Bearer "+echoedKey), strings.Repeat("*", len(echoedKey))) {
		t.Errorf("got %q, %v", line, err)
	}
	for _, line := range []string{"ping\n", "sk-\n", "sk\n", "Bearer s\n"} {
		fmt.Fprint(conn, line)
		if got, err := answer.ReadString('\n'); got != line {
			t.Errorf("got %q, %v", got, err)
		}
	}

	next := make(chan struct{}, 1)
	g = newEcho(t, RedactBlot, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 5 {
			fmt.Fprintf(w, "data: %s\n\n", r.Header.Get("Authorization"))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-time.After(10 * time.Second):
				return
			}
		}
	})
	res, err = g.front.Client().Do(g.get("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if line := lines.Text(); line == "" {
			next <- struct{}{}
		} else if line != "data: Bearer "+strings.Repeat("*", len(echoedKey)) {
			t.Errorf("got %q", line)
		}
	}
}

// Connections that share a place don't get each other's redactor.
func TestRedactorsAreTheirOwn(t *testing.T) {
	t.Parallel()
	var r redactors
	a, b := bind(t, "https://api.example", bearerRequest, "key-of-a-000"), bind(t, "https://api.example", bearerRequest, "key-of-b-000")
	for range 3 {
		if !r.of(a).Finds("key-of-a-000") || r.of(a).Finds("key-of-b-000") || !r.of(b).Finds("key-of-b-000") || r.of(b).Finds("key-of-a-000") {
			t.Error("not its own")
		}
	}
}
