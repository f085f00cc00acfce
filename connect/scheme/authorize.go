package scheme

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"github.com/keycaddy/keycaddy/catalog"
)

// authURL returns the authorization request (RFC 6749 section 4.1.1), in the
// entry's way: x/oauth2 makes the standard's, deviations come after.
func (b base) authURL(f Flow) (string, error) {
	a := b.provider.Authorize
	flow := b.flowValues(f)
	env := b.env(f.grant(), flow)
	u, err := a.URL.Fill(env)
	if err != nil {
		return "", fmt.Errorf("authorization URL of provider %s: %w", b.provider.ID, err)
	}
	var options []oauth2.AuthCodeOption
	// A parameter whose value isn't known is left out.
	params, err := a.Params.FormPresent(env)
	if err != nil {
		return "", fmt.Errorf("authorization parameters of provider %s: %w", b.provider.ID, err)
	}
	for name := range params {
		options = append(options, oauth2.SetAuthURLParam(name, params.Get(name)))
	}
	for name, value := range b.app.AuthorizationParams {
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	for name, value := range f.Params {
		if !reserved[name] {
			options = append(options, oauth2.SetAuthURLParam(name, value))
		}
	}
	if a.PKCE {
		options = append(options, oauth2.S256ChallengeOption(f.Verifier.Reveal()))
	}
	if b.signsIn(f) {
		options = append(options, oauth2.SetAuthURLParam("nonce", f.Nonce))
	}
	c := oauth2.Config{
		ClientID:    b.app.ClientID,
		RedirectURL: f.RedirectURL,
		Endpoint:    oauth2.Endpoint{AuthURL: u.String()},
	}
	scopes := b.scopes(f.Scopes, f.Config)
	if scopes != "" {
		c.Scopes = []string{scopes} // joined with the entry's separator already
	}
	return deviate(a, c.AuthCodeURL(f.State, options...), scopes)
}

// deviate makes the vendor's address of the standard's.
func deviate(a *catalog.Authorize, address, scopes string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("authorization URL: %w", err)
	}
	q := u.Query()
	for name, values := range q {
		if a.OmitEmptyParams && values[0] == "" || slices.Contains(a.OmitParams, name) {
			q.Del(name)
		}
	}
	if a.RawScope {
		q.Del("scope")
	}
	for name, theirs := range a.RenameParams {
		rename(q, name, theirs)
	}
	rename(q, "state", a.StateParam)
	query := q.Encode()
	if a.RawScope && scopes != "" {
		query += "&scope=" + rawScope(scopes)
	}
	u.RawQuery = query
	if a.FragmentPath != "" {
		u.RawQuery = ""
		return u.String() + "#/" + strings.TrimPrefix(a.FragmentPath, "/") + "?" + query, nil
	}
	return u.String(), nil
}

// rawScope leaves a scope as it is, but for characters that would end it.
func rawScope(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.~:/+,*@", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// reserved parameters carry the flow's safety: no session may set them.
var reserved = map[string]bool{
	"state": true, "redirect_uri": true, "response_type": true, "client_id": true, "resource": true,
	"code_challenge": true, "code_challenge_method": true, "scope": true, "response_mode": true, "nonce": true,
}

// scopes joins the scopes to ask for: the session's own, the integration's, the
// connection's where the entry has a field for them, or the entry's default.
func (b base) scopes(own []string, config map[string]string) string {
	scopes := own
	if len(scopes) == 0 {
		scopes = b.app.Scopes
	}
	if s := b.provider.Scopes; len(scopes) == 0 && s != nil {
		if name, ok := strings.CutPrefix(s.From, "conn."); ok && config[name] != "" {
			return config[name]
		}
		scopes = s.Default
	}
	return b.provider.Scopes.Join(scopes)
}

// flowValues are flow.* of a redirect.
func (b base) flowValues(f Flow) lookup {
	return func(ns, path string) (string, bool) {
		if ns != "flow" {
			return "", false
		}
		switch path {
		case "state":
			return f.State, true
		case "redirect_uri":
			return f.RedirectURL, true
		case "scope":
			s := b.scopes(f.Scopes, f.Config)
			return s, s != ""
		case "user_scope":
			for _, params := range []map[string]string{f.Params, b.app.AuthorizationParams} {
				if v := params["user_scope"]; v != "" {
					return v, true
				}
			}
		}
		return "", false
	}
}

// grantValues are flow.* of a request without a redirect: a renewal, or a token
// that nobody has to be asked for.
func (b base) grantValues(g Grant) lookup {
	return func(ns, path string) (string, bool) {
		if ns != "flow" {
			return "", false
		}
		switch path {
		case "scope":
			s := b.scopes(g.Scopes, g.Config)
			return s, s != ""
		case "redirect_uri":
			return b.app.RedirectURL, b.app.RedirectURL != ""
		}
		return "", false
	}
}

// StateParam is the callback's parameter with the state, as the entry names it.
func StateParam(p *catalog.Provider) string {
	if p.Authorize != nil {
		if p.Authorize.StateParam != "" {
			return p.Authorize.StateParam
		}
		if theirs := p.Authorize.RenameParams["state"]; theirs != "" {
			return theirs
		}
	}
	return "state"
}
