package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// ending is a bound token that is taken to have ended after so long.
func ending(t *testing.T, b *scheme.Binding, after time.Duration) *connect.Bound {
	t.Helper()
	renewable := *b
	renewable.Renewable = true
	now := time.Now()
	bound, err := connect.Bind(&renewable, connect.Connection{ID: testID, UID: "u"}, scheme.Credential{Version: 1, Issued: now.Add(-time.Hour), Expires: now.Add(after + 10*time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if end, ok := bound.Ends(); !ok || time.Until(end) > after {
		t.Fatalf("it ends at %v, %v", end, ok)
	}
	return bound
}

func TestStreamsWhoseTokenEnds(t *testing.T) {
	t.Parallel()
	const after = 1500 * time.Millisecond
	events := func(w http.ResponseWriter, r *http.Request) { // one message in two parts, as long as anyone listens
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		rc := http.NewResponseController(w)
		for {
			for _, part := range []string{"data: a", "b\n\n"} {
				if _, err := io.WriteString(w, part); err != nil || rc.Flush() != nil {
					return
				}
				select {
				case <-time.After(300 * time.Millisecond):
				case <-r.Context().Done():
					return
				}
			}
			select {
			case <-time.After(1500 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}
	for how, c := range map[Expiry]struct {
		least, most time.Duration // when it has ended; 0: it hasn't after most
	}{
		ExpiryRun:   {0, 5 * time.Second},
		ExpiryClose: {after - 100*time.Millisecond, after + 800*time.Millisecond},
		ExpiryDrain: {after, after + 3*time.Second},
	} {
		t.Run(expiryNames[how], func(t *testing.T) {
			t.Parallel()
			g := newRig(t, bearerRequest, events)
			g.proxy.Expiry = how
			g.old = ending(t, &g.old.Binding, after)
			began := time.Now()
			res, err := g.front.Client().Do(g.get("/"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			late := time.AfterFunc(c.most, func() { _ = res.Body.Close() })
			body, err := io.ReadAll(res.Body)
			running := !late.Stop()
			took := time.Since(began)
			t.Logf("%v, %d bytes, %v", took.Round(time.Millisecond), len(body), err)
			switch {
			case c.least == 0 && !running:
				t.Errorf("it has ended after %v: %v", took, err)
			case c.least > 0 && (running || err != nil || took < c.least):
				t.Errorf("it ended after %v with %v; running: %v", took, err, running)
			case how == ExpiryDrain && !strings.HasSuffix(string(body), "\n\n"):
				t.Errorf("a message was cut in two: %q", body)
			}
		})
	}
}

// A WebSocket ends for its caller as if its provider had closed it; what isn't a
// stream ends in its own time.
func TestOnlyStreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	const after = 500 * time.Millisecond
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.Header().Set("Content-Type", "application/json")
			for range 10 {
				_, _ = io.WriteString(w, "{}")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(200 * time.Millisecond)
			}
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, buf)
	})
	g.proxy.Expiry = ExpiryClose
	g.old = ending(t, &g.old.Binding, after)
	req := g.get("/")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	res, err := g.front.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	conn := res.Body.(io.ReadWriteCloser)
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); line != "hello\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	ended := make(chan error, 1)
	go func() { _, err := in.ReadByte(); ended <- err }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("something came")
		}
	case <-time.After(5 * time.Second):
		t.Error("it is open still")
	}
	if res, body := g.send(g.get("/slow")); res.StatusCode != 200 || body != strings.Repeat("{}", 10) {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}
