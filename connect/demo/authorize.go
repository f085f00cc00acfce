package demo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The scope of a request that asks for none (RFC 6749 section 3.3).
const defaultScope = "read"

// A visitor has this long to answer the consent page.
const consentTTL = 10 * time.Minute

// formLimit bounds the form bodies that are read.
const formLimit = 64 << 10

// A request is an authorization request that was found good. It travels sealed
// in the consent page, so that the provider keeps nothing until there is an
// answer.
type request struct {
	ClientID    string
	RedirectURI string
	State       string
	Scope       string
	Challenge   string
	Expires     int64
}

// serveAuthorize shows the consent page (RFC 6749 section 4.1.1).
func (p *Provider) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.servePage(w, http.StatusBadRequest, "error", "The address of this page is damaged.")
		return
	}
	// Until the client and its redirect URI are known to be good, nobody is
	// sent anywhere (section 4.1.2.1).
	a := request{ClientID: q.Get("client_id"), RedirectURI: q.Get("redirect_uri"), State: q.Get("state")}
	if _, ok := p.options.Clients[a.ClientID]; !ok || len(q["client_id"]) > 1 {
		p.servePage(w, http.StatusBadRequest, "error", "The app that sent you here isn't known: check its client_id.")
		return
	}
	if !p.mayRedirect(a.RedirectURI) || len(q["redirect_uri"]) > 1 {
		p.servePage(w, http.StatusBadRequest, "error", "The app that sent you here wants the answer at an address that isn't registered for it: check its redirect_uri.")
		return
	}
	if code, description := a.read(q); code != "" {
		a.redirect(w, url.Values{"error": {code}, "error_description": {description}})
		return
	}
	a.Expires = time.Now().Add(consentTTL).Unix()
	p.servePage(w, http.StatusOK, "authorize", struct {
		Request string
		request
		Scopes   []string
		Accounts []Account
	}{p.seal(a), a, strings.Fields(a.Scope), Accounts()})
}

// read fills in the rest of the request and returns an error code of RFC 6749
// section 4.1.2.1 and a description, if there is something wrong with it.
func (a *request) read(q url.Values) (code, description string) {
	for name, values := range q {
		if len(values) > 1 { // section 3.1
			return "invalid_request", "A parameter is there more than once."
		}
		if name == "request" || name == "request_uri" {
			return "invalid_request", "Request objects aren't supported."
		}
	}
	switch q.Get("response_type") {
	case "code":
	case "":
		return "invalid_request", "response_type is missing."
	default:
		return "unsupported_response_type", "Only response_type=code is supported."
	}
	// RFC 7636 sections 4.3 and 4.4.1; no method means plain.
	a.Challenge = q.Get("code_challenge")
	if a.Challenge == "" {
		return "invalid_request", "code_challenge is missing: this provider wants PKCE."
	}
	if q.Get("code_challenge_method") != "S256" {
		return "invalid_request", "code_challenge_method has to be S256."
	}
	if sum, err := base64.RawURLEncoding.DecodeString(a.Challenge); err != nil || len(sum) != sha256.Size {
		return "invalid_request", "code_challenge isn't a SHA-256 in base64url."
	}
	var ok bool
	if a.Scope, ok = cleanScope(q.Get("scope")); !ok {
		return "invalid_scope", "scope has a character that isn't allowed there."
	}
	return "", ""
}

// serveDecision takes the visitor's answer and sends it to the client. The
// sealed request shows that the page was ours; that the form was sent from it,
// and not by another site, is for the browser to say.
func (p *Provider) serveDecision(w http.ResponseWriter, r *http.Request) {
	if err := p.cross.Check(r); err != nil {
		p.servePage(w, http.StatusForbidden, "error", "This form was sent by another site.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, formLimit)
	if err := r.ParseForm(); err != nil {
		p.servePage(w, http.StatusBadRequest, "error", "The form didn't arrive whole.")
		return
	}
	a, ok := p.unseal(r.PostForm.Get("request"))
	if !ok {
		p.servePage(w, http.StatusBadRequest, "error", "This page has been open for too long. Go back to the app and start again.")
		return
	}
	if r.PostForm.Get("decision") != "allow" {
		a.redirect(w, url.Values{"error": {"access_denied"}, "error_description": {"The visitor said no."}})
		return
	}
	account := r.PostForm.Get("account")
	if !slices.ContainsFunc(Accounts(), func(k Account) bool { return k.ID == account }) {
		p.servePage(w, http.StatusBadRequest, "error", "There is no such account.")
		return
	}
	code, err := p.ledger.openCode(a, account)
	if err != nil {
		a.redirect(w, url.Values{"error": {"temporarily_unavailable"}, "error_description": {"The demo provider's memory is full."}})
		return
	}
	a.redirect(w, url.Values{"code": {code}})
}

// redirect sends the visitor back with an answer. It is a 303 in any case: a
// 307 would hand the form on to the client (RFC 9700 section 4.12).
func (a request) redirect(w http.ResponseWriter, answer url.Values) {
	u, err := url.Parse(a.RedirectURI)
	if err != nil { // mayRedirect has parsed it before
		panic(err)
	}
	if a.State != "" {
		answer.Set("state", a.State)
	}
	// What the client put into its URI stays as it is (RFC 6749 section 3.1.2).
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += answer.Encode()
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Location", u.String())
	w.WriteHeader(http.StatusSeeOther)
}

// mayRedirect tells whether codes may be sent to a URI.
func (p *Provider) mayRedirect(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.User != nil || strings.Contains(uri, "#") {
		return false
	}
	if len(p.options.RedirectURIs) > 0 {
		return slices.Contains(p.options.RedirectURIs, uri)
	}
	return p.origin != "" && originOf(u) == p.origin
}

// originOf returns a web URL's origin, or nothing for any other URL.
func originOf(u *url.URL) string {
	port := u.Port()
	switch scheme := u.Scheme; {
	case u.Hostname() == "" || scheme != "http" && scheme != "https":
		return ""
	case port == "" && scheme == "http":
		port = "80"
	case port == "" && scheme == "https":
		port = "443"
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// cleanScope checks a scope against the grammar of RFC 6749 section 3.3, and
// fills in the default.
func cleanScope(s string) (string, bool) {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return "", false
		}
	}
	if s = strings.Join(strings.Fields(s), " "); s == "" {
		s = defaultScope
	}
	return s, true
}

// verifies tells whether a code verifier fits its challenge (RFC 7636 sections
// 4.1 and 4.6).
func verifies(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 {
		return false
	}
	for _, c := range []byte(verifier) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
		default:
			return false
		}
	}
	sum := sha256.Sum256([]byte(verifier))
	return hmac.Equal([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge))
}

// seal writes a request down with a signature that only this provider makes.
func (p *Provider) seal(a request) string {
	b, err := json.Marshal(a)
	if err != nil { // strings and a number
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(append(p.sign(b), b...))
}

// unseal returns the request that was sealed, unless it was altered or is too
// old.
func (p *Provider) unseal(s string) (a request, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < sha256.Size {
		return request{}, false
	}
	sum, b := b[:sha256.Size], b[sha256.Size:]
	if !hmac.Equal(sum, p.sign(b)) || json.Unmarshal(b, &a) != nil || time.Now().Unix() >= a.Expires {
		return request{}, false
	}
	return a, true
}

func (p *Provider) sign(b []byte) []byte {
	h := hmac.New(sha256.New, p.sealKey[:])
	h.Write(b)
	return h.Sum(nil)
}
