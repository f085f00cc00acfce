package scheme

import (
	"fmt"
	"io"
)

// Client is a client that was registered for one connection (RFC 7591), and the
// authorization server that it is registered with. All later requests go to
// where the server was when the user consented, never elsewhere (S34, S35).
type Client struct {
	Issuer, AuthorizationURL, TokenURL string
	// Resource is the audience that tokens are asked for (RFC 8707).
	Resource string
	ID       string
	Secret   Secret
	// AuthMethod is none, client_secret_post or client_secret_basic.
	AuthMethod string
	// RegistrationToken and RegistrationURL manage the client (RFC 7592).
	RegistrationToken Secret
	RegistrationURL   string
	// RequiresISS says that callbacks carry the issuer (RFC 9207).
	RequiresISS bool
	// Scopes are those that the resource asks for.
	Scopes []string
}

// Format keeps the client's secrets out of print.
func (Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// storedClient is a Client as it is written to the vault, within stored.
type storedClient struct {
	Issuer            string   `json:"issuer,omitempty"`
	AuthorizationURL  string   `json:"authorization_url,omitempty"`
	TokenURL          string   `json:"token_url,omitempty"`
	Resource          string   `json:"resource,omitempty"`
	ID                string   `json:"id,omitempty"`
	Secret            string   `json:"secret,omitempty"`
	AuthMethod        string   `json:"auth_method,omitempty"`
	RegistrationToken string   `json:"registration_token,omitempty"`
	RegistrationURL   string   `json:"registration_url,omitempty"`
	RequiresISS       bool     `json:"requires_iss,omitempty"`
	Scopes            []string `json:"scopes,omitempty"`
}

func (c *Client) store() *storedClient {
	if c == nil {
		return nil
	}
	return &storedClient{
		c.Issuer, c.AuthorizationURL, c.TokenURL, c.Resource, c.ID, c.Secret.Reveal(), c.AuthMethod,
		c.RegistrationToken.Reveal(), c.RegistrationURL, c.RequiresISS, c.Scopes,
	}
}

func (s *storedClient) client() *Client {
	if s == nil {
		return nil
	}
	return &Client{
		s.Issuer, s.AuthorizationURL, s.TokenURL, s.Resource, s.ID, Secret(s.Secret), s.AuthMethod,
		Secret(s.RegistrationToken), s.RegistrationURL, s.RequiresISS, s.Scopes,
	}
}
