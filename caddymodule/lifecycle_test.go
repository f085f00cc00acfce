package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// lifecycle is a Caddy in this process, which a test loads configurations into.
type lifecycle struct {
	t    *testing.T
	dir  string
	port string
}

func newLifecycle(t *testing.T) *lifecycle {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_DATA_HOME", filepath.Join(dir, "data"))
	printTo(t, os.O_WRONLY) // what the demo says at each start
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		if n := open(); n != 0 {
			t.Errorf("%d runtimes are open after all was stopped", n)
		}
	})
	return &lifecycle{t: t, dir: dir, port: freePort(t)}
}

// load makes a configuration with a store of that name and more sites the one
// that runs. Its API key is there, so that nothing is printed.
func (l *lifecycle) load(store, options, more string) error {
	l.t.Helper()
	config, err := adapt("", caddyfileOf(fmt.Sprintf(`{
admin off
persist_config off
log {
level PANIC
}
keycaddy {
public_url http://localhost:%[1]s
store sqlite %[2]s/%[3]s.db
vault sealed %[2]s/vault.key
api_key %[4]s
%[5]s
}
}
http://127.0.0.1:%[1]s {
bind 127.0.0.1
keycaddy_demo
keycaddy
}
%[6]s`, l.port, l.dir, store, testKey, options, more)))
	if err != nil {
		l.t.Fatal(err)
	}
	return caddy.Load(config, true)
}

const testKey = "3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11"

// get makes a request over a connection of its own.
func (l *lifecycle) get(port, path string, header http.Header) (*http.Response, error) {
	l.t.Helper()
	req, err := http.NewRequest("GET", "http://127.0.0.1:"+port+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header, req.Close = header, true
	res, err := http.DefaultClient.Do(req)
	for try := 0; err != nil && try < 20; try++ {
		// Connections that Caddy's former listener has not accepted are reset.
		time.Sleep(20 * time.Millisecond)
		res, err = http.DefaultClient.Do(req)
	}
	return res, err
}

// integrations are the keys that the running configuration has, or what kept
// it from saying so.
func (l *lifecycle) integrations() string {
	l.t.Helper()
	res, err := l.get(l.port, "/integrations", http.Header{"Authorization": {"Bearer " + testKey}})
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	var answer struct {
		Data []struct {
			Key string `json:"unique_key"`
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		l.t.Fatal(err)
	}
	var keys []string
	for _, in := range answer.Data {
		keys = append(keys, in.Key)
	}
	return strings.Join(keys, " ")
}

// references are how many configurations use the one runtime that is open, and
// how many it knows of.
func (l *lifecycle) references() (refs, active int) {
	l.t.Helper()
	if n := open(); n != 1 {
		l.t.Fatalf("%d runtimes are open", n)
	}
	runtimes.Range(func(key, value any) bool {
		refs, _ = runtimes.References(key)
		rt := value.(*runtime)
		rt.mu.Lock()
		defer rt.mu.Unlock()
		active = len(rt.active)
		return true
	})
	return refs, active
}

func (l *lifecycle) balanced() {
	l.t.Helper()
	if refs, active := l.references(); refs != 1 || active != 1 {
		l.t.Errorf("the runtime has %d references and %d configurations; want one of each", refs, active)
	}
}

const otherIntegration = `integration other {
provider keycaddy-demo-key
field base_url http://localhost
}`

// A configuration that fails, however far it came, leaves the running one as
// it was.
func TestFailedReload(t *testing.T) {
	l := newLifecycle(t)
	if err := l.load("a", demoIntegration, ""); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inUse := fmt.Sprintf("http://%s {\nbind 127.0.0.1\nrespond hello\n}\n", taken.Addr())
	for _, c := range []struct{ name, store, options, more, err string }{
		{"the app is bad", "a", "catalog /no/such/folder", "", "no such file"},
		{"a handler is bad", "a", otherIntegration, site("keycaddy {\ntransport fastcgi\n}"), "use http"},
		{"a port is in use", "a", otherIntegration, inUse, "address already in use"},
		{"a port is in use, and the store is another", "b", otherIntegration, inUse, "address already in use"},
		{"the store can't be opened", "vault.key/below-a-file", otherIntegration, "", "opening store"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Caddy starts apps in no particular order.
			for range 4 {
				err := l.load(c.store, c.options, c.more)
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %s", err, c.err)
				}
				if got := l.integrations(); got != "demo" {
					t.Fatalf("the integrations are now: %s", got)
				}
				l.balanced()
				var run *running
				runtimes.Range(func(_, value any) bool { run = value.(*runtime).active[0]; return true })
				if _, err := run.setup.Integration("demo"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := l.load("a", demoIntegration+"\n"+otherIntegration, ""); err != nil {
		t.Fatal(err)
	}
	if got := l.integrations(); got != "other demo" && got != "demo other" {
		t.Errorf("after a good reload the integrations are: %s", got)
	}
	l.balanced()
}

// Another store is opened by a reload, and the former one closed.
func TestReloadChangesStore(t *testing.T) {
	l := newLifecycle(t)
	for _, store := range []string{"a", "b"} {
		if err := l.load(store, demoIntegration, ""); err != nil {
			t.Fatal(err)
		}
		l.balanced()
		if _, err := os.Stat(filepath.Join(l.dir, store+".db")); err != nil {
			t.Errorf("the store was not opened: %v", err)
		}
	}
}

// Reloads leave nothing behind (S119).
func TestReloadsLeaveNothing(t *testing.T) {
	const reloads = 100
	l := newLifecycle(t)
	load := func() {
		t.Helper()
		if err := l.load("a", demoIntegration, ""); err != nil {
			t.Fatal(err)
		}
		if got := l.integrations(); got != "demo" {
			t.Fatal(got)
		}
	}
	for range 5 {
		load()
	}
	http.DefaultClient.CloseIdleConnections()
	routines, descriptors := settled(t)
	for range reloads {
		load()
	}
	http.DefaultClient.CloseIdleConnections()
	moreRoutines, moreDescriptors := settled(t)
	t.Logf("%d reloads: goroutines %d → %d, descriptors %d → %d", reloads, routines, moreRoutines, descriptors, moreDescriptors)
	if moreRoutines > routines+reloads/10 || moreDescriptors > descriptors+reloads/10 {
		buf := make([]byte, 1<<20)
		t.Errorf("reloads leave something behind:\n%s", buf[:goruntime.Stack(buf, true)])
	}
	l.balanced()
	demosOpen := 0
	demos.Range(func(key, _ any) bool {
		if refs, _ := demos.References(key); refs != 1 {
			t.Errorf("the demo has %d references", refs)
		}
		demosOpen++
		return true
	})
	if demosOpen != 1 {
		t.Errorf("%d demos", demosOpen)
	}
}

// settled counts goroutines and open files once they have stopped changing.
func settled(t *testing.T) (routines, descriptors int) {
	t.Helper()
	for same := 0; same < 5; same++ {
		time.Sleep(50 * time.Millisecond)
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal("descriptors can't be counted here")
		}
		if n := goruntime.NumGoroutine(); n != routines || len(open) != descriptors {
			routines, descriptors, same = n, len(open), 0
		}
	}
	return routines, descriptors
}

// If what has to be said can't be, the start fails and is taken back.
func TestFailedGreeting(t *testing.T) {
	l := newLifecycle(t)
	if err := l.load("a", "", ""); err != nil {
		t.Fatal(err)
	}
	printTo(t, os.O_RDONLY)
	if err := l.load("a", demoIntegration, ""); err == nil {
		t.Error("no error though nothing could be printed")
	}
	l.balanced()
}

// printTo makes standard output lead nowhere until the test ends. Opened for
// reading only it can't be written to.
func printTo(t *testing.T, flag int) {
	t.Helper()
	nowhere, err := os.OpenFile(os.DevNull, flag, 0)
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = nowhere
	t.Cleanup(func() { os.Stdout = stdout; nowhere.Close() })
}

// Requests wait for the start, and no longer than their callers do.
func TestRequestsWaitForTheStart(t *testing.T) {
	a := &App{ready: make(chan struct{}), run: new(running)}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.wait(ctx); err == nil {
		t.Error("no error though the caller has gone")
	}
	time.AfterFunc(20*time.Millisecond, func() { close(a.ready) })
	if run, err := a.wait(context.Background()); err != nil || run != a.run {
		t.Error(run, err)
	}
}
