package scheme

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"time"
)

// githubAppOAuth is a GitHub App that also acts for its user: installing it
// brings a code, and so a token of the user, with which calls are made. The
// installation's token is kept beside it, under the name that the entry gives
// it in token_alt.
type githubAppOAuth struct{ oauth2Code }

func newGitHubAppOAuth(b base) (Scheme, error) {
	if len(b.provider.TokenAlt) == 0 {
		return nil, fmt.Errorf("provider %s: token_alt is needed for %s", b.provider.ID, b.provider.Mode)
	}
	if err := b.checkOwnKey(); err != nil {
		return nil, err
	}
	s, err := newOAuth2(b)
	if err != nil {
		return nil, err
	}
	return githubAppOAuth{s.(oauth2Code)}, nil
}

// AuthURL is where the app is installed; GitHub adds what OAuth needs.
func (s githubAppOAuth) AuthURL(f Flow) (string, error) { return s.installURL(f) }

// Check finds out whether the callback brings a code and an installation.
func (s githubAppOAuth) Check(f Flow, callback url.Values) error {
	if err := s.checkInstall(callback); err != nil {
		return err
	}
	return s.oauth2Code.Check(f, callback)
}

// Exchange redeems the code and fetches the installation's token.
func (s githubAppOAuth) Exchange(ctx context.Context, f Flow, callback url.Values) (Grant, error) {
	if err := s.Check(f, callback); err != nil {
		return Grant{}, err
	}
	g, err := s.oauth2Code.Exchange(ctx, f, callback)
	if err != nil {
		return Grant{}, err
	}
	return s.withAlternatives(ctx, g)
}

// Renew redeems the refresh token, if the app's tokens end, and fetches the
// installation's token again.
func (s githubAppOAuth) Renew(ctx context.Context, g Grant) (Grant, error) {
	if g.RefreshToken == "" {
		return Grant{}, ErrNotRenewable
	}
	fresh, err := s.oauth2Code.Renew(ctx, g)
	if err != nil {
		return Grant{}, err
	}
	withAlt, err := s.withAlternatives(ctx, fresh)
	if err != nil {
		return fresh, nil // the user's token is new, and the old refresh token spent: it must not be lost
	}
	return withAlt, nil
}

// withAlternatives fetches the tokens of token_alt.
func (b base) withAlternatives(ctx context.Context, g Grant) (Grant, error) {
	extra := maps.Clone(g.Extra)
	if extra == nil {
		extra = map[string]Token{}
	}
	assertion, err := b.signed(g, b.grantValues(g))
	if err != nil {
		return Grant{}, err
	}
	values := also(func(ns, path string) (string, bool) {
		return assertion, ns == "signed" && path == "assertion"
	}, b.grantValues(g))
	for name, t := range b.provider.TokenAlt {
		u, err := t.URL.Fill(b.env(g, values))
		if err != nil {
			return Grant{}, fmt.Errorf("token_alt.%s of provider %s: %w", name, b.provider.ID, err)
		}
		m := &message{method: t.Method, url: u, body: t.Body, params: t.Params, headers: t.Headers}
		req, err := m.build(ctx, b, g, values)
		if err != nil {
			return Grant{}, fmt.Errorf("token_alt.%s of provider %s: %w", name, b.provider.ID, err)
		}
		doc, err := b.fetch(req, g, false)
		if err != nil {
			return Grant{}, scrubbed(err, b.secrets(g, assertion))
		}
		path := t.AccessToken
		if path == "" {
			path = "access_token"
		}
		v, _ := doc.text(path)
		if v == "" || !usableToken(v) {
			return Grant{}, &TokenError{Class: Transient, Code: "no_access_token", Description: "the provider's answer has no token of the installation in it"}
		}
		now := time.Now()
		one := Token{AccessToken: Secret(v)}
		if at, ok := doc.text(t.ExpiresAt); ok && t.ExpiresAt != "" {
			if ends, ok := parseTime(at, now); ok && ends.After(now) {
				one.Expires = clampTime(ends, now)
			}
		}
		extra[name] = one
	}
	g.Extra = extra
	return g, nil
}

var (
	_ Redirector = githubAppOAuth{}
	_ Renewer    = githubAppOAuth{}
)
