package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// screenshots is where the pages are left to be looked at.
const screenshots = "../.cache/screenshots"

// guise is how a browser shows the pages.
type guise struct {
	name, language, scheme string
	width, height          int64
}

var guises = []guise{
	{"light", "en", "light", 1100, 820},
	{"dark", "de", "dark", 1100, 820},
	{"phone", "fr", "light", 390, 844},
	{"rtl", "ar", "light", 1100, 820},
}

// wear makes a browser show pages so.
func wear(t *testing.T, ctx context.Context, g guise) {
	t.Helper()
	act := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: g.scheme}}})
	act(err)
	act(chromedp.Do(ctx, chromedp.EmulateViewport(g.width, g.height)))
	_, err = chromedp.Call(ctx, emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{})
	act(err)
	_, err = chromedp.Call(ctx, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: "Mozilla/5.0 (pages test) Chrome", AcceptLanguage: g.language})
	act(err)
	// axe is put into the page, whose policy would keep it out.
	_, err = chromedp.Call(ctx, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true})
	act(err)
}

// look takes a picture of the page and has axe judge it (WCAG 2.2 AA), if there
// is one.
func look(t *testing.T, ctx context.Context, axe, g, name string) {
	t.Helper()
	shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(screenshots, name+"-"+g+".png"), shot, 0o600); err != nil {
		t.Fatal(err)
	}
	if axe != "" {
		judged(t, ctx, axe, g, name)
	}
	middle, err := chromedp.Run(ctx, chromedp.Evaluate[float64](`(function () { var b = document.querySelector('main').getBoundingClientRect(); return (b.left + b.right - document.documentElement.clientWidth) / 2; })()`))
	if err != nil || middle < -1 || middle > 1 {
		t.Errorf("%s, %s: %v px off the middle (%v)", name, g, middle, err)
	}
	wide, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > document.documentElement.clientWidth`))
	if err != nil || wide {
		t.Errorf("%s, %s: wider than the window (%v)", name, g, err)
	}
}

// judged has axe look at the page.
func judged(t *testing.T, ctx context.Context, axe, g, name string) {
	t.Helper()
	judge := axe + `; axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then(function (r) {
		return JSON.stringify(r.violations.map(function (v) { return v.id + ': ' + v.nodes.map(function (n) { return n.html.slice(0, 160) + ' (' + n.failureSummary.slice(0, 200) + ')'; }).join(' | '); }));
	})`
	found, err := chromedp.Run(ctx, chromedp.Evaluate[string](judge, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("axe on %s: %v", name, err)
	}
	var violations []string
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Errorf("%s, %s: %s", name, g, v)
	}
}

// script runs a script in the page.
func script(js string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](js))
		return err
	})
}

// fieldsProvider is a catalog entry with every kind of field.
const fieldsProvider = `id: kinds
display_name: Every kind of field
vendor: kinds
vendor_domain: kinds.example
categories: [productivity]
auth_scheme: basic
conn_fields:
  - {name: subdomain, label: Your subdomain, required: true, regex: '^[a-z0-9-]+$', example: acme, prefix: 'https://', suffix: .kinds.example, help: 'What stands before .kinds.example in your address bar.', docs: 'https://kinds.example/help', order: 1}
  - {name: region, enum: [us, eu], required: true, help: 'Where your data is.', order: 2}
  - {name: certificate, format: pem_or_base64, order: 3, visible_when: {field: region, equals: eu}}
  - {name: page_size, regex: '^[0-9]+$', example: '100', order: 4}
cred_fields:
  - {name: username, required: true, format: email, example: ada@example.com}
  - {name: password, required: true, secret: true, help: 'An app password, not that of your account.'}
request: {base_url: 'https://{conn.subdomain}.kinds.example', headers: {authorization: "Basic {base64(cred.username, ':', cred.password)}"}}
docs: {auth: 'https://kinds.example/docs', console: 'https://kinds.example/keys'}
`

// Every page, in four guises: axe finds nothing, nothing is wider than its
// window, and a picture is left.
func TestPagesAreAccessible(t *testing.T) {
	axe, err := os.ReadFile("oidc/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(screenshots, 0o755); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "kinds.yaml"), []byte(fieldsProvider), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}})
	dir := t.TempDir()
	options := "catalog " + folder + "\napp_name Acme\nintegration kinds\n" + demoIntegration(d, "demo")
	for _, id := range []string{"github", "gitlab", "slack", "notion", "hubspot", "asana", "linear", "discord", "dropbox"} {
		options += "integration " + id + " {\nclient_id a\nclient_secret b\n}\n"
	}
	c := startCaddy(t, dir, port, caddyfile(dir, port, options, "keycaddy"))
	session := func(integrations ...string) string {
		var answer struct {
			Data struct {
				Link string `json:"connect_link"`
			}
		}
		c.call("POST", "/connect/sessions", map[string]any{
			"end_user":             map[string]string{"id": "ada", "display_name": "Ada Lovelace", "email": "ada@example.com"},
			"allowed_integrations": append([]string{}, integrations...),
		}, &answer)
		return answer.Data.Link
	}
	all := browser(t)
	for _, g := range guises {
		t.Run(g.name, func(t *testing.T) {
			ctx := profile(t, all)
			wear(t, ctx, g)
			see := func(name string, do ...chromedp.Action[chromedp.Void]) {
				t.Helper()
				if err := chromedp.Do(ctx, do...); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				look(t, ctx, string(axe), g.name, name)
			}
			see("choose", chromedp.Navigate(session()))
			see("choose-none", chromedp.SendKeys(chromedp.CSS("#q"), "zzz"))
			see("expired", chromedp.Navigate(c.URL+"/connect?session_token=x"))
			link := session("kinds")
			see("form", chromedp.Navigate(link))
			see("form-wrong", chromedp.SendKeys(chromedp.CSS("#field-subdomain"), "not right"), chromedp.SendKeys(chromedp.CSS("#field-username"), "ada@example.com\t"),
				script(`document.querySelector('#field-region').value = 'eu'; document.querySelector('form').dispatchEvent(new Event('input')); document.querySelector('#field-subdomain').dispatchEvent(new Event('change')); true`))
			see("form-refused", script(`document.querySelector('form').submit(); true`), chromedp.Sleep(500*time.Millisecond), chromedp.WaitVisible(chromedp.CSS(".alert")))
			see("oauth", chromedp.Navigate(session("demo")))
			see("confirm", chromedp.Click(chromedp.CSS("button[type=submit]")), chromedp.Click(chromedp.CSS("#allow")), chromedp.WaitVisible(chromedp.CSS("button[value=yes]")))
			see("done", chromedp.Sleep(600*time.Millisecond), chromedp.Click(chromedp.CSS("button[value=yes]")), chromedp.WaitVisible(chromedp.CSS(".good")))
			see("failed", chromedp.Navigate(session("demo")), chromedp.Click(chromedp.CSS("button[type=submit]")), chromedp.Click(chromedp.CSS("#deny")), chromedp.WaitVisible(chromedp.CSS(".bad")))
		})
	}
}
