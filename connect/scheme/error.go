package scheme

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Class says who can mend a failed token request.
type Class int

// The classes of token errors.
const (
	// Transient: the provider or the way to it is down, slow, or answers
	// nonsense. Nothing is lost; the same request may succeed later.
	Transient Class = iota
	// Revoked: the provider has refused the grant for good. Only the end user
	// can help, by connecting again.
	Revoked
	// Misconfigured: the provider refuses the integration itself (wrong client
	// secret, unknown client). The operator has to mend it; connections keep.
	Misconfigured
)

func (c Class) String() string {
	return [...]string{"transient", "revoked", "misconfigured"}[c]
}

// TokenError is a token request that failed.
type TokenError struct {
	Class Class
	// Code is the provider's error code (RFC 6749 section 5.2) if it gave one,
	// or what was wrong with the answer: unreachable, timeout, refused_address,
	// http_502, redirect, not_json, too_large, no_access_token, bad_token,
	// token_type.
	Code string
	// Status is the HTTP status of the provider's answer; 0 if there was none.
	Status int
	// Description is the provider's own text: control characters removed, cut
	// to 200 characters. It is untrusted, to be escaped where it is shown.
	Description string
	// RetryAfter is how long the provider asked to wait, 0 if it didn't;
	// clamped to an hour.
	RetryAfter time.Duration

	err error // what happened below, if it can be told without secrets
}

func (e *TokenError) Error() string {
	s := "token request failed (" + e.Class.String() + "): " + e.Code
	if e.Description != "" {
		s += ": " + e.Description
	}
	if e.err != nil {
		s += ": " + e.err.Error()
	}
	return s
}

func (e *TokenError) Unwrap() error { return e.err }

// Definite tells whether the provider has surely not done what it was asked. If
// not, it may have issued tokens whose delivery failed.
func (e *TokenError) Definite() bool {
	return e.Class != Transient || e.Code == "refused_address" || e.Code == "http_503" || strings.HasPrefix(e.Code, "http_4")
}

// ErrNotRenewable says that the credential can't be renewed without its user:
// there is no refresh token, or the scheme has none.
var ErrNotRenewable = errors.New("credential can't be renewed")

// UnsupportedError says that a provider's entry asks for something that this
// version can't do.
type UnsupportedError struct{ Provider, Feature string }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("provider %s needs %s, which this version of keycaddy doesn't do yet", e.Provider, e.Feature)
}

// FieldErrors are the answers that don't do, by the field's name. The texts
// are for the person who typed them and never hold a secret.
type FieldErrors map[string]string

func (e FieldErrors) Error() string {
	names := make([]string, 0, len(e))
	for name, msg := range e {
		names = append(names, name+": "+msg)
	}
	return "invalid fields: " + strings.Join(names, "; ")
}

// clean makes text from outside fit to be told: one line of at most 200
// characters, none of them for control.
func clean(s string) string {
	n := 0
	s = strings.Map(func(r rune) rune {
		if n++; n > 200 || r == unicode.ReplacementChar {
			return -1
		}
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// Codes of refusals that only the end user can mend. invalid_grant is RFC
// 6749's; the others are what vendors send in its place: GitHub
// (bad_refresh_token), Slack (the token_* family, account_inactive).
var revokedCodes = map[string]bool{
	"invalid_grant":         true,
	"bad_refresh_token":     true,
	"invalid_refresh_token": true,
	"expired_token":         true,
	"token_expired":         true,
	"token_revoked":         true,
	"account_inactive":      true,
	"access_denied":         true,
	"consent_required":      true,
	"interaction_required":  true,
	"login_required":        true,
}

// Codes of refusals that the operator has to mend. RFC 6749 section 5.2, and
// GitHub's and Slack's own.
var misconfiguredCodes = map[string]bool{
	"invalid_client":               true,
	"unauthorized_client":          true,
	"unsupported_grant_type":       true,
	"invalid_scope":                true,
	"invalid_request":              true,
	"invalid_target":               true,
	"incorrect_client_credentials": true,
	"redirect_uri_mismatch":        true,
	"invalid_client_id":            true,
	"bad_client_secret":            true,
}

func classify(code string) Class {
	switch code = strings.ToLower(code); {
	case revokedCodes[code]:
		return Revoked
	case misconfiguredCodes[code]:
		return Misconfigured
	}
	return Transient
}
