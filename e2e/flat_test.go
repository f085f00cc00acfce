package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// These take longer with the numbers that are promised, so that they are smaller
// by default:
//
//	go test ./e2e -run Flat -timeout 60m -v -args -sockets 10000 -streams 1000 -reloads 1000 -requests 1000000
var (
	sockets  = flag.Int("sockets", 1000, "how many WebSockets TestFlatWithIdleSockets holds")
	streams  = flag.Int("streams", 200, "how many event streams TestFlatWithStreams holds")
	reloads  = flag.Int("reloads", 24, "how often TestFlatAcrossReloads reloads the configuration")
	requests = flag.Int("requests", 6000, "how many requests TestFlatAcrossReloads makes")
)

// use is what a Caddy has taken up. Memory is what is alive, without garbage, of
// which up to 128 MiB may gather.
type use struct{ goroutines, descriptors, memory int }

func (c *caddy) use() use {
	c.t.Helper()
	admin(c.t, c, "GET", "/debug/pprof/heap?gc=1", "")
	return use{c.metric("go_goroutines"), descriptors(c.t, c), c.metric("go_memstats_heap_alloc_bytes") + c.metric("go_memstats_stack_inuse_bytes")}
}

// metric is one of those without labels.
func (c *caddy) metric(name string) int {
	c.t.Helper()
	for line := range strings.Lines(admin(c.t, c, "GET", "/metrics", "")) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				c.t.Fatal(err)
			}
			return int(v)
		}
	}
	c.t.Fatalf("no metric %s", name)
	return 0
}

// returns waits until a Caddy has no more goroutines and descriptors than it had,
// but for a few and the idle connections that it keeps to a host, of which there
// are 32 with two goroutines each.
func (c *caddy) returns(to use) {
	c.t.Helper()
	const few, idle = 16, 32
	eventually(c.t, 30*time.Second, "what was taken up is given back", func() error {
		if now := c.use(); now.goroutines > to.goroutines+few+2*idle || now.descriptors > to.descriptors+few+idle {
			return fmt.Errorf("%d goroutines and %d descriptors, before it was %d and %d", now.goroutines, now.descriptors, to.goroutines, to.descriptors)
		}
		return nil
	})
}

// spread has each of n done by one of 32 workers; what fails first is the error.
func spread(n int, do func(i int) error) error {
	var (
		next    atomic.Int64
		failed  atomic.Pointer[error]
		workers sync.WaitGroup
	)
	for range 32 {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// WebSockets that nobody says anything on take up the same for as long as they
// are there, and nothing afterwards.
func TestFlatWithIdleSockets(t *testing.T) {
	enough := syscall.Rlimit{Cur: uint64(2**sockets + 300), Max: uint64(2**sockets + 300)} // each is two, here and there
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	if have.Max < enough.Max { // which the processes that are started inherit
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &enough); err != nil {
			t.Fatalf("%d sockets need %d open files; allow them with ulimit -n: %v", *sockets, enough.Max, err)
		}
		defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &have) }()
	}
	u, c, _ := startOwn(t, demo.Options{}, "keycaddy")
	u.API["/ws"] = echoSocket
	all := make([]net.Conn, *sockets)
	open := func(i int) error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.URL, "http://"))
		if err != nil {
			return err
		}
		all[i] = conn
		if _, err := io.WriteString(conn, strings.ReplaceAll(handshake, "\n", "\r\n")); err != nil {
			return err
		}
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			return fmt.Errorf("socket %d: %v %v", i, res, err)
		}
		if line, err := in.ReadString('\n'); line != "hello\n" {
			return fmt.Errorf("socket %d: %q %v", i, line, err)
		}
		return nil
	}
	if err := open(0); err != nil {
		t.Fatal(err)
	}
	_ = all[0].Close()
	before := c.use()
	if err := spread(*sockets, open); err != nil {
		t.Fatal(err)
	}
	opened := c.use()
	time.Sleep(10 * time.Second)
	idle := c.use()
	t.Logf("%d sockets: %d KiB and %.1f goroutines each, %+d KiB in all after 10 s", *sockets, (opened.memory-before.memory)>>10 / *sockets,
		float64(opened.goroutines-before.goroutines)/float64(*sockets), (idle.memory-opened.memory)>>10)
	if idle.memory > opened.memory+opened.memory/20 || idle.goroutines > opened.goroutines+10 {
		t.Errorf("while idle, what is taken up went from %+v to %+v", opened, idle)
	}
	if err := spread(*sockets, func(i int) error { // each still leads to its provider
		if _, err := fmt.Fprint(all[i], "ping", i); err != nil {
			return err
		}
		echo := make([]byte, len(fmt.Sprint("ping", i)))
		_ = all[i].SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(all[i], echo); err != nil || string(echo) != fmt.Sprint("ping", i) {
			return fmt.Errorf("socket %d: %q %v", i, echo, err)
		}
		return all[i].Close()
	}); err != nil {
		t.Error(err)
	}
	c.returns(before)
}

// Event streams, too, take up the same however much goes over them.
func TestFlatWithStreams(t *testing.T) {
	u, c, _ := startOwn(t, demo.Options{}, "keycaddy")
	const events = 100
	var sent [2]sync.WaitGroup // half of the events of all, and the other half
	halfway, end := make(chan struct{}), make(chan struct{})
	u.API["/events"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for half, wait := range []chan struct{}{halfway, end} {
			for range events / 2 {
				if _, err := fmt.Fprintf(w, "data: %s\n\n", strings.Repeat("x", 1000)); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				time.Sleep(20 * time.Millisecond)
			}
			sent[half].Done()
			<-wait
		}
	}
	u.API["/ok"] = answersOK
	if got, err := exchange(c, "/proxy/ok"); got != "200 ok" {
		t.Fatal(got, err)
	}
	before := c.use()
	for half := range sent {
		sent[half].Add(*streams)
	}
	var readers sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range *streams {
		res, err := client.Do(c.request(t.Context(), "GET", "/events", "own", "alice", nil))
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			defer res.Body.Close()
			n := 0
			lines := bufio.NewScanner(res.Body)
			for lines.Scan() {
				if strings.HasPrefix(lines.Text(), "data: ") {
					n++
				}
			}
			if n != events || lines.Err() != nil {
				t.Errorf("%d events, then %v", n, lines.Err())
			}
		})
	}
	sent[0].Wait()
	half := c.use()
	close(halfway)
	sent[1].Wait()
	whole := c.use()
	close(end)
	t.Logf("%d streams: %d KiB and %.1f goroutines each, %+d KiB in all after as many events again", *streams, (half.memory-before.memory)>>10 / *streams,
		float64(half.goroutines-before.goroutines)/float64(*streams), (whole.memory-half.memory)>>10)
	if whole.memory > half.memory+half.memory/10 || whole.goroutines > half.goroutines+10 {
		t.Errorf("what is taken up went from %+v to %+v", half, whole)
	}
	readers.Wait()
	c.returns(before)
}

// Reloads and requests leave nothing behind.
func TestFlatAcrossReloads(t *testing.T) {
	// What calls that were under way at a reload leave idle ends after this.
	u, c, config := startOwn(t, demo.Options{}, "keycaddy {\n transport http {\n keepalive 3s\n }\n}")
	u.API["/ok"] = answersOK
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	var broken atomic.Int64
	round := func(calls, loads int) use {
		t.Helper()
		called := make(chan error, 1)
		call := func(int) error {
			res, err := client.Do(c.request(t.Context(), "GET", "/ok", "own", "alice", nil))
			if err != nil {
				// Caddy closes its sockets and opens them anew, and with an old one a
				// connection that nothing was answered on yet.
				if broken.Add(1) > int64(32**reloads) {
					return err
				}
				return nil
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || string(body) != "ok" {
				return fmt.Errorf("%d %q %v", res.StatusCode, body, err)
			}
			return nil
		}
		go func() { called <- spread(calls, call) }()
		for range loads {
			reload(t, c, config)
		}
		if err := <-called; err != nil {
			t.Fatal(err)
		}
		client.CloseIdleConnections()
		return c.use()
	}
	round(*requests/20, 1) // what is needed once is there now
	client.CloseIdleConnections()
	time.Sleep(time.Second)
	before := c.use()
	half := round(*requests/2, *reloads/2)
	whole := round(*requests/2, *reloads/2)
	t.Logf("%d requests and %d reloads: %+v, %+v at half, %+v at the end; %d connections were closed by a reload before their first request", *requests, *reloads, before, half, whole, broken.Load())
	c.returns(before)
}
