package scheme

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Secret is a value that must not be seen: a key, a password, a token. However
// it is printed or encoded it reads "[secret]"; Reveal is the one way to it,
// so that a search for Reveal finds every place where a secret goes anywhere.
type Secret string

const redacted = "[secret]"

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// Format writes "[secret]" for every verb of package fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String returns "[secret]".
func (s Secret) String() string { return redacted }

// GoString returns "[secret]".
func (s Secret) GoString() string { return redacted }

// MarshalJSON writes "[secret]"; Credential.Encode is how secrets are stored.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText writes "[secret]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Grant is what a provider gave for one connection: the secret side, and the
// plain values (a subdomain, an account id) that addresses are made of.
type Grant struct {
	Credential
	Config map[string]string
}

// Credential is the secret side of a connection, all of it: one of these is
// one version in the vault.
type Credential struct {
	// Version counts the credentials that the connection has had, from 1. It
	// tells which of two is the newer, whatever a vault's own versions say.
	Version uint64
	// Consent is a random name of the end user's consent that it came of: a
	// renewal keeps it, connecting again makes another.
	Consent string
	// Fields are the secrets that the end user entered (cred.* in templates).
	Fields map[string]Secret
	// AccessToken and RefreshToken came from the provider's token endpoint.
	AccessToken  Secret
	RefreshToken Secret
	// Previous is the refresh token before the last rotation. Providers with a
	// grace window accept it once more, which is how an answer that got lost
	// on the wire can be had again.
	Previous Secret
	// Raw is the token endpoint's last answer, as JSON.
	Raw Secret
	// Cookies are those of the login, as a Cookie header has them.
	Cookies Secret
	// Assertion was signed with a key that isn't kept: see the field's ephemeral
	// in package catalog.
	Assertion Secret
	// Extra are further tokens that came along, by name: Slack's token of the
	// user beside the bot's, a token for another resource.
	Extra map[string]Token
	// Client is what keycaddy was registered as for this connection.
	Client *Client
	// Scopes are those that were granted: as the provider told, or as requested
	// if it didn't. Requested are those that were asked for.
	Scopes, Requested []string
	// Issued is when the credential was received; Expires is when the access
	// token ends, by the clock of this machine. Zero: unknown or never.
	Issued, Expires time.Time
}

// Format keeps what is in there out of print. The fields' own Format doesn't
// do: fmt skips it below a pointer that the verb doesn't fit.
func (Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// Token is one more token of a credential.
type Token struct {
	AccessToken, RefreshToken Secret
	Expires                   time.Time // zero: unknown or never
}

// Format keeps the token out of print.
func (Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// stored is the credential as it is written to the vault. Its keys are a
// format: they may be added to, never renamed.
type stored struct {
	_ struct{} `cbor:",toarray"` // see Compact

	Format       int               `json:"v"`
	Version      uint64            `json:"version,omitempty"`
	Consent      string            `json:"consent,omitempty"`
	Fields       map[string]string `json:"fields,omitempty"`
	AccessToken  string            `json:"access_token,omitempty"`
	RefreshToken string            `json:"refresh_token,omitempty"`
	Previous     string            `json:"previous_refresh_token,omitempty"`
	Raw          string            `json:"raw,omitempty"`
	Cookies      string            `json:"cookies,omitempty"`
	Assertion    string            `json:"assertion,omitempty"`
	Scopes       []string          `json:"scopes,omitempty"`
	Requested    []string          `json:"requested_scopes,omitempty"`
	Issued       time.Time         `json:"issued,omitzero"`
	Expires      time.Time         `json:"expires,omitzero"`

	Extra  map[string]storedToken `json:"extra,omitempty"`
	Client *storedClient          `json:"client,omitempty"`
}

type storedToken struct {
	AccessToken  string    `json:"access_token,omitempty"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`
}

const storedFormat = 1

// Encode writes the credential, in clear, for a vault to seal.
func (c *Credential) Encode() ([]byte, error) { return json.Marshal(c.stored()) }

func (c *Credential) stored() stored {
	s := stored{
		Format:       storedFormat,
		Version:      c.Version,
		Consent:      c.Consent,
		AccessToken:  c.AccessToken.Reveal(),
		RefreshToken: c.RefreshToken.Reveal(),
		Previous:     c.Previous.Reveal(),
		Raw:          c.Raw.Reveal(),
		Cookies:      c.Cookies.Reveal(),
		Assertion:    c.Assertion.Reveal(),
		Client:       c.Client.store(),
		Scopes:       c.Scopes,
		Requested:    c.Requested,
		Issued:       c.Issued,
		Expires:      c.Expires,
	}
	if len(c.Fields) > 0 {
		s.Fields = make(map[string]string, len(c.Fields))
		for k, v := range c.Fields {
			s.Fields[k] = v.Reveal()
		}
	}
	if len(c.Extra) > 0 {
		s.Extra = make(map[string]storedToken, len(c.Extra))
		for k, t := range c.Extra {
			s.Extra[k] = storedToken{t.AccessToken.Reveal(), t.RefreshToken.Reveal(), t.Expires}
		}
	}
	return s
}

// DecodeCredential reads what Encode wrote.
func DecodeCredential(data []byte) (Credential, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		// The error of encoding/json may quote the data.
		return Credential{}, fmt.Errorf("decoding credential: not the stored format")
	}
	if s.Format != storedFormat {
		return Credential{}, fmt.Errorf("decoding credential: format %d, this version of keycaddy reads format %d", s.Format, storedFormat)
	}
	return s.credential(), nil
}

func (s *stored) credential() Credential {
	c := Credential{
		Version:      s.Version,
		Consent:      s.Consent,
		AccessToken:  Secret(s.AccessToken),
		RefreshToken: Secret(s.RefreshToken),
		Previous:     Secret(s.Previous),
		Raw:          Secret(s.Raw),
		Cookies:      Secret(s.Cookies),
		Assertion:    Secret(s.Assertion),
		Client:       s.Client.client(),
		Scopes:       s.Scopes,
		Requested:    s.Requested,
		Issued:       s.Issued,
		Expires:      s.Expires,
	}
	if len(s.Fields) > 0 {
		c.Fields = make(map[string]Secret, len(s.Fields))
		for k, v := range s.Fields {
			c.Fields[k] = Secret(v)
		}
	}
	if len(s.Extra) > 0 {
		c.Extra = make(map[string]Token, len(s.Extra))
		for k, t := range s.Extra {
			c.Extra[k] = Token{Secret(t.AccessToken), Secret(t.RefreshToken), t.Expires}
		}
	}
	return c
}
