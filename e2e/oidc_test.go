package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// oidcProvider is the catalog entry of the server of startOIDC.
func oidcProvider(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	const entry = `id: oidc
display_name: OIDC test server
vendor: oidc
categories: [test]
auth_scheme: oauth2_code

authorize:
  url: "{app.server}/auth"
  pkce: true
  issuer: "{app.server}"
  issuer_sent: true
  params:
    prompt: consent

token:
  url: "{app.server}/token"
  client_auth: basic

refresh:
  declared: true

scopes:
  default: [openid, offline_access]

app_fields:
  - name: server
    required: true
    source: operator
    format: uri

request:
  base_url: "{app.server}/api"
  headers:
    authorization: Bearer {token.access_token}

docs:
  reference: https://github.com/panva/node-oidc-provider
`
	if err := os.WriteFile(filepath.Join(folder, "oidc.yaml"), []byte(entry), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// connectOIDC connects an account in a browser, as a user would.
func connectOIDC(t *testing.T, link string) {
	t.Helper()
	ctx := browser(t)
	err := chromedp.Do(ctx,
		chromedp.Navigate(link),
		chromedp.Click(chromedp.CSS(`button[type=submit]`)),
		chromedp.WaitVisible(chromedp.CSS(`#allow`)),
		chromedp.Click(chromedp.CSS(`#allow`)),
		chromedp.WaitVisible(chromedp.CSS(`button[value=yes]`)),
		chromedp.Sleep(600*time.Millisecond), // a click at once might have been meant for the page before
		chromedp.Click(chromedp.CSS(`button[value=yes]`)),
		chromedp.WaitVisible(chromedp.CSS(`.outcome`)),
	)
	if err != nil {
		t.Fatalf("connecting in the browser: %v", err)
	}
	heading, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(`h1`)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(heading, "connected") && !strings.Contains(heading, "Connected") {
		t.Fatalf("the page says %q", heading)
	}
}

// The main job: an account is connected in a real browser at a certified OAuth
// server, and its API is called for a minute while the server revokes the
// access token every few seconds. The app sees 2xx only, and no refresh token
// is spent twice (S49, S58, S61).
func TestCallsSucceedForAMinuteWhileAccessTokensAreRevoked(t *testing.T) {
	t.Parallel() // it mostly waits
	port := freePort(t)
	callback := fmt.Sprintf("http://localhost:%d/oauth/callback", port)
	o := startOIDC(t, callback)
	dir := t.TempDir()
	c := startCaddy(t, dir, port, caddyfile(dir, port, fmt.Sprintf(`
		catalog %s
		integration oidc {
			client_id app
			client_secret %s
			field server %s
		}`, oidcProvider(t), oidcSecret, o.URL), "keycaddy"))
	connectOIDC(t, c.link("oidc", "alice"))

	const calls, spread = 200, 60 * time.Second
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND"}
	ctx, cancel := context.WithTimeout(context.Background(), 2*spread)
	defer cancel()
	stop := make(chan struct{})
	revoked := make(chan int, 1)
	go func() {
		n := 0
		for tick := time.NewTicker(3 * time.Second); ; {
			select {
			case <-tick.C:
				var answer struct{ Revoked int }
				o.admin("POST", "/admin/revoke-access", &answer)
				n += answer.Revoked
			case <-stop:
				revoked <- n
				return
			}
		}
	}()
	began := time.Now()
	for i := range calls {
		time.Sleep(time.Until(began.Add(time.Duration(i) * spread / calls)))
		method := methods[i%len(methods)]
		var body []byte
		if method != "GET" && method != "HEAD" {
			body = make([]byte, 1+i*97%(200<<10))
			_, _ = rand.Read(body)
		}
		req := c.request(ctx, method, fmt.Sprintf("/things/%d?n=%d", i, i), "oidc", "alice", strings.NewReader(string(body)))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode < 200 || res.StatusCode > 299 {
			t.Fatalf("call %d, %s: %d %s %v", i, method, res.StatusCode, answer, err)
		}
		if method == "HEAD" {
			continue
		}
		var echo struct {
			Method string
			SHA256 string `json:"body_sha256"`
			Length int    `json:"body_length"`
		}
		if err := json.Unmarshal(answer, &echo); err != nil {
			t.Fatalf("call %d: %s: %v", i, answer, err)
		}
		if sum := sha256.Sum256(body); echo.Method != method || echo.SHA256 != hex.EncodeToString(sum[:]) || echo.Length != len(body) {
			t.Fatalf("call %d, %s with %d bytes, arrived as %s", i, method, len(body), answer)
		}
	}
	close(stop)
	var stats struct {
		TokenCalls   map[string]int `json:"token_calls"`
		Granted      map[string]int `json:"granted"`
		RefreshReuse int            `json:"refresh_reuse"`
		Revoked      int            `json:"grants_revoked"`
		ByStatus     map[string]int `json:"api_by_status"`
	}
	o.admin("GET", "/admin/stats", &stats)
	n := <-revoked
	t.Logf("%d calls in %v; %d access tokens revoked; server: %+v", calls, time.Since(began).Round(time.Second), n, stats)
	if stats.RefreshReuse != 0 || stats.Revoked != 0 {
		t.Errorf("refresh tokens spent twice: %d, grants revoked: %d", stats.RefreshReuse, stats.Revoked)
	}
	if n < 5 || stats.ByStatus["401"] == 0 || stats.Granted["refresh_token"] < 10 {
		t.Errorf("the test did not test: %d revoked, %v", n, stats)
	}
}
