package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// Whoever has no mouse, no scripts, a slow line, or no stomach for motion gets
// through as well.
func TestPagesAreForEverybody(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), freePort(t)
	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}, APIKeys: []string{"demo_right1234"}})
	options := demoIntegration(d, "demo") + "integration demo-key {\nprovider keycaddy-demo-key\nfield base_url " + d.URL + "\n}\n"
	for _, id := range []string{"github", "gitlab", "slack", "notion", "hubspot", "asana", "linear", "discord", "dropbox"} {
		options += "integration " + id + " {\nclient_id a\nclient_secret b\n}\n"
	}
	c := startCaddy(t, dir, port, caddyfile(dir, port, options, "keycaddy"))
	session := func(integrations ...string) string {
		t.Helper()
		var answer struct {
			Data struct {
				Link string `json:"connect_link"`
			}
		}
		c.call("POST", "/connect/sessions", map[string]any{"end_user": map[string]string{"id": "ada", "display_name": "Ada"}, "allowed_integrations": append([]string{}, integrations...)}, &answer)
		return answer.Data.Link
	}
	all := browser(t)
	t.Run("by keyboard alone", func(t *testing.T) { byKeyboard(t, profile(t, all), session) })
	t.Run("without script", func(t *testing.T) { withoutScript(t, profile(t, all), session) })
	t.Run("on a slow line", func(t *testing.T) { withinBudget(t, profile(t, all), session) })
	t.Run("without motion", func(t *testing.T) {
		ctx := profile(t, all)
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}})
		if err != nil {
			t.Fatal(err)
		}
		visit(t, ctx, session("demo-key"))
		moves, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector('.button').setAttribute('aria-disabled', 'true');
			Array.from(document.querySelectorAll('*')).flatMap((e) => ['', '::before', '::after'].map((p) => getComputedStyle(e, p))).filter((s) => s.animationName !== 'none' || s.transitionDuration !== '0s').map((s) => s.animationName + s.transitionDuration).join()`))
		if err != nil || moves != "" {
			t.Errorf("something moves: %s (%v)", moves, err)
		}
	})
}

// press presses keys, and waits for the page that comes of it, if one has to.
func press(t *testing.T, ctx context.Context, keys string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.KeyEvent(keys)); err != nil {
		t.Fatal(err)
	}
}

// tabTo goes on until an element has the focus, which has to be seen wherever it
// is.
func tabTo(t *testing.T, ctx context.Context, selector string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.WaitReady(chromedp.CSS(selector))); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		at, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`(() => { const e = document.activeElement; if (e.matches(%q)) return 'here';
			if (e === document.body || !document.querySelector('main.card')) return ''; // the provider's page is its own affair
			 const s = getComputedStyle(e), p = getComputedStyle(e.closest('.input') || e); return s.outlineStyle !== 'none' || p.outlineStyle !== 'none' || p.boxShadow !== 'none' ? '' : 'unseen: ' + e.outerHTML.slice(0, 120); })()`, selector)))
		if err != nil {
			t.Fatal(err)
		}
		if at == "here" {
			return
		}
		if at != "" {
			t.Error(at)
		}
		press(t, ctx, "\t")
	}
	t.Fatalf("%s can't be reached", selector)
}

func byKeyboard(t *testing.T, ctx context.Context, session func(...string) string) {
	// One that is chosen from many, by the search, with a key that is wrong first.
	visit(t, ctx, session())
	tabTo(t, ctx, "#q")
	press(t, ctx, "API key")
	press(t, ctx, "\r") // goes to the first that was found
	tabTo(t, ctx, `li[data-key=demo-key] a`)
	press(t, ctx, "\r")
	tabTo(t, ctx, "input[type=password]")
	press(t, ctx, "demo_wrong1234")
	press(t, ctx, "\r")
	tabTo(t, ctx, "input[type=password][aria-invalid], .alert ~ form input[type=password]")
	press(t, ctx, "demo_right1234")
	tabTo(t, ctx, "button.reveal")
	press(t, ctx, " ")
	tabTo(t, ctx, "button[type=submit]")
	press(t, ctx, "\r")
	heading(t, ctx, "is connected")

	// And one by way of the provider.
	visit(t, ctx, session("demo"))
	tabTo(t, ctx, "button[type=submit]")
	press(t, ctx, "\r")
	tabTo(t, ctx, "#allow")
	press(t, ctx, "\r")
	tabTo(t, ctx, "button[value=yes]")
	time.Sleep(600 * time.Millisecond) // an answer right away might be meant for the page before
	press(t, ctx, "\r")
	heading(t, ctx, "is connected")
}

func withoutScript(t *testing.T, ctx context.Context, session func(...string) string) {
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	do("search", chromedp.Navigate(session()), chromedp.SendKeys(chromedp.CSS("#q"), "linear"), chromedp.Click(chromedp.CSS("form.find button")))
	eventually(t, 10*time.Second, "only what was searched for is shown", func() error {
		found, err := chromedp.Run(ctx, chromedp.Evaluate[string](`Array.from(document.querySelectorAll('.choices li:not([hidden])')).map((l) => l.dataset.key).join()`))
		if err == nil && found != "linear" {
			err = errors.New(found)
		}
		return err
	})
	do("a key", chromedp.Navigate(session("demo-key")), chromedp.SendKeys(chromedp.CSS("input[type=password]"), "demo_right1234"), chromedp.Click(chromedp.CSS("button[type=submit]")))
	heading(t, ctx, "is connected")
	do("OAuth", chromedp.Navigate(session("demo")), chromedp.Click(chromedp.CSS("button[type=submit]")), chromedp.Click(chromedp.CSS("#allow")), chromedp.Click(chromedp.CSS("button[value=yes]")))
	heading(t, ctx, "is connected")
}

// withinBudget holds pages against what a first view may take: 60 KiB, no request
// but for logos, and nothing that moves once it is seen.
func withinBudget(t *testing.T, ctx context.Context, session func(...string) string) {
	const budget = 60 << 10
	measure := func(name string) {
		t.Helper()
		time.Sleep(500 * time.Millisecond)
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`new Promise((resolve) => {
			let shift = 0;
			new PerformanceObserver((l) => l.getEntries().forEach((e) => { if (!e.hadRecentInput) shift += e.value; })).observe({ type: 'layout-shift', buffered: true });
			setTimeout(() => {
				const page = performance.getEntriesByType('navigation')[0], rest = performance.getEntriesByType('resource');
				resolve(JSON.stringify({ bytes: page.transferSize + rest.reduce((n, r) => n + r.transferSize, 0), others: rest.map((r) => r.name).filter((n) => !n.includes('/connect/logo/')), shift }));
			}, 200);
		})`, chromedp.EvalAwaitPromise))
		var got struct {
			Bytes  int
			Others []string
			Shift  float64
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &got)
		}
		if err == nil && got.Bytes == 0 {
			err = errors.New("nothing was measured")
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%s: %d bytes", name, got.Bytes)
		if got.Bytes > budget || len(got.Others) > 0 || got.Shift > 0 {
			t.Errorf("%s: %d bytes, requests for %s, shifted by %v", name, got.Bytes, strings.Join(got.Others, ", "), got.Shift)
		}
	}
	visit(t, ctx, session())
	measure("choose")
	visit(t, ctx, session("demo-key"))
	measure("form")
	if err := chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS("input[type=password]"), "demo_wrong1234"), chromedp.Click(chromedp.CSS("button[type=submit]")), chromedp.WaitVisible(chromedp.CSS(".alert"))); err != nil {
		t.Fatal(err)
	}
	measure("refused")
	visit(t, ctx, session("demo"))
	measure("oauth")
	agree(t, ctx)
	heading(t, ctx, "Is this meant for you?")
	measure("confirm")
	if err := chromedp.Do(ctx, chromedp.Sleep(600*time.Millisecond), chromedp.Click(chromedp.CSS("button[value=yes]"))); err != nil {
		t.Fatal(err)
	}
	heading(t, ctx, "is connected")
	measure("done")
}
