package scheme

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/keycaddy/keycaddy/catalog"
)

// Account is whose account a grant is for, as its provider names it.
type Account struct {
	// ID is the provider's own, of up to 255 bytes, which no other account has.
	// It is no secret, and compared as it is.
	ID string `json:"id"`
	// Label is what its user knows it by, of up to 200 characters, or empty. It
	// is the provider's text, to be escaped where it is shown.
	Label string `json:"label,omitempty"`
}

// maxAccountID is the longest id of an account, in bytes.
const maxAccountID = 255

// Account finds out whose account a grant is for. What was told along with the
// token is looked at first; only if that isn't enough, the provider is asked. A
// zero Account without an error says that the entry doesn't know how.
//
// Errors: *TokenError, *LookupError, *IDTokenError, and what the templates lack.
func (b base) Account(ctx context.Context, g Grant) (Account, error) {
	return b.account(ctx, g, b.bind)
}

// account is Account for schemes that bind in a way of their own.
func (b base) account(ctx context.Context, g Grant, bind func(Grant) (*Binding, error)) (Account, error) {
	spec := b.provider.Account
	if spec == nil {
		return Account{}, nil
	}
	claims, tokenErr := b.idToken(g)
	var answer document
	known := func(ns, path string) (string, bool) {
		switch ns {
		case "claim":
			return claims.text(path)
		case "answer":
			return answer.text(path)
		}
		return "", false
	}
	id, err := spec.ID.Fill(b.env(g, known))
	if errors.Is(err, catalog.ErrMissing) && spec.Request != nil {
		if answer, err = b.askFor(ctx, spec.Request, g, bind); err != nil {
			return Account{}, errors.Join(tokenErr, err)
		}
		id, err = spec.ID.Fill(b.env(g, known))
	}
	switch {
	case errors.Is(err, catalog.ErrMissing):
		return Account{}, errors.Join(tokenErr, &LookupError{[]string{"account"}, "the provider's answer doesn't tell"})
	case err != nil:
		return Account{}, fmt.Errorf("account of provider %s: %w", b.provider.ID, err)
	case len(id) > maxAccountID || strings.ContainsFunc(id, func(r rune) bool { return r == unicode.ReplacementChar || unicode.IsControl(r) }):
		return Account{}, &LookupError{[]string{"account"}, "the provider's answer has an id that is none"}
	}
	label, err := spec.Label.Fill(b.env(g, known))
	if err != nil {
		label = "" // it is for show
	}
	return Account{ID: id, Label: clean(label)}, nil
}
