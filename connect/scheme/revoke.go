package scheme

import (
	"context"
	"errors"
	"strings"
)

// A Revoker tells the provider that a grant isn't used any more, so that it is
// worth nothing to whoever might have it.
type Revoker interface {
	// Revokes tells whether the provider can be told.
	Revokes() bool
	// Revoke tells it. A grant that the provider doesn't know (any more) is no
	// error (RFC 7009 section 2.2). Errors: a *TokenError, whose class is
	// Transient if it may work later.
	Revoke(ctx context.Context, g Grant) error
}

// Revokes implements Revoker: the entry says how.
func (b base) Revokes() bool { return b.provider.Revoke != nil }

// Revoke implements Revoker with the entry's request.
func (b base) Revoke(ctx context.Context, g Grant) error {
	_, err := b.askFor(ctx, b.provider.Revoke, g, b.bind)
	var te *TokenError
	if errors.As(err, &te) && (strings.HasPrefix(te.Code, "not_") || te.Class == Revoked) {
		return nil // it has an answer without content, or knows no such grant
	}
	return err
}
