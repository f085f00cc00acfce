package connect

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"time"
)

// Digest is the SHA-256 of a random token of 256 bits: what is kept of a token
// that only its holder may know. (No salt or stretching is needed for tokens
// that can't be guessed.)
type Digest [sha256.Size]byte

// DigestOf returns the digest of a token.
func DigestOf(token string) Digest {
	var short [64]byte // API keys fit, and need no memory of their own
	return sha256.Sum256(append(short[:0], token...))
}

// equal compares digests in constant time.
func equal(a, b Digest) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// randomHex returns n random bytes as hex digits.
func randomHex(n int) string {
	p := make([]byte, n)
	rand.Read(p) // never fails: crypto/rand crashes the program instead
	return hex.EncodeToString(p)
}

// Session is one end user's visit to the connect pages, opened by the app. Its
// token, which the link carries, is known to the visitor only.
type Session struct {
	Token        Digest
	EndUser      *EndUser
	Organization *Organization
	Tags         map[string]string
	// Allowed lists the integrations that the visitor may choose; empty: all.
	Allowed []string
	// Connection, if not empty, is the id that the connection gets; with
	// Reconnect it has to exist already and keeps its metadata.
	Connection string
	Reconnect  bool
	// AllowAccountChange lets the connection become one of another account than
	// it is of.
	AllowAccountChange bool
	// Defaults are the app's own values, by integration.
	Defaults map[string]SessionDefaults
	// Overrides are what the pages show otherwise, by integration.
	Overrides map[string]SessionOverrides
	// ReturnURL, if not empty, is the app's address that the browser is sent to
	// with a ticket; see Trust.
	ReturnURL string
	// WebhookURL, if not empty, becomes the connection's.
	WebhookURL string
	// Language is that of the pages, as a BCP 47 tag; empty: as the browser
	// wants it. Look is how they look.
	Language string
	Look     *Look
	// Result is how the latest attempt stands; nil before the first.
	Result  *Result
	Created time.Time
	Expires time.Time
}

// SessionDefaults are what the app has set beforehand for one integration.
type SessionDefaults struct {
	// Config holds connection fields that the visitor isn't asked for.
	Config map[string]string `json:"connection_config,omitempty"`
	// Scopes replaces the integration's scopes.
	Scopes []string `json:"user_scopes,omitempty"`
	// AuthorizationParams are added to the authorization URL.
	AuthorizationParams map[string]string `json:"authorization_params,omitempty"`
}

// SessionOverrides are what the pages show otherwise for one integration.
type SessionOverrides struct {
	// DocsConnect is the app's own page on how to connect.
	DocsConnect string `json:"docs_connect,omitempty"`
}

// Allows tells whether the visitor may connect the integration.
func (s *Session) Allows(integration string) bool {
	return len(s.Allowed) == 0 || slices.Contains(s.Allowed, integration)
}

// UserID is the app's name of the user that the session is for, or empty.
func (s *Session) UserID() string {
	if s.EndUser != nil {
		return s.EndUser.ID
	}
	return s.Tags["end_user_id"]
}

// Flow is one attempt to connect: from the moment the visitor sets out for the
// provider to the answer. Nothing in it is of use to who reads it. The PKCE
// verifier is derived, at the callback, from the state in the address and the
// key in the browser's cookie, and so rests nowhere; what a hold has sealed
// can't be opened without these two either.
type Flow struct {
	// ID names the flow in addresses, and the cookie that binds it.
	ID string
	// State and Browser are what the callback has to bring: the state from
	// the provider's redirect and the key from the cookie.
	State   Digest
	Browser Digest
	Session Digest

	Integration string
	Config      map[string]string
	RedirectURL string
	Expires     time.Time
	// Opener is the origin of the app's page that has started it, if one has,
	// and Waiter the digest of the name under which that page waits to be told
	// how it ends; see Start.
	Opener string
	Waiter Digest
	// Hold is what waits for a proof; stores return it from TakeHeld only.
	Hold *Hold
	// Outcome is nil while the flow is under way.
	Outcome *Outcome
}

// Outcome is how a flow ended, as the visitor is told.
type Outcome struct {
	Connection string `json:"connection,omitempty"`
	// Code is empty when the flow succeeded.
	Code string `json:"code,omitempty"`
	// Callback says that it was the provider who sent the visitor back so.
	Callback bool `json:"callback,omitempty"`
	// Detail is the provider's own word on it: cleaned, and cut to 200 characters.
	Detail string `json:"detail,omitempty"`
}

// Status of a Result.
const (
	Pending   = "pending" // at the provider, or waiting for a proof
	Connected = "connected"
	Failed    = "failed"
)

// Result is how a session's latest attempt stands, as its app is told.
type Result struct {
	Status      string `json:"status"`
	Integration string `json:"provider_config_key"`
	Connection  string `json:"connection_id,omitempty"`
	Code        string `json:"code,omitempty"`
}
