package connect

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect/policy"
)

// APIKey lets an app call the API and the proxy. What is kept of the key itself
// is its digest: it is random, and can't be guessed from it.
type APIKey struct {
	Name string
	Key  Digest
	// Former is the key from before it was rotated, which works until
	// FormerUntil; the zero Digest: none.
	Former      Digest
	FormerUntil time.Time
	Scopes      policy.Scopes
	Limits      policy.Limits
	Created     time.Time
	// Expires is when it ends; zero: never. Used is when it was used last, to
	// the minute; zero: not yet.
	Expires, Used time.Time
}

// KeyStore is the part of a Store that has API keys.
type KeyStore interface {
	// PutAPIKey adds a key; ErrExists if its name, or one of its digests, is
	// taken. Used isn't kept.
	PutAPIKey(ctx context.Context, k APIKey) error
	// APIKeys returns all keys, the oldest first, and the version that the list
	// has at least.
	APIKeys(ctx context.Context) (keys []APIKey, version int64, err error)
	// APIKeysVersion returns the version of the list of keys: another one each
	// time that the list was changed. Use is no change.
	APIKeysVersion(ctx context.Context) (int64, error)
	// UpdateAPIKey reads the key with the name, lets change edit it, and writes
	// it back as one atomic step. It may call change more than once; an error
	// from change ends it and nothing is written. Name, Created and Used stay.
	// ErrNotFound if it is gone, ErrExists if a new digest is taken.
	UpdateAPIKey(ctx context.Context, name string, change func(*APIKey) error) (APIKey, error)
	// DeleteAPIKey removes a key, or returns ErrNotFound.
	DeleteAPIKey(ctx context.Context, name string) error
	// NoteAPIKeyUse keeps when keys, by their names, were used last, unless it
	// has a later time. Those that are gone are passed over.
	NoteAPIKeyUse(ctx context.Context, used map[string]time.Time) error
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// IsAPIKey tells whether s has the form of an API key: a UUID of version 4, as
// the SDKs demand.
func IsAPIKey(s string) bool { return uuid4.MatchString(strings.ToLower(s)) }

// Keyring tells which API keys are good: those of the configuration, which don't
// change, and those of the store as they are just now.
type Keyring struct {
	fixed  ring
	stored *StoredKeys // nil: none
}

// NewKeyring makes a keyring of the keys of a configuration and of those that
// are stored, which may be nil.
func NewKeyring(fixed []APIKey, stored *StoredKeys) *Keyring {
	return &Keyring{fixed: newRing(fixed, nil), stored: stored}
}

// ring is what keys are known by. It doesn't change.
//
// Looking a digest up in a map is not done in constant time, but what its time
// tells is about the digest, which nobody can aim a key at.
type ring map[Digest]ringKey

type ringKey struct {
	*Caller
	until time.Time // zero: forever
}

// newRing makes a ring, in which keys that the one before had too go on where
// they were.
func newRing(keys []APIKey, before ring) ring {
	known := make(map[string]*Caller, len(before))
	for _, k := range before {
		known[k.Name] = k.Caller
	}
	r := make(ring, len(keys))
	for _, k := range keys {
		c := NewCaller(k.Name, k.Scopes, k.Limits)
		if b := known[k.Name]; b != nil {
			c.usage = b.usage
		}
		if !k.Used.IsZero() {
			c.noted.Store(max(c.noted.Load(), k.Used.UnixMicro()))
		}
		r[k.Key] = ringKey{c, k.Expires}
		if k.Former != (Digest{}) {
			until := k.FormerUntil
			if !k.Expires.IsZero() && k.Expires.Before(until) {
				until = k.Expires
			}
			r[k.Former] = ringKey{c, until}
		}
	}
	return r
}

// without are the callers that are in the ring and not in a later one.
func (r ring) without(later ring) map[string]*Caller {
	gone := make(map[string]*Caller)
	for _, k := range r {
		gone[k.Name] = k.Caller
	}
	for _, k := range later {
		delete(gone, k.Name)
	}
	return gone
}

// Check returns whose the key in an Authorization header is, or an *AuthError.
func (k *Keyring) Check(authorization string, now time.Time) (*Caller, error) {
	key, err := bearer(authorization)
	if err != nil {
		return nil, err
	}
	known, ok := k.find(DigestOf(key))
	if !ok && !IsAPIKey(key) {
		return nil, &AuthError{"invalid_secret_key_format", "Authentication failed. The key is not a UUID of version 4."}
	}
	return known.check(ok, now)
}

// Known returns whose the key with a digest is, or an *AuthError.
func (k *Keyring) Known(digest Digest, now time.Time) (*Caller, error) {
	known, ok := k.find(digest)
	return known.check(ok, now)
}

func (k *Keyring) find(digest Digest) (known ringKey, ok bool) {
	known, ok = k.fixed[digest]
	if !ok && k.stored != nil {
		known, ok = (*k.stored.ring.Load())[digest]
	}
	return known, ok
}

func (known ringKey) check(ok bool, now time.Time) (*Caller, error) {
	switch {
	case !ok:
		return nil, &AuthError{"unknown_account", "Authentication failed. The API key is not known."}
	case !known.until.IsZero() && !now.Before(known.until):
		return nil, &AuthError{"expired_api_key", "Authentication failed. The API key has expired."}
	}
	if present := now.UnixMicro(); present-known.used.Load() > usePrecision.Microseconds() {
		known.used.Store(present)
	}
	return known.Caller, nil
}

// Who implements Callers by the Authorization header.
func (k *Keyring) Who(r *http.Request, now time.Time) (*Caller, error) {
	return k.Check(r.Header.Get("Authorization"), now)
}

// Named returns the caller that a key's name stands for, as far as it is known
// here.
func (k *Keyring) Named(name string) (*Caller, bool) {
	rings := []ring{k.fixed}
	if k.stored != nil {
		rings = append(rings, *k.stored.ring.Load())
	}
	for _, r := range rings {
		for _, key := range r {
			if key.Name == name {
				return key.Caller, true
			}
		}
	}
	return nil, false
}

// Fixed are the names of the keys of the configuration, sorted.
func (k *Keyring) Fixed() []string {
	var names []string
	for _, key := range k.fixed {
		names = append(names, key.Name)
	}
	slices.Sort(names)
	return names
}

// AuthError is a caller that isn't known. The codes are Nango's, but for that of
// a key that has expired, which only its holder is told.
type AuthError struct{ Code, Message string }

func (e *AuthError) Error() string { return e.Code }

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
