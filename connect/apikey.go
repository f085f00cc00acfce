package connect

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect/policy"
)

// APIKey lets an app call the API and the proxy.
type APIKey struct {
	Name    string
	Key     Digest
	Created time.Time
	// Scopes are what the key may do. Stores don't keep them.
	Scopes policy.Scopes
	// Integrations, if not empty, are the only ones that the key can be used
	// for, through the proxy and not for the API. Stores don't keep it.
	Integrations []string
}

// Needs returns a *policy.ScopeError if the key has not the scope.
func (k *APIKey) Needs(scope policy.Scope) error {
	if !k.Scopes.Has(scope) {
		return &policy.ScopeError{Required: scope}
	}
	return nil
}

// Allows tells whether the key may call connections of an integration.
func (k *APIKey) Allows(integration string) bool {
	return len(k.Integrations) == 0 || slices.Contains(k.Integrations, integration)
}

// AuthError is a caller that isn't known. The codes are Nango's.
type AuthError struct{ Code, Message string }

func (e *AuthError) Error() string { return e.Code }

// Keyring tells which API keys are good. It doesn't change.
type Keyring struct {
	// Looking a digest up in a map is not done in constant time, but what its
	// time tells is about the digest, which nobody can aim a key at.
	keys map[Digest]APIKey
}

// NewKeyring makes a keyring of keys as they are stored.
func NewKeyring(keys []APIKey) *Keyring {
	k := &Keyring{keys: make(map[Digest]APIKey, len(keys))}
	for _, key := range keys {
		k.keys[key.Key] = key
	}
	return k
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// IsAPIKey tells whether s has the form of an API key: a UUID of version 4, as
// the SDKs demand.
func IsAPIKey(s string) bool { return uuid4.MatchString(strings.ToLower(s)) }

// Check returns the key in an Authorization header, or an *AuthError.
func (k *Keyring) Check(authorization string) (APIKey, error) {
	key, err := bearer(authorization)
	if err != nil {
		return APIKey{}, err
	}
	if known, ok := k.keys[DigestOf(key)]; ok {
		return known, nil
	}
	if !IsAPIKey(key) {
		return APIKey{}, &AuthError{"invalid_secret_key_format", "Authentication failed. The key is not a UUID of version 4."}
	}
	return APIKey{}, &AuthError{"unknown_account", "Authentication failed. The API key is not known."}
}

// SessionToken returns the connect session's token in an Authorization header,
// or an *AuthError.
func SessionToken(authorization string) (string, error) {
	token, err := bearer(authorization)
	if err == nil && !strings.HasPrefix(token, SessionPrefix) {
		err = &AuthError{"invalid_connect_session_token_format", "Authentication failed. That is not a connect session's token."}
	}
	return token, err
}

func bearer(authorization string) (string, error) {
	if authorization == "" {
		return "", &AuthError{"missing_auth_header", "Authentication failed. The request has no Authorization header; send `Authorization: Bearer <API key>`."}
	}
	// As Nango reads it: whatever follows "Bearer ", and a bare key too.
	if i := strings.LastIndex(authorization, "Bearer "); i >= 0 {
		authorization = authorization[i+len("Bearer "):]
	}
	return strings.TrimSpace(authorization), nil
}
