package connect

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// ID names a connection as apps do: the integration's key (the header
// Provider-Config-Key) and the connection's own id in it (Connection-Id).
type ID struct {
	Integration string
	Connection  string
}

func (id ID) String() string { return id.Integration + "/" + id.Connection }

// Status tells whether a connection can be used.
type Status string

// The statuses of a connection.
const (
	// StatusActive: its credential works as far as is known.
	StatusActive Status = "active"
	// StatusNeedsReauth: the provider has refused the credential for good;
	// only the end user can help, by connecting again.
	StatusNeedsReauth Status = "needs_reauth"
	// StatusDisabled: switched off by the operator or the app, until it is
	// switched on again. Nothing is renewed meanwhile.
	StatusDisabled Status = "disabled"
)

// EndUser is the app's user that a connection belongs to, as the app named it.
type EndUser struct {
	ID           string            `json:"id"`
	Email        string            `json:"email,omitempty"`
	DisplayName  string            `json:"display_name,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	Organization *Organization     `json:"organization,omitempty"`
}

// Organization groups end users.
type Organization struct {
	ID          string `json:"id"`
	DisplayName string `json:"display_name,omitempty"`
}

// Account is whose account a connection is of, as its provider names it.
type Account = scheme.Account

// Connection is one account of one end user at one provider. It holds nothing
// secret: that rests in the vault, under VaultName.
type Connection struct {
	_ struct{} `cbor:",toarray"` // see packed

	ID
	// UID tells this connection from any other that had the same ID before
	// or will have it later: 32 hex digits, made when it is created. Since it
	// is part of the vault's name, whatever finishes late for a deleted
	// connection can't touch the one that took its place.
	UID string
	// Serial is the store's own number, rising with creation.
	Serial   int64
	Provider string
	Status   Status
	// Cause is the code of what took the connection out of StatusActive.
	Cause string
	// Config holds the connection's plain values, such as a subdomain.
	Config   map[string]string
	Metadata json.RawMessage // a JSON object, or nil
	Tags     map[string]string
	EndUser  *EndUser
	// Version counts the credentials that the connection has had, as far as the
	// store has heard: a hint. The credential in the vault has its own number in
	// it, and that is the truth.
	Version uint64
	// Account is whose account it is at the provider; nil: not known. When it is
	// connected again, it has to be the same.
	Account *Account
	// MissingScopes are those that it was to have and the provider hasn't
	// granted: what needs them fails, the rest works.
	MissingScopes []string
	// Expires is when the access token ends; zero: unknown or never.
	Expires time.Time
	// Due is when it is to be renewed whether it is used or not; zero: never.
	Due time.Time
	// WebhookURL, if not empty, is where the events of this connection go, in the
	// place of the configured endpoints.
	WebhookURL string
	// Trouble is why it isn't renewed; nil: it is.
	Trouble          *Trouble
	Created, Updated time.Time

	told []Event // what the store has to tell of along with it
}

// UserID is the app's name of the end user that the connection belongs to, or
// empty.
func (c *Connection) UserID() string {
	if c.EndUser != nil {
		return c.EndUser.ID
	}
	return c.Tags["end_user_id"]
}

// MetadataText returns a member of the metadata that is text, a number or a truth
// value, as text.
func (c *Connection) MetadataText(name string) (string, bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(c.Metadata, &members) != nil {
		return "", false
	}
	raw, ok := members[name]
	if !ok {
		return "", false
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, string(raw) != "null"
	}
	return string(raw), raw[0] != '{' && raw[0] != '['
}

// VaultName is where the connection's secret rests in the vault. It names the
// integration too, so that a vault's policies can tell integrations apart.
func (c *Connection) VaultName() string {
	return "connections/" + vaultSegment(c.Integration) + "/" + c.UID
}

// SearchText is what Query.Search looks in: the connection's id and its end
// user's name and e-mail, in lower case as Go has it (databases differ), with
// U+001F between them.
func (c *Connection) SearchText() string {
	var user EndUser
	if c.EndUser != nil {
		user = *c.EndUser
	}
	return strings.ToLower(strings.Join([]string{c.ID.Connection, user.DisplayName, user.Email}, "\x1f"))
}

// vaultSegment writes s with the characters that a vault's names may have;
// different strings stay different.
func vaultSegment(s string) string {
	const hex = "0123456789abcdef"
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '_':
			out = append(out, b)
		default:
			out = append(out, '~', hex[b>>4], hex[b&15])
		}
	}
	return string(out)
}
