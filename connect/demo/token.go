package demo

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// serveToken is the token endpoint (RFC 6749 section 3.2).
func (p *Provider) serveToken(w http.ResponseWriter, r *http.Request) {
	form, ok := p.readForm(w, r)
	if !ok {
		return
	}
	grant := form.Get("grant_type")
	p.mu.Lock()
	if len(p.grants) < 100 || p.grants[grant] > 0 { // anybody can make names up
		p.grants[grant]++
	}
	p.mu.Unlock()
	if p.options.TokenDelay != nil {
		time.Sleep(p.options.TokenDelay())
	}
	if p.options.TokenFault.answers(w, r, grant) {
		return
	}
	before, after := p.ledger.faults(form.Get("refresh_token"))
	if before.answers(w, r, grant) {
		return
	}
	client, ok := p.authenticate(w, r, form)
	if !ok {
		return
	}
	var got issued
	var err error
	switch grant {
	case "authorization_code": // RFC 6749 section 4.1.3, RFC 7636 section 4.5
		for _, name := range []string{"code", "redirect_uri", "code_verifier"} {
			if form.Get(name) == "" {
				writeError(w, http.StatusBadRequest, "invalid_request", name+" is missing.")
				return
			}
		}
		got, err = p.ledger.redeemCode(client, form.Get("code"), form.Get("redirect_uri"), form.Get("code_verifier"))
	case "refresh_token": // section 6
		if form.Get("refresh_token") == "" {
			writeError(w, http.StatusBadRequest, "invalid_request", "refresh_token is missing.")
			return
		}
		got, err = p.ledger.redeemRefresh(client, form.Get("refresh_token"), form.Get("scope"))
	case "client_credentials": // section 4.4.2
		scope, ok := cleanScope(form.Get("scope"))
		if !ok {
			err = errScope
			break
		}
		got, err = p.ledger.grantClient(client, scope)
	case "":
		writeError(w, http.StatusBadRequest, "invalid_request", "grant_type is missing.")
		return
	default:
		writeError(w, http.StatusBadRequest, "unsupported_grant_type", "This provider doesn't know that grant.")
		return
	}
	switch {
	case errors.Is(err, errScope):
		writeError(w, http.StatusBadRequest, "invalid_scope", "The scope goes beyond what was granted, or isn't one.")
		return
	case errors.Is(err, errFull):
		w.Header().Set("Retry-After", "10")
		writeError(w, http.StatusServiceUnavailable, "temporarily_unavailable", err.Error())
		return
	case err != nil:
		writeError(w, http.StatusBadRequest, "invalid_grant", "The grant is no good: "+err.Error()+".")
		return
	}
	if p.options.AfterRotate.answers(w, r, grant) || after.answers(w, r, grant) {
		return
	}
	// RFC 6749 section 5.1, which asks for Pragma too.
	w.Header().Set("Pragma", "no-cache")
	writeJSON(w, http.StatusOK, struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in"`
		RefreshToken string `json:"refresh_token,omitempty"`
		Scope        string `json:"scope"`
	}{got.access, "Bearer", seconds(p.options.AccessTTL), got.refresh, got.scope})
}

// serveRevoke is the revocation endpoint (RFC 7009 section 2). The hint at the
// token's type isn't needed.
func (p *Provider) serveRevoke(w http.ResponseWriter, r *http.Request) {
	client, token, ok := p.tokenOf(w, r)
	if !ok {
		return
	}
	if !p.ledger.drop(client, token) {
		writeError(w, http.StatusBadRequest, "invalid_grant", "The token belongs to another client.")
		return
	}
	w.WriteHeader(http.StatusOK)
}

// serveIntrospect is the introspection endpoint (RFC 7662 section 2). A client
// learns about its own tokens only.
func (p *Provider) serveIntrospect(w http.ResponseWriter, r *http.Request) {
	client, token, ok := p.tokenOf(w, r)
	if !ok {
		return
	}
	writeJSON(w, http.StatusOK, p.ledger.introspect(client, token))
}

// An introspection is what RFC 7662 section 2.2 tells about a token. About one
// that isn't good it tells just that.
type introspection struct {
	Active    bool   `json:"active"`
	ClientID  string `json:"client_id,omitempty"`
	Scope     string `json:"scope,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Username  string `json:"username,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	Expires   int64  `json:"exp,omitempty"`
}

func (l *ledger) introspect(client, secret string) introspection {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, now := digestOf(secret), time.Now()
	if t := l.access[d]; t != nil && t.client == client && t.live(now) {
		return t.introspection(t.scope, "Bearer", t.issued, t.expires)
	}
	if t := l.refresh[d]; t != nil && t.client == client && t.live(now) {
		return t.introspection(t.family.scope, "", t.issued, t.expires)
	}
	return introspection{}
}

func (f *family) introspection(scope, tokenType string, issued, expires time.Time) introspection {
	return introspection{
		Active: true, ClientID: f.client, Scope: scope, Subject: f.account, Username: f.account,
		TokenType: tokenType, IssuedAt: issued.Unix(), Expires: expires.Unix(),
	}
}

// tokenOf reads what revocation and introspection are both sent: the client's
// credentials and a token.
func (p *Provider) tokenOf(w http.ResponseWriter, r *http.Request) (client, token string, ok bool) {
	form, ok := p.readForm(w, r)
	if !ok {
		return "", "", false
	}
	if client, ok = p.authenticate(w, r, form); !ok {
		return "", "", false
	}
	if token = form.Get("token"); token == "" {
		writeError(w, http.StatusBadRequest, "invalid_request", "token is missing.")
		return "", "", false
	}
	return client, token, true
}

// readForm reads a form body. Parameters of the query don't count: a secret
// doesn't belong in an address (RFC 6749 section 2.3.1).
func (p *Provider) readForm(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		writeError(w, http.StatusBadRequest, "invalid_request", "The body has to be application/x-www-form-urlencoded.")
		return nil, false
	}
	r.Body = http.MaxBytesReader(w, r.Body, formLimit)
	if err := r.ParseForm(); err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request", "The form can't be read.")
		return nil, false
	}
	for _, values := range r.PostForm {
		if len(values) > 1 { // section 3.2
			writeError(w, http.StatusBadRequest, "invalid_request", "A parameter is there more than once.")
			return nil, false
		}
	}
	return r.PostForm, true
}

// authenticate finds out which client is calling, by Basic authentication or by
// the form, but not by both (RFC 6749 sections 2.3 and 2.3.1).
func (p *Provider) authenticate(w http.ResponseWriter, r *http.Request, form url.Values) (string, bool) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if len(r.Header["Authorization"]) > 0 {
		user, password, ok := r.BasicAuth()
		if secret != "" || ok && id != "" && id != formDecoded(user) {
			writeError(w, http.StatusBadRequest, "invalid_request", "The client authenticates in more than one way.")
			return "", false
		}
		id, secret = formDecoded(user), formDecoded(password)
	}
	known, ok := p.options.Clients[id]
	if digestOf(secret) != digestOf(known) || !ok || secret == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="keycaddy demo provider"`)
		writeError(w, http.StatusUnauthorized, "invalid_client", "The client isn't known, or its secret is wrong.")
		return "", false
	}
	return id, true
}

// formDecoded undoes what RFC 6749 section 2.3.1 has clients do to both halves
// of Basic credentials. Nothing that isn't encoded right is ever a match.
func formDecoded(s string) string {
	s, err := url.QueryUnescape(s)
	if err != nil {
		return ""
	}
	return s
}

// seconds rounds a duration up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
