package scheme

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"github.com/keycaddy/keycaddy/catalog"
)

// oauth2Code is the authorization code grant of OAuth 2 (RFC 6749 section 4.1)
// with PKCE (RFC 7636, always S256) and refresh tokens.
type oauth2Code struct{ base }

func newOAuth2(b base) (Scheme, error) {
	p := b.provider
	if p.Authorize == nil || p.Token == nil {
		return nil, fmt.Errorf("provider %s: authorize and token are needed for %s", p.ID, p.Mode)
	}
	if b.app.ClientID == "" {
		return nil, fmt.Errorf("client_id is missing: register an app with %s and set its client_id and client_secret", p.DisplayName)
	}
	if f := unsupportedOAuth2(p); f != "" {
		return nil, &UnsupportedError{Provider: p.ID, Feature: f}
	}
	return oauth2Code{b}, nil
}

// unsupportedOAuth2 names the first thing an entry asks for that is not done
// here, so that a connection can't go wrong at its first refresh.
func unsupportedOAuth2(p *catalog.Provider) string {
	a, t := p.Authorize, p.Token
	switch {
	case len(p.TokenSteps) > 0:
		return "token_steps"
	case t.MTLS:
		return "token.mtls"
	case t.ClientAuth == "private_key_jwt":
		return "token.client_auth private_key_jwt"
	case t.Method != "POST":
		return "token.method " + t.Method
	case !t.BasicUser.IsZero() || t.NoClientID:
		return "client authentication of its own"
	case t.NoGrantType || t.NoCode || t.CodeName != "" || len(t.ClientAuthNames) > 0:
		return "a token request with other parameter names"
	case a.Mode != "" || a.CodeWebhookPath != "":
		return "authorize.mode " + a.Mode
	case len(a.RenameParams) > 0 || a.FragmentPath != "" || a.RawScope || a.StateParam != "" || len(a.OmitParams) > 0:
		return "an authorization URL with other parameter names"
	case p.Refresh != nil && p.Refresh.Mode == "exchange_access_token":
		return "refresh.mode exchange_access_token"
	}
	return ""
}

// Prepare checks the connection fields, which the addresses are made of.
func (s oauth2Code) Prepare(answers map[string]string) (map[string]string, error) {
	bad := FieldErrors{}
	config := s.answers(s.provider.ConnFields, answers, bad)
	if len(bad) == 0 {
		s.fits(Grant{Config: config}, bad)
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return config, nil
}

// AuthURL returns the authorization request (RFC 6749 section 4.1.1).
func (s oauth2Code) AuthURL(f Flow) (string, error) {
	env := s.env(Grant{Config: f.Config}, s.flowValues(f))
	u, err := s.provider.Authorize.URL.Fill(env)
	if err != nil {
		return "", fmt.Errorf("authorization URL of provider %s: %w", s.provider.ID, err)
	}
	var options []oauth2.AuthCodeOption
	// A parameter whose value isn't known is left out.
	params, err := s.provider.Authorize.Params.FormPresent(env)
	if err != nil {
		return "", fmt.Errorf("authorization parameters of provider %s: %w", s.provider.ID, err)
	}
	for name := range params {
		options = append(options, oauth2.SetAuthURLParam(name, params.Get(name)))
	}
	for name, value := range s.app.AuthorizationParams {
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	for name, value := range f.Params {
		if reserved[name] {
			continue
		}
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	if s.provider.Authorize.PKCE {
		options = append(options, oauth2.S256ChallengeOption(f.Verifier.Reveal()))
	}
	if s.signsIn(f) {
		options = append(options, oauth2.SetAuthURLParam("nonce", f.Nonce))
	}
	c := oauth2.Config{
		ClientID:    s.app.ClientID,
		RedirectURL: f.RedirectURL,
		Endpoint:    oauth2.Endpoint{AuthURL: u.String()},
	}
	if scopes := s.scopes(f.Scopes); scopes != "" {
		c.Scopes = []string{scopes} // joined with the entry's separator already
	}
	return c.AuthCodeURL(f.State, options...), nil
}

// reserved parameters carry the flow's safety: no session may set them.
var reserved = map[string]bool{
	"state": true, "redirect_uri": true, "response_type": true, "client_id": true,
	"code_challenge": true, "code_challenge_method": true, "scope": true, "response_mode": true, "nonce": true,
}

// scopes joins the scopes to ask for: the session's own, the integration's, or
// the entry's default.
func (b base) scopes(own []string) string {
	scopes := own
	if len(scopes) == 0 {
		scopes = b.app.Scopes
	}
	if len(scopes) == 0 && b.provider.Scopes != nil {
		scopes = b.provider.Scopes.Default
	}
	return b.provider.Scopes.Join(scopes)
}

func (s oauth2Code) flowValues(f Flow) func(ns, path string) (string, bool) {
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
			return s.scopes(f.Scopes), true
		}
		return "", false
	}
}

// Exchange redeems the code that the callback has brought (RFC 6749 section
// 4.1.3).
func (s oauth2Code) Exchange(ctx context.Context, f Flow, callback url.Values) (Grant, error) {
	if err := s.Check(f, callback); err != nil {
		return Grant{}, err
	}
	code := callback.Get(s.codeParam())
	if s.provider.Authorize.CodeIsURLEncoded {
		if decoded, err := url.QueryUnescape(code); err == nil {
			code = decoded
		}
	}
	g := Grant{Config: f.Config}
	call, c, err := s.call(g, s.flowValues(f), s.provider.Token.Params)
	if err != nil {
		return Grant{}, err
	}
	c.RedirectURL = f.RedirectURL
	if s.provider.Token.NoRedirectURI {
		c.RedirectURL = ""
	}
	var options []oauth2.AuthCodeOption
	if s.provider.Authorize.PKCE {
		options = append(options, oauth2.VerifierOption(f.Verifier.Reveal()))
	}
	if _, err := c.Exchange(call.context(ctx), code, options...); err != nil {
		return Grant{}, tokenError(err)
	}
	if err := s.checkNonce(f, call.answer); err != nil {
		return Grant{}, err
	}
	g = call.answer.grant(g, time.Now())
	for field, param := range s.provider.Authorize.CaptureCallbackParams {
		if v := callback.Get(param); v != "" {
			g.Config[field] = clean(v)
		}
	}
	return g, nil
}

// call prepares a request to the token endpoint.
func (s oauth2Code) call(g Grant, extra func(ns, path string) (string, bool), params catalog.Params) (*tokenCall, *oauth2.Config, error) {
	t := s.provider.Token
	endpoint, err := s.endpoint(g, t, extra)
	if err != nil {
		return nil, nil, err
	}
	call, err := s.tokenCall(g, t, params, extra)
	if err != nil {
		return nil, nil, err
	}
	return call, &oauth2.Config{ClientID: s.app.ClientID, ClientSecret: s.app.ClientSecret.Reveal(), Endpoint: endpoint}, nil
}

// Bind also says whether the grant can be renewed.
func (s oauth2Code) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	b.Renewable = g.RefreshToken != "" && (s.provider.Refresh == nil || s.provider.Refresh.Mode != "none")
	return b, nil
}

// Renew redeems the refresh token (RFC 6749 section 6).
func (s oauth2Code) Renew(ctx context.Context, g Grant) (Grant, error) {
	if g.RefreshToken == "" {
		return Grant{}, ErrNotRenewable
	}
	params := s.provider.Token.Params
	if r := s.provider.Refresh; r != nil && len(r.Params) > 0 {
		params = r.Params
	}
	call, c, err := s.call(g, nil, params)
	if err != nil {
		return Grant{}, err
	}
	if r := s.provider.Refresh; r != nil {
		if err := s.override(g, r, call, c); err != nil {
			return Grant{}, err
		}
	}
	source := c.TokenSource(call.context(ctx), &oauth2.Token{RefreshToken: g.RefreshToken.Reveal()})
	if _, err := source.Token(); err != nil {
		return Grant{}, tokenError(err)
	}
	if r := s.provider.Refresh; r != nil && !r.Rotates {
		call.answer.refresh = "" // the vendor sends one that is none
	}
	return call.answer.grant(g, time.Now()), nil
}

// override applies what the entry says of refreshing in particular.
func (s oauth2Code) override(g Grant, r *catalog.Refresh, call *tokenCall, c *oauth2.Config) error {
	env := s.env(g, nil)
	if !r.URL.IsZero() {
		u, err := r.URL.Fill(env)
		if err != nil {
			return fmt.Errorf("refresh URL of provider %s: %w", s.provider.ID, err)
		}
		c.Endpoint.TokenURL = u.String()
	}
	if r.ClientAuth != "" {
		c.Endpoint.AuthStyle = authStyle(r.ClientAuth)
	}
	if r.Body != "" {
		call.body = r.Body
	}
	if len(r.Headers) > 0 {
		headers, err := r.Headers.Fill(env)
		if err != nil {
			return fmt.Errorf("refresh headers of provider %s: %w", s.provider.ID, err)
		}
		call.headers = headers
	}
	return nil
}

// endpoint fills the entry's token URL.
func (b base) endpoint(g Grant, t *catalog.Token, extra func(ns, path string) (string, bool)) (oauth2.Endpoint, error) {
	u, err := t.URL.Fill(b.env(g, extra))
	if err != nil {
		return oauth2.Endpoint{}, fmt.Errorf("token URL of provider %s: %w", b.provider.ID, err)
	}
	return oauth2.Endpoint{TokenURL: u.String(), AuthStyle: authStyle(t.ClientAuth)}, nil
}

// authStyle is how the client proves itself. It is never probed: that would
// burn codes and refresh tokens, and may lock the client (S38).
func authStyle(clientAuth string) oauth2.AuthStyle {
	if clientAuth == "basic" {
		return oauth2.AuthStyleInHeader
	}
	return oauth2.AuthStyleInParams
}

// tokenCall fills what the entry adds to a token request.
func (b base) tokenCall(g Grant, t *catalog.Token, params catalog.Params, extra func(ns, path string) (string, bool)) (*tokenCall, error) {
	env := b.env(g, extra)
	filled, err := params.Fill(env)
	if err != nil {
		return nil, fmt.Errorf("token parameters of provider %s: %w", b.provider.ID, err)
	}
	headers, err := t.Headers.Fill(env)
	if err != nil {
		return nil, fmt.Errorf("token headers of provider %s: %w", b.provider.ID, err)
	}
	call := &tokenCall{provider: b.provider, client: b.client, body: t.Body, params: filled, headers: headers}
	return call, nil
}

// grant is g with what the answer has brought. A refresh token stays if the
// answer has no other (RFC 6749 section 6); one that was replaced is kept as
// Previous.
func (a *answer) grant(g Grant, now time.Time) Grant {
	out := Grant{Config: make(map[string]string, len(g.Config)+len(a.capture)), Credential: g.Credential}
	for k, v := range g.Config {
		out.Config[k] = v
	}
	for k, v := range a.capture {
		out.Config[k] = v
	}
	out.AccessToken, out.Raw, out.Issued, out.Expires = Secret(a.access), Secret(a.raw), now, a.expires
	if a.refresh != "" && a.refresh != g.RefreshToken.Reveal() {
		out.Previous, out.RefreshToken = g.RefreshToken, Secret(a.refresh)
	}
	if a.scopes != nil {
		out.Scopes = a.scopes
	}
	return out
}

var (
	_ Redirector = oauth2Code{}
	_ Renewer    = oauth2Code{}
)
