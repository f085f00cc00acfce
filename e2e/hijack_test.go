package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// stage is keycaddy, a provider, an app and what an attacker has put on a site
// of his own.
type stage struct {
	t    *testing.T
	c    *caddy
	demo *demoServer
	app  *appServer
	evil *httptest.Server
	// browser has a profile for each of the people.
	browser context.Context
	// page is what the attacker's site shows.
	page string
	// redeemed is what the attacker's own provider was asked.
	redeemed []string
	// made is how many connections the right people have made.
	made int
}

// setStage starts all of it, with an integration for each of the proofs.
func setStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, browser: browser(t)}
	port := freePort(t)
	s.demo = startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port), callbackAt(port) + "/honest"}})
	s.app = startApp(t)
	s.evil = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			s.provide(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!DOCTYPE html><h1>evil</h1>", s.page)
	}))
	t.Cleanup(s.evil.Close)
	dir := t.TempDir()
	s.c = startCaddy(t, dir, port, caddyfile(dir, port, "app_name Acme\n"+
		demoIntegration(s.demo, "app", "proofs app", "return_url "+s.app.URL+"/connected")+
		demoIntegration(s.demo, "opener", "proofs opener", "app_origin "+s.app.URL)+
		demoIntegration(s.demo, "person")+
		demoIntegration(s.demo, "honest", "own_callback")+
		"catalog "+s.evilProvider()+"\nintegration evil {\nclient_id x\nclient_secret y\nown_callback\n}\n", "keycaddy"))
	s.app.c = s.c
	return s
}

// safe checks that nothing was redeemed and nothing is stored, but for what the
// right people have made.
func (s *stage) safe() {
	s.t.Helper()
	if n := s.demo.Stats().TokenCalls["authorization_code"]; n != s.made {
		s.t.Errorf("%d codes were redeemed, %d by the right people", n, s.made)
	}
	if n := s.connections(); n != s.made {
		s.t.Errorf("there are %d connections, %d of the right people", n, s.made)
	}
}

func (s *stage) connections() int {
	s.t.Helper()
	var answer struct{ Connections []any }
	s.c.call("GET", "/connections", nil, &answer)
	return len(answer.Connections)
}

// mismatch checks that the log has the event for an integration.
func (s *stage) mismatch(integration string) {
	s.t.Helper()
	eventually(s.t, 5*time.Second, "the log has the event", func() error {
		for line := range strings.Lines(s.c.Output.String()) {
			if strings.Contains(line, `"event":"link_user_mismatch"`) && strings.Contains(line, `"integration":"`+integration+`"`) {
				return nil
			}
		}
		return errors.New("no link_user_mismatch")
	})
}

// stolen is the link that the attacker has got in the app, in a browser of his
// own.
func (s *stage) stolen() string {
	s.t.Helper()
	ctx := profile(s.t, s.browser)
	s.app.signIn(ctx, "mallory")
	if err := chromedp.Do(ctx, chromedp.Navigate(s.app.URL+"/link")); err != nil {
		s.t.Fatal(err)
	}
	link := pageText(s.t, ctx)
	if !strings.Contains(link, "session_token=") {
		s.t.Fatalf("link %q", link)
	}
	return link
}

func (s *stage) victim() context.Context {
	s.t.Helper()
	ctx := profile(s.t, s.browser)
	s.app.signIn(ctx, "victim")
	return ctx
}

func visit(t *testing.T, ctx context.Context, address string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Navigate(address)); err != nil {
		t.Fatal(err)
	}
}

// Cross-user session fixation, played out: Mallory opens a session for herself
// in the app, and the victim, who is signed in to the app in another browser
// profile, follows its link and agrees at the provider. None of the proofs lets
// it through; each lets the right user through.
func TestS1ALinkPassedOn(t *testing.T) {
	s := setStage(t)
	for _, part := range []struct {
		proof string
		play  func(*testing.T, *stage)
	}{
		{"app", failsAtTheApp}, {"opener", failsWithoutItsOpener}, {"person", isSeenThrough}, {"person", staysInItsBrowser}, {"evil", staysWithItsApp},
	} {
		s.app.integration = part.proof
		t.Run(part.proof, func(t *testing.T) { part.play(t, s) })
	}
}

// Here the app is believed.
func failsAtTheApp(t *testing.T, s *stage) {
	link := s.stolen()
	victim := s.victim()
	visit(t, victim, link)
	agree(t, victim)
	heading(t, victim, "403 link_user_mismatch")
	s.mismatch("app")
	s.safe()

	// Nor does it work with nobody signed in there.
	stranger := profile(t, s.browser)
	visit(t, stranger, s.stolen())
	agree(t, stranger)
	heading(t, stranger, "nobody is signed in")
	s.safe()

	// The signed-in user herself gets through, and a ticket works once.
	mallory := profile(t, s.browser)
	s.app.signIn(mallory, "mallory")
	visit(t, mallory, s.app.link("mallory"))
	agree(t, mallory)
	heading(t, mallory, "200 ")
	if err := chromedp.Do(mallory, chromedp.Reload()); err != nil {
		t.Fatal(err)
	}
	heading(t, mallory, "410 ticket_expired")
	s.made++
	s.safe()
}

// The same, where a page of the app has to have opened the window: a bare link,
// a popup and a frame of the attacker's, and one that turns into the app's page
// while the popup is open.
func failsWithoutItsOpener(t *testing.T, s *stage) {
	bare := s.victim()
	visit(t, bare, s.stolen())
	agree(t, bare)
	heading(t, bare, "Is this meant for you?")
	if text := pageText(t, bare); !strings.Contains(text, "only be finished from the app") || strings.Contains(text, "Yes, this is me") {
		t.Errorf("the page says %q", text)
	}
	s.safe()

	for name, then := range map[string]string{
		"answers with all it knows": `window.onmessage = function (e) {
			e.source.postMessage({type: 'connect:proof', challenge: e.data && e.data.challenge, session_token: new URL(link).searchParams.get('session_token')}, '*');
		};
		setInterval(function () { popup.postMessage({type: 'connect:proof', challenge: '', session_token: new URL(link).searchParams.get('session_token')}, '*'); }, 50);`,
		"becomes the app's page": `setTimeout(function () { location = '` + s.app.URL + `/accounts'; }, 300);`,
	} {
		t.Run(name, func(t *testing.T) {
			link := s.stolen()
			s.page = `<button id="go">A prize</button><script>
				var link = '` + link + `', popup;
				document.getElementById('go').onclick = function () { popup = window.open(link, '_blank', 'popup'); ` + then + ` };
			</script>`
			victim := s.victim()
			visit(t, victim, s.evil.URL)
			popup := opened(t, victim, chromedp.Click(chromedp.CSS("#go")))
			agree(t, popup)
			heading(t, popup, "Is this meant for you?")
			time.Sleep(4 * time.Second) // it goes on asking for three
			if text := pageText(t, popup); !strings.Contains(text, "only be finished from the app") {
				t.Errorf("the page says %q", text)
			}
			if name == "becomes the app's page" {
				heading := pageText(t, victim)
				if !strings.Contains(heading, "Signed in as victim") {
					t.Errorf("the opener shows %q", heading)
				}
			}
			s.safe()
		})
	}
	t.Run("in a frame", func(t *testing.T) {
		started := strings.Count(s.c.Output.String(), "authorization started")
		s.page = `<iframe src="` + s.stolen() + `" width="800" height="800"></iframe>`
		victim := s.victim()
		visit(t, victim, s.evil.URL)
		// What a browser shows in place of a page that may not be framed is of no
		// origin that the site around it could look into.
		eventually(t, 5*time.Second, "the frame is refused", func() error {
			frames, err := chromedp.Run(victim, chromedp.Evaluate[string](`(function () { try { return document.querySelector('iframe').contentDocument ? 'open' : 'refused' } catch (e) { return 'refused' } })()`))
			if err == nil && frames != "refused" {
				err = errors.New(frames)
			}
			return err
		})
		if refused := strings.Count(s.c.Output.String(), "authorization started"); refused != started {
			t.Error("an authorization was started in the frame")
		}
		s.safe()
	})

	// The app's own page gets its user through without a further click.
	ctx := s.victim()
	visit(t, ctx, s.app.URL+"/accounts")
	popup := opened(t, ctx, chromedp.Click(chromedp.CSS("#popup")))
	agree(t, popup)
	text, err := chromedp.Run(ctx, chromedp.Poll[string](`(document.getElementById('result').textContent.startsWith('connected ') && document.getElementById('result').textContent) || ''`))
	if err != nil {
		t.Errorf("%q, %v", text, err)
	}
	s.made++
	s.safe()
}

// The same for a bare link, where the person is asked: she reads whose account
// in which app it would be, and neither a click that was begun elsewhere nor
// another site can say yes for her.
func isSeenThrough(t *testing.T, s *stage) {
	link := s.stolen()
	victim := s.victim()
	visit(t, victim, link)
	agree(t, victim)
	heading(t, victim, "Is this meant for you?")
	for _, want := range []string{"This user of Acme will be able to use your", "Mallory", "mallory@app.example", "If that isn’t you, stop here"} {
		if text := pageText(t, victim); !strings.Contains(text, want) {
			t.Errorf("the page doesn't say %q: %q", want, text)
		}
	}
	s.safe()
	// Another site sends the form in her browser: with the cookies that browsers
	// send along, and without what it can't know.
	at, err := chromedp.Run(victim, chromedp.Location())
	if err != nil {
		t.Fatal(err)
	}
	_, flow, _ := strings.Cut(at, "flow=")
	s.page = `<form method="post" action="` + s.c.URL + `/connect/confirm"><input name="flow" value="` + flow + `"><input name="decision" value="yes"><input name="csrf" value="x"></form><script>document.forms[0].submit()</script>`
	forged, cancel := chromedp.NewContext(victim)
	defer cancel()
	visit(t, forged, s.evil.URL)
	heading(t, forged, "We can’t tell that this came from you")
	cancel()
	s.safe()
	if err := chromedp.Do(victim, chromedp.Click(chromedp.CSS(`button[value=no]`))); err != nil {
		t.Fatal(err)
	}
	heading(t, victim, "is not connected")
	s.mismatch("person")
	s.safe()

	// Whom it is meant for says yes.
	mallory := profile(t, s.browser)
	visit(t, mallory, s.app.link("mallory"))
	agree(t, mallory)
	heading(t, mallory, "Is this meant for you?")
	time.Sleep(600 * time.Millisecond) // a click right away might have been meant for the page before
	if err := chromedp.Do(mallory, chromedp.Click(chromedp.CSS(`button[value=yes]`))); err != nil {
		t.Fatal(err)
	}
	heading(t, mallory, "is connected")
	s.made++
	s.safe()
}

// What is begun in one browser can't be finished in another, in either
// direction: the victim agrees at an address that the attacker was sent to, or
// is given the attacker's callback (S2, S3, S6).
func staysInItsBrowser(t *testing.T, s *stage) {
	attacker := profile(t, s.browser)
	visit(t, attacker, s.stolen())
	if err := chromedp.Do(attacker, chromedp.Click(chromedp.CSS(`button[type=submit]`)), chromedp.WaitVisible(chromedp.CSS("#allow"))); err != nil {
		t.Fatal(err)
	}
	at, err := chromedp.Run(attacker, chromedp.Location())
	if err != nil {
		t.Fatal(err)
	}
	victim := s.victim()
	visit(t, victim, at)
	if err := chromedp.Do(victim, chromedp.Click(chromedp.CSS("#allow"))); err != nil {
		t.Fatal(err)
	}
	heading(t, victim, "This sign-in was started in another browser")
	s.safe()

	v := newVisitor(t) // the attacker, who stops on the way back
	_, _, next := v.submit(s.app.link("mallory"))
	visit(t, victim, v.consent(next, "allow"))
	heading(t, victim, "This sign-in was started in another browser")
	s.safe()
}

// evilProvider is the catalog entry of a provider that the attacker has.
func (s *stage) evilProvider() (folder string) {
	s.t.Helper()
	folder = s.t.TempDir()
	entry := `id: evil
display_name: Harmless tool
vendor: evil
vendor_domain: evil.example
categories: [test]
auth_scheme: oauth2_code
authorize: {url: "BASE/authorize", pkce: true}
token: {url: "BASE/token"}
request: {base_url: "BASE/api", headers: {authorization: "Bearer {token.access_token}"}}
`
	if err := os.WriteFile(filepath.Join(folder, "evil.yaml"), []byte(strings.ReplaceAll(entry, "BASE", s.evil.URL)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return folder
}

// provide is that provider. Who is sent there to agree is sent on, to agree to
// something else: at the honest provider, to the app's own client there, with
// the state of the attacker's flow. The honest provider knows the honest
// integration's address only.
func (s *stage) provide(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/authorize" {
		if body, _ := io.ReadAll(r.Body); r.Method == http.MethodPost {
			s.redeemed = append(s.redeemed, r.URL.Path+"?"+string(body))
		}
		http.Error(w, "{}", http.StatusBadRequest)
		return
	}
	q := r.URL.Query()
	q.Set("client_id", "keycaddy-demo")
	q.Set("redirect_uri", s.c.URL+"/oauth/callback/honest")
	http.Redirect(w, r, s.demo.URL+"/authorize?"+q.Encode(), http.StatusFound)
}

// Cross-app account takeover, played out: the victim wants to connect a harmless
// tool, whose provider sends her on to agree at an honest one, and waits for the
// honest one's code at its own token endpoint (S7, S11, S12).
func staysWithItsApp(t *testing.T, s *stage) {
	victim := s.victim()
	visit(t, victim, s.app.link("victim"))
	heading(t, victim, "Connect Harmless tool")
	agree(t, victim)
	heading(t, victim, "Harmless tool is not connected")
	if text := pageText(t, victim); !strings.Contains(text, "meant for something else") {
		t.Errorf("the page says %q", text)
	}
	if len(s.redeemed) != 0 {
		t.Errorf("the attacker's provider was asked %q", s.redeemed)
	}
	s.safe()

	// The honest integration works at its own address.
	s.app.integration = "honest"
	visit(t, victim, s.app.link("victim"))
	agree(t, victim)
	heading(t, victim, "Is this meant for you?")
	time.Sleep(600 * time.Millisecond)
	if err := chromedp.Do(victim, chromedp.Click(chromedp.CSS(`button[value=yes]`))); err != nil {
		t.Fatal(err)
	}
	heading(t, victim, "is connected")
	s.made++
	s.safe()
}
