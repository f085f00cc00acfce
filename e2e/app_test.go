package e2e

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// appServer is an app whose users sign in and connect accounts, as one would be
// written. Its origin is another site than keycaddy's.
type appServer struct {
	*httptest.Server
	t *testing.T
	c *caddy
	// integration is what its users connect; session is added to every session
	// that it opens.
	integration string
	session     map[string]any
}

// startApp starts the app. It has to be told of its Caddy before it is used.
func startApp(t *testing.T) *appServer {
	t.Helper()
	a := &appServer{t: t, integration: "demo"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /signin", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "user", Value: r.URL.Query().Get("as"), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		fmt.Fprintln(w, "hello", r.URL.Query().Get("as"))
	})
	mux.HandleFunc("GET /accounts", a.accounts)
	mux.HandleFunc("GET /link", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, a.link(a.user(r))) })
	mux.HandleFunc("GET /connected", a.connected)
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

// user is who is signed in.
func (a *appServer) user(r *http.Request) string {
	c, err := r.Cookie("user")
	if err != nil {
		return ""
	}
	return c.Value
}

// link opens a session for a user of the app.
func (a *appServer) link(user string) string {
	a.t.Helper()
	request := map[string]any{
		"end_user":             map[string]string{"id": user, "email": user + "@app.example", "display_name": strings.ToUpper(user[:1]) + user[1:]},
		"allowed_integrations": []string{a.integration},
	}
	for k, v := range a.session {
		request[k] = v
	}
	var answer struct {
		Data struct {
			Link string `json:"connect_link"`
		}
	}
	if status := a.c.call("POST", "/connect/sessions", request, &answer); status != http.StatusCreated {
		a.t.Errorf("opening a session: %d", status)
	}
	return answer.Data.Link
}

var accountsPage = template.Must(template.New("").Parse(`<!DOCTYPE html><title>Accounts</title>
<p>Signed in as <b>{{.User}}</b></p>
<button id="popup">Connect in a popup</button> <button id="frame">Connect in a frame</button>
<div id="place"></div><pre id="result"></pre>
<script src="{{.Home}}/connect.js"></script>
<script>
var tell = function (r) { document.getElementById('result').textContent = r.status + ' ' + (r.connection_id || r.code || ''); };
document.getElementById('popup').onclick = function () { Connect.open({{.Link}}).then(tell); };
document.getElementById('frame').onclick = function () { Connect.mount({{.Link}}, document.getElementById('place'), { keep: true }).then(tell); };
</script>`))

// accounts is the page on which a signed-in user connects accounts.
func (a *appServer) accounts(w http.ResponseWriter, r *http.Request) {
	user := a.user(r)
	if user == "" {
		http.Error(w, "sign in", http.StatusForbidden)
		return
	}
	if err := accountsPage.Execute(w, map[string]string{"User": user, "Home": a.c.URL, "Link": a.link(user)}); err != nil {
		a.t.Error(err)
	}
}

// connected is the app's return address: it redeems the ticket in the name of
// whoever is signed in.
func (a *appServer) connected(w http.ResponseWriter, r *http.Request) {
	user := a.user(r)
	if user == "" {
		fmt.Fprint(w, "<h1>nobody is signed in</h1>")
		return
	}
	var answer struct {
		Data struct {
			Connection string `json:"connection_id"`
		}
		Error struct{ Code string }
	}
	status := a.c.call("POST", "/connect/sessions/confirm", map[string]any{
		"ticket": r.URL.Query().Get("connect_ticket"), "end_user": map[string]string{"id": user},
	}, &answer)
	fmt.Fprintf(w, "<h1>%d %s%s</h1>", status, answer.Error.Code, answer.Data.Connection)
}

// signIn signs a browser in to the app.
func (a *appServer) signIn(ctx context.Context, user string) {
	a.t.Helper()
	if err := chromedp.Do(ctx, chromedp.Navigate(a.URL+"/signin?as="+user)); err != nil {
		a.t.Fatal(err)
	}
}

// windows are those that opened has seen, by target.ID.
var windows sync.Map

// opened returns the window that is opened while something is done.
func opened(t *testing.T, ctx context.Context, do ...chromedp.Action[chromedp.Void]) context.Context {
	t.Helper()
	// A window that was there before changes while it closes, and would be taken
	// for a new one.
	targets, err := chromedp.Targets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range targets {
		windows.Store(i.TargetID, nil)
	}
	ids := chromedp.WaitNewTarget(ctx, func(i *target.Info) bool {
		_, old := windows.Load(i.TargetID)
		return i.Type == "page" && !old
	})
	if err := chromedp.Do(ctx, do...); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-ids:
		windows.Store(id, nil)
		popup, cancel := chromedp.NewContext(ctx, chromedp.WithTargetID(id))
		t.Cleanup(cancel)
		if err := chromedp.Do(popup); err != nil {
			t.Fatal(err)
		}
		return popup
	case <-time.After(20 * time.Second):
		t.Fatal("no window was opened")
	}
	return nil
}

// agree connects at the demo provider, up to its answer.
func agree(t *testing.T, ctx context.Context) {
	t.Helper()
	err := chromedp.Do(ctx,
		chromedp.Click(chromedp.CSS(`button[type=submit]`)),
		chromedp.Click(chromedp.CSS(`#allow`)),
	)
	if err != nil {
		t.Fatalf("agreeing: %v", err)
	}
}

// heading waits for a page's heading that has a text.
func heading(t *testing.T, ctx context.Context, text string) {
	t.Helper()
	eventually(t, 20*time.Second, "the heading "+text, func() error {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(document.querySelector('h1') || {innerText: ''}).innerText`))
		if err == nil && !strings.Contains(got, text) {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// profile is a browser profile of its own: other cookies, other storage.
func profile(t *testing.T, browser context.Context) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("opening a profile: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// pageText is what a window shows.
func pageText(t *testing.T, ctx context.Context) string {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
