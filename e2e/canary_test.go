package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// canaries are secrets by value, with what they are.
type canaries struct {
	mu   sync.Mutex
	what map[string]string
}

func (c *canaries) add(what string, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range values {
		if len(v) >= 16 {
			c.what[v] = what
		}
	}
}

// forms are the ways in which a secret may be written down. Base64 depends on
// where in the encoded text the secret begins: there are three ways, each less
// the characters that its neighbours have a part in.
func forms(secret string) map[string]string {
	var every strings.Builder
	for _, b := range []byte(secret) {
		fmt.Fprintf(&every, "%%%02X", b)
	}
	out := map[string]string{
		"raw": secret, "hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"url": url.QueryEscape(secret), "path": url.PathEscape(secret), "percent": every.String(),
	}
	for phase, skip := range []int{0, 2, 3} {
		padded := append(make([]byte, phase), secret...)
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			out[fmt.Sprint(name, phase)] = enc.EncodeToString(padded)[skip : len(padded)*8/6]
		}
	}
	return out
}

// search finds canaries in a text, in all their forms. Some may be left out.
func (c *canaries) search(text string, without ...string) (found []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for secret, what := range c.what {
		if slices.Contains(without, what) {
			continue
		}
		for form, s := range forms(secret) {
			if i := strings.Index(text, s); i >= 0 {
				found = append(found, fmt.Sprintf("%s (%s): …%q…", what, form, text[max(0, i-120):min(len(text), i+len(s)+40)]))
			}
		}
	}
	return found
}

func TestSearchFindsCanaries(t *testing.T) {
	const secret = "demo_access_0123456789abcdef/+é"
	c := &canaries{what: map[string]string{}}
	c.add("secret", secret)
	for form, s := range forms(secret) {
		if len(c.search("before "+s+" after")) == 0 {
			t.Errorf("%s is not found: %s", form, s)
		}
	}
	for n := range 7 {
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString([]byte(strings.Repeat("x", n) + secret + strings.Repeat("y", 6-n)))
			if len(c.search(text)) == 0 {
				t.Errorf("not found after %d bytes: %s", n, text)
			}
		}
	}
	if found := c.search("demo_access_0123456789abcdeg"); len(found) != 0 {
		t.Errorf("found what isn't there: %v", found)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.db-wal"), []byte("\x00\x01"+secret+"\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(c.search(everyFile(t, dir))) == 0 {
		t.Error("not found in a file")
	}
}

// everyFile is all that is in a folder's files, and their names.
func everyFile(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&all, "\n%s:\n%s", path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// random is a secret that no test has seen before.
func random(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// answers are what a Caddy has answered, to be searched.
type answers struct{ strings.Builder }

func (a *answers) keep(res *http.Response, body []byte) {
	fmt.Fprintf(a, "\n%s %s\n", res.Request.Method, res.Status)
	_ = res.Header.Write(a)
	_, _ = a.Write(body)
}

// Nothing that is secret is found in logs, answers, the exported configuration,
// or any file, whatever happens (S52, S53, S120).
func TestNoSecretIsFoundAnywhere(t *testing.T) {
	secrets := &canaries{what: map[string]string{}}
	clientSecret, typed, wrong, foreign := random("canary-secret-"), random("demo_typed"), random("demo_wrong"), random("canary-code-")
	unknown := "5f0c7a4e-1f0d-4c5b-9a57-" + random("")[:12]
	secrets.add("API key", apiKey, unknown)
	secrets.add("client secret", clientSecret)
	secrets.add("typed key", typed, wrong)
	secrets.add("code", foreign)

	dir, port := t.TempDir(), freePort(t)
	d := startDemo(t, demo.Options{
		AccessTTL: time.Hour, RedirectURIs: []string{callbackAt(port)},
		Clients: map[string]string{"keycaddy-demo": clientSecret}, APIKeys: []string{typed},
	})
	var refreshToken string
	d.heard = func(form url.Values, basic string, answer map[string]any) {
		secrets.add("client secret", basic)
		for _, name := range []string{"code", "code_verifier", "refresh_token"} {
			secrets.add(name, form.Get(name))
		}
		for _, name := range []string{"access_token", "refresh_token"} {
			if token, ok := answer[name].(string); ok {
				secrets.add(name, token)
			}
		}
		refreshToken, _ = answer["refresh_token"].(string)
	}
	t.Setenv("CANARY_API_KEY", apiKey)
	t.Setenv("CANARY_SECRET", clientSecret)
	hookSecret, hookKey := random("canary-webhook-secret-"), random("canary-webhook-query-")
	secrets.add("webhook secret", hookSecret, hookKey)
	t.Setenv("CANARY_WEBHOOK_SECRET", hookSecret)
	t.Setenv("CANARY_WEBHOOK_KEY", hookKey)
	app := newReceiver(t)
	config := strings.Replace(caddyfile(dir, port, strings.Replace(demoIntegration(d, "demo"), "keycaddy-demo-secret", "{env.CANARY_SECRET}", 1)+fmt.Sprintf(`
		integration demo-key {
			provider keycaddy-demo-key
			field base_url %s
		}
		webhook_secret {env.CANARY_WEBHOOK_SECRET}
		webhook %s/?key={env.CANARY_WEBHOOK_KEY}
		webhook http://127.0.0.1:1/?key={env.CANARY_WEBHOOK_KEY}
		logs {
			calls all
		}`, d.URL, app.URL), "keycaddy"), apiKey, "{env.CANARY_API_KEY}", 1)
	config = strings.Replace(config, "debug\n", "debug\n\tmetrics\n", 1)
	c := startCaddy(t, dir, port, config)

	// kept is searched for everything; pages, which visitors get who have the
	// session's token, for everything else.
	var kept, pages answers
	link := func(integration, connection string) string {
		l := c.link(integration, connection)
		u, err := url.Parse(l)
		if err != nil {
			t.Fatal(err)
		}
		secrets.add("session token", u.Query().Get("session_token"))
		return l
	}
	newVisitor := func() *visitor {
		v := newVisitor(t)
		v.saw = func(res *http.Response, body []byte) {
			for _, k := range res.Cookies() {
				binding, _, _ := strings.Cut(k.Value, ".")
				secrets.add("flow cookie", binding)
			}
			if to, err := res.Location(); err == nil {
				secrets.add("state", to.Query().Get("state"))
				secrets.add("code", to.Query().Get("code"))
			}
			if res.Request.URL.Port() == fmt.Sprint(port) && (res.StatusCode >= 400 || res.Request.URL.Path == "/connect/done") {
				pages.keep(res, body)
			}
		}
		return v
	}
	ask := func(client *http.Client, address, key, method, body string, headers ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(context.Background(), method, address, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		data, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		kept.keep(res, data)
		return res.StatusCode
	}
	expect := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: status %d, want %d", what, got, want)
		}
	}
	through := func(key, path, connection, integration string) int {
		t.Helper()
		return ask(http.DefaultClient, c.URL+"/proxy"+path, key, "GET", "", "Connection-Id", connection, "Provider-Config-Key", integration)
	}

	// Connected, called, renewed.
	for _, user := range []string{"alice", "bob"} {
		newVisitor().connect(link("demo", user))
		expect("a call", through(apiKey, "/me", user, "demo"), 200)
	}
	d.RevokeAccess("")
	expect("a call that renews", through(apiKey, "/me", "alice", "demo"), 200)
	expect("a call that the provider doesn't know", through(apiKey, "/nothing", "alice", "demo"), 404)
	v := newVisitor()
	_, _, done := v.submit(link("demo-key", "carol"), "field.api_key", typed)
	status, _, _ := v.visit(done, nil)
	expect("an API key", status, 200)
	expect("a call with an API key", through(apiKey, "/whoami", "carol", "demo-key"), 200)

	// All that can go wrong.
	status, _, _ = newVisitor().submit(link("demo-key", "dave"), "field.api_key", wrong)
	expect("a refused API key", status, 422)
	status, _, _ = newVisitor().submit(link("demo-key", "dave"), "field.api_key", wrong+" "+typed)
	expect("no API key at all", status, 422)
	v = newVisitor()
	_, _, next := v.submit(link("demo", "erin"))
	_, _, done = v.visit(v.consent(next, "deny"), nil)
	status, _, _ = v.visit(done, nil)
	expect("a denied consent", status, 400)
	v = newVisitor()
	_, _, next = v.submit(link("demo", "erin"))
	callback, err := url.Parse(v.consent(next, "allow"))
	if err != nil {
		t.Fatal(err)
	}
	q := callback.Query()
	q.Set("code", foreign)
	callback.RawQuery = q.Encode()
	status, _, _ = v.visit(v.confirm(callback.String()), nil)
	expect("a code that is no good", status, 400)
	_, _, next = v.submit(link("demo", "erin"))
	stolen := v.consent(next, "allow")
	expect("a callback in another browser", ask(http.DefaultClient, stolen, "", "GET", ""), 400)
	expect("a callback used again", ask(http.DefaultClient, stolen, "", "GET", ""), 400)
	expect("a state that is no good", ask(http.DefaultClient, callbackAt(port)+"?state="+foreign+"&code="+foreign, "", "GET", ""), 400)
	expect("a link that is no good", ask(http.DefaultClient, c.URL+"/connect/?session_token="+foreign, "", "GET", ""), 410)
	expect("an unknown API key", through(unknown, "/me", "alice", "demo"), 401)
	expect("a word for an API key", through(foreign, "/me", "alice", "demo"), 401)
	expect("an unknown connection", through(apiKey, "/me", "nobody", "demo"), 404)
	expect("an unknown key at the API", ask(http.DefaultClient, c.URL+"/connections", unknown, "GET", ""), 401)
	expect("broken JSON", ask(http.DefaultClient, c.URL+"/connect/sessions", apiKey, "POST", `{"`+foreign), 400)
	expect("a bad session token", ask(http.DefaultClient, c.URL+"/connect/session", "nango_connect_session_"+foreign, "GET", ""), 401)

	// Bob's refresh token ends: nothing can be renewed.
	d.RevokeAccess("")
	expect("a call that renews", through(apiKey, "/me", "bob", "demo"), 200)
	req, err := http.NewRequest("POST", d.URL+"/revoke", strings.NewReader(url.Values{"token": {refreshToken}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("keycaddy-demo", clientSecret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if res, err := http.DefaultClient.Do(req); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	d.RevokeAccess("")
	expect("a call that can't be renewed", through(apiKey, "/me", "bob", "demo"), 424)
	expect("a call after that", through(apiKey, "/me", "bob", "demo"), 424)

	// What is said of it all.
	admin := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", dir+"/admin.sock")
	}}}
	defer admin.CloseIdleConnections()
	for _, connection := range []string{"alice", "bob", "nobody"} {
		body, _ := json.Marshal(map[string]string{"connection_id": connection, "provider_config_key": "demo"})
		expect("explain", ask(http.DefaultClient, c.URL+"/explain", apiKey, "POST", string(body)), 200)
		expect("explain", ask(admin, "http://localhost/keycaddy/explain", "", "POST", string(body)), 200)
	}
	for _, path := range []string{"/connections", "/integrations", "/providers", "/health"} {
		expect(path, ask(http.DefaultClient, c.URL+path, apiKey, "GET", ""), 200)
		expect("/keycaddy"+path, ask(admin, "http://localhost/keycaddy"+path, "", "GET", ""), 200)
	}
	for _, path := range []string{"/logs?limit=1000", "/webhooks", "/webhooks/deliveries"} {
		expect(path, ask(http.DefaultClient, c.URL+path, apiKey, "GET", ""), 200)
	}
	app.wait(t, `"operation":"refresh"`)
	var logs struct {
		Logs []struct{ ID, Kind string }
	}
	c.call("GET", "/logs?limit=1000", nil, &logs)
	logged := map[string]int{}
	for _, l := range logs.Logs {
		logged[l.Kind]++
		expect("a log", ask(http.DefaultClient, c.URL+"/logs/"+l.ID, apiKey, "GET", ""), 200)
	}
	if logged["connect"] < 6 || logged["refresh"] < 3 || logged["call"] < 8 {
		t.Errorf("logs %v", logged)
	}
	app.mu.Lock()
	for _, h := range app.got {
		kept.WriteString(h.Body)
	}
	app.mu.Unlock()
	for _, path := range []string{"/config/", "/metrics", "/debug/vars", "/debug/pprof/cmdline"} {
		expect(path, ask(admin, "http://localhost"+path, "", "GET", ""), 200)
	}
	if !strings.Contains(kept.String(), "{env.CANARY_SECRET}") || !strings.Contains(kept.String(), "caddy_admin_http_requests_total") {
		t.Error("the configuration or the metrics are not among the answers")
	}
	live := everyFile(t, dir) + everyFile(t, filepath.Dir(c.config))
	c.Reload(config)
	expect("a call after a reload", through(apiKey, "/whoami", "carol", "demo-key"), 200)
	c.Stop()

	kinds := map[string]int{}
	for _, what := range secrets.what {
		kinds[what]++
	}
	for _, what := range []string{"API key", "client secret", "access_token", "refresh_token", "code", "code_verifier", "state", "session token", "flow cookie", "typed key", "webhook secret"} {
		if kinds[what] == 0 {
			t.Errorf("there is no canary that is a %s", what)
		}
	}
	if log := c.Output.String(); !strings.Contains(log, `"level":"debug"`) || !strings.Contains(log, "handled request") || !strings.Contains(live, "SQLite format 3") {
		t.Error("there is no debug log, no access log or no database to be searched")
	}
	for where, found := range map[string][]string{
		"the log":              secrets.search(c.Output.String()),
		"an answer":            secrets.search(kept.String()),
		"a page":               secrets.search(pages.String(), "session token", "flow cookie", "state"),
		"a file, while in use": secrets.search(live),
		"a file, afterwards":   secrets.search(everyFile(t, dir) + everyFile(t, filepath.Dir(c.config))),
	} {
		for _, f := range found {
			t.Errorf("%s has a secret: %s", where, f)
		}
	}
	t.Logf("searched for %v: log %d KiB, answers %d KiB, pages %d KiB, files %d KiB", kinds,
		len(c.Output.String())>>10, kept.Len()>>10, pages.Len()>>10, len(live)>>10)
}
