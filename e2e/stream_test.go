package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// Whatever streams goes through at once, both ways, and ends as it ends at the
// provider.
func TestStream(t *testing.T) {
	t.Parallel()
	u, c, _ := startOwn(t, demo.Options{}, "keycaddy")
	t.Run("events", func(t *testing.T) { testEvents(t, u, c) })
	t.Run("websocket", func(t *testing.T) { testUpgrade(t, u, c, false) })
	t.Run("websocket after 401", func(t *testing.T) { testUpgrade(t, u, c, true) })
	t.Run("both ways", func(t *testing.T) { testBothWays(t, u, c) })
	t.Run("trailers", func(t *testing.T) { testTrailers(t, u, c) })
	t.Run("truncated", func(t *testing.T) { testTruncated(t, u, c) })
	t.Run("early hints", func(t *testing.T) { testEarlyHints(t, u, c) })
	if s := u.Stats(); s.ReuseDetected != 0 || s.TokenCalls["refresh_token"] != 1 {
		t.Errorf("the provider has seen %+v", s)
	}
}

// testEvents proves that no event waits for the next one: the provider sends
// it only when the one before has been seen.
func testEvents(t *testing.T, u *upstream, c *caddy) {
	const events = 20
	seen := make(chan time.Time)
	var delays []time.Duration
	u.API["/events"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range events {
			began := time.Now()
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case at := <-seen:
				delays = append(delays, at.Sub(began))
			case <-time.After(10 * time.Second):
				return
			}
			time.Sleep(time.Until(began.Add(100 * time.Millisecond)))
		}
	}
	res, err := http.DefaultClient.Do(c.request(t.Context(), "GET", "/events", "own", "alice", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	n := 0
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			seen <- time.Now()
			n++
		}
	}
	if n != events || lines.Err() != nil {
		t.Fatalf("got %d events, then %v", n, lines.Err())
	}
	late := 0
	for _, d := range delays {
		if d > 100*time.Millisecond {
			late++
		}
	}
	t.Logf("%d events, the slowest took %v", n, slices.Max(delays))
	if late > 2 { // the machine may have been busy with something else
		t.Errorf("%d of %d events took longer than 100 ms: %v", late, n, delays)
	}
}

// The handshake of RFC 6455 section 1.3.
const (
	handshake    = "GET /proxy/ws HTTP/1.1\n" + named + "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
	socketAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// echoSocket says hello, and then whatever it hears.
func echoSocket(w http.ResponseWriter, r *http.Request) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\nhello\n", socketAccept)
	_, _ = io.Copy(conn, buf)
}

// testUpgrade proves that a switched connection is the provider's own, even
// when the credential had to be renewed before.
func testUpgrade(t *testing.T, u *upstream, c *caddy, revoke bool) {
	u.API["/ws"] = echoSocket
	if revoke && u.RevokeAccess("") == 0 {
		t.Fatal("there was no token to revoke")
	}
	w := dial(t, c)
	w.send(t, handshake)
	res, _ := w.answer(t)
	if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != socketAccept {
		t.Fatalf("got %d %v", res.StatusCode, res.Header)
	}
	if line, err := w.in.ReadString('\n'); line != "hello\n" {
		t.Fatalf("got %q, %v before anything was sent", line, err)
	}
	for i := range 5 {
		fmt.Fprintf(w, "ping %d\n", i)
		if line, err := w.in.ReadString('\n'); line != fmt.Sprintf("ping %d\n", i) {
			t.Fatalf("got %q, %v", line, err)
		}
	}
}

// testBothWays proves that a body goes on while its answer is read.
func testBothWays(t *testing.T, u *upstream, c *caddy) {
	u.API["/both"] = func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		_ = out.EnableFullDuplex()
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			fmt.Fprintf(w, "got %s\n", lines.Text())
			_ = out.Flush()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, w := io.Pipe()
	defer w.Close()
	go fmt.Fprintln(w, "0")
	res, err := http.DefaultClient.Do(c.request(ctx, "POST", "/both", "own", "alice", r))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer := bufio.NewReader(res.Body)
	for i := range 20 {
		if line, err := answer.ReadString('\n'); line != fmt.Sprintf("got %d\n", i) {
			t.Fatalf("got %q, %v", line, err)
		}
		fmt.Fprintf(w, "%d\n", i+1)
	}
}

func testTrailers(t *testing.T, u *upstream, c *caddy) {
	u.API["/trailers"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v", body, r.Trailer)
		w.Header().Set("X-Sum", "7")
	}
	w := dial(t, c)
	w.send(t, "POST /proxy/trailers HTTP/1.1\n"+named+"Transfer-Encoding: chunked\nTrailer: X-Digest, Authorization\n\n5\nhello\n0\nX-Digest: 9\nAuthorization: Bearer "+apiKey+"\n\n")
	res, body := w.answer(t)
	if body != "hello map[X-Digest:[9]]" || res.Trailer.Get("X-Sum") != "7" {
		t.Errorf("the provider saw %q, the caller %v", body, res.Trailer)
	}
}

// testTruncated proves that an answer that broke off never ends cleanly (S110).
func testTruncated(t *testing.T, u *upstream, c *caddy) {
	for i, head := range []string{
		"Content-Length: 1000000\r\n\r\nshort",
		"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
		"Transfer-Encoding: chunked\r\n\r\nff\r\nshort",
		"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: x\n\n\r\n",
	} {
		u.API["/short"] = func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s", head)
			time.Sleep(100 * time.Millisecond)
			conn.Close()
		}
		res, err := http.DefaultClient.Do(c.request(t.Context(), "GET", "/short", "own", "alice", nil))
		if err != nil {
			continue // it broke off before the answer began
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			t.Errorf("%d: got %d %q and a clean end", i, res.StatusCode, body)
		}
	}
}

func testEarlyHints(t *testing.T, u *upstream, c *caddy) {
	hints := make(chan string, 1)
	u.API["/hints"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		select { // the final answer waits until the caller has the hints
		case h := <-hints:
			fmt.Fprint(w, h)
		case <-time.After(5 * time.Second):
		}
	}
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints <- fmt.Sprint(code, h.Get("Link"))
		return nil
	}})
	res, err := http.DefaultClient.Do(c.request(ctx, "GET", "/hints", "own", "alice", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "103</style.css>; rel=preload" || res.Header.Get("Link") != "" {
		t.Errorf("got %q, %v, %v", body, err, res.Header)
	}
}

// A caller that asks before it sends a large body is answered by the provider,
// and never sends the body in vain.
func TestStreamExpectContinue(t *testing.T) {
	t.Parallel()
	// The provider's leave is waited for, and not only for the second after
	// which a busy machine's proxy would give its own.
	u, c, _ := startOwn(t, demo.Options{}, `keycaddy {
		transport http {
			expect_continue_timeout 1m
		}
	}`)
	const size = 1 << 20
	u.API["/take"] = func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}
	u.API["/refuse"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusExpectationFailed) }
	head := func(path string) string {
		return "PUT /proxy" + path + " HTTP/1.1\n" + named + "Expect: 100-continue\nContent-Length: " + strconv.Itoa(size) + "\n\n"
	}
	w := dial(t, c)
	w.send(t, head("/take"))
	if res, _ := w.answer(t); res.StatusCode != http.StatusContinue {
		t.Fatalf("got %d instead of leave to go on", res.StatusCode)
	}
	_, _ = io.CopyN(w, newPattern(), size)
	if res, body := w.answer(t); res.StatusCode != 200 || body != "1048576 <nil>" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	w = dial(t, c)
	w.send(t, head("/refuse"))
	if res, _ := w.answer(t); res.StatusCode != http.StatusExpectationFailed {
		t.Errorf("a refusal without the body: got %d", res.StatusCode)
	}
	u.RevokeAccess("")
	w = dial(t, c)
	w.send(t, head("/take"))
	res, body := w.answer(t)
	var refusal struct{ Error string }
	if _ = json.Unmarshal([]byte(body), &refusal); res.StatusCode != 401 || refusal.Error != "invalid_token" {
		t.Errorf("an old token without the body: got %d %s", res.StatusCode, body)
	}
	eventually(t, 10*time.Second, "the credential is renewed for the next call", func() error {
		if n := u.Stats().TokenCalls["refresh_token"]; n != 1 {
			return fmt.Errorf("%d renewals", n)
		}
		return nil
	})
}

// Bodies of a gibibyte go through both ways, whole, and are held in no memory.
func TestStreamGibibyte(t *testing.T) {
	u, c, _ := startOwn(t, demo.Options{}, "keycaddy")
	const size = 1 << 30
	u.API["/up"] = func(w http.ResponseWriter, r *http.Request) {
		m := &matches{pattern: newPattern()}
		_, err := io.Copy(m, r.Body)
		fmt.Fprint(w, m.n, err)
	}
	u.API["/down"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = io.CopyN(w, newPattern(), size)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	call := func(method, path string, size int64) string {
		req := c.request(ctx, method, path, "own", "alice", nil)
		if size > 0 {
			req.Body, req.ContentLength = io.NopCloser(io.LimitReader(newPattern(), size)), size
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if path == "/down" {
			m := &matches{pattern: newPattern()}
			_, err := io.Copy(m, res.Body)
			return fmt.Sprint(m.n, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got := call("PUT", "/up", 8<<20); got != "8388608 <nil>" { // what is needed once is there now
		t.Fatalf("got %q", got)
	}
	before := memory(t, c, "VmRSS")
	for _, way := range []struct {
		method, path string
		size         int64
	}{{"PUT", "/up", size}, {"GET", "/down", 0}} {
		began := time.Now()
		if got := call(way.method, way.path, way.size); got != "1073741824 <nil>" {
			t.Errorf("%s: %s", way.path, got)
		}
		took := time.Since(began)
		grown := memory(t, c, "VmHWM") - before
		t.Logf("%s: %v, %.0f MiB/s, memory %d MiB before, at most %d MiB more since", way.path, took.Round(time.Millisecond), 1024/took.Seconds(), before>>20, grown>>20)
		if grown > 64<<20 {
			t.Errorf("%s: memory has grown by %d MiB", way.path, grown>>20)
		}
	}
}

// memory returns one of the sizes that the kernel tells of a Caddy.
func memory(t *testing.T, c *caddy, name string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal("no /proc here")
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in\n%s", name, status)
	return 0
}

// descriptors counts a Caddy's open files.
func descriptors(t *testing.T, c *caddy) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal("no /proc here")
	}
	return len(all)
}
