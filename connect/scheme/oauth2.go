package scheme

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

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
	if err := b.needsClient(); err != nil {
		return nil, err
	}
	if p.Authorize.Mode != "" || p.Authorize.CodeWebhookPath != "" {
		return nil, &UnsupportedError{Provider: p.ID, Feature: "authorize.mode " + p.Authorize.Mode}
	}
	return oauth2Code{b}, nil
}

// Prepare checks the fields, which the addresses are made of.
func (b base) Prepare(answers map[string]string) (Grant, error) { return b.accept(answers) }

// AuthURL returns the authorization request.
func (s oauth2Code) AuthURL(f Flow) (string, error) { return s.authURL(f) }

// Check finds out whether the callback brings a code (RFC 6749 section 4.1.2). A
// parameter that comes twice makes it invalid (section 3.1). Whose answer it is
// comes before what it says: an error that another server has sent is neither
// shown nor acted upon (RFC 9207 section 2.4).
func (s oauth2Code) Check(f Flow, callback url.Values) error {
	if err := s.checkIssuer(f, callback); err != nil {
		return err
	}
	if err := refusedCallback(callback); err != nil {
		return err
	}
	if callback.Get(s.codeParam()) == "" {
		return &CallbackError{Code: "missing_code"}
	}
	return nil
}

func (s oauth2Code) codeParam() string {
	if p := s.provider.Authorize.CodeParam; p != "" {
		return p
	}
	return "code"
}

// Exchange redeems the code that the callback has brought (RFC 6749 section
// 4.1.3).
func (s oauth2Code) Exchange(ctx context.Context, f Flow, callback url.Values) (Grant, error) {
	if err := s.Check(f, callback); err != nil {
		return Grant{}, err
	}
	a := s.provider.Authorize
	code := callback.Get(s.codeParam())
	if a.CodeIsURLEncoded {
		if decoded, err := url.QueryUnescape(code); err == nil {
			code = decoded
		}
	}
	config, err := s.captureCallback(f.Config, callback)
	if err != nil {
		return Grant{}, err
	}
	f.Config = config
	g := s.asking(f.grant(), f.Scopes)
	call := s.newTokenCall(g, s.withCode(f, code))
	c, err := s.config(call, s.app.ClientID, s.app.ClientSecret)
	if err != nil {
		return Grant{}, err
	}
	c.RedirectURL = f.RedirectURL
	var options []oauth2.AuthCodeOption
	if a.PKCE {
		options = append(options, oauth2.VerifierOption(f.Verifier.Reveal()))
	}
	if _, err := c.Exchange(call.context(ctx), code, options...); err != nil {
		return Grant{}, tokenError(err)
	}
	if err := s.checkNonce(f, call.answer); err != nil {
		return Grant{}, err
	}
	return s.known(ctx, s.withoutEphemeral(call.answer.grant(g, time.Now()))), nil
}

// withCode are the flow's values with the code, for entries that spell the
// token request out.
func (b base) withCode(f Flow, code string) lookup {
	return also(func(ns, path string) (string, bool) {
		return code, ns == "flow" && path == "code"
	}, b.flowValues(f))
}

// refusedCallback finds the provider's error in a callback.
func refusedCallback(callback url.Values) error {
	for name, values := range callback {
		if len(values) > 1 {
			return &CallbackError{Code: "duplicate_parameter", Description: clean(name)}
		}
	}
	if code := callback.Get("error"); code != "" {
		return &CallbackError{Code: cleanCode(code), Description: clean(callback.Get("error_description"))}
	}
	return nil
}

// config is what x/oauth2 makes the standard's request of. The address it has
// is that of the entry, which the call fills itself.
func (b base) config(c *tokenCall, id string, secret Secret) (*oauth2.Config, error) {
	u, err := c.token.URL.Fill(b.env(c.grant, c.values("")))
	if err != nil {
		return nil, fmt.Errorf("token URL of provider %s: %w", b.provider.ID, err)
	}
	out := &oauth2.Config{
		ClientID: id, ClientSecret: secret.Reveal(),
		Endpoint: oauth2.Endpoint{TokenURL: u.String(), AuthStyle: authStyle(c.token.ClientAuth)},
	}
	if !sendsSecret(c.token.ClientAuth) {
		out.ClientSecret = ""
	}
	return out, nil
}

// authStyle is how the client proves itself. It is never probed: that would
// burn codes and refresh tokens, and may lock the client (S38).
func authStyle(clientAuth string) oauth2.AuthStyle {
	if clientAuth == "basic" {
		return oauth2.AuthStyleInHeader
	}
	return oauth2.AuthStyleInParams
}

func sendsSecret(clientAuth string) bool {
	return clientAuth != "none" && clientAuth != "private_key_jwt"
}

// Bind also says whether the grant can be renewed.
func (s oauth2Code) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	switch s.refreshMode() {
	case catalog.RefreshNone:
	case catalog.RefreshReissue:
		b.Renewable = true
	case catalog.RefreshExchangesAccess:
		b.Renewable = g.AccessToken != ""
	default:
		b.Renewable = g.RefreshToken != ""
	}
	return b, nil
}

func (b base) refreshMode() string {
	if b.provider.Refresh == nil {
		return catalog.RefreshByToken
	}
	return b.provider.Refresh.Mode
}

// Renew redeems the refresh token (RFC 6749 section 6), or does what the entry
// says in its place.
func (s oauth2Code) Renew(ctx context.Context, g Grant) (Grant, error) {
	mode := s.refreshMode()
	if mode == catalog.RefreshNone || mode == catalog.RefreshByToken && g.RefreshToken == "" {
		return Grant{}, ErrNotRenewable
	}
	fresh, err := s.renewOnce(ctx, g, mode)
	if err != nil {
		return Grant{}, err
	}
	if r := s.provider.Refresh; r != nil && r.EachRoot {
		s.renewRoots(ctx, g, &fresh)
	}
	return s.renewExtra(ctx, s.known(ctx, fresh)), nil
}

func (s oauth2Code) renewOnce(ctx context.Context, g Grant, mode string) (Grant, error) {
	if c := g.Client; c != nil && c.ID != "" { // the tokens were issued to another client than the integration's
		s.app.ClientID, s.app.ClientSecret = c.ID, c.Secret
	}
	call := s.newRenewal(g, s.grantValues(g))
	c, err := s.config(call, s.app.ClientID, s.app.ClientSecret)
	if err != nil {
		return Grant{}, err
	}
	if mode == catalog.RefreshByToken {
		_, err = c.TokenSource(call.context(ctx), &oauth2.Token{RefreshToken: g.RefreshToken.Reveal()}).Token()
	} else {
		if mode == catalog.RefreshExchangesAccess && call.token.ClientAuth == "none" {
			c.ClientID = "" // the access token is all that proves anything
		}
		cc := clientcredentials.Config{ClientID: c.ClientID, ClientSecret: c.ClientSecret, TokenURL: c.Endpoint.TokenURL, AuthStyle: c.Endpoint.AuthStyle}
		_, err = cc.Token(call.context(ctx))
	}
	if err != nil {
		return Grant{}, tokenError(err)
	}
	if r := s.provider.Refresh; r != nil && !r.Rotates {
		call.answer.refresh = "" // the vendor sends one that is none
	}
	return call.answer.grant(g, time.Now()), nil
}

// rootRetry is when a token beside the main one is tried again that could not
// be renewed: what was renewed before it must not be lost.
const rootRetry = 5 * time.Minute

// renewRoots renews the tokens that came along with the main one, each by its
// own refresh token. The earliest end counts.
func (s oauth2Code) renewRoots(ctx context.Context, g Grant, fresh *Grant) {
	extra := maps.Clone(g.Extra)
	for name, t := range extra {
		if t.RefreshToken == "" {
			continue
		}
		one := Grant{Config: fresh.Config, Credential: Credential{AccessToken: t.AccessToken, RefreshToken: t.RefreshToken}}
		got, err := s.renewOnce(ctx, one, catalog.RefreshByToken)
		if err != nil {
			t.Expires = time.Now().Add(rootRetry)
		} else {
			t = Token{got.AccessToken, got.RefreshToken, got.Expires}
		}
		extra[name] = t
		if !t.Expires.IsZero() && (fresh.Expires.IsZero() || t.Expires.Before(fresh.Expires)) {
			fresh.Expires = t.Expires
		}
	}
	fresh.Extra = extra
}

// grant is g with what the answer has brought. A refresh token stays if the
// answer has no other (RFC 6749 section 6); one that was replaced is kept as
// Previous.
func (a *answer) grant(g Grant, now time.Time) Grant {
	out := Grant{Config: make(map[string]string, len(g.Config)+len(a.capture)), Credential: g.Credential}
	maps.Copy(out.Config, g.Config)
	maps.Copy(out.Config, a.capture)
	if a.access != "" {
		out.AccessToken = Secret(a.access)
	}
	out.Raw, out.Issued, out.Expires = Secret(a.raw), now, a.expires
	if a.refresh != "" && a.refresh != g.RefreshToken.Reveal() {
		out.Previous, out.RefreshToken = g.RefreshToken, Secret(a.refresh)
	}
	switch {
	case a.scopes != nil:
		out.Scopes = a.scopes
	case out.Scopes == nil: // as requested (RFC 6749 section 5.1); later, as before (section 6)
		out.Scopes = out.Requested
	}
	if a.cookies != "" {
		out.Cookies = Secret(a.cookies)
	}
	if len(a.extra) > 0 {
		out.Extra = maps.Clone(g.Extra)
		if out.Extra == nil {
			out.Extra = map[string]Token{}
		}
		maps.Copy(out.Extra, a.extra)
		for _, t := range a.extra {
			if !t.Expires.IsZero() && (out.Expires.IsZero() || t.Expires.Before(out.Expires)) {
				out.Expires = t.Expires
			}
		}
	}
	return out
}

var (
	_ Redirector = oauth2Code{}
	_ Renewer    = oauth2Code{}
)
