package scheme

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

const loginEntry = `
auth_scheme: two_step
conn_fields: [{name: site, required: true}, {name: region, source: token_response, automatic: true}]
cred_fields: [{name: user, required: true}, {name: password, required: true, secret: true}]
request: {base_url: 'BASE/api', headers: {x-session: '{token.access_token}', cookie: '{token.cookies}'}}
`

var login = map[string]string{"site": "acme", "user": "jo", "password": userKey}

// logIn accepts the answers of a test at a provider.
func logIn(t testing.TB, e *endpoint, more string) (Scheme, Grant, error) {
	t.Helper()
	s, err := For(provider(t, vendor, loginEntry+more), App{}, e.named())
	must(t, err)
	g, err := s.(Prompter).Accept(t.Context(), login)
	return s, g, err
}

func TestLoginsAreSentAsTheEntryWritesThem(t *testing.T) {
	tests := map[string]struct {
		token string
		check func(r *http.Request, body string) bool
	}{
		"form": {"{url: 'BASE/login', client_auth: none, params: {u: '{cred.user}', p: '{cred.password}', n: 1}}", func(r *http.Request, body string) bool {
			got, err := url.ParseQuery(body)
			return err == nil && reflect.DeepEqual(got, url.Values{"u": {"jo"}, "p": {userKey}, "n": {"1"}}) && r.Header.Get("Content-Type") == "application/x-www-form-urlencoded"
		}},
		"JSON with types and depth": {"{url: 'BASE/login', body: json, client_auth: none, params: {a: {u: '{cred.user}', site: {n: '{conn.site}'}}, enc: false, mfa: ''}}", func(r *http.Request, body string) bool {
			var got any
			want := map[string]any{"a": map[string]any{"u": "jo", "site": map[string]any{"n": "acme"}}, "enc": false, "mfa": ""}
			return json.Unmarshal([]byte(body), &got) == nil && reflect.DeepEqual(got, any(want)) && r.Header.Get("Content-Type") == "application/json"
		}},
		"headers alone": {"{url: 'BASE/login', body: json, client_auth: none, headers: {authorization: \"Basic {base64(cred.user, ':', cred.password)}\"}}", func(r *http.Request, body string) bool {
			u, p, ok := r.BasicAuth()
			return ok && u == "jo" && p == userKey && body == "{}"
		}},
		"GET": {"{url: 'BASE/login?u={cred.user}&p={cred.password}', method: GET, body: none, client_auth: none}", func(r *http.Request, body string) bool {
			return r.Method == "GET" && r.URL.RawQuery == "u=jo&p="+userKey && body == "" && r.Header.Get("Content-Type") == ""
		}},
		"query": {"{url: 'BASE/login?v=2', body: query, client_auth: none, params: {u: '{cred.user}'}}", func(r *http.Request, body string) bool {
			return r.Method == "POST" && r.URL.Query().Get("u") == "jo" && r.URL.Query().Get("v") == "2" && body == ""
		}},
		"XML": {"{url: 'BASE/login', body: xml, client_auth: none, params: {request: {control: {id: '{cred.user}', unique: false}, f: {$id: 'a<\"&', empty: ''}}}}", func(r *http.Request, body string) bool {
			var got struct {
				XMLName xml.Name `xml:"request"`
				ID      string   `xml:"control>id"`
				Unique  string   `xml:"control>unique"`
				F       struct {
					ID    string  `xml:"id,attr"`
					Empty *string `xml:"empty"`
				} `xml:"f"`
			}
			return xml.Unmarshal([]byte(body), &got) == nil && got.ID == "jo" && got.Unique == "false" && got.F.ID == `a<"&` && got.F.Empty != nil &&
				strings.Index(body, "<id>") < strings.Index(body, "<unique>") && r.Header.Get("Content-Type") == "application/xml"
		}},
		"a digest of the body": {"{url: 'BASE/login', body: json, client_auth: none, params: {u: '{cred.user}'}, headers: {x-digest: '{sha256_hex(req.body)}', x-req: '{req.method} {req.path}'}}", func(r *http.Request, body string) bool {
			sum := sha256.Sum256([]byte(body))
			return r.Header.Get("X-Digest") == hex.EncodeToString(sum[:]) && r.Header.Get("X-Req") == "POST /login"
		}},
		"the same moment everywhere": {"{url: 'BASE/login', method: GET, body: none, client_auth: none, headers: {x-a: '{uuid()}', x-b: '{uuid()}'}}", func(r *http.Request, _ string) bool {
			return len(r.Header.Get("X-A")) == 36 && r.Header.Get("X-A") == r.Header.Get("X-B")
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, say(200, good))
			_, g, err := logIn(t, e, "token: "+test.token+"\n")
			must(t, err)
			if r, body, n := e.last(t); n != 1 || !test.check(r, body) {
				t.Errorf("%d: %s %s %v %s", n, r.Method, r.URL, r.Header, body)
			}
			if g.AccessToken != accessToken {
				t.Error("no token")
			}
		})
	}
}

func TestLoginAnswersInManyForms(t *testing.T) {
	plainLogin := "token: {url: 'BASE/login', client_auth: none}\n"
	tests := map[string]struct {
		answer http.HandlerFunc
		spec   string
		want   time.Duration
	}{
		"nested":       {say(200, `{"value":{"token":"`+accessToken+`"}}`), "{access_token: value.token, lifetime_s: 60}", time.Minute},
		"whole text":   {say(200, accessToken+"\n", "Content-Type", "text/plain"), "{access_token: $body, lifetime_s: 60}", time.Minute},
		"whole string": {say(200, `"`+accessToken+`"`), "{access_token: $body, lifetime_s: 60}", time.Minute},
		"XML": {say(200, `<?xml version="1.0" encoding="UTF-8"?><response><control><status>success</status></control><operation><result><data listtype="api"><api><sessionid>`+accessToken+`</sessionid></api></data></result></operation></response>`, "Content-Type", "text/xml"),
			"{access_token: response.operation.result.data.api.sessionid, lifetime_s: 60}", time.Minute},
		"time from now": {say(200, `{"c":{"token":"`+accessToken+`","left":"1:02:03"}}`), "{access_token: c.token, expires_at: c.left}", 26*time.Hour + 3*time.Minute},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, test.answer)
			s, g, err := logIn(t, e, plainLogin+"token_response: "+test.spec+"\n")
			must(t, err)
			left := time.Until(g.Expires)
			if g.AccessToken != accessToken || left > test.want || left < test.want-10*time.Second {
				t.Errorf("expires in %v", left)
			}
			b, err := s.Bind(g)
			must(t, err)
			if !b.Renewable {
				t.Error("not renewable")
			}
		})
	}
	for name, answer := range map[string]http.HandlerFunc{
		"XML that is cut":         say(200, "<a><b>", "Content-Type", "text/xml"),
		"XML with an entity":      say(200, `<!DOCTYPE a [<!ENTITY x "`+accessToken+`">]><a><token>&x;</token></a>`, "Content-Type", "text/xml"),
		"XML that is very deep":   say(200, strings.Repeat("<a>", 10_000), "Content-Type", "text/xml"),
		"two roots":               say(200, "<a>1</a><b>2</b>", "Content-Type", "text/xml"),
		"a page with an error":    say(200, "<html><body>no", "Content-Type", "text/html"),
		"a token that breaks out": say(200, "a\r\nb", "Content-Type", "text/plain"),
	} {
		e := newEndpoint(t, answer)
		var te *TokenError
		if _, _, err := logIn(t, e, plainLogin+"token_response: {access_token: a.token}\n"); !errors.As(err, &te) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCookiesOfTheLoginAreSent(t *testing.T) {
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "B1SESSION", Value: "s1", Path: "/", HttpOnly: true})
		http.SetCookie(w, &http.Cookie{Name: "ROUTEID", Value: ".node1"})
		http.SetCookie(w, &http.Cookie{Name: "gone", MaxAge: -1})
		say(200, `{"SessionId":"`+accessToken+`"}`)(w, r)
	})
	s, g, err := logIn(t, e, "token: {url: 'BASE/Login', body: json, client_auth: none}\ntoken_response: {access_token: SessionId, capture_cookies: true}\n")
	must(t, err)
	b, err := s.Bind(g)
	must(t, err)
	r := request(t, "/x", "Cookie", "mine=1")
	must(t, b.Inject(r))
	if got := r.Header["Cookie"]; !reflect.DeepEqual(got, []string{"B1SESSION=s1; ROUTEID=.node1"}) {
		t.Errorf("got %q", got)
	}
}

// steps is a vendor with three requests, each of which checks what the one
// before has given.
func steps(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/where":
			say(200, `{"service":"`+vendor+`/id","region":"eu1"}`)(w, r)
		case "/id/config":
			say(200, `{"endpoint":"`+vendor+`/token"}`)(w, r)
		case "/token":
			if r.Header.Get("X-Region") != "eu1" {
				say(400, `{"error":"no region"}`)(w, r)
				return
			}
			say(200, good)(w, r)
		default:
			t.Errorf("asked for %s", r.URL)
			w.WriteHeader(404)
		}
	}
}

func TestStepsBuildOnTheAnswersBefore(t *testing.T) {
	e := newEndpoint(t, steps(t))
	const entry = `
token: {url: 'BASE/where', method: GET, body: none, client_auth: none}
token_steps:
  - {method: GET, url: '{step1.service}/config'}
  - {method: POST, url: '{step2.endpoint}', body: form, params: {u: '{cred.user}', p: '{cred.password}'}, headers: {x-region: '{step1.region}'}}
token_response: {capture: {region: region}}
`
	_, g, err := logIn(t, e, entry)
	must(t, err)
	if _, _, n := e.last(t); n != 3 || g.AccessToken != accessToken || g.Config["region"] != "eu1" {
		t.Errorf("%d requests, %v", n, g.Config)
	}
	if _, form := e.form(t); form.Get("p") != userKey {
		t.Errorf("form %v", form)
	}
}

func TestOptionalStepThatFailsLeavesTheAnswerBefore(t *testing.T) {
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			say(400, `{"error":{"code":"x"}}`)(w, r)
			return
		}
		say(200, good)(w, r)
	})
	step := "token: {url: 'BASE/token', client_auth: none}\ntoken_steps: [{method: GET, url: 'BASE/long', query: {access_token: '{step1.access_token}'}, optional: OPT}]\n"
	if _, g, err := logIn(t, e, strings.Replace(step, "OPT", "true", 1)); err != nil || g.AccessToken != accessToken {
		t.Errorf("optional: %v", err)
	}
	if _, _, err := logIn(t, e, strings.Replace(step, "OPT", "false", 1)); err == nil {
		t.Error("not optional: no error")
	}
}

func TestLoginIsRenewedByItsRefreshTokenOrAgain(t *testing.T) {
	e := newEndpoint(t, nil)
	var refuse string
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == refuse {
			say(401, `{"error":"invalid_grant"}`)(w, r)
			return
		}
		say(200, `{"access_token":"from `[:len(`{"access_token":"from`)]+r.URL.Path[1:]+`","refresh_token":"`+refreshToken+`"}`)(w, r)
	}
	entry := "token: {url: 'BASE/login', body: json, client_auth: none, params: {p: '{cred.password}'}}\nrefresh: {mode: refresh_token, url: 'BASE/refresh', params: {r: '{token.refresh_token}'}}\n"
	s, g, err := logIn(t, e, entry)
	must(t, err)
	g, err = s.(Renewer).Renew(t.Context(), g)
	must(t, err)
	if _, body, n := e.last(t); g.AccessToken != "fromrefresh" || body != `{"r":"`+refreshToken+`"}` || n != 2 {
		t.Errorf("%d: %s", n, body)
	}
	refuse = "/refresh"
	g, err = s.(Renewer).Renew(t.Context(), g)
	must(t, err)
	if _, body, n := e.last(t); g.AccessToken != "fromlogin" || body != `{"p":"`+userKey+`"}` || n != 4 {
		t.Errorf("after a refusal, %d: %s", n, body)
	}
	e.answer = say(401, `{"message":"wrong password `+userKey+`"}`)
	var te *TokenError
	if _, err := s.(Renewer).Renew(t.Context(), g); !errors.As(err, &te) || te.Class != Revoked || te.Status != 401 {
		t.Errorf("got %v", err)
	}
	e.answer = say(503, "")
	if _, err := s.(Renewer).Renew(t.Context(), g); !errors.As(err, &te) || te.Class != Transient {
		t.Errorf("got %v", err)
	}
}

func TestS52LoginsThatFailTellNoSecret(t *testing.T) {
	e := newEndpoint(t, nil)
	for _, how := range []string{"form", "json", "query"} {
		e.answer = func(w http.ResponseWriter, r *http.Request) {
			say(400, `{"error":"`+userKey+`","error_description":"no user with `+userKey+` and `+url.QueryEscape(userKey)+`"}`)(w, r)
		}
		_, _, err := logIn(t, e, "token: {url: 'BASE/login?q={cred.password}', body: "+how+", client_auth: none, params: {p: '{cred.password}'}}\n")
		if err == nil {
			t.Error("no error")
		}
		clear(t, how, err)
	}
	e.Close()
	_, _, err := logIn(t, e, "token: {url: 'BASE/login?q={cred.password}', client_auth: none}\n")
	clear(t, "unreachable", err)
}

func FuzzXML(f *testing.F) {
	for _, s := range []string{"<a>1</a>", "<a b='c'><d>1</d><d>2</d><e/></a>", "<a>&lt;</a>", "<!DOCTYPE a><a/>", "<a:b xmlns:a='x'/>"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := parseDocument(body, asXML)
		if err != nil {
			var te *TokenError
			if !errors.As(err, &te) {
				t.Errorf("got %v", err)
			}
			return
		}
		if !json.Valid(doc.raw) {
			t.Errorf("raw is %q", doc.raw)
		}
	})
}
