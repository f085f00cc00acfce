package connect

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// ClientCheck is what a provider says of an integration's client.
type ClientCheck struct {
	// Known tells whether it can be told at all; Accepted, whether the client is
	// right.
	Known, Accepted bool
	// Code is the provider's answer, and Message what it means.
	Code, Message string
}

// CheckClient asks an integration's provider for a token with a code that nobody
// was given. RFC 6749 section 5.2 has servers look at the client first: they
// answer invalid_client, or that the code is wrong.
//
// Errors: *UnknownIntegrationError.
func (c *Connector) CheckClient(ctx context.Context, integration string) (ClientCheck, error) {
	in, err := c.Setup.Integration(integration)
	if err != nil {
		return ClientCheck{}, err
	}
	r, ok := in.Scheme.(scheme.Redirector)
	if !ok {
		return ClientCheck{Message: "There is no client to check: each connection brings what it needs."}, nil
	}
	state, binding := randomHex(32), randomHex(32)
	f := Flow{ID: randomHex(16), Integration: in.Key, RedirectURL: c.Setup.CallbackURL(in)}
	_, err = r.Exchange(ctx, schemeFlow(&f, state, binding, SessionDefaults{}), url.Values{"state": {state}, "code": {"keycaddy-client-check"}})
	var token *scheme.TokenError
	switch {
	case !errors.As(err, &token):
		return ClientCheck{Message: "The provider can't be asked without an account of one of its users. Connect one to be sure."}, nil
	case token.Status == 0 || token.Status >= http.StatusInternalServerError:
		return ClientCheck{Code: token.Code, Message: "The provider did not answer. Try again later."}, nil
	case token.Code == "invalid_client" || token.Code == "unauthorized_client" || token.Status == http.StatusUnauthorized:
		return ClientCheck{Known: true, Code: token.Code, Message: "The provider doesn't know this client, or its secret is another one."}, nil
	case token.Code == "invalid_grant" || token.Code == "bad_verification_code":
		return ClientCheck{Known: true, Accepted: true, Code: token.Code, Message: "The provider knows the client and its secret."}, nil
	}
	return ClientCheck{Code: token.Code, Message: "The provider's answer says nothing of the client. Connect an account to be sure."}, nil
}
