package e2e

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// text is what a window shows, if it shows something just now.
func text(ctx context.Context) (string, error) {
	return chromedp.Run(ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ''`))
}

// An operator's day in a real browser: every page in four guises, without a fault
// that axe finds, and everything that can be done from there.
func TestTheConsole(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile("oidc/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(screenshots, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, port := t.TempDir(), freePort(t)
	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}})
	c := startCaddy(t, dir, port, caddyfile(dir, port, "webhook http://127.0.0.1:1/hook {\nname app\n}\nwebhook_secret 0123456789abcdef0123456789abcdef\n"+demoIntegration(d, "demo"), "keycaddy_console\nkeycaddy"))
	newVisitor(t).connect(c.link("demo", "alice"))
	ctx := browser(t) // a profile would have less time
	at := func(path string) chromedp.Action[chromedp.Void] { return chromedp.Navigate(c.URL + "/console" + path) }
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	says := func(texts ...string) {
		t.Helper()
		for _, want := range texts {
			eventually(t, 10*time.Second, "the page says "+want, func() error {
				got, err := text(ctx)
				if err == nil && !strings.Contains(got, want) {
					err = errors.New(got)
				}
				return err
			})
		}
	}
	submit := func(selector string) chromedp.Action[chromedp.Void] { return chromedp.Click(chromedp.CSS(selector)) }

	// Nobody gets past the door without a key.
	do("the door", at("/connections"))
	says("Sign in", "With an API key")
	do("a wrong key", chromedp.SendKeys(chromedp.CSS("#key"), "nonsense"), submit("main button"))
	says("That is no API key of this server")
	do("a key", chromedp.SendKeys(chromedp.CSS("#key"), apiKey), submit("main button"))
	says("Overview", "Active", "Healthy")

	// A call through the panel is the proxy's.
	do("try", at("/try?integration=demo&id=alice"), chromedp.SetValue(chromedp.CSS("#path"), "/me"), submit("button[value=send]"))
	says("200 OK", "Authorization", "What it gets")
	do("explain", at("/try?integration=demo&id=nobody"), submit("button[value=explain]"))
	says("unknown_connection")

	// One that goes wrong at the provider shows why.
	v := newVisitor(t)
	_, _, next := v.submit(c.link("demo", "bob"))
	v.visit(v.consent(next, "deny"), nil)
	eventually(t, 5*time.Second, "the failure is in the log", func() error {
		do("logs", at("/logs?kind=connect&status=failure"))
		got, err := text(ctx)
		if err == nil && !strings.Contains(got, "access_denied") {
			err = errors.New(got)
		}
		return err
	})
	do("a log", submit("tbody a"))
	says("access_denied", "Step by step", "redirected")

	// Live, what happens is seen without asking again.
	do("live", at("/logs"), submit("input[data-live]"))
	newVisitor(t).connect(c.link("demo", "carol"))
	says("carol")

	// Connections: found, renewed, switched off and on, linked to reconnect.
	do("found", at("/connections?search=ali"))
	says("alice", "Active")
	do("opened", submit("tbody a"))
	says("Calls go to", "Authorization")
	do("renewed", submit("button[value=refresh]"))
	says("The credential was renewed")
	do("off", submit("button[value=disable]"))
	says("Switched off", "calls are refused")
	do("on", submit("button[value=enable]"))
	says("switched on again")
	do("link", submit("button[value=reconnect]"))
	says("session_token=nango_connect_session_", "works for half an hour")

	// An integration is chosen from the catalog, and its client checked.
	do("catalog", at("/integrations/new?search=github"))
	says("GitHub")
	do("chosen", at("/integrations/new?provider=keycaddy-demo"))
	says("/oauth/callback", "Client ID")
	do("made", chromedp.SetValue(chromedp.CSS("#key"), "second"), chromedp.SendKeys(chromedp.CSS("#client_id"), demo.DefaultClientID), chromedp.SendKeys(chromedp.CSS("#client_secret"), "wrong"),
		chromedp.SendKeys(chromedp.CSS("#field-base_url"), d.URL), submit("main form.enter button"))
	says("The integration is there", "second")
	do("checked", submit("button[value=check]"))
	says("doesn't know this client", "invalid_client")
	do("mended", script(`document.querySelector('button[value=change]').closest('details').open = true; true`), chromedp.SendKeys(chromedp.CSS("#client_id"), demo.DefaultClientID),
		chromedp.SendKeys(chromedp.CSS("#client_secret"), demo.DefaultClientSecret), submit("button[value=change]"))
	says("What you entered holds now")
	do("checked again", submit("button[value=check]"))
	says("knows the client and its secret")
	do("not meant", script(`document.querySelector('.danger').open = true; true`), chromedp.SendKeys(chromedp.CSS("#confirm"), "other"), submit("button[value=delete]"))
	says("Enter the key to say that you mean it")
	do("deleted", script(`document.querySelector('.danger').open = true; true`), chromedp.SendKeys(chromedp.CSS("#confirm"), "second"), submit("button[value=delete]"))
	says("Add an integration", "demo")

	// Keys: made, shown once, revoked. Webhooks: tried in vain, sent again.
	do("key", at("/keys"), script(`document.querySelector('#name').closest('details').open = true; true`), chromedp.SendKeys(chromedp.CSS("#name"), "reports"), chromedp.SendKeys(chromedp.CSS("#calls"), "GET /x"), submit("button[value=create]"))
	says("is shown this once", "reports", "GET /x")
	do("revoked", submit(`button[aria-label="Revoke reports"]`))
	eventually(t, 10*time.Second, "the key is gone", func() error {
		got, err := text(ctx)
		if err == nil && (strings.Contains(got, "GET /x") || !strings.Contains(got, "Make a key")) {
			err = errors.New(got)
		}
		return err
	})
	do("webhooks", at("/webhooks"))
	says("app", "connection.created")
	do("again", submit("tbody form button"))
	says("is delivered again")

	// The pages that users see, in a look and a language of their own.
	do("preview", at("/preview"), chromedp.SendKeys(chromedp.CSS("#title"), "Acme"), chromedp.SendKeys(chromedp.CSS("#accent"), "nonsense"), submit("main form button"))
	says("That won’t do", "look.")
	do("preview", chromedp.SetValue(chromedp.CSS("#accent"), "#b3246b"), chromedp.SetValue(chromedp.CSS("#language"), "de"), submit("main form button"))
	says("Open the preview")
	seen := opened(t, ctx, submit(".note a"))
	heading(t, seen, "Keycaddy demo")
	dressed, err := chromedp.Run(seen, chromedp.Evaluate[string](`document.documentElement.lang + document.title + getComputedStyle(document.documentElement).getPropertyValue('--accent')`))
	if err != nil || !strings.HasPrefix(dressed, "de") || !strings.Contains(dressed, "Acme") || !strings.Contains(dressed, "#b3246b") {
		t.Errorf("the preview is %q (%v)", dressed, err)
	}

	// A window in the background is drawn now and then only.
	if _, err := chromedp.Call(ctx, page.BringToFront, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}

	var logged struct{ Logs []struct{ ID string } }
	c.call("GET", "/logs?kind=connect&status=failure", nil, &logged)
	for _, g := range guises {
		t.Run(g.name, func(t *testing.T) {
			wear(t, ctx, g)
			axe := string(axe)
			if g.name != "light" && g.name != "dark" { // the same page, in another place
				axe = ""
			}
			for name, path := range map[string]string{
				"overview": "/", "connections": "/connections", "connection": "/connection?integration=demo&id=alice", "integrations": "/integrations", "integration": "/integration?key=demo",
				"integration-new": "/integrations/new?search=git", "integration-form": "/integrations/new?provider=github", "logs": "/logs", "webhooks": "/webhooks", "keys": "/keys",
				"try": "/try?integration=demo&id=alice", "preview": "/preview", "login": "/login", "log": "/log?id=" + logged.Logs[0].ID, "missing": "/nowhere",
			} {
				do(name, at(path), chromedp.WaitVisible(chromedp.CSS("main h1")))
				look(t, ctx, axe, g.name, "console-"+name)
			}
		})
	}

	// Another site's form does nothing, and who has signed out is out.
	req, err := http.NewRequestWithContext(context.Background(), "POST", c.URL+"/console/connection?integration=demo&id=alice", strings.NewReader("action=delete"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if res, err := http.DefaultClient.Do(req); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site: %v, %v", res, err)
	}
	do("out", at("/"), submit("header button"))
	says("With an API key")
	do("out for good", at("/connections"))
	says("With an API key")
	if _, err := os.Stat(filepath.Join(screenshots, "console-overview-"+guises[0].name+".png")); err != nil {
		t.Error(err)
	}
}
