package demo_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect/demo"
)

const (
	base     = "http://demo.test/demo"
	callback = "http://demo.test/oauth/callback?via=test"
	verifier = "a-verifier-of-enough-characters-0123456789~._x"
)

// A visit is one provider with the calls that the tests make of it.
type visit struct {
	t *testing.T
	*demo.Provider
}

func newVisit(t *testing.T, o demo.Options) visit {
	t.Helper()
	o.BaseURL = base
	return visit{t, demo.New(o)}
}

func (v visit) send(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	v.ServeHTTP(w, r)
	return w.Result()
}

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// authorization returns the parameters of a good authorization request.
func authorization() url.Values {
	return url.Values{
		"client_id": {demo.DefaultClientID}, "redirect_uri": {callback}, "response_type": {"code"},
		"state": {"a state & more"}, "scope": {"read write"},
		"code_challenge": {challenge(verifier)}, "code_challenge_method": {"S256"},
	}
}

func (v visit) authorize(q url.Values) *http.Response {
	return v.send(httptest.NewRequest("GET", "http://demo.test/authorize?"+q.Encode(), nil))
}

var sealed = regexp.MustCompile(`name="request" value="([^"]*)"`)

// decide opens the consent page, answers it and returns where that leads.
func (v visit) decide(q url.Values, decision, account string) url.Values {
	v.t.Helper()
	m := sealed.FindStringSubmatch(body(v.t, v.authorize(q)))
	if m == nil {
		v.t.Fatal("no form on the consent page")
	}
	res := v.post("/authorize", url.Values{"request": {html.UnescapeString(m[1])}, "decision": {decision}, "account": {account}}, "Sec-Fetch-Site", "same-origin")
	return v.answer(res)
}

// answer returns the query that a redirect to the callback carries.
func (v visit) answer(res *http.Response) url.Values {
	v.t.Helper()
	to := res.Header.Get("Location")
	if res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, callback) {
		v.t.Fatalf("got %d to %q, want a 303 to the callback", res.StatusCode, to)
	}
	u, err := url.Parse(to)
	if err != nil {
		v.t.Fatal(err)
	}
	return u.Query()
}

func (v visit) post(path string, form url.Values, header ...string) *http.Response {
	r := httptest.NewRequest("POST", "http://demo.test"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return v.send(r)
}

// tokens is any answer of the token endpoint.
type tokens struct {
	Access  string `json:"access_token"`
	Type    string `json:"token_type"`
	Expires int    `json:"expires_in"`
	Refresh string `json:"refresh_token"`
	Scope   string `json:"scope"`
	Error   string `json:"error"`
	status  int
}

// token calls the token endpoint as the default client; pairs are the form.
func (v visit) token(pairs ...string) (got tokens) {
	v.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r := httptest.NewRequest("POST", "/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(demo.DefaultClientID, demo.DefaultClientSecret)
	res := v.send(r)
	if res.Header.Get("Cache-Control") != "no-store" {
		v.t.Error("the answer may be stored")
	}
	got.status = res.StatusCode
	decode(v.t, res, &got)
	return got
}

func (v visit) redeem(code string) tokens {
	v.t.Helper()
	return v.token("grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier)
}

func (v visit) refresh(token string) tokens {
	v.t.Helper()
	return v.token("grant_type", "refresh_token", "refresh_token", token)
}

// connect goes through the whole code flow.
func (v visit) connect(account string) tokens {
	v.t.Helper()
	got := v.redeem(v.decide(authorization(), "allow", account).Get("code"))
	if got.Access == "" || got.Refresh == "" {
		v.t.Fatalf("the code was answered with %d %s", got.status, got.Error)
	}
	return got
}

func (v visit) api(method, path, token string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return v.send(r)
}

// opens tells whether an access token opens the API.
func (v visit) opens(token string) bool {
	v.t.Helper()
	switch status := v.api("GET", "/api/me", token).StatusCode; status {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized:
		return false
	default:
		v.t.Fatalf("/api/me answered %d", status)
		return false
	}
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func decode(t *testing.T, res *http.Response, into any) {
	t.Helper()
	if s := body(t, res); json.Unmarshal([]byte(s), into) != nil {
		t.Fatalf("got %d and no JSON: %q", res.StatusCode, s)
	}
}

func TestIndex(t *testing.T) {
	v := newVisit(t, demo.Options{})
	for _, path := range []string{"", "/"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		res := v.send(r)
		page := body(t, res)
		for _, want := range []string{"Ada Lovelace", "Grace Hopper", demo.DefaultAPIKey, base + "/token"} {
			if !strings.Contains(page, want) {
				t.Errorf("path %q: no %q on the page", path, want)
			}
		}
		if strings.Contains(page, demo.DefaultClientSecret) {
			t.Errorf("path %q: the client's secret is on the page", path)
		}
	}
	if res := v.send(httptest.NewRequest("DELETE", "/", nil)); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("DELETE: got %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
	if res := v.send(httptest.NewRequest("GET", "/apix", nil)); res.StatusCode != 404 {
		t.Errorf("another path: got %d", res.StatusCode)
	}
}

func TestDefaultAPIKeyFitsItsPattern(t *testing.T) {
	if !regexp.MustCompile(`^demo_[a-z0-9]{8,}$`).MatchString(demo.DefaultAPIKey) {
		t.Error("the catalog would refuse it")
	}
}
