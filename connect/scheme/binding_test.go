package scheme

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
)

// bind makes a binding of an entry for the user's key.
func bind(t testing.TB, body string) *Binding {
	t.Helper()
	s := forTest(t, provider(t, "https://api.example", body))
	b, err := s.Bind(Grant{
		Credential: Credential{AccessToken: accessToken, Fields: map[string]Secret{"api_key": userKey, "user": "u"}},
		Config:     map[string]string{"account": "acme"},
	})
	must(t, err)
	return b
}

const keyEntry = `
auth_scheme: api_key
conn_fields: [{name: account}]
cred_fields: [{name: api_key, secret: true}, {name: user}]
`

func request(t testing.TB, target string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", "https://api.example"+target, nil)
	must(t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestS86OwnedHeadersReplaceTheCallersAndDefaultsDoNot(t *testing.T) {
	b := bind(t, keyEntry+"request: {base_url: 'BASE', headers: {authorization: 'Token {cred.api_key}', x-account: '{conn.account}', x-version: '2', user-agent: keycaddy, accept: text/plain}}\n")
	r := request(t, "/", "Authorization", "Bearer mine", "Authorization", "Basic mine", "X-Version", "1", "User-Agent", "curl", "X-Other", "o")
	must(t, b.Inject(r))
	want := http.Header{
		"Authorization": {"Token " + userKey}, "X-Version": {"1"}, "X-Account": {"acme"}, "User-Agent": {"keycaddy"},
		"Accept": {"text/plain"}, "X-Other": {"o"},
	}
	if !reflect.DeepEqual(r.Header, want) || r.URL.String() != "https://api.example/" {
		t.Errorf("got %v at %s", r.Header, r.URL)
	}
	headers, query := b.Names()
	if !slices.Equal(headers, []string{"Accept", "Authorization", "User-Agent", "X-Account", "X-Version"}) || query != nil {
		t.Errorf("names %v, %v", headers, query)
	}
	clear(t, "Names", headers)
}

func TestContentTypeNeedsABody(t *testing.T) {
	b := bind(t, keyEntry+"request: {base_url: 'BASE', headers: {content-type: application/vnd.api+json, x-api-key: '{cred.api_key}'}}\n")
	for _, test := range []struct {
		length int64
		own    string
		want   []string
	}{
		{0, "", nil}, {5, "", []string{"application/vnd.api+json"}}, {-1, "", []string{"application/vnd.api+json"}}, {5, "text/csv", []string{"text/csv"}},
	} {
		r := request(t, "/")
		r.ContentLength = test.length
		if test.own != "" {
			r.Header.Set("Content-Type", test.own)
		}
		must(t, b.Inject(r))
		if got := r.Header["Content-Type"]; !slices.Equal(got, test.want) {
			t.Errorf("length %d: %v", test.length, got)
		}
	}
}

func TestS86QueryParametersReplaceTheCallers(t *testing.T) {
	b := bind(t, keyEntry+"request: {base_url: 'BASE', query: {api_key: '{cred.api_key}', 'a b': x&y=z}}\n")
	const added = "a+b=x%26y%3Dz&api_key=" + userKey
	for raw, want := range map[string]string{
		"":                                 added,
		"q=1":                              "q=1&" + added,
		"q=1&q=2&Q=%2f+%2F":                "q=1&q=2&Q=%2f+%2F&" + added,
		"api_key=mine":                     added,
		"x=1&api_key=mine&api_key=&y=2":    "x=1&y=2&" + added,
		"api%5Fkey=mine":                   added,
		"%61%70%69_%6b%65%79=mine":         added,
		"a+b=1&a%20b=2":                    added,
		"api_key":                          added,
		"api_key=%zz":                      added,
		"%zz=mine":                         added,
		"api_ke%79%=mine":                  added,
		"x=1;api_key=mine":                 added,
		"x=%zz":                            "x=%zz&" + added,
		"x=1;y=2":                          "x=1;y=2&" + added,
		"&&x=1&":                           "x=1&" + added,
		"=api_key":                         "=api_key&" + added,
		"x=api_key=mine":                   "x=api_key=mine&" + added,
		"API_KEY=mine":                     "API_KEY=mine&" + added,
		strings.Repeat("api_key=m&", 1000): added,
	} {
		r := request(t, "/")
		r.URL.RawQuery = raw
		must(t, b.Inject(r))
		if r.URL.RawQuery != want {
			t.Errorf("%.60q: got %q, want %q", raw, r.URL.RawQuery, want)
		}
	}
	if headers, query := b.Names(); headers != nil || !slices.Equal(query, []string{"a b", "api_key"}) {
		t.Errorf("names %v, %v", headers, query)
	}
}

func TestInjectSharesNothingThatRequestsChange(t *testing.T) {
	b := bind(t, keyEntry+"request: {base_url: 'BASE/v1', headers: {authorization: 'Token {cred.api_key}', x-when: \"{time('unix')}\", x-path: '{req.method} {req.endpoint}'}, query: {api_key: '{cred.api_key}'}}\n")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				r := request(t, "/x?y=1")
				if err := b.Inject(r); err != nil {
					t.Error(err)
				}
				r.Header.Add("Authorization", "added by somebody")
				r.Header.Set("X-When", "set by somebody")
				r.URL.RawQuery += "&more"
				r = request(t, "/x?y=1")
				if err := b.Inject(r); err != nil {
					t.Error(err)
				}
				if got := r.Header["Authorization"]; len(got) != 1 || got[0] != "Token "+userKey || r.URL.RawQuery != "y=1&api_key="+userKey || !strings.HasPrefix(r.Header.Get("X-Path"), "GET /x?") {
					t.Errorf("got %v, %s", r.Header, r.URL)
				}
			}
		})
	}
	wg.Wait()
	if b.Base.String() != "https://api.example/v1" {
		t.Errorf("base %s", b.Base)
	}
}

func TestHeadersWithoutAValueAreLeftOut(t *testing.T) {
	b := bind(t, "auth_scheme: api_key\nconn_fields: [{name: absent}]\ncred_fields: [{name: api_key, secret: true}]\nrequest: {base_url: 'BASE', headers: {x-absent: 'v{conn.absent}', x-each: '{conn.absent}{uuid()}', x-key: '{cred.api_key}'}, query: {absent: '{conn.absent}'}}\n")
	r := request(t, "/?absent=1")
	must(t, b.Inject(r))
	if !reflect.DeepEqual(r.Header, http.Header{"X-Key": {userKey}}) || r.URL.RawQuery != "absent=1" {
		t.Errorf("got %v, %s", r.Header, r.URL.RawQuery)
	}
}

func TestQueryMadeForEachRequest(t *testing.T) {
	b := bind(t, keyEntry+"request: {base_url: 'BASE', query: {at: \"{time('unix')}\", key: '{cred.api_key}'}}\n")
	r := request(t, "/?at=mine&x=1&key=mine")
	must(t, b.Inject(r))
	q := r.URL.Query()
	if len(q) != 3 || len(q["at"]) != 1 || len(q.Get("at")) < 10 || q.Get("key") != userKey || q.Get("x") != "1" {
		t.Errorf("got %s", r.URL.RawQuery)
	}
}

func TestS26KeysThatNoHeaderCarriesAreRefused(t *testing.T) {
	s := forTest(t, provider(t, "https://api.example", "auth_scheme: api_key\ncred_fields: [{name: api_key, required: true, secret: true}]\nrequest: {base_url: 'BASE', headers: {x-key: '{cred.api_key}'}}\n"))
	for _, v := range []string{
		"", " ", userKey + "\n", " " + userKey, userKey + "\r\nX-Evil: 1", userKey + "\x00", "\ufeff" + userKey, userKey + "\u200b", "a\tb", "a\x7fb", "a\xffb",
		"-----BEGIN KEY-----\n" + userKey, strings.Repeat("k", 64<<10+1),
	} {
		g, err := s.(Prompter).Accept(t.Context(), map[string]string{"api_key": v})
		var fe FieldErrors
		if !errors.As(err, &fe) || fe["api_key"] == "" || !reflect.DeepEqual(g, Grant{}) {
			t.Errorf("%.40q: %v", v, err)
		}
		clear(t, "the error", err)
	}
	g, err := s.(Prompter).Accept(t.Context(), map[string]string{"api_key": userKey, "more": "x"})
	if err != nil || len(g.Fields) != 1 || g.Fields["api_key"] != userKey {
		t.Errorf("got %v, %v", len(g.Fields), err)
	}
}

func FuzzAddQuery(f *testing.F) {
	for _, s := range []string{"", "a=1&b=2", "api_key=x", "api%5fkey=x;y", "%zz", "a;api_key=1", "&=&;"} {
		f.Add(s)
	}
	b := bind(f, keyEntry+"request: {base_url: 'BASE', query: {api_key: '{cred.api_key}'}}\n")
	f.Fuzz(func(t *testing.T, raw string) {
		got := b.addQuery(raw)
		rest, ok := strings.CutSuffix(got, "api_key="+userKey)
		if !ok {
			t.Fatalf("%q: the key isn't there: %q", raw, got)
		}
		for piece := range strings.FieldsFuncSeq(rest, func(r rune) bool { return r == '&' || r == ';' }) {
			key, _, _ := strings.Cut(piece, "=")
			if name, err := url.QueryUnescape(key); err != nil || name == "api_key" {
				t.Errorf("%q: %q is left", raw, piece)
			}
		}
		if again := b.addQuery(got); again != got {
			t.Errorf("%q: twice gives %q, then %q", raw, got, again)
		}
	})
}

// BenchmarkBind is what each new version of a credential costs, once.
func BenchmarkBind(b *testing.B) {
	builtin, err := catalog.Builtin()
	must(b, err)
	for _, id := range []string{"github", "openai", "salesforce"} {
		b.Run(id, func(b *testing.B) {
			p, err := builtin.Provider(id)
			must(b, err)
			s, err := For(p, App{ClientID: "my-client", ClientSecret: clientSecret, RedirectURL: "https://keycaddy.example/oauth/callback"}, client())
			must(b, err)
			g := Grant{Config: map[string]string{"instance_url": "https://acme.my.salesforce.com"}}
			g.AccessToken = accessToken
			g.Fields = map[string]Secret{"api_key": userKey}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Bind(g); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkInject(b *testing.B) {
	for name, entry := range map[string]string{
		"header":     keyEntry + "request: {base_url: 'BASE', headers: {authorization: 'Bearer {cred.api_key}', x-version: '1'}}\n",
		"query":      keyEntry + "request: {base_url: 'BASE', query: {api_key: '{cred.api_key}'}}\n",
		"perRequest": keyEntry + "request: {base_url: 'BASE', headers: {authorization: 'Bearer {cred.api_key}', x-id: '{uuid()}'}}\n",
	} {
		b.Run(name, func(b *testing.B) {
			binding := bind(b, entry)
			r := request(b, "/v1/items?limit=10&cursor=abc")
			raw := r.URL.RawQuery
			b.ReportAllocs()
			for b.Loop() {
				r.URL.RawQuery = raw
				if err := binding.Inject(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What would give the credential away if a provider sent it back: what was
// injected, and what that was made of; a user's name is no secret.
func TestS105SecretsAreWhatIsInjectedAndWhatItIsMadeOf(t *testing.T) {
	for body, want := range map[string][]string{
		"request: {base_url: 'BASE', headers: {x-key: '{cred.api_key}'}}\n":                                      {userKey, accessToken},
		"request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}\n":                 {accessToken, userKey},
		"request: {base_url: 'BASE', headers: {authorization: 'Token {cred.api_key}', x-a: '{conn.account}'}}\n": {userKey, accessToken},
		"request: {base_url: 'BASE', query: {key: '{cred.api_key}'}}\n":                                          {accessToken, userKey},
		"request: {base_url: 'BASE', headers: {authorization: 'Basic {base64(cred.user, '':'', cred.api_key)}'}}\n": {
			base64.StdEncoding.EncodeToString([]byte("u:" + userKey)), "u:" + userKey, accessToken, userKey},
	} {
		if got := bind(t, keyEntry+body).Secrets(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q", body, got)
		}
	}
}
