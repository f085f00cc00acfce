package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// basicProvider is asked for whatever is entered at the demo's API.
const basicProvider = `id: own-basic
display_name: Own
vendor: own
vendor_domain: own.example
categories: [productivity]
auth_scheme: basic
cred_fields:
  - {name: username, required: true, help: Yours.}
  - {name: password, required: true, secret: true, help: Yours.}
request: {base_url: '%s', headers: {authorization: "Basic {base64(cred.username, ':', cred.password)}"}}
docs: {auth: 'https://own.example/docs'}
`

// frontend is an app whose page uses Nango's SDK for browsers as it comes from
// npm. What a test has it do is done by a click.
type frontend struct {
	t   *testing.T
	c   *caddy
	app *httptest.Server
	ctx context.Context
}

func startFrontend(t *testing.T) (*frontend, *demoServer) {
	t.Helper()
	f := &frontend{t: t}
	mux := http.NewServeMux()
	mux.Handle("/sdk/", http.StripPrefix("/sdk/", http.FileServer(http.Dir("sdk/node_modules/@nangohq/frontend/dist"))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!DOCTYPE html><title>App</title><h1>App</h1><button id="go">Go</button><pre id="result"></pre><script type="module">
			import Nango from '/sdk/index.js';
			window.Nango = Nango;
			const show = (v) => { document.getElementById('result').textContent = JSON.stringify(v); };
			document.getElementById('go').onclick = async () => {
				show(null);
				try { show(await window.next()); } catch (err) { show({ type: err.type || err.name, message: err.message }); }
			};
		</script>`)
	})
	f.app = httptest.NewServer(mux)
	t.Cleanup(f.app.Close)
	dir, port, folder := t.TempDir(), freePort(t), t.TempDir()
	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}, APIKeys: []string{"demo_right1234"}})
	if err := os.WriteFile(filepath.Join(folder, "own-basic.yaml"), fmt.Appendf(nil, basicProvider, d.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	f.c = startCaddy(t, dir, port, caddyfile(dir, port, "catalog "+folder+"\nembedder "+f.app.URL+"\napp_origin "+f.app.URL+"\n"+
		demoIntegration(d, "demo", "proofs opener")+
		"integration demo-key {\nprovider keycaddy-demo-key\nproofs opener\nfield base_url "+d.URL+"\n}\nintegration own-basic\nintegration unauthenticated\n", "keycaddy"))
	f.ctx = profile(t, browser(t))
	visit(t, f.ctx, f.app.URL)
	return f, d
}

// token opens a session for some integrations, or for all.
func (f *frontend) token(integrations ...string) string {
	f.t.Helper()
	var answer struct{ Data struct{ Token string } }
	f.c.call("POST", "/connect/sessions", map[string]any{"end_user": map[string]string{"id": "ada"}, "allowed_integrations": append([]string{}, integrations...)}, &answer)
	return answer.Data.Token
}

// next sets what the click will do with an SDK that has the token.
func (f *frontend) next(token, js string) {
	f.t.Helper()
	js = fmt.Sprintf(`window.next = () => { const nango = new Nango({ host: %q, connectSessionToken: %q }); return %s; }; true`, f.c.URL, token, js)
	if err := chromedp.Do(f.ctx, script(js)); err != nil {
		f.t.Fatal(err)
	}
}

// result waits for how it went.
func (f *frontend) result() (r struct{ ProviderConfigKey, ConnectionID, Type, Message string }) {
	f.t.Helper()
	eventually(f.t, 20*time.Second, "a result", func() error {
		text, err := chromedp.Run(f.ctx, chromedp.Evaluate[string](`document.getElementById('result').textContent`))
		if err == nil && (text == "" || text == "null") {
			err = fmt.Errorf("it is %q", text)
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &r)
		}
		return err
	})
	return r
}

func (f *frontend) click() {
	f.t.Helper()
	if err := chromedp.Do(f.ctx, chromedp.Click(chromedp.CSS("#go"))); err != nil {
		f.t.Fatal(err)
	}
}

// popup clicks and returns the window that the SDK opens.
func (f *frontend) popup() context.Context {
	f.t.Helper()
	return opened(f.t, f.ctx, chromedp.Click(chromedp.CSS("#go")))
}

// frameOf is the frame of another site in a window.
func frameOf(t *testing.T, ctx context.Context, site string) (frame context.Context) {
	t.Helper()
	eventually(t, 20*time.Second, "the frame", func() error {
		targets, err := chromedp.Targets(ctx)
		for _, i := range targets {
			if i.Type == "iframe" && strings.HasPrefix(i.URL, site) {
				var cancel context.CancelFunc
				frame, cancel = chromedp.NewContext(ctx, chromedp.WithTargetID(i.TargetID))
				t.Cleanup(cancel)
				return chromedp.Do(frame)
			}
		}
		if err == nil {
			err = errors.New("there is none")
		}
		return err
	})
	return frame
}

// An app that uses Nango's SDK for browsers changes the host, and nothing else.
// Its user needs no click more than there, although nothing is redeemed before
// it is certain whose browser this is: the proof is the app's own page.
func TestS1NangosSDKForBrowsersWorksAsItIs(t *testing.T) {
	t.Parallel()
	f, d := startFrontend(t)

	f.next(f.token("demo"), `nango.auth('demo')`)
	popup := f.popup()
	if err := chromedp.Do(popup, chromedp.Click(chromedp.CSS("#allow"))); err != nil {
		t.Fatal(err)
	}
	r := f.result()
	if r.ProviderConfigKey != "demo" || r.ConnectionID == "" {
		t.Errorf("popup: got %+v", r)
	}
	if status := f.c.call("GET", "/connections/"+r.ConnectionID+"?provider_config_key=demo", nil, nil); status != 200 {
		t.Errorf("the connection: %d", status)
	}

	again := r.ConnectionID
	var session struct{ Data struct{ Token string } }
	f.c.call("POST", "/connect/sessions/reconnect", map[string]string{"connection_id": again, "integration_id": "demo"}, &session)
	f.next(session.Data.Token, `nango.reconnect('demo')`)
	popup = f.popup()
	if err := chromedp.Do(popup, chromedp.Click(chromedp.CSS("#allow"))); err != nil {
		t.Fatal(err)
	}
	if r := f.result(); r.ConnectionID != again {
		t.Errorf("reconnected: got %+v, want %s", r, again)
	}

	f.next(f.token("demo"), `nango.auth('demo')`)
	popup = f.popup()
	if err := chromedp.Do(popup, chromedp.Click(chromedp.CSS("#deny"))); err != nil {
		t.Fatal(err)
	}
	if r := f.result(); r.Type != "callback_err" || !strings.Contains(r.Message, "access_denied") {
		t.Errorf("denied: got %+v", r)
	}

	f.next(f.token("demo"), `nango.auth('demo', { detectClosedAuthWindow: true })`)
	popup = f.popup()
	if err := chromedp.Do(popup, chromedp.WaitVisible(chromedp.CSS("#allow")), script(`window.close(); true`)); err != nil {
		t.Fatal(err)
	}
	if r := f.result(); r.Type != "window_closed" {
		t.Errorf("closed: got %+v", r)
	}
	before := d.Stats().TokenCalls["authorization_code"]

	for name, test := range map[string]struct{ token, js, want string }{
		"api key":             {f.token("demo-key"), `nango.auth('demo-key', { credentials: { apiKey: 'demo_right1234' } })`, ""},
		"refused key":         {f.token("demo-key"), `nango.auth('demo-key', { credentials: { apiKey: 'demo_wrong1234' } })`, "connection_test_failed"},
		"basic":               {f.token("own-basic"), `nango.auth('own-basic', { credentials: { username: 'ada', password: 'a secret' } })`, ""},
		"nothing":             {f.token("unauthenticated"), `nango.create('unauthenticated')`, ""},
		"another scheme":      {f.token("own-basic"), `nango.auth('own-basic', { credentials: { apiKey: 'x' } })`, "invalid_auth_mode"},
		"unknown integration": {f.token(), `nango.auth('nope', { credentials: { apiKey: 'x' } })`, "unknown_provider_config"},
		"not allowed":         {f.token("demo"), `nango.auth('demo-key', { credentials: { apiKey: 'demo_right1234' } })`, "integration_not_allowed"},
		"expired session":     {"nango_connect_session_" + strings.Repeat("0", 64), `nango.auth('demo-key', { credentials: { apiKey: 'demo_right1234' } })`, "unknown_connect_session_token"},
		"no session":          {"nonsense", `nango.auth('demo-key', { credentials: { apiKey: 'demo_right1234' } })`, "invalid_connect_session_token_format"},
		"popup, not allowed":  {f.token("demo-key"), `nango.auth('demo')`, "provider_config_err"},
		"popup, expired":      {"nango_connect_session_" + strings.Repeat("0", 64), `nango.auth('demo')`, "session_expired"},
		"popup, for a key":    {f.token("demo-key"), `nango.auth('demo-key')`, "provider_config_err"},
	} {
		f.next(test.token, test.js)
		f.click()
		if r := f.result(); r.Type != test.want || (test.want == "") != (r.ConnectionID != "") {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	if n := d.Stats().TokenCalls["authorization_code"]; n != before {
		t.Errorf("%d more codes were redeemed", n-before)
	}
}

// The frame that openConnectUI of the SDK makes is filled by keycaddy's pages.
func TestNangosConnectUIIsKeycaddysPages(t *testing.T) {
	t.Parallel()
	f, _ := startFrontend(t)
	open := func(token string) {
		t.Helper()
		f.next(token, fmt.Sprintf(`new Promise((resolve) => {
			window.events = [];
			nango.openConnectUI({ baseURL: %q, apiURL: %q, onEvent: (e) => {
				window.events.push(e.type);
				if (e.type === 'connect') window.connected = e.payload;
				if (e.type === 'close') resolve(window.connected || { type: 'close' });
			} });
		})`, f.c.URL+"/connect", f.c.URL))
		f.click()
	}
	// inFrame runs a script in the frame, once it is there and has what is asked
	// for.
	inFrame := func(what, js string) {
		t.Helper()
		frame := frameOf(t, f.ctx, f.c.URL)
		eventually(t, 20*time.Second, what, func() error {
			ok, err := chromedp.Run(frame, chromedp.Evaluate[bool](js))
			if err == nil && !ok {
				err = fmt.Errorf("not yet")
			}
			return err
		})
	}
	open(f.token("demo-key"))
	inFrame("the form", `(() => { const i = document.querySelector('input[type=password]'); if (!i) return false; i.value = 'demo_right1234'; document.querySelector('form').requestSubmit(); return true; })()`)
	inFrame("that it is connected", `!!document.querySelector('.good')`)
	inFrame("the button that closes", `(() => { const b = document.querySelector('[data-close]'); if (b.hidden) return false; b.click(); return true; })()`)
	if r := f.result(); r.ProviderConfigKey != "demo-key" || r.ConnectionID == "" {
		t.Errorf("a key: got %+v", r)
	}
	left, err := chromedp.Run(f.ctx, chromedp.Evaluate[bool](`!!document.querySelector('iframe')`))
	if err != nil || left {
		t.Errorf("the frame is still there (%v)", err)
	}

	open(f.token("demo"))
	popup := opened(t, f.ctx, chromedp.Func(func(context.Context, *chromedp.Target) error {
		inFrame("the button", `(() => { const b = document.querySelector('form button[type=submit]'); if (!b) return false; b.click(); return true; })()`)
		return nil
	}))
	if err := chromedp.Do(popup, chromedp.Click(chromedp.CSS("#allow"))); err != nil {
		t.Fatal(err)
	}
	inFrame("that it is connected", `!!document.querySelector('.good')`)
	inFrame("the button that closes", `(() => { document.querySelector('[data-close]').click(); return true; })()`)
	if r := f.result(); r.ProviderConfigKey != "demo" || r.ConnectionID == "" {
		t.Errorf("OAuth: got %+v", r)
	}
}

// A link into the middle of the SDK's way, passed on: what Mallory's session
// gets to see is nothing, wherever the victim follows it.
func TestS1S20APopupsLinkPassedOn(t *testing.T) {
	s := setStage(t)
	s.app.integration = "opener"
	stolen := func() string {
		u, err := url.Parse(s.stolen())
		if err != nil {
			t.Fatal(err)
		}
		return s.c.URL + "/oauth/connect/opener?ws_client_id=x&connect_session_token=" + u.Query().Get("session_token")
	}
	refused := func(ctx context.Context) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS("#allow"))); err != nil {
			t.Fatal(err)
		}
		heading(t, ctx, "Is this meant for you?")
		time.Sleep(4 * time.Second)
		if text := pageText(t, ctx); !strings.Contains(text, "only be finished from the app") {
			t.Errorf("the page says %q", text)
		}
		s.safe()
	}
	t.Run("bare", func(*testing.T) {
		victim := s.victim()
		visit(t, victim, stolen())
		refused(victim)
	})
	t.Run("by another site's script", func(*testing.T) {
		s.page = `<meta name="referrer" content="unsafe-url"><button id="go">A prize</button><script>
			document.getElementById('go').onclick = function () { var w = window.open('', '_blank', 'popup'); setTimeout(function () { w.location = '` + stolen() + `'; }, 100); };
		</script>`
		victim := s.victim()
		visit(t, victim, s.evil.URL)
		refused(opened(t, victim, chromedp.Click(chromedp.CSS("#go"))))
	})
	t.Run("by a link on the app's own page", func(*testing.T) {
		victim := s.victim()
		visit(t, victim, s.app.URL+"/accounts")
		if err := chromedp.Do(victim, script(`document.body.insertAdjacentHTML('beforeend', '<a id="bait" href="`+stolen()+`">Look at this</a>'); true`), chromedp.Click(chromedp.CSS("#bait"))); err != nil {
			t.Fatal(err)
		}
		refused(victim)
	})
}
