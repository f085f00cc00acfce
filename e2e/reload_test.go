package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

func answersOK(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }

// A reload in the middle of answers cuts none of them off (S119).
func TestReloadKeepsStreams(t *testing.T) {
	t.Parallel()
	u, c, config := startOwn(t, demo.Options{}, "keycaddy")
	const parts, size = 30, 1 << 20
	started := make(chan struct{}, 2)
	u.API["/ok"] = answersOK
	u.API["/events"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range parts {
			if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			if i == 3 {
				started <- struct{}{}
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	u.API["/slow"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(parts*size))
		p := newPattern()
		for i := range parts {
			if _, err := io.CopyN(w, p, size); err != nil {
				return
			}
			if i == 3 {
				started <- struct{}{}
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	var streams sync.WaitGroup
	for path, check := range map[string]func(io.Reader) error{
		"/events": func(r io.Reader) error {
			n := 0
			lines := bufio.NewScanner(r)
			for lines.Scan() {
				if lines.Text() == "data: "+strconv.Itoa(n) {
					n++
				}
			}
			if n != parts || lines.Err() != nil {
				return fmt.Errorf("%d events, then %v", n, lines.Err())
			}
			return nil
		},
		"/slow": func(r io.Reader) error {
			m := &matches{pattern: newPattern()}
			if _, err := io.Copy(m, r); err != nil || m.n != parts*size {
				return fmt.Errorf("%d bytes, then %v", m.n, err)
			}
			return nil
		},
	} {
		res, err := http.DefaultClient.Do(c.request(t.Context(), "GET", path, "own", "alice", nil))
		if err != nil {
			t.Fatal(err)
		}
		streams.Go(func() {
			defer res.Body.Close()
			if err := check(res.Body); err != nil || res.StatusCode != 200 {
				t.Errorf("%s: %d, %v", path, res.StatusCode, err)
			}
		})
	}
	<-started
	<-started
	c.Reload(config)
	if got, err := exchange(c, "/proxy/ok"); got != "200 ok" {
		t.Errorf("a call after the reload: %s %v", got, err)
	}
	streams.Wait()
}

// A reload in the middle of a renewal doesn't lose it: the call that waits for
// it gets its answer, the provider is asked once, and the new configuration
// uses what the old one got (S119).
func TestReloadDuringRefresh(t *testing.T) {
	t.Parallel()
	var delay atomic.Int64
	u, c, config := startOwn(t, demo.Options{TokenDelay: func() time.Duration { return time.Duration(delay.Load()) }}, "keycaddy")
	u.API["/ok"] = answersOK
	delay.Store(int64(3 * time.Second))
	if u.RevokeAccess("") != 1 {
		t.Fatal("there was no token to revoke")
	}
	var calls sync.WaitGroup
	call := func(when string) {
		if got, err := exchange(c, "/proxy/ok"); got != "200 ok" {
			t.Errorf("a call %s: %s %v", when, got, err)
		}
	}
	for range 5 {
		calls.Go(func() { call("before the reload") })
	}
	eventually(t, 10*time.Second, "the renewal is under way", func() error {
		if n := u.Stats().TokenCalls["refresh_token"]; n != 1 {
			return fmt.Errorf("%d token calls", n)
		}
		return nil
	})
	reload(t, c, config) // of the same process, so that it is quick
	if n := u.Stats().Refreshes; n != 0 {
		t.Log("the renewal had ended before the reload had")
	}
	for range 5 {
		calls.Go(func() { call("after the reload") })
	}
	calls.Wait()
	delay.Store(0)
	call("when all is over")
	if s := u.Stats(); s.TokenCalls["refresh_token"] != 1 || s.Refreshes != 1 || s.ReuseDetected != 0 || s.FamiliesRevoked != 0 {
		t.Errorf("the provider has seen %+v", s)
	}
	u.RevokeAccess("")
	call("with another renewal")
	if s := u.Stats(); s.TokenCalls["refresh_token"] != 2 || s.ReuseDetected != 0 {
		t.Errorf("the provider has seen %+v", s)
	}
}

// Many reloads under traffic fail no call and leave nothing behind (S119).
//
// A reload closes the connections that the old configuration keeps and the
// sockets that it listens on. A call that is just being sent on one gets no
// answer, and is not carried out, whatever handler it is for. The test counts
// that for one of Caddy's own too, and repeats the call, as clients do.
func TestReloadManyTimes(t *testing.T) {
	t.Parallel()
	u, c, config := startOwn(t, demo.Options{}, `respond /stock ok
	keycaddy {
		transport http {
			keepalive 2s
		}
	}`)
	u.API["/ok"] = answersOK
	var seen atomic.Int32
	u.API["/echo"] = func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		m := &matches{pattern: newPattern()}
		_, err := io.Copy(m, r.Body)
		fmt.Fprint(w, m.n, err)
	}
	reload(t, c, config)
	time.Sleep(3 * time.Second)
	before, fds := goroutines(t, c), descriptors(t, c)
	stop := make(chan struct{})
	var done, echoed, lost, stock atomic.Int32
	var traffic sync.WaitGroup
	call := func(path, want string, lost *atomic.Int32) {
		for try := 1; ; try++ {
			got, err := exchange(c, path)
			if err == nil && got == want {
				if done.Add(1); path == "/proxy/echo" {
					echoed.Add(1)
				}
				return
			}
			if err == nil || try == 3 {
				t.Errorf("%s: %s, %v", path, got, err)
				return
			}
			t.Logf("%s: no answer: %v", path, err)
			lost.Add(1)
		}
	}
	for range 2 {
		traffic.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				switch i % 3 {
				case 0:
					call("/proxy/ok", "200 ok", &lost)
				case 1:
					call("/proxy/echo", "200 102400 <nil>", &lost)
				case 2:
					call("/stock", "200 ok", &stock)
				}
			}
		})
	}
	const reloads = 20
	for i := range reloads {
		if i%5 == 4 {
			u.RevokeAccess("")
		}
		time.Sleep(100 * time.Millisecond)
		reload(t, c, config)
	}
	close(stop)
	traffic.Wait()
	http.DefaultClient.CloseIdleConnections()
	defer func() {
		if t.Failed() {
			t.Log(admin(t, c, "GET", "/debug/pprof/goroutine?debug=1", ""))
		}
	}()
	var after int
	eventually(t, 30*time.Second, "goroutines end", func() error {
		if after = goroutines(t, c); after > before+10 {
			time.Sleep(500 * time.Millisecond) // every look is a line in the log
			return fmt.Errorf("%d before, %d after", before, after)
		}
		return nil
	})
	now := descriptors(t, c)
	t.Logf("%d calls during %d reloads; without an answer: %d of keycaddy's, %d of Caddy's own; goroutines %d, then %d; descriptors %d, then %d",
		done.Load(), reloads, lost.Load(), stock.Load(), before, after, fds, now)
	if seen.Load() != echoed.Load() {
		t.Errorf("the provider has carried out %d calls, and %d were answered", seen.Load(), echoed.Load())
	}
	if done.Load() < 2*reloads {
		t.Error("the test did not test")
	}
	if now > fds+10 {
		t.Errorf("%d file descriptors before, %d after", fds, now)
	}
	if s := u.Stats(); s.ReuseDetected != 0 || s.TokenCalls["refresh_token"] != 4 {
		t.Errorf("the provider has seen %+v", s)
	}
}

// exchange makes a call, one with a body but to /proxy/ok. An error means that
// there was no whole answer.
func exchange(c *caddy, path string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req := c.request(ctx, "GET", "/", "own", "alice", nil)
	req.URL.Path = path
	if path != "/proxy/ok" {
		req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(io.LimitReader(newPattern(), 100<<10)), 100<<10
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, " ", string(body)), err
}

// admin sends a request to a Caddy's admin socket.
func admin(t *testing.T, c *caddy, method, path, body string) string {
	t.Helper()
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.Dir+"/admin.sock")
		},
	}}
	req, err := http.NewRequest(method, "http://caddy"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = ""
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, answer, err)
	}
	return string(answer)
}

// reload does what (*caddy).Reload does, without another process.
func reload(t *testing.T, c *caddy, config string) {
	t.Helper()
	admin(t, c, "POST", "/load", config)
}

func goroutines(t *testing.T, c *caddy) int {
	t.Helper()
	profile := admin(t, c, "GET", "/debug/pprof/goroutine?debug=1", "")
	var n int
	if _, err := fmt.Fscanf(bytes.NewReader([]byte(profile)), "goroutine profile: total %d", &n); err != nil {
		t.Fatalf("%v: %.200s", err, profile)
	}
	return n
}
