package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// receiver is an app's endpoint for webhooks.
type receiver struct {
	URL string

	mu   sync.Mutex
	got  []hook
	down bool
}

type hook struct {
	Secret  string            `json:"secret"`
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := new(receiver)
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	r.URL = srv.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	h := hook{Body: string(body), Headers: map[string]string{}}
	for name := range req.Header { // as Node.js has them
		h.Headers[strings.ToLower(name)] = req.Header.Get(name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	r.got = append(r.got, h)
}

func (r *receiver) set(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// wait waits for the first webhook with a text in its body.
func (r *receiver) wait(t *testing.T, text string) (found hook) {
	t.Helper()
	eventually(t, 30*time.Second, "a webhook with "+text, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, h := range r.got {
			if strings.Contains(h.Body, text) {
				found = h
				return nil
			}
		}
		return fmt.Errorf("%d others", len(r.got))
	})
	return found
}

// verify has webhooks checked by the SDKs that apps use.
func verify(t *testing.T, hooks ...hook) (answers []struct{ Nango, Standard bool }) {
	t.Helper()
	data, err := json.Marshal(hooks)
	if err != nil {
		t.Fatal(err)
	}
	cpu := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	cmd := exec.Command("oidc/node_modules/node-linux-"+cpu+"/bin/node", "sdk/verify.mjs")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		var failed *exec.ExitError
		errors.As(err, &failed)
		t.Fatalf("%v: %s", err, failed.Stderr)
	}
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(hooks) {
		t.Fatalf("%v: %s", err, out)
	}
	return answers
}

// An app that was written for Nango takes webhooks as they are, and one that
// goes by Standard Webhooks too. What could not be delivered is, later; and what
// has happened can be looked up (S124).
func TestWebhooksAreTakenByTheSDKs(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	app := newReceiver(t)
	dir, port := t.TempDir(), freePort(t)
	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}})
	config := caddyfile(dir, port, demoIntegration(d, "demo")+`
		webhook_secret `+secret+`
		webhook `+app.URL+`/hooks?key=value {
			name app
		}
		environment dev`, "keycaddy")
	c := startCaddy(t, dir, port, config)
	newVisitor(t).connect(c.link("demo", "alice"))

	created := app.wait(t, `"operation":"creation"`)
	for _, want := range []string{`"connectionId":"alice"`, `"endUser":{"endUserEmail":null,"endUserId":"u1","tags":{}}`, `"environment":"dev"`, `"success":true`} {
		if !strings.Contains(created.Body, want) {
			t.Errorf("no %s in %s", want, created.Body)
		}
	}
	created.Secret = secret
	changed, other := created, created
	changed.Body = strings.Replace(created.Body, "alice", "mallo", 1)
	other.Secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for i, a := range verify(t, created, changed, other) {
		if want := i == 0; a.Nango != want || a.Standard != want {
			t.Errorf("webhook %d: taken by Nango's SDK %v, by Standard Webhooks' %v", i, a.Nango, a.Standard)
		}
	}

	// While the app is down keycaddy is restarted. Then it is told again by hand.
	app.set(true)
	if status := c.call("DELETE", "/connections/alice?provider_config_key=demo", nil, nil); status != http.StatusOK {
		t.Fatalf("deleting: %d", status)
	}
	var list struct {
		Deliveries []struct {
			Event    struct{ ID, Kind string }
			Status   int
			Endpoint string
		}
	}
	eventually(t, 10*time.Second, "an attempt", func() error {
		c.call("GET", "/webhooks/deliveries?state=waiting", nil, &list)
		if len(list.Deliveries) != 1 || list.Deliveries[0].Status != 503 {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	c.Stop()
	app.set(false)
	c = startCaddy(t, dir, port, config)
	if status := c.call("POST", "/webhooks/redeliver", map[string]string{"event": list.Deliveries[0].Event.ID}, nil); status != http.StatusOK {
		t.Errorf("redelivering: %d", status)
	}
	if deleted := app.wait(t, `"operation":"deletion"`); deleted.Headers["webhook-id"] != list.Deliveries[0].Event.ID || deleted.Headers["keycaddy-event"] != "connection.deleted" {
		t.Errorf("headers %v", deleted.Headers)
	}

	// The attempt is in the log, step by step, also after the restart.
	var logs struct {
		Logs []struct{ ID, Kind, Status string }
	}
	c.call("GET", "/logs?kind=connect&connection_id=alice", nil, &logs)
	if len(logs.Logs) != 1 || logs.Logs[0].Status != "success" {
		t.Fatalf("logs %+v", logs)
	}
	out, err := exec.Command(caddyBinary, "keycaddy", "logs", logs.Logs[0].ID, "--address", c.admin).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, step := range []string{"started", "redirected", "callback", "waiting", "proved", "exchanged", "completed", "stored"} {
		if !strings.Contains(string(out), "  "+step+" ") {
			t.Errorf("no %s in\n%s", step, out)
		}
	}
}
