package hashicorp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// serverBinary is the path of a real Vault, built on the first use.
var serverBinary = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("vaultserver/build.sh")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
})

// server is a real Vault in a process of its own.
type server struct {
	address string // with http://
	folder  string // of its data; empty: in memory
	token   string // of root
	key     string // that unseals
	stop    func()
}

// startServer starts a Vault in memory, with the engines that docs/vault.md
// sets up.
func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.run(t)
	s.initialize(t)
	s.setUp(t)
	return s
}

// run starts the process on what is in the folder.
func (s *server) run(t *testing.T) {
	t.Helper()
	binary, err := serverBinary()
	if err != nil {
		t.Fatalf("building a Vault server: %v", err)
	}
	args := []string{"-storage", s.folder}
	if s.address != "" {
		args = append(args, "-listen", strings.TrimPrefix(s.address, "http://"))
	}
	cmd := exec.Command(binary, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = sync.OnceFunc(func() {
		stdin.Close()
		killer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer killer.Stop()
		cmd.Wait()
		if t.Failed() {
			t.Logf("Vault's log:\n%s", log.String())
		}
	})
	t.Cleanup(s.stop)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		s.stop()
		t.Fatalf("Vault has not started: %v\n%s", err, log.String())
	}
	s.address = "http://" + strings.TrimSpace(line)
}

func (s *server) initialize(t *testing.T) {
	t.Helper()
	got := s.do(t, "PUT", "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1})
	s.token = got["root_token"].(string)
	s.key = got["keys"].([]any)[0].(string)
	s.unseal(t)
}

func (s *server) unseal(t *testing.T) {
	t.Helper()
	s.do(t, "PUT", "sys/unseal", map[string]string{"key": s.key})
	s.eventually(t, "sys/health")
}

func (s *server) setUp(t *testing.T) {
	t.Helper()
	s.do(t, "POST", "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	s.do(t, "POST", "sys/mounts/transit", map[string]string{"type": "transit"})
	s.do(t, "POST", "transit/keys/keycaddy", map[string]string{"type": "aes256-gcm96"})
	s.do(t, "POST", "sys/auth/approle", map[string]string{"type": "approle"})
	s.eventually(t, "secret/config")
}

// eventually waits until the path answers: a KV engine of version 2 takes a
// moment to come to be.
func (s *server) eventually(t *testing.T, path string) {
	t.Helper()
	within(t, 10*time.Second, path+" answers", func() bool {
		status, _ := s.try(t, "GET", path, nil)
		return status == http.StatusOK
	})
}

// do is a request of root's that has to succeed.
func (s *server) do(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	status, got := s.try(t, method, path, body)
	if status >= 300 {
		t.Fatalf("%s %s: %d %v", method, path, status, got)
	}
	return got
}

func (s *server) try(t *testing.T, method, path string, body any) (int, map[string]any) {
	t.Helper()
	return s.as(t, s.token, method, path, body)
}

// as is a request with a token.
func (s *server) as(t *testing.T, token, method, path string, body any) (int, map[string]any) {
	t.Helper()
	var data io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.address+"/v1/"+path, data)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil && err != io.EOF {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, got
}

// policy writes a policy, and returns a token that has it.
func (s *server) policy(t *testing.T, name, hcl string) string {
	t.Helper()
	s.do(t, "PUT", "sys/policies/acl/"+name, map[string]string{"policy": hcl})
	return s.newToken(t, map[string]any{"policies": []string{name}})
}

func (s *server) newToken(t *testing.T, options map[string]any) string {
	t.Helper()
	return s.do(t, "POST", "auth/token/create", options)["auth"].(map[string]any)["client_token"].(string)
}

// role makes an AppRole and returns how to log in with it.
func (s *server) role(t *testing.T, name string, options map[string]any) AppRole {
	t.Helper()
	s.do(t, "POST", "auth/approle/role/"+name, options)
	id := s.do(t, "GET", "auth/approle/role/"+name+"/role-id", nil)["data"].(map[string]any)["role_id"].(string)
	return AppRole{RoleID: id, SecretID: Secret(s.secretID(t, name))}
}

func (s *server) secretID(t *testing.T, role string) string {
	t.Helper()
	return s.do(t, "POST", "auth/approle/role/"+role+"/secret-id", nil)["data"].(map[string]any)["secret_id"].(string)
}

// config is that of a vault with root's token.
func (s *server) config() Config {
	return Config{Address: s.address, Login: Token{Value: Secret(s.token)}}
}

// open opens a vault, and closes it after the test.
func open(t *testing.T, c Config) *Vault {
	t.Helper()
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// observed logs to memory.
func observed() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return zap.New(core), logs
}

// front is a proxy before Vault that counts requests, and does instead of
// passing them on what before says, if that returns true. after may do the same
// with an answer: it is lost then.
type front struct {
	*httptest.Server
	before atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	lose   atomic.Pointer[func(*http.Response) bool]

	mu    sync.Mutex
	count map[string]int
}

func startFront(t *testing.T, s *server, tls bool) *front {
	t.Helper()
	to, err := url.Parse(s.address)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{count: map[string]int{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(res *http.Response) error {
			if lose := f.lose.Load(); lose != nil && (*lose)(res) {
				return fmt.Errorf("lost")
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.count[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/")]++
		f.mu.Unlock()
		if before := f.before.Load(); before != nil && (*before)(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	if tls {
		f.StartTLS()
	} else {
		f.Start()
	}
	t.Cleanup(f.Close)
	return f
}

func (f *front) do(before func(http.ResponseWriter, *http.Request) bool) { f.before.Store(&before) }

// calls is how many requests there were.
func (f *front) calls(request string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[request]
}

func within(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}
