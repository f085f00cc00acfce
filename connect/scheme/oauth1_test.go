package scheme

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// checkOAuth1 is the server's side of RFC 5849 section 3.2, apart from the code
// that signs.
func checkOAuth1(t *testing.T, r *http.Request, body string, secrets map[string]string) map[string]string {
	t.Helper()
	got := map[string]string{}
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "OAuth ")
	if !ok {
		t.Fatalf("header %q", r.Header.Get("Authorization"))
	}
	for part := range strings.SplitSeq(rest, ", ") {
		k, v, _ := strings.Cut(part, "=")
		plain, err := url.PathUnescape(strings.Trim(v, `"`))
		must(t, err)
		got[k] = plain
	}
	var all [][2]string
	add := func(values url.Values) {
		for k, list := range values {
			for _, v := range list {
				all = append(all, [2]string{k, v})
			}
		}
	}
	add(r.URL.Query())
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		form, err := url.ParseQuery(body)
		must(t, err)
		add(form)
	}
	for k, v := range got {
		if k != "realm" && k != "oauth_signature" {
			all = append(all, [2]string{k, v})
		}
	}
	enc := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	pairs := make([]string, len(all))
	for i, p := range all {
		pairs[i] = enc(p[0]) + "=" + enc(p[1])
	}
	slices.SortFunc(pairs, func(a, b string) int {
		ak, av, _ := strings.Cut(a, "=")
		bk, bv, _ := strings.Cut(b, "=")
		if c := strings.Compare(ak, bk); c != 0 {
			return c
		}
		return strings.Compare(av, bv)
	})
	text := r.Method + "&" + enc("http://"+r.Host+r.URL.EscapedPath()) + "&" + enc(strings.Join(pairs, "&"))
	h := map[string]func() hash.Hash{"HMAC-SHA1": sha1.New, "HMAC-SHA256": sha256.New}[got["oauth_signature_method"]]
	mac := hmac.New(h, []byte(enc(clientSecret)+"&"+enc(secrets[got["oauth_token"]])))
	mac.Write([]byte(text))
	if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); got["oauth_signature"] != want || got["oauth_consumer_key"] != "my-client" || len(got["oauth_nonce"]) < 16 {
		t.Errorf("signature %s, want %s of %s", got["oauth_signature"], want, text)
	}
	return got
}

const oauth1Entry = `
auth_scheme: oauth1
authorize: {url: 'BASE/authorize', request_token_url: 'BASE/request', request_token_params: {x_auth_access_type: write}, params: {expiration: never}}
token: {url: 'BASE/access'}
sign_request: {kind: oauth1, signature_method: HMAC-SHA1}
conn_fields: [{name: handle, source: token_response, automatic: true}]
token_response: {capture: {handle: screen_name}}
request: {base_url: 'BASE/api'}
`

// oauth1Vendor is a provider that is strict about all three requests.
type oauth1Vendor struct {
	*endpoint
	confirmed string
	secrets   map[string]string
	callback  string
}

func newOAuth1Vendor(t *testing.T) *oauth1Vendor {
	v := &oauth1Vendor{confirmed: "true", secrets: map[string]string{"": ""}}
	v.endpoint = newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		_, body, _ := v.last(t)
		got := checkOAuth1(t, r, body, v.secrets)
		switch r.URL.Path {
		case "/request":
			v.callback = got["oauth_callback"]
			v.secrets["temp"] = code
			form, _ := url.ParseQuery(body)
			if form.Get("x_auth_access_type") != "write" {
				t.Errorf("form %v", form)
			}
			say(200, "oauth_token=temp&oauth_token_secret="+code+"&oauth_callback_confirmed="+v.confirmed, "Content-Type", "text/html")(w, r)
		case "/access":
			if got["oauth_token"] != "temp" || got["oauth_verifier"] != "verified" {
				w.WriteHeader(401)
				return
			}
			v.secrets["token"] = accessToken
			say(200, "oauth_token=token&oauth_token_secret="+accessToken+"&screen_name=ada", "Content-Type", "text/plain")(w, r)
		}
	})
	return v
}

func TestS102OAuth1Flow(t *testing.T) {
	v := newOAuth1Vendor(t)
	s, err := For(provider(t, vendor, oauth1Entry), App{ClientID: "my-client", ClientSecret: clientSecret, Scopes: []string{"read", "write"}}, v.named())
	must(t, err)
	r := s.(Departer)
	f := Flow{State: "st", RedirectURL: "https://k.example/oauth/callback", Config: map[string]string{}}
	f.Kept, err = r.Depart(t.Context(), f)
	must(t, err)
	if v.callback != "https://k.example/oauth/callback?state=st" {
		t.Errorf("callback %s", v.callback)
	}
	at, err := r.AuthURL(f)
	must(t, err)
	u, err := url.Parse(at)
	must(t, err)
	if q := u.Query(); u.Host != "vendor.example" || q.Get("oauth_token") != "temp" || q.Get("expiration") != "never" || q.Get("scope") != "read write" {
		t.Errorf("address %s", at)
	}
	clear(t, "the address", at)
	for name, callback := range map[string]url.Values{
		"access_denied":       {"denied": {"temp"}},
		"other_token":         {"oauth_token": {"other"}, "oauth_verifier": {"verified"}},
		"missing_code":        {"oauth_token": {"temp"}},
		"duplicate_parameter": {"oauth_token": {"temp", "temp"}, "oauth_verifier": {"verified"}},
	} {
		var ce *CallbackError
		if _, err := r.Exchange(t.Context(), f, callback); !errors.As(err, &ce) || ce.Code != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	back := url.Values{"oauth_token": {"temp"}, "oauth_verifier": {"verified"}, "state": {"st"}}
	lost := f
	lost.Kept = ""
	if _, err := r.Exchange(t.Context(), lost, back); err == nil {
		t.Error("redeemed by another browser")
	}
	g, err := r.Exchange(t.Context(), f, back)
	must(t, err)
	if g.AccessToken != "token" || g.Config["handle"] != "ada" || !g.Expires.IsZero() {
		t.Errorf("got %v", g.Config)
	}
	b, err := s.Bind(g)
	must(t, err)
	if b.Renewable {
		t.Error("there is nothing to renew")
	}
	for _, call := range []struct{ method, target, body, kind string }{
		{"GET", "/api/a%20b?x=1&x=2&y=%2B+z&empty", "", ""}, {"POST", "/api", "status=h%C3%A4llo+w&a=", "application/x-www-form-urlencoded"}, {"POST", "/api", `{"a":1}`, "application/json"},
	} {
		out := outgoing(t, call.method, vendor+call.target, call.body, "Content-Type", call.kind, "Authorization", "mine")
		must(t, b.Inject(out))
		must(t, b.Sign(out, []byte(call.body), true))
		res, err := v.named().Do(out)
		must(t, err)
		res.Body.Close()
	}
	form := outgoing(t, "POST", vendor+"/api", "a=1", "Content-Type", "application/x-www-form-urlencoded")
	var be *BodyError
	if err := b.Sign(form, nil, false); !errors.As(err, &be) || !be.TooLarge {
		t.Errorf("a form that streams: %v", err)
	}
	if err := b.Sign(outgoing(t, "POST", vendor+"/api", "x", "Content-Type", "video/mp4"), nil, false); err != nil {
		t.Errorf("an upload that streams: %v", err)
	}
	v.confirmed = "false"
	if _, err := r.Depart(t.Context(), f); err == nil {
		t.Error("S102: not confirmed, and taken")
	}
}

func TestTokenBasedAuthenticationIsOAuth1WithoutAFlow(t *testing.T) {
	e := newEndpoint(t, nil)
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		got := checkOAuth1(t, r, "", map[string]string{"tid": userKey})
		if got["realm"] != "123_SB1" || got["oauth_token"] != "tid" {
			w.WriteHeader(401)
		}
	}
	s, err := For(provider(t, vendor, `
auth_scheme: oauth1_tba
sign_request: {kind: oauth1, signature_method: HMAC-SHA256, realm: '{upper(replace(conn.account_id, ''-'', ''_''))}', token: '{cred.token_id}', token_secret: '{cred.token_secret}'}
conn_fields: [{name: account_id, required: true}]
cred_fields: [{name: token_id, required: true, secret: true}, {name: token_secret, required: true, secret: true}]
request: {base_url: 'BASE'}
verify: {paths: [/record/v1]}
`), App{ClientID: "my-client", ClientSecret: clientSecret}, e.named())
	must(t, err)
	g, err := s.(Prompter).Accept(t.Context(), map[string]string{"account_id": "123-sb1", "token_id": "tid", "token_secret": userKey})
	must(t, err)
	if status, err := s.Verify(t.Context(), g); status != 0 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	b, err := s.Bind(g)
	must(t, err)
	if names, _ := b.Names(); !slices.Equal(names, []string{"Authorization"}) {
		t.Errorf("names %v", names)
	}
}
