package scheme

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// The secrets of the tests. None may ever be in an error, a log or a print.
const (
	clientSecret = "canary-client-secret"
	accessToken  = "canary-access-token"
	refreshToken = "canary-refresh-token"
	userKey      = "canary-user-key"
	code         = "canary-code"
	verifier     = "canary-verifier-of-43-characters-0123456789"
)

var secrets = []string{clientSecret, accessToken, refreshToken, userKey, code, verifier}

// endpoint is a provider that answers as it is told and remembers the requests.
type endpoint struct {
	*httptest.Server
	answer http.HandlerFunc

	mu   sync.Mutex
	got  []*http.Request
	body []string
}

func newEndpoint(t testing.TB, answer http.HandlerFunc) *endpoint {
	t.Helper()
	return startEndpoint(t, answer, httptest.NewServer)
}

// newTLSEndpoint is newEndpoint for https.
func newTLSEndpoint(t testing.TB, answer http.HandlerFunc) *endpoint {
	t.Helper()
	return startEndpoint(t, answer, httptest.NewTLSServer)
}

func startEndpoint(t testing.TB, answer http.HandlerFunc, start func(http.Handler) *httptest.Server) *endpoint {
	t.Helper()
	e := &endpoint{answer: answer}
	e.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.got, e.body = append(e.got, r), append(e.body, string(body))
		e.mu.Unlock()
		e.answer(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

// last returns the newest request, its body and how many there were.
func (e *endpoint) last(t testing.TB) (*http.Request, string, int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.got) == 0 {
		t.Fatal("no request came")
	}
	n := len(e.got)
	return e.got[n-1], e.body[n-1], n
}

// form returns the newest request's form.
func (e *endpoint) form(t testing.TB) (*http.Request, url.Values) {
	t.Helper()
	r, body, _ := e.last(t)
	form, err := url.ParseQuery(body)
	must(t, err)
	return r, form
}

// say answers with a body and pairs of headers.
func say(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// vendor is the address of an endpoint by name, for clients that are named:
// entries may not lead to addresses in numbers.
const vendor = "http://vendor.example"

// named returns a client for which every name is the endpoint's.
func (e *endpoint) named() *http.Client {
	c := client()
	c.Transport = &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, e.Listener.Addr().String())
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its certificate has no such name
	}
	return c
}

func client() *http.Client {
	return &http.Client{
		Timeout:       2 * time.Second,
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// provider parses an entry; BASE in it is the address.
func provider(t testing.TB, base, body string) *catalog.Provider {
	t.Helper()
	p, err := catalog.Parse("test.yaml", []byte("id: test\ndisplay_name: Test\nvendor: vendor\nvendor_domain: vendor.example\ncategories: [test]\n"+strings.ReplaceAll(body, "BASE", base)))
	must(t, err)
	return p
}

// oauth is an entry for the code grant, with more added.
func oauth(t testing.TB, base, more string) *catalog.Provider {
	t.Helper()
	body := "auth_scheme: oauth2_code\n"
	for key, value := range map[string]string{
		"authorize": "{url: 'BASE/authorize', pkce: true}", "token": "{url: 'BASE/token'}",
		"request": "{base_url: 'BASE/api', headers: {authorization: 'Bearer {token.access_token}'}}",
	} {
		if !strings.Contains("\n"+more, "\n"+key+":") {
			body += key + ": " + value + "\n"
		}
	}
	return provider(t, base, body+more)
}

func forTest(t testing.TB, p *catalog.Provider) Scheme {
	t.Helper()
	s, err := For(p, App{ClientID: "my-client", ClientSecret: clientSecret}, client())
	must(t, err)
	return s
}

// renew redeems a refresh token at an endpoint.
func renew(t testing.TB, e *endpoint, more string) (Grant, error) {
	t.Helper()
	s := forTest(t, oauth(t, e.URL, more))
	g := Grant{Credential: Credential{AccessToken: "old", RefreshToken: refreshToken}, Config: map[string]string{}}
	return s.(Renewer).Renew(t.Context(), g)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// clear fails if a text has a secret in it.
func clear(t testing.TB, what string, texts ...any) {
	t.Helper()
	for _, v := range texts {
		for _, s := range secrets {
			if strings.Contains(fmt.Sprint(v), s) {
				t.Errorf("S52: %s tells a secret: %v", what, v)
			}
		}
	}
}

// parseAnswer reads one answer of a token endpoint.
func parseAnswer(p *catalog.Provider, body []byte, form bool, now time.Time) (*answer, error) {
	as := asJSON
	if form {
		as = asForm
	}
	doc, err := parseDocument(body, as)
	if err != nil {
		return nil, err
	}
	return readAnswer(p, []document{doc}, false, now)
}
