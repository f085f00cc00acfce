package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// caddyBinary is the Caddy under test, built once for all tests with the race
// detector, which makes a race in it a failed test.
var caddyBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "keycaddy-e2e")
	if err != nil {
		panic(err)
	}
	caddyBinary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-race", "-o", caddyBinary, "../caddymodule/caddy")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building caddy: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// apiKey is the key that the tests' app has.
const apiKey = "3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11"

// caddy is a running Caddy.
type caddy struct {
	t    *testing.T
	Port int
	// URL is its origin; Dir is where it keeps its data.
	URL, Dir string
	// Output is all that it has printed.
	Output *output
	cmd    *exec.Cmd
	done   chan struct{}
	admin  string
	config string
}

// output is a buffer that a process writes while a test reads.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// freePort is a port that no other server gets meanwhile, also while the one that
// it is for restarts: those that the system hands out begin above, and no two
// tests ask for the same.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10000 + (os.Getpid()*101+int(portsAsked.Add(1)))%20000
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

var portsAsked atomic.Int32

// caddyfile is a configuration with one site at the port, whose keycaddy block
// has the options and whose site has the directives.
func caddyfile(dir string, port int, options, site string) string {
	return fmt.Sprintf(`{
	debug
	admin unix/%[1]s/admin.sock
	grace_period 10s
	keycaddy {
		public_url http://localhost:%[2]d
		store sqlite %[1]s/keycaddy.db
		vault sealed %[1]s/vault.key
		api_key %[3]s {
			scopes environment:*
		}
		egress {
			allow 127.0.0.0/8 ::1
		}
		%[4]s
	}
}
http://localhost:%[2]d, http://127.0.0.1:%[2]d {
	bind 127.0.0.1 ::1
	log
	%[5]s
}
`, dir, port, apiKey, options, site)
}

// startCaddy starts a Caddy and ends it with the test. The directory may be
// one that another Caddy has used, or uses.
func startCaddy(t *testing.T, dir string, port int, config string) *caddy {
	t.Helper()
	home := t.TempDir()
	c := &caddy{t: t, Port: port, URL: fmt.Sprintf("http://localhost:%d", port), Dir: dir, Output: new(output), done: make(chan struct{}), admin: "unix/" + dir + "/admin.sock", config: filepath.Join(home, "Caddyfile")}
	if err := os.WriteFile(c.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(caddyBinary, "run", "--adapter", "caddyfile", "--config", c.config)
	c.cmd.Env = append(os.Environ(), "HOME="+home, "GORACE=halt_on_error=1")
	c.cmd.Stdout, c.cmd.Stderr = c.Output, c.Output
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.done) }()
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			t.Logf("what caddy printed:\n%s", tail(c.Output.String(), 200))
		}
	})
	eventually(t, 30*time.Second, "caddy answers", func() error {
		select {
		case <-c.done:
			return errors.New("caddy has ended")
		default:
		}
		res, err := http.Get(c.URL + "/health")
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
	return c
}

// Stop ends the Caddy as an operator would, and fails the test if it was racy.
func (c *caddy) Stop() {
	c.t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		_ = c.cmd.Process.Kill()
		c.t.Error("caddy did not end within 30 s of SIGTERM")
	}
	if strings.Contains(c.Output.String(), "DATA RACE") {
		c.t.Error("the race detector has found a race in caddy")
	}
}

// Reload gives the Caddy a new configuration.
func (c *caddy) Reload(config string) {
	c.t.Helper()
	if err := os.WriteFile(c.config, []byte(config), 0o600); err != nil {
		c.t.Fatal(err)
	}
	out, err := exec.Command(caddyBinary, "reload", "--force", "--adapter", "caddyfile", "--config", c.config, "--address", c.admin).CombinedOutput()
	if err != nil {
		c.t.Fatalf("reloading: %v\n%s", err, out)
	}
}

// call calls the REST API; answer may be nil.
func (c *caddy) call(method, path string, request, answer any) (status int) {
	c.t.Helper()
	var body io.Reader
	if request != nil {
		data, err := json.Marshal(request)
		if err != nil {
			c.t.Fatal(err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, c.URL+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if answer != nil {
		if err := json.Unmarshal(data, answer); err != nil {
			c.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, data)
		}
	}
	return res.StatusCode
}

// link opens a connect session for an integration and returns its link. The
// connection will have the id.
func (c *caddy) link(integration, connection string) string {
	c.t.Helper()
	var answer struct {
		Data struct {
			Link string `json:"connect_link"`
		}
	}
	request := map[string]any{
		"end_user":             map[string]string{"id": "u1"},
		"allowed_integrations": []string{integration},
		"connection_id":        connection,
	}
	if status := c.call("POST", "/connect/sessions", request, &answer); status != http.StatusCreated {
		c.t.Fatalf("opening a session: %d", status)
	}
	return answer.Data.Link
}

// request makes a call through the proxy.
func (c *caddy) request(ctx context.Context, method, path, integration, connection string, body io.Reader) *http.Request {
	c.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, c.URL+"/proxy"+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Provider-Config-Key", integration)
	req.Header.Set("Connection-Id", connection)
	return req
}

// browser starts a headless Chromium with a profile of its own, which ends
// with the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	// The first action starts the browser, which lives as long as its context;
	// the others have to be done in time.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 6*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// oidc is a running oidc-provider.
type oidc struct {
	t   *testing.T
	URL string
	// Ready is what the server said of itself; see oidc/server.mjs.
	Ready struct {
		URL       string `json:"url"`
		Authorize string `json:"authorize_url"`
		Token     string `json:"token_url"`
		API       string `json:"api_url"`
	}
}

// startOIDC starts an oidc-provider for one client.
func startOIDC(t *testing.T, redirectURI string) *oidc {
	t.Helper()
	// The Node.js that oidc-provider supports comes along with it: Debian's is
	// too old. (npm names its processors in its own way.)
	cpu := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	cmd := exec.Command("oidc/node_modules/node-linux-"+cpu+"/bin/node", "oidc/server.mjs")
	cmd.Env = append(os.Environ(), "CLIENT_ID=app", "CLIENT_SECRET="+oidcSecret, "REDIRECT_URI="+redirectURI, "STOP_ON_EOF=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = new(output)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("what oidc-provider printed:\n%s", cmd.Stderr)
		}
	})
	o := &oidc{t: t}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("oidc-provider did not start: %v\n%s", err, cmd.Stderr)
	}
	if err := json.Unmarshal(line, &o.Ready); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	o.URL = o.Ready.URL
	return o
}

// oidcSecret is the client's secret; it is a canary too.
const oidcSecret = "canary-client-secret-9f3b1c7d5e"

// admin calls one of the server's test routes.
func (o *oidc) admin(method, path string, answer any) {
	o.t.Helper()
	req, err := http.NewRequest(method, o.URL+path, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		o.t.Fatal(err)
	}
}

// eventually waits until something holds.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
