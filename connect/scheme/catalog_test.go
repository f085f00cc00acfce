package scheme_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// Entries of the built-in catalog that differ from the others, and why.
var (
	noUpstream = map[string]string{"unauthenticated": "has no API of its own"}
	inPath     = map[string]string{"telegram": "the key is part of the path"}
)

// What the schemes don't do yet. A mode or an entry that works has to leave
// these lists: the test fails otherwise.
var notYetModes = []catalog.Mode{
	catalog.ModeTwoStep, catalog.ModeJWTBearer, catalog.ModeAWSSigV4, catalog.ModeOAuth1, catalog.ModeOAuth1TBA,
	catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery, catalog.ModeWSSE, catalog.ModeGitHubApp, catalog.ModeGitHubAppOAuth,
}

var notYet = []string{
	"absorb-lms", "adp", "adp-lyric", "adp-run", "adp-workforce-now",
	"adp-workforce-now-next-gen", "adyntel", "apollo-oauth", "basecamp", "bullhorn",
	"certn-partner", "cisco-duo-admin", "clover", "crisp-plugin-install", "expensify", "facebook",
	"greenhouse-harvest-oauth2-cc", "instagram", "inteliquent", "klicktipp", "lastpass",
	"lightspeed-retail", "mailchimp", "mandrill", "microsoft-admin", "monday", "okta-cc",
	"pennylane", "personio", "printful", "private-api-generic", "revolut-business", "roller",
	"sage-member", "sentry-oauth", "shopline-oauth", "sophos-central", "stripe-app",
	"stripe-app-sandbox", "threads", "tiktok-accounts", "tiktok-ads", "tiktok-personal",
	"vantage-apparel", "walmart", "wildix-pbx", "workable", "zoho", "zoho-bigin", "zoho-books",
	"zoho-calendar", "zoho-crm", "zoho-desk", "zoho-inventory", "zoho-invoice", "zoho-mail",
	"zoho-people", "zoho-recruit", "zoominfo",
}

const (
	madeUpAccess  = "made-up-access-token"
	madeUpRefresh = "made-up-refresh-token"
	madeUpCode    = "made-up-code"
)

// Every built-in entry goes through its scheme from the first answer to a call
// that carries the credential. The provider is a stand-in that says what the
// entry expects of it; nothing is sent anywhere.
func TestEveryBuiltInEntryWorks(t *testing.T) {
	t.Parallel()
	c, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	modes := map[catalog.Mode]int{}
	for _, id := range c.IDs() {
		p, err := c.Provider(id)
		if err != nil {
			t.Fatal(err)
		}
		modes[p.Mode]++
		w := &walk{T: t, p: p, provider: &standIn{answer: tokenAnswer(p)}}
		w.run()
		switch listed := slices.Contains(notYet, id) || slices.Contains(notYetModes, p.Mode); {
		case !listed:
			for _, f := range w.failures {
				t.Error(f)
			}
		case len(w.failures) == 0:
			t.Errorf("%s works; take it, or %s, off the list of what doesn't", id, p.Mode)
		}
	}
	t.Log(modes)
}

type walk struct {
	*testing.T
	p        *catalog.Provider
	provider *standIn
	failures []string
}

func (w *walk) fail(format string, args ...any) {
	w.failures = append(w.failures, w.p.ID+": "+fmt.Sprintf(format, args...))
}

func (w *walk) run() {
	app := scheme.App{ClientID: "made-up-client", ClientSecret: "made-up-secret", Fields: map[string]string{}}
	for i := range w.p.AppFields {
		f := &w.p.AppFields[i]
		if f.Format == "uri" {
			app.Fields[f.Name] = "https://operator.example.com"
			continue
		}
		app.Fields[f.Name] = madeUp(w.p, f)
	}
	s, err := scheme.For(w.p, app, &http.Client{Transport: w.provider})
	if err != nil {
		w.fail("%v", err)
		return
	}
	answers := map[string]string{}
	for _, f := range s.Fields() {
		if f == nil || f.Name == "" || f.Title() == "" || answers[f.Name] != "" {
			w.fail("field %v", f)
			continue
		}
		answers[f.Name] = madeUp(w.p, f)
	}
	g, err := w.grant(s, answers)
	if err != nil {
		w.fail("%v", err)
		return
	}
	w.bound(s, g)
	if _, err := s.Verify(w.Context(), g); err != nil {
		w.fail("verifying: %v", err)
	}
	if r, ok := s.(scheme.Renewer); ok && g.AccessToken != "" {
		w.renew(r, g)
	}
}

// grant gets a credential the way the scheme does.
func (w *walk) grant(s scheme.Scheme, answers map[string]string) (scheme.Grant, error) {
	if p, ok := s.(scheme.Prompter); ok {
		g, err := p.Accept(w.Context(), answers)
		if err == nil && w.p.Mode == catalog.ModeClientCredentials {
			w.sent("client_credentials", answers["client_id"])
			w.token(g)
		}
		return g, err
	}
	r := s.(scheme.Redirector)
	config, err := r.Prepare(answers)
	if err != nil {
		return scheme.Grant{}, err
	}
	f := scheme.Flow{State: "made-up-state", Verifier: "made-up-verifier-of-43-characters-0123456789", RedirectURL: "https://keycaddy.example.com/callback", Config: config}
	to, err := r.AuthURL(f)
	if err != nil {
		return scheme.Grant{}, err
	}
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "https" {
		w.fail("authorization URL %q: %v", to, err)
		return scheme.Grant{}, err
	}
	q := u.Query()
	for name, want := range map[string]string{"client_id": "made-up-client", "state": f.State, "redirect_uri": f.RedirectURL} {
		if q.Get(name) != want {
			w.fail("authorization URL has %s %q", name, q.Get(name))
		}
	}
	if q.Has("code_challenge") != w.p.Authorize.PKCE {
		w.fail("code_challenge: %q", q.Get("code_challenge"))
	}
	callback := url.Values{"state": {f.State}, "code": {madeUpCode}}
	if name := w.p.Authorize.CodeParam; name != "" {
		callback.Set(name, madeUpCode)
	}
	for field, param := range w.p.Authorize.CaptureCallbackParams {
		callback.Set(param, captured(w.p, field))
	}
	g, err := r.Exchange(w.Context(), f, callback)
	if err != nil {
		return scheme.Grant{}, err
	}
	w.sent(madeUpCode)
	w.token(g)
	return g, nil
}

func (w *walk) token(g scheme.Grant) {
	if g.AccessToken.Reveal() != madeUpAccess {
		w.fail("access token %q", g.AccessToken.Reveal())
	}
}

// sent checks that the last token request went to an https address and had
// these values in it.
func (w *walk) sent(values ...string) {
	if w.provider.last == nil || w.provider.last.URL.Scheme != "https" {
		w.fail("token request to %v", w.provider.last)
		return
	}
	for _, v := range values {
		user, _, _ := w.provider.last.BasicAuth()
		all := w.provider.body + "&" + w.provider.last.URL.RawQuery + "&" + user
		overridden := v == "client_credentials" && w.p.Token.Params != nil
		if !strings.Contains(all, v) && !strings.Contains(all, url.QueryEscape(v)) && !overridden {
			w.fail("token request lacks %s: %s", v, all)
		}
	}
}

// bound checks where calls go and what is put on them.
func (w *walk) bound(s scheme.Scheme, g scheme.Grant) {
	b, err := s.Bind(g)
	switch {
	case noUpstream[w.p.ID] != "":
		if !errors.Is(err, scheme.ErrNoUpstream) {
			w.fail("%v", err)
		}
		return
	case err != nil:
		w.fail("%v", err)
		return
	}
	if b.Base.Scheme != "https" || b.Base.User != nil || !w.suffixed(b.Base.Hostname()) {
		w.fail("base URL %s", b.Base)
	}
	if w.p.Mode == catalog.ModeNone {
		return
	}
	r, err := http.NewRequestWithContext(w.Context(), http.MethodGet, b.Base.String(), nil)
	if err != nil {
		w.fail("%v", err)
		return
	}
	if err := b.Inject(r); err != nil {
		w.fail("%v", err)
	}
	if r.URL.Host != b.Base.Host || r.URL.Scheme != "https" {
		w.fail("Inject has changed the address to %s", r.URL)
	}
	if got := w.carries(r, g); got != (inPath[w.p.ID] == "") {
		w.fail("the credential is in a header or the query: %v; %v %s", got, r.Header, r.URL.RawQuery)
	}
	if inPath[w.p.ID] != "" && !strings.Contains(r.URL.Path, g.Fields["api_key"].Reveal()) {
		w.fail("the key is not in the path")
	}
}

// carries tells whether headers or query hold what came of a secret: they
// differ from those of a grant with other secrets.
func (w *walk) carries(r *http.Request, g scheme.Grant) bool {
	if len(r.Header) == 0 && r.URL.RawQuery == "" {
		return false
	}
	if g.AccessToken != "" {
		for _, values := range r.Header {
			if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, g.AccessToken.Reveal()) }) {
				return true
			}
		}
		return strings.Contains(r.URL.RawQuery, g.AccessToken.Reveal())
	}
	for name, v := range w.p.Request.Headers {
		if scheme.CarriesCredential(v.Refs()) && r.Header.Get(name) != "" {
			return true
		}
	}
	for _, v := range g.Fields {
		if v != "" && strings.Contains(r.URL.RawQuery, url.QueryEscape(v.Reveal())) {
			return true
		}
	}
	return false
}

func (w *walk) renew(r scheme.Renewer, g scheme.Grant) {
	fresh, err := r.Renew(w.Context(), g)
	if err != nil {
		w.fail("renewing: %v", err)
		return
	}
	w.token(fresh)
	if w.p.Mode == catalog.ModeOAuth2Code {
		w.sent(madeUpRefresh, "refresh_token")
	}
}

// suffixed tells whether a host ends as one of the entry's base URLs says.
func (w *walk) suffixed(host string) bool {
	sources := []any{w.p.Raw()["request"].(map[string]any)["base_url"]}
	if list, ok := sources[0].([]any); ok {
		sources = list
	}
	return slices.ContainsFunc(sources, func(v any) bool {
		src := strings.TrimPrefix(v.(string), "https://")
		if src == v.(string) { // begins with a reference to a whole URL
			return host != ""
		}
		src, _, _ = strings.Cut(src, "/")
		src = src[strings.LastIndex(src, "}")+1:]
		src, _, _ = strings.Cut(src, ":")
		return strings.HasSuffix(host, strings.ToLower(src))
	})
}

// captured is what the provider says for a field that the flow fills.
func captured(p *catalog.Provider, name string) string {
	if f, ok := p.Field("conn", name); ok {
		return madeUp(p, f)
	}
	return "made-up"
}

// madeUp is a value that a field takes: its example or default, or something
// of the form that it asks for.
func madeUp(p *catalog.Provider, f *catalog.Field) string {
	candidates := append([]string{f.Example, f.Default}, f.Enum...)
	if f.Regexp != nil {
		if tree, err := syntax.Parse(f.Regexp.String(), syntax.Perl); err == nil {
			candidates = append(candidates, shortest(tree))
		}
	}
	if begins(p, f.Name) {
		candidates = append(candidates, "https://made-up.example.com")
	}
	candidates = append(candidates, map[string]string{
		"hostname": "made-up.example.com", "uri": "https://made-up.example.com", "email": "made-up@example.com",
		"uuid": "5ab87915-2deb-429c-a1e2-8b0495900f45", "pem_or_base64": "AAAA",
	}[f.Format], "made-up", "made-up.example.com")
	for _, v := range candidates {
		if v != "" && !strings.Contains(v, "*") && f.Check(v) == nil {
			return v
		}
	}
	return "" // refused where it is needed
}

// begins tells whether an address of the entry begins with a field.
func begins(p *catalog.Provider, name string) bool {
	return p.Request != nil && strings.Contains(p.Request.BaseURL.String(), "{conn."+name+"}") &&
		!strings.Contains(p.Request.BaseURL.String(), "://{conn."+name)
}

// shortest is a text that an expression matches, about the shortest.
func shortest(re *syntax.Regexp) string {
	var b strings.Builder
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		for _, c := range "a0A-" {
			for i := 0; i < len(re.Rune); i += 2 {
				if re.Rune[i] <= c && c <= re.Rune[i+1] {
					return string(c)
				}
			}
		}
		return string(re.Rune[0])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "a"
	case syntax.OpCapture, syntax.OpPlus:
		return shortest(re.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(shortest(re.Sub[0]), re.Min)
	case syntax.OpAlternate:
		return shortest(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			b.WriteString(shortest(sub))
		}
	}
	return b.String()
}

// tokenAnswer is what the entry's token endpoint answers.
func tokenAnswer(p *catalog.Provider) []byte {
	doc := map[string]any{}
	set := func(path, def string, value any) {
		if path == "" {
			path = def
		}
		at := doc
		keys := strings.Split(path, ".")
		for _, k := range keys[:len(keys)-1] {
			inner, ok := at[k].(map[string]any)
			if !ok {
				inner = map[string]any{}
				at[k] = inner
			}
			at = inner
		}
		at[keys[len(keys)-1]] = value
	}
	r := p.TokenResponse
	if r == nil {
		r = &catalog.TokenResponse{}
	}
	for field, path := range r.Capture {
		set(path, "", captured(p, field))
	}
	set(r.AccessToken, "access_token", madeUpAccess)
	set(r.RefreshToken, "refresh_token", madeUpRefresh)
	set(r.ExpiresIn, "expires_in", 3600)
	if r.OK != nil {
		set(r.OK.Path, "", r.OK.Equals)
	}
	data, _ := json.Marshal(doc) // strings and numbers always marshal
	return data
}

// standIn is a provider that grants everything. It keeps the last request.
type standIn struct {
	answer []byte
	last   *http.Request
	body   string
}

func (p *standIn) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	p.last, p.body = r, string(body)
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(p.answer)),
	}, err
}
