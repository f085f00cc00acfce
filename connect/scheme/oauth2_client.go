package scheme

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"golang.org/x/oauth2/clientcredentials"
)

// clientCredentials is the client credentials grant of OAuth 2 (RFC 6749
// section 4.4), where each end user brings a client id and secret of his own.
// There is no refresh token: renewing is asking again.
type clientCredentials struct{ base }

func newClientCredentials(b base) (Scheme, error) {
	p := b.provider
	switch t := p.Token; {
	case t == nil:
		return nil, fmt.Errorf("provider %s: token is needed for %s", p.ID, p.Mode)
	case t.MTLS:
		return nil, &UnsupportedError{Provider: p.ID, Feature: "token.mtls"}
	case t.ClientAuth == "private_key_jwt":
		return nil, &UnsupportedError{Provider: p.ID, Feature: "token.client_auth private_key_jwt"}
	case t.NoGrantType || len(t.ClientAuthNames) > 0 || len(p.TokenSteps) > 0:
		return nil, &UnsupportedError{Provider: p.ID, Feature: "a token request of its own"}
	}
	return clientCredentials{b}, nil
}

// Accept asks for the first token, which proves what was entered.
func (s clientCredentials) Accept(ctx context.Context, answers map[string]string) (Grant, error) {
	g, err := s.accept(answers)
	if err != nil {
		return Grant{}, err
	}
	return s.ask(ctx, g)
}

// Renew asks for another token. The client is the end user's own: if the
// provider doesn't know it any more, only the user can help.
func (s clientCredentials) Renew(ctx context.Context, g Grant) (Grant, error) {
	g, err := s.ask(ctx, g)
	var te *TokenError
	if errors.As(err, &te) && (te.Code == "invalid_client" || te.Code == "unauthorized_client") {
		te.Class = Revoked
	}
	return g, err
}

func (s clientCredentials) ask(ctx context.Context, g Grant) (Grant, error) {
	t := s.provider.Token
	endpoint, err := s.endpoint(g, t, nil)
	if err != nil {
		return Grant{}, err
	}
	call, err := s.tokenCall(g, t, t.Params, nil)
	if err != nil {
		return Grant{}, err
	}
	c := clientcredentials.Config{
		ClientID:       g.Fields["client_id"].Reveal(),
		ClientSecret:   g.Fields["client_secret"].Reveal(),
		TokenURL:       endpoint.TokenURL,
		AuthStyle:      endpoint.AuthStyle,
		EndpointParams: url.Values{},
	}
	if scopes := s.scopes(nil); scopes != "" {
		c.Scopes = []string{scopes}
	}
	if _, err := c.Token(call.context(ctx)); err != nil {
		return Grant{}, tokenError(err)
	}
	return call.answer.grant(g, time.Now()), nil
}

// Bind also says that the grant can be renewed.
func (s clientCredentials) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	b.Renewable = true
	return b, nil
}

var (
	_ Prompter = clientCredentials{}
	_ Renewer  = clientCredentials{}
)
