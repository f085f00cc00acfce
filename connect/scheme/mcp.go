package scheme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// mcp is OAuth 2 as the Model Context Protocol has it (specification of
// 2025-06-18, Authorization): PKCE always, the resource named (RFC 8707), and
// a client that may be registered on the way (RFC 7591). The addresses are the
// entry's, or are found from the server's own (RFC 9728, RFC 8414).
//
// A client that was registered is kept with the connection's credential in the
// vault, and serves that connection only: nothing has to be shared among
// processes or kept apart among tenants, it can't be used for another
// authorization server than its own, and it goes when the connection goes.
type mcp struct{ oauth2Code }

func newMCP(b base) (Scheme, error) {
	p := b.provider
	discovers := p.Mode == catalog.ModeMCPDiscovery
	if !discovers && (p.Authorize == nil || p.Token == nil || p.Token.URL.IsZero()) {
		return nil, fmt.Errorf("provider %s: authorize and token are needed for %s", p.ID, p.Mode)
	}
	if discovers && (p.Authorize == nil || p.Request == nil) {
		return nil, fmt.Errorf("provider %s: authorize and request are needed for %s", p.ID, p.Mode)
	}
	s := mcp{oauth2Code{b}}
	if !discovers && !s.registers() {
		if err := b.needsClient(); err != nil {
			return nil, err
		}
	}
	if r := p.Registration; r != nil && r.Mode == "cimd" {
		return nil, &UnsupportedError{Provider: p.ID, Feature: "registration.mode cimd"}
	}
	return s, nil
}

// registers tells whether a client has to be registered for each connection.
// One that the operator has registered serves all.
func (s mcp) registers() bool {
	r := s.provider.Registration
	return s.app.ClientID == "" && r != nil && (r.Mode == "rfc7591" || r.Mode == "discovery")
}

// Depart finds the authorization server and registers a client with it, as far
// as need be.
func (s mcp) Depart(ctx context.Context, f Flow) (Secret, error) {
	c := &Client{}
	if s.provider.Mode == catalog.ModeMCPDiscovery {
		found, err := s.discover(ctx, f.Config)
		if err != nil {
			return "", err
		}
		if c, err = s.clientOf(ctx, found, f); err != nil {
			return "", err
		}
	} else if s.registers() {
		u, err := s.provider.Registration.URL.Fill(s.env(f.grant(), nil))
		if err != nil {
			return "", fmt.Errorf("registration URL of provider %s: %w", s.provider.ID, err)
		}
		how := map[string]string{"none": "none", "post": "client_secret_post", "basic": "client_secret_basic"}[s.provider.Token.ClientAuth]
		if c, err = s.register(ctx, u.String(), how, f); err != nil {
			return "", err
		}
	} else {
		return "", nil
	}
	kept, err := json.Marshal(c.store())
	if err != nil {
		return "", fmt.Errorf("keeping the client: %w", err)
	}
	return Secret(kept), nil
}

// clientOf is the client for an authorization server that was found: the
// operator's, or one that is registered now.
func (s mcp) clientOf(ctx context.Context, found *server, f Flow) (*Client, error) {
	c := &Client{ID: s.app.ClientID, Secret: s.app.ClientSecret, AuthMethod: "none"}
	switch {
	case c.ID == "" && found.RegistrationEndpoint == "":
		return nil, &TokenError{Class: Misconfigured, Code: "no_registration", Description: "the authorization server registers no clients; the operator has to set client_id"}
	case c.ID == "":
		var err error
		if c, err = s.register(ctx, found.RegistrationEndpoint, found.authMethod(), f); err != nil {
			return nil, err
		}
	case c.Secret != "":
		c.AuthMethod = "client_secret_basic"
		if slices.Contains(found.AuthMethods, "client_secret_post") && !slices.Contains(found.AuthMethods, "client_secret_basic") {
			c.AuthMethod = "client_secret_post"
		}
	}
	c.Issuer, c.AuthorizationURL, c.TokenURL = found.Issuer, found.AuthorizationEndpoint, found.TokenEndpoint
	c.Resource, c.RequiresISS, c.Scopes = found.resource, found.SendsISS, found.scopes
	return c, nil
}

// client returns what Depart has kept, nil if it had nothing to.
func (f Flow) client() *Client {
	var stored storedClient
	if f.Kept == "" || json.Unmarshal([]byte(f.Kept.Reveal()), &stored) != nil {
		return nil
	}
	return stored.client()
}

// as is the scheme for one client and the server that it is registered with.
func (s mcp) as(c *Client) (oauth2Code, error) {
	b := s.base
	p := *b.provider
	b.provider = &p
	if p.Token == nil {
		p.Token = &catalog.Token{Method: "POST", Body: "form", ClientAuth: "none"}
	}
	authorize, token := *p.Authorize, *p.Token
	p.Authorize, p.Token = &authorize, &token
	authorize.PKCE = true // S13: never without
	resource, hasResource := authorize.Params.Get("resource")
	if c != nil {
		if c.ID != b.app.ClientID {
			b.app.ClientID, b.app.ClientSecret = c.ID, c.Secret
		}
		token.ClientAuth = map[string]string{"none": "none", "client_secret_post": "post", "client_secret_basic": "basic"}[c.AuthMethod]
		if c.TokenURL != "" {
			var err error
			if authorize.URL, err = literal(c.AuthorizationURL); err != nil {
				return oauth2Code{}, fmt.Errorf("authorization endpoint: %w", err)
			}
			if token.URL, err = literal(c.TokenURL); err != nil {
				return oauth2Code{}, fmt.Errorf("token endpoint: %w", err)
			}
		}
		if len(c.Scopes) > 0 && len(b.app.Scopes) == 0 {
			b.app.Scopes = c.Scopes
		}
		if c.Resource != "" {
			v, err := catalog.ParseValue(escapeBraces(c.Resource))
			if err != nil {
				return oauth2Code{}, fmt.Errorf("resource: %w", err)
			}
			resource, hasResource = catalog.TextParam(v), true
			authorize.Params = with(authorize.Params, "resource", resource)
		}
	}
	if hasResource { // for the token as well, and for each that follows (RFC 8707 section 2.2, S43)
		token.Params = with(token.Params, "resource", resource)
		if r := p.Refresh; r != nil && len(r.Params) > 0 {
			refresh := *r
			refresh.Params = with(r.Params, "resource", resource)
			p.Refresh = &refresh
		}
	}
	return oauth2Code{b}, nil
}

func with(params catalog.Params, name string, v catalog.Param) catalog.Params {
	if _, ok := params.Get(name); ok {
		return params
	}
	return append(slices.Clone(params), catalog.Pair{Name: name, Value: v})
}

// literal is an address as it was found. What no entry could name is refused: an
// address in numbers, one with a user's name, with a fragment.
func literal(address string) (catalog.URL, error) { return catalog.ParseURL(escapeBraces(address)) }

func escapeBraces(s string) string { return strings.NewReplacer("{", "{{", "}", "}}").Replace(s) }

// AuthURL returns the authorization request.
func (s mcp) AuthURL(f Flow) (string, error) {
	code, err := s.as(f.client())
	if err != nil {
		return "", err
	}
	return code.AuthURL(f)
}

// Check also makes sure that the callback comes from the authorization server
// that the user was sent to (RFC 9207). If it doesn't, nothing else in it is
// looked at (S8 to S10).
func (s mcp) Check(f Flow, callback url.Values) error {
	c := f.client()
	if c == nil && (s.registers() || s.provider.Mode == catalog.ModeMCPDiscovery) {
		return &CallbackError{Code: "missing_client"}
	}
	if c != nil && c.Issuer != "" {
		iss := callback["iss"]
		if len(iss) > 1 || len(iss) == 1 && iss[0] != c.Issuer || len(iss) == 0 && c.RequiresISS {
			return &CallbackError{Code: "issuer_mismatch"}
		}
	}
	return s.oauth2Code.Check(f, callback)
}

// Exchange redeems the code where the user has consented, and keeps the client.
func (s mcp) Exchange(ctx context.Context, f Flow, callback url.Values) (Grant, error) {
	if err := s.Check(f, callback); err != nil {
		return Grant{}, err
	}
	code, err := s.as(f.client())
	if err != nil {
		return Grant{}, err
	}
	g, err := code.Exchange(ctx, f, callback)
	if err != nil {
		return Grant{}, err
	}
	g.Client = f.client()
	return g, nil
}

// Renew redeems the refresh token with the connection's own client. If the
// server doesn't know that any more, only the user can help.
func (s mcp) Renew(ctx context.Context, g Grant) (Grant, error) {
	code, err := s.as(g.Client)
	if err != nil {
		return Grant{}, err
	}
	fresh, err := code.Renew(ctx, g)
	var te *TokenError
	if errors.As(err, &te) && te.Code == "invalid_client" && g.Client != nil && s.app.ClientID == "" {
		te.Class = Revoked
	}
	return fresh, err
}

var (
	_ Departer = mcp{}
	_ Renewer  = mcp{}
)
