package simulator

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
)

const redirect = "https://app.example/oauth/callback"

func play(t *testing.T, entry string) *Vendor {
	t.Helper()
	p, err := catalog.Parse("test.yaml", []byte("id: test\ndisplay_name: Test\nvendor: test\ncategories: [test]\ndocs: {reference: https://vendor.example/docs}\n"+entry))
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAccount(p, redirect, Everything)
	if err != nil {
		t.Fatal(err)
	}
	return New(p, a)
}

// ask sends a request, and returns the status, the answer and the faults.
func ask(t *testing.T, v *Vendor, method, address, body string, header ...string) (int, map[string]any, string) {
	t.Helper()
	r := httptest.NewRequest(method, address, strings.NewReader(body))
	if body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	v.ServeHTTP(w, r)
	data, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]any{}
	_ = json.Unmarshal(data, &doc) // not all answers are JSON
	return w.Code, doc, strings.Join(v.Faults(), "\n")
}

const codeEntry = `
auth_scheme: oauth2_code
authorize: {url: 'https://vendor.example/authorize', pkce: true, params: {access: offline}}
token: {url: 'https://vendor.example/token', body: form, client_auth: post}
refresh: {declared: true}
scopes: {separator: ','}
request: {base_url: 'https://api.vendor.example/v1', headers: {authorization: 'Bearer {token.access_token}', x-version: '7'}}
`

const verifier = "a-verifier-of-forty-three-characters-or-more-0"

// authorization is the query of a good authorization request.
func authorization(v *Vendor) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	return url.Values{
		"response_type": {"code"}, "client_id": {v.account.App["client_id"]}, "redirect_uri": {redirect}, "state": {"st"},
		"scope": {strings.Join(v.account.Scopes, ",")}, "access": {"offline"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
}

func authorize(t *testing.T, v *Vendor) string {
	t.Helper()
	back, err := v.Visit("https://vendor.example/authorize?" + authorization(v).Encode())
	if err != nil {
		t.Fatal(err)
	}
	if got := back.Query(); got.Get("state") != "st" || got.Get("iss") != "https://vendor.example" || !strings.HasPrefix(back.String(), redirect+"?") {
		t.Fatalf("callback %s", back)
	}
	return back.Query().Get("code")
}

func redemption(v *Vendor, code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier},
		"client_id": {v.account.App["client_id"]}, "client_secret": {v.account.App["client_secret"]},
	}
}

const formHeader = "application/x-www-form-urlencoded"

func connected(t *testing.T, v *Vendor) (access, refresh string) {
	t.Helper()
	status, doc, faults := ask(t, v, "POST", "https://vendor.example/token", redemption(v, authorize(t, v)).Encode(), "Content-Type", formHeader)
	if status != http.StatusOK || faults != "" {
		t.Fatalf("%d %v %s", status, doc, faults)
	}
	return doc["access_token"].(string), doc["refresh_token"].(string)
}

// A client that sends the browser with anything missing, changed or added is
// refused.
func TestAuthorizationPageRefuses(t *testing.T) {
	for name, change := range map[string]func(url.Values){
		"no PKCE":               func(q url.Values) { q.Del("code_challenge"); q.Del("code_challenge_method") },
		"plain PKCE":            func(q url.Values) { q.Set("code_challenge_method", "plain") },
		"another client":        func(q url.Values) { q.Set("client_id", "other") },
		"another redirect":      func(q url.Values) { q.Set("redirect_uri", redirect+"/x") },
		"no redirect":           func(q url.Values) { q.Del("redirect_uri") },
		"another response type": func(q url.Values) { q.Set("response_type", "token") },
		"scopes not joined":     func(q url.Values) { q.Set("scope", strings.ReplaceAll(q.Get("scope"), ",", " ")) },
		"no entry's parameter":  func(q url.Values) { q.Del("access") },
		"one parameter more":    func(q url.Values) { q.Set("audience", "x") },
		"a parameter twice":     func(q url.Values) { q.Add("client_id", q.Get("client_id")) },
	} {
		t.Run(name, func(t *testing.T) {
			v := play(t, codeEntry)
			q := authorization(v)
			change(q)
			if back, err := v.Visit("https://vendor.example/authorize?" + q.Encode()); err == nil {
				t.Fatalf("sent back to %s", back)
			}
		})
	}
	v := play(t, codeEntry)
	for _, page := range []string{"https://vendor.example/other", "https://evil.example/authorize", "http://vendor.example/authorize"} {
		if _, err := v.Visit(page + "?" + authorization(v).Encode()); err == nil {
			t.Errorf("%s is not the vendor's page", page)
		}
	}
}

// A client that redeems a code in any other way than the entry says is refused,
// and gets no token.
func TestTokenEndpointRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(q url.Values)
		header []string
		fault  string
	}{
		"no verifier":         {func(q url.Values) { q.Del("code_verifier") }, nil, "code verifier"},
		"another verifier":    {func(q url.Values) { q.Set("code_verifier", verifier+"x") }, nil, "code verifier"},
		"no redirect_uri":     {func(q url.Values) { q.Del("redirect_uri") }, nil, "redirect_uri is missing"},
		"another redirect":    {func(q url.Values) { q.Set("redirect_uri", redirect+"/x") }, nil, "redirect_uri is"},
		"no client secret":    {func(q url.Values) { q.Del("client_secret") }, nil, "client_secret is missing"},
		"another secret":      {func(q url.Values) { q.Set("client_secret", "x") }, nil, "client_secret is"},
		"no grant type":       {func(q url.Values) { q.Del("grant_type") }, nil, "grant_type is missing"},
		"another code":        {func(q url.Values) { q.Set("code", "x") }, nil, "no code"},
		"one parameter more":  {func(q url.Values) { q.Set("audience", "x") }, nil, "nobody asked for"},
		"Basic instead":       {func(q url.Values) { q.Del("client_secret") }, []string{"Authorization", "Basic eDp5"}, "Authorization header"},
		"another media type":  {func(url.Values) {}, []string{"Content-Type", "text/plain"}, "content type"},
		"without a mediatype": {func(url.Values) {}, []string{"Content-Type", ""}, "content type"},
	} {
		t.Run(name, func(t *testing.T) {
			v := play(t, codeEntry)
			q := redemption(v, authorize(t, v))
			c.change(q)
			header := append([]string{"Content-Type", formHeader}, c.header...)
			status, doc, faults := ask(t, v, "POST", "https://vendor.example/token", q.Encode(), header...)
			if status == http.StatusOK || doc["access_token"] != nil || !strings.Contains(faults, c.fault) {
				t.Fatalf("%d %v: %s", status, doc, faults)
			}
		})
	}
	t.Run("as JSON", func(t *testing.T) {
		v := play(t, codeEntry)
		m := map[string]string{}
		for k, s := range redemption(v, authorize(t, v)) {
			m[k] = s[0]
		}
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if status, _, faults := ask(t, v, "POST", "https://vendor.example/token", string(data), "Content-Type", "application/json"); status == http.StatusOK {
			t.Fatal(faults)
		}
	})
	t.Run("a code twice", func(t *testing.T) {
		v := play(t, codeEntry)
		q := redemption(v, authorize(t, v)).Encode()
		if status, _, faults := ask(t, v, "POST", "https://vendor.example/token", q, "Content-Type", formHeader); status != http.StatusOK {
			t.Fatal(faults)
		}
		if status, _, faults := ask(t, v, "POST", "https://vendor.example/token", q, "Content-Type", formHeader); status == http.StatusOK || !strings.Contains(faults, "used before") {
			t.Fatal(status, faults)
		}
	})
}

// A call without the credential in its very place is refused.
func TestAPIRefuses(t *testing.T) {
	v := play(t, codeEntry)
	access, _ := connected(t, v)
	good := []string{"Authorization", "Bearer " + access, "X-Version", "7"}
	if status, _, faults := ask(t, v, "GET", "https://api.vendor.example/v1/things?a=1", "", good...); status != http.StatusOK {
		t.Fatal(faults)
	}
	for name, c := range map[string]struct {
		address string
		header  []string
	}{
		"no credential":         {"https://api.vendor.example/v1/things", []string{"X-Version", "7"}},
		"another word":          {"https://api.vendor.example/v1/things", []string{"Authorization", "Token " + access, "X-Version", "7"}},
		"another token":         {"https://api.vendor.example/v1/things", []string{"Authorization", "Bearer x" + access, "X-Version", "7"}},
		"another header":        {"https://api.vendor.example/v1/things", []string{"X-Token", access, "X-Version", "7"}},
		"in the query":          {"https://api.vendor.example/v1/things?access_token=" + url.QueryEscape(access), []string{"X-Version", "7"}},
		"no entry's header":     {"https://api.vendor.example/v1/things", []string{"Authorization", "Bearer " + access}},
		"above the API":         {"https://api.vendor.example/things", good},
		"beside the API":        {"https://api.vendor.example/v10/things", good},
		"another host":          {"https://evil.example/v1/things", good},
		"plain http":            {"http://api.vendor.example/v1/things", good},
		"the caller's identity": {"https://api.vendor.example/v1/things", append([]string{"Connection-Id", "c1"}, good...)},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, faults := ask(t, v, "GET", c.address, "", c.header...)
			if faults == "" || status == http.StatusOK && name != "the caller's identity" {
				t.Fatalf("%d %s", status, faults)
			}
		})
	}
	v.Forbid("the-callers-key")
	if _, _, faults := ask(t, v, "GET", "https://api.vendor.example/v1/things?k=the-callers-key", "", good...); !strings.Contains(faults, "the caller's own key") {
		t.Error("the caller's key has got through: " + faults)
	}
}

// A refresh token works once. Used again, it ends all that came of it (RFC 9700
// section 4.14.2).
func TestReusedRefreshTokenEndsTheFamily(t *testing.T) {
	v := play(t, codeEntry)
	_, first := connected(t, v)
	refresh := func(token string) (int, map[string]any, string) {
		q := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {token},
			"client_id": {v.account.App["client_id"]}, "client_secret": {v.account.App["client_secret"]},
		}
		return ask(t, v, "POST", "https://vendor.example/token", q.Encode(), "Content-Type", formHeader)
	}
	status, doc, faults := refresh(first)
	if status != http.StatusOK || faults != "" {
		t.Fatal(status, faults)
	}
	access, second := doc["access_token"].(string), doc["refresh_token"].(string)
	if status, doc, faults := refresh(first); status == http.StatusOK || doc["error"] != "invalid_grant" || !strings.Contains(faults, "used twice") {
		t.Fatal(status, doc, faults)
	}
	if status, _, _ := ask(t, v, "GET", "https://api.vendor.example/v1/x", "", "Authorization", "Bearer "+access, "X-Version", "7"); status != http.StatusUnauthorized {
		t.Errorf("the newest access token still works: %d", status)
	}
	if status, _, _ := refresh(second); status == http.StatusOK {
		t.Error("the newest refresh token still works")
	}
}

// An ended token is answered as the entry says that the vendor does, and is no
// fault of the client's.
func TestEndedTokenIsNoFault(t *testing.T) {
	v := play(t, codeEntry)
	access, _ := connected(t, v)
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		v.Expire(status)
		got, _, faults := ask(t, v, "GET", "https://api.vendor.example/v1/x", "", "Authorization", "Bearer "+access, "X-Version", "7")
		if got != status || faults != "" {
			t.Errorf("%d instead of %d: %s", got, status, faults)
		}
	}
	if n := v.Counts(); n.Expired != 2 || n.Calls != 0 {
		t.Errorf("%+v", n)
	}
}
