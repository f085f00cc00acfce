package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// demoServer is the demo provider in this process, whose token endpoint is
// listened to.
type demoServer struct {
	*demo.Provider
	URL string
	// expiresIn, if not zero, is what is said of an access token's lifetime.
	expiresIn atomic.Int64
	// heard is told what a token request and its answer have in them.
	heard func(form url.Values, basic string, answer map[string]any)
}

func startDemo(t *testing.T, options demo.Options) *demoServer {
	t.Helper()
	d := new(demoServer)
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	options.BaseURL, d.URL = server.URL, server.URL
	d.Provider = demo.New(options)
	t.Cleanup(d.Close)
	return d
}

func (d *demoServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/token" {
		d.Provider.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body))
	_, basic, _ := r.BasicAuth()
	rec := httptest.NewRecorder()
	d.Provider.ServeHTTP(rec, r)
	answer := map[string]any{}
	_ = json.Unmarshal(rec.Body.Bytes(), &answer)
	if n := d.expiresIn.Load(); n != 0 && answer["expires_in"] != nil {
		answer["expires_in"] = n
	}
	if d.heard != nil {
		d.heard(form, basic, answer)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(rec.Code)
	_ = json.NewEncoder(w).Encode(answer)
}

// visitor is a browser without a window: cookies, and redirects only if asked.
type visitor struct {
	t    *testing.T
	http *http.Client
	// saw is given every answer; it may be nil.
	saw func(res *http.Response, body []byte)
}

func newVisitor(t *testing.T) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t: t, http: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

// visit fetches a page, or sends it a form, and returns where it leads to.
func (v *visitor) visit(address string, form url.Values) (status int, body []byte, next string) {
	v.t.Helper()
	var res *http.Response
	var err error
	if form == nil {
		res, err = v.http.Get(address)
	} else {
		res, err = v.http.PostForm(address, form)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		v.t.Fatal(err)
	}
	if v.saw != nil {
		v.saw(res, body)
	}
	if to, err := res.Location(); err == nil {
		next = to.String()
	}
	return res.StatusCode, body, next
}

var hiddenInput = regexp.MustCompile(`name="(session_token|csrf|request|flow)" value="([^"]+)"`)

// fill reads a page's form, with more answers.
func fill(body []byte, more ...string) url.Values {
	form := url.Values{}
	for _, m := range hiddenInput.FindAllSubmatch(body, -1) {
		form.Set(string(m[1]), string(m[2]))
	}
	for i := 0; i+1 < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return form
}

// submit opens a connect link and sends its form with the answers.
func (v *visitor) submit(link string, answers ...string) (status int, body []byte, next string) {
	v.t.Helper()
	_, _, form := v.visit(link, nil)
	if form == "" {
		v.t.Fatalf("the link leads to no form")
	}
	_, body, _ = v.visit(form, nil)
	return v.visit(form, fill(body, answers...))
}

// consent decides on the provider's page and returns the callback's address.
func (v *visitor) consent(page, decision string) string {
	v.t.Helper()
	_, body, _ := v.visit(page, nil)
	base, _, _ := strings.Cut(page, "?")
	status, body, callback := v.visit(base, fill(body, "decision", decision, "account", "ada"))
	if callback == "" {
		v.t.Fatalf("the provider does not send back: %d %s", status, body)
	}
	return callback
}

// confirm comes back from the provider, says that it is meant so, and returns
// the address of the result.
func (v *visitor) confirm(callback string) string {
	v.t.Helper()
	_, _, asked := v.visit(callback, nil)
	_, body, _ := v.visit(asked, nil)
	base, _, _ := strings.Cut(asked, "?")
	_, _, done := v.visit(base, fill(body, "decision", "yes"))
	if done == "" {
		v.t.Fatalf("no result after %s", body)
	}
	return done
}

// connect connects an account of the demo provider.
func (v *visitor) connect(link string) {
	v.t.Helper()
	status, body, next := v.submit(link)
	if next == "" {
		v.t.Fatalf("the form does not lead to the provider: %d %s", status, body)
	}
	done := v.confirm(v.consent(next, "allow"))
	if status, body, _ := v.visit(done, nil); status != http.StatusOK {
		v.t.Fatalf("not connected: %d %s", status, body)
	}
}

// callbackAt is where a Caddy on the port has providers send browsers to.
func callbackAt(port int) string { return fmt.Sprintf("http://localhost:%d/oauth/callback", port) }

// demoIntegration is an integration with the demo provider; more are its options.
func demoIntegration(d *demoServer, key string, more ...string) string {
	return fmt.Sprintf(`integration %s {
			provider keycaddy-demo
			client_id keycaddy-demo
			client_secret keycaddy-demo-secret
			field base_url %s
			%s
		}
`, key, d.URL, strings.Join(more, "\n"))
}

// burst makes calls through each of the Caddys at once and fails the test
// unless all of them succeed.
func burst(t *testing.T, calls int, caddys ...*caddy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: calls}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for _, c := range caddys {
		for i := range calls {
			req := c.request(ctx, "POST", fmt.Sprintf("/echo/%d", i), "demo", "ada", strings.NewReader(fmt.Sprint("call ", i)))
			wg.Go(func() {
				<-begin
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				var echo demo.Echo
				body, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(body, &echo) != nil || echo.Body != fmt.Sprint("call ", i) {
					t.Errorf("call %d at %s: %d %s %v", i, c.URL, res.StatusCode, body, err)
				}
			})
		}
	}
	close(begin)
	wg.Wait()
}

// oneRefresh lets the credential end, in rounds, and makes the calls of a burst
// find that out all at once. One refresh is to come of it (S58).
func oneRefresh(t *testing.T, d *demoServer, calls int, caddys ...*caddy) {
	t.Helper()
	for round, ending := range []string{"expired", "revoked", "expired"} {
		if ending == "expired" {
			// A last refresh brings a token that is said to live for 2 s.
			d.expiresIn.Store(2)
			d.RevokeAccess("")
			burst(t, 1, caddys...)
			d.expiresIn.Store(3600)
			time.Sleep(2100 * time.Millisecond)
		}
		d.RevokeAccess("")
		before := d.Stats()
		began := time.Now()
		burst(t, calls, caddys...)
		took := time.Since(began)
		after := d.Stats()
		asked := after.TokenCalls["refresh_token"] - before.TokenCalls["refresh_token"]
		t.Logf("round %d, %s: %d calls in %v, %d refused by the provider, %d refreshes",
			round, ending, calls*len(caddys), took.Round(time.Millisecond), after.APICalls[401]-before.APICalls[401], asked)
		if asked != 1 || after.Refreshes-before.Refreshes != 1 {
			t.Errorf("round %d, %s: the token endpoint was asked %d times; want once", round, ending, asked)
		}
		if after.ReuseDetected != 0 || after.FamiliesRevoked != 0 {
			t.Fatalf("a refresh token was spent twice: %+v", after)
		}
	}
}

func TestOneRefreshForManyCalls(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	d := startDemo(t, demo.Options{AccessTTL: time.Hour, RedirectURIs: []string{callbackAt(port)}})
	c := startCaddy(t, dir, port, caddyfile(dir, port, demoIntegration(d, "demo"), "keycaddy"))
	newVisitor(t).connect(c.link("demo", "ada"))
	burst(t, 1, c)
	oneRefresh(t, d, 200, c)
}

// Two Caddys on one machine share the database and the key ring.
func TestOneRefreshForTwoProcesses(t *testing.T) {
	dir, ports := t.TempDir(), []int{freePort(t), freePort(t)}
	d := startDemo(t, demo.Options{AccessTTL: time.Hour, RedirectURIs: []string{callbackAt(ports[0])}})
	var caddys []*caddy
	for i, port := range ports {
		config := caddyfile(dir, port, demoIntegration(d, "demo"), "keycaddy")
		config = strings.Replace(config, "/admin.sock", fmt.Sprintf("/admin-%d.sock", i), 1)
		caddys = append(caddys, startCaddy(t, dir, port, config))
	}
	newVisitor(t).connect(caddys[0].link("demo", "ada"))
	burst(t, 1, caddys...)
	oneRefresh(t, d, 100, caddys...)
}
