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
	if p := b.provider; p.Token == nil {
		return nil, fmt.Errorf("provider %s: token is needed for %s", p.ID, p.Mode)
	}
	return clientCredentials{b}, nil
}

// Accept asks for the first token, which proves what was entered.
func (s clientCredentials) Accept(ctx context.Context, answers map[string]string) (Grant, error) {
	g, err := s.accept(answers)
	if err != nil {
		return Grant{}, err
	}
	return s.ask(ctx, g, s.newTokenCall(g, s.grantValues(g)))
}

// Renew asks for another token. The client is the end user's own: if the
// provider doesn't know it any more, only the user can help.
func (s clientCredentials) Renew(ctx context.Context, g Grant) (Grant, error) {
	fresh, err := s.ask(ctx, g, s.newRenewal(g, s.grantValues(g)))
	var te *TokenError
	if errors.As(err, &te) && (te.Code == "invalid_client" || te.Code == "unauthorized_client") {
		te.Class = Revoked
	}
	return fresh, err
}

func (s clientCredentials) ask(ctx context.Context, g Grant, call *tokenCall) (Grant, error) {
	g = s.asking(g, nil)
	o, err := s.config(call, g.Fields["client_id"].Reveal(), g.Fields["client_secret"])
	if err != nil {
		return Grant{}, err
	}
	c := clientcredentials.Config{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, TokenURL: o.Endpoint.TokenURL, AuthStyle: o.Endpoint.AuthStyle,
		EndpointParams: url.Values{},
	}
	if scopes := s.scopes(nil, g.Config); scopes != "" {
		c.Scopes = []string{scopes}
	}
	if _, err := c.Token(call.context(ctx)); err != nil {
		return Grant{}, tokenError(err)
	}
	return s.known(ctx, call.answer.grant(g, time.Now())), nil
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
