//go:build unix

package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// fleetSize is how many connections expire at once. A campaign by hand asks for
// a thousand: go test -run Fleet ./caddymodule/torture -args -fleet 1000
var fleetSize = flag.Int("fleet", 100, "connections that expire at once")

const tokenRate = 20 // a second, of the fleet's integration

// fleet is three nodes over a real PostgreSQL and a real Vault.
func fleet(t *testing.T) *world {
	t.Helper()
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil { // PostgreSQL's user has to get at its own folder
		t.Fatal(err)
	}
	for parent := folder; parent != "/" && parent != "."; parent = filepath.Dir(parent) {
		if info, err := os.Stat(parent); err == nil && info.Mode().Perm()&0o011 != 0o011 {
			if err := os.Chmod(parent, info.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	program := filepath.Join(folder, "caddy")
	build1 := exec.Command("go", "build", "-o", program, "../caddy")
	if out, err := build1.CombinedOutput(); err != nil {
		t.Fatalf("building caddy: %v\n%s", err, out)
	}
	cmd := exec.Command("../../vault/hashicorp/vaultserver/build.sh")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("building a Vault server: %v", err)
	}
	w, err := build(t.Context(), Options{
		Program: program, Nodes: 3, Store: "postgres", Vault: "hashicorp", VaultProgram: strings.TrimSpace(string(out)),
		Progress: t.Output(), options: fmt.Sprintf("token_rate %d", tokenRate),
	}, folder)
	t.Cleanup(func() {
		if w != nil && t.Failed() {
			for _, n := range w.nodes {
				log, _ := os.ReadFile(filepath.Join(n.folder, "log"))
				t.Logf("%s: %s", n.folder, log[max(0, len(log)-4000):])
			}
		}
		if w != nil {
			if err := w.close(); err != nil {
				t.Log(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		n.crashed = func(n *node) { t.Errorf("a node has ended by itself; its log is in %s", n.folder) }
	}
	if err := w.lives(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) account(t *testing.T) *account {
	t.Helper()
	a, err := w.connect(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// all makes calls of the accounts through the nodes in turn, all at once, and
// returns how many were answered in which way.
func (w *world) all(t *testing.T, n int, accounts ...*account) map[string]int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]int{}
	for i := range n {
		wg.Go(func() {
			status, code, err := w.nodes[i%len(w.nodes)].call(t.Context(), accounts[i%len(accounts)].ID)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				got[err.Error()]++
				return
			}
			got[fmt.Sprint(status, code)]++
		})
	}
	wg.Wait()
	return got
}

// api makes a call of a node's API.
func (n *node) api(t *testing.T, method, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, n.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out json.RawMessage
	_ = json.NewDecoder(res.Body).Decode(&out) // an answer that isn't JSON is compared as none
	return res, string(out)
}

// within waits until something holds.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func TestFleet(t *testing.T) {
	w := fleet(t)
	t.Run("TestS58 1,000 calls on an expired connection make one token call", func(t *testing.T) {
		a := w.account(t)
		w.all(t, 3, a)
		a.family.EndAccess()
		if got := w.all(t, 1000, a); got["200"] != 1000 {
			t.Errorf("answers: %v", got)
		}
		if s := a.family.Stats(); s.Refreshes != 1 || s.Reused != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("TestS76 TestS79 a token endpoint gets no more calls than it allows", func(t *testing.T) {
		var accounts []*account
		for range *fleetSize {
			accounts = append(accounts, w.account(t))
		}
		w.all(t, len(accounts), accounts...)
		var mu sync.Mutex
		var at []time.Time
		for _, a := range accounts {
			a.family.EndAccess()
			a.family.Disturb(func(_ http.ResponseWriter, _ *http.Request, grant string) bool {
				mu.Lock()
				defer mu.Unlock()
				at = append(at, time.Now())
				return false
			}, nil)
		}
		time.Sleep(time.Second) // whatever the turns of before have left
		began := time.Now()
		if got := w.all(t, len(accounts), accounts...); got["200"] != len(accounts) {
			t.Errorf("answers: %v", got)
		}
		if len(at) != len(accounts) {
			t.Errorf("%d token calls for %d connections", len(at), len(accounts))
		}
		// A call takes a while from its turn to the provider: in any second there
		// may be a few that were held up.
		worst := 0
		for i := range at {
			n := 0
			for _, other := range at[i:] {
				if other.Sub(at[i]) < time.Second {
					n++
				}
			}
			worst = max(worst, n)
		}
		took := time.Since(began)
		t.Logf("%d token calls in %v, %d in the fullest second", len(at), took.Round(time.Millisecond), worst)
		if rate := float64(len(at)-1) / took.Seconds(); rate > tokenRate || worst > tokenRate*5/4 {
			t.Errorf("%.1f a second, and %d in the fullest", rate, worst)
		}
	})
	t.Run("TestS82 a removed connection's streams end within a second on every node", func(t *testing.T) {
		a := w.account(t)
		w.all(t, 3, a)
		var ended [2]chan time.Time
		for i := range ended {
			n := w.nodes[i+1]
			req, err := http.NewRequestWithContext(context.Background(), "GET", n.url+"/proxy/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+n.key)
			req.Header.Set("Provider-Config-Key", a.Integration)
			req.Header.Set("Connection-Id", a.ID.Connection)
			res, err := client.Do(req)
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("opening a stream: %v, %v", res, err)
			}
			lines := bufio.NewReader(res.Body)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			ended[i] = make(chan time.Time, 1)
			go func() {
				defer res.Body.Close()
				for {
					if _, err := lines.ReadString('\n'); err != nil {
						ended[i] <- time.Now()
						return
					}
				}
			}()
		}
		res, body := w.nodes[0].api(t, "DELETE", "/connections/"+a.ID.Connection+"?provider_config_key="+integration, "")
		removed := time.Now()
		if res.StatusCode != 200 {
			t.Fatalf("removing: %d %s", res.StatusCode, body)
		}
		for i, c := range ended {
			select {
			case at := <-c:
				t.Logf("the stream of node %d ended %v after the removal was answered", i+2, at.Sub(removed).Round(time.Millisecond))
			case <-time.After(time.Second):
				t.Errorf("the stream of node %d is still open", i+2)
			}
		}
		if got := w.all(t, 3, a); got["404unknown_connection"] != 3 {
			t.Errorf("calls after it: %v", got)
		}
		if s := a.family.Stats(); !s.Revoked {
			t.Errorf("the grant is not revoked: %+v", s)
		}
	})
	t.Run("TestS53 a dump of the database has no usable secret", func(t *testing.T) {
		a := w.account(t)
		w.all(t, 3, a)
		if err := w.hc.seal(); err != nil {
			t.Fatal(err)
		}
		a.family.EndAccess()
		if got := w.all(t, 3, a); got["200"] != 3 { // with a token that is in the database, sealed, and not in Vault
			t.Errorf("while Vault is sealed: %v", got)
		}
		dump := w.dump(t)
		for _, sign := range []string{"demo_access_", "demo_refresh_", apiKey, demo.DefaultClientSecret} {
			if strings.Contains(dump, sign) {
				t.Errorf("the dump has %s in it", sign)
			}
		}
		if !strings.Contains(dump, `"sealed"`) {
			t.Error("the dump has no sealed credential in it: the test has shown nothing")
		}
		if err := w.hc.unseal(); err != nil {
			t.Fatal(err)
		}
		within(t, 20*time.Second, "the vault has the new credential", func() bool {
			version, err := w.held(t.Context(), a)
			return err == nil && version == 2
		})
		within(t, 30*time.Second, "nothing is left of it elsewhere", func() bool { return w.tidy(t.Context(), a) == nil })
	})
	t.Run("TestS57 a Vault that was restored from before gets the newest back", func(t *testing.T) {
		a := w.account(t)
		w.all(t, 3, a)
		w.hc.kill()
		copyFolder(t, filepath.Join(w.hc.folder, "data"), filepath.Join(w.hc.folder, "backup"))
		if err := w.hc.comeBack(); err != nil {
			t.Fatal(err)
		}
		a.family.EndAccess()
		within(t, 30*time.Second, "renewed once", func() bool { return w.all(t, 3, a)["200"] == 3 && a.family.Stats().Refreshes == 1 })
		within(t, 30*time.Second, "the vault has it", func() bool { v, err := w.held(t.Context(), a); return err == nil && v == 2 })
		w.hc.kill()
		if err := os.RemoveAll(filepath.Join(w.hc.folder, "data")); err != nil {
			t.Fatal(err)
		}
		copyFolder(t, filepath.Join(w.hc.folder, "backup"), filepath.Join(w.hc.folder, "data"))
		if err := w.hc.comeBack(); err != nil {
			t.Fatal(err)
		}
		if v, err := w.held(t.Context(), a); err != nil || v != 1 {
			t.Fatalf("the restored Vault has version %d, %v", v, err)
		}
		a.family.EndAccess()
		within(t, 60*time.Second, "renewed from what the nodes had in memory", func() bool { return w.all(t, 3, a)["200"] == 3 })
		if s := a.family.Stats(); s.Refreshes != 2 || s.Reused != 0 || s.Revoked {
			t.Errorf("%+v", s)
		}
		within(t, 30*time.Second, "the vault has the newest", func() bool { v, err := w.held(t.Context(), a); return err == nil && v == 3 })
	})
	t.Run("TestS117 known connections work without the database, and all else says when to come again", func(t *testing.T) {
		a := w.account(t)
		w.all(t, 3, a)
		w.cluster.crash()
		within(t, 20*time.Second, "the nodes notice", func() bool {
			_, body := w.nodes[0].api(t, "GET", "/health", "")
			return strings.Contains(body, `"degraded"`) && strings.Contains(body, `"store"`)
		})
		if got := w.all(t, 30, a); got["200"] != 30 {
			t.Errorf("known connections: %v", got)
		}
		res, body := w.nodes[1].api(t, "POST", "/connect/sessions", `{"end_user":{"id":"u"}}`)
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("opening a session: %d %v %s", res.StatusCode, res.Header, body)
		}
		if res, _ := w.nodes[2].api(t, "GET", "/health/live", ""); res.StatusCode != 200 {
			t.Errorf("live: %d", res.StatusCode)
		}
		if err := w.cluster.start(); err != nil {
			t.Fatal(err)
		}
		within(t, 30*time.Second, "the nodes are well again", func() bool {
			_, body := w.nodes[0].api(t, "GET", "/health", "")
			return strings.Contains(body, `"ok"`)
		})
		a.family.EndAccess()
		within(t, 30*time.Second, "renewed", func() bool { return w.all(t, 3, a)["200"] == 3 })
	})
	t.Run("TestS117 a node that starts while all is down follows when it is back", func(t *testing.T) {
		a := w.account(t)
		n := w.nodes[2]
		n.stop()
		w.hc.kill()
		w.cluster.crash()
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		within(t, 30*time.Second, "it lives", func() bool {
			res, err := client.Get(n.url + "/health/live")
			if err != nil {
				return false
			}
			res.Body.Close()
			return res.StatusCode == 200
		})
		if res, body := n.api(t, "GET", "/health", ""); res.StatusCode != 503 || !strings.Contains(body, "starting") {
			t.Errorf("health: %d %s", res.StatusCode, body)
		}
		if status, code, err := n.call(t.Context(), a.ID); status != 503 || code != "unavailable" {
			t.Errorf("a call: %d %s %v", status, code, err)
		}
		if err := w.cluster.start(); err != nil {
			t.Fatal(err)
		}
		if err := w.hc.comeBack(); err != nil {
			t.Fatal(err)
		}
		within(t, 30*time.Second, "it works", func() bool { status, _, _ := n.call(t.Context(), a.ID); return status == 200 })
	})
}

// dump is all that the database holds, as pg_dump writes it.
func (w *world) dump(t *testing.T) string {
	t.Helper()
	program := filepath.Join(w.cluster.programs, "pg_dump")
	if found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_dump"); err == nil && len(found) > 0 { // Debian's wrapper looks for a cluster of its own
		program = found[len(found)-1]
	}
	dump, err := exec.Command(program, w.cluster.dsn()).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(dump)
}

func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
