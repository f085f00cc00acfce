package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// ValidityError says that a credential can't be had that is valid for as long as
// was asked for.
type ValidityError struct {
	ID ID
	// Lifetime is how long the provider's tokens live, Remaining how long this
	// one does.
	Lifetime, Remaining time.Duration
}

func (e *ValidityError) Error() string {
	return fmt.Sprintf("connection %s: the token lives %s, of which %s are left", e.ID, e.Lifetime.Round(time.Second), e.Remaining.Round(time.Second))
}

// Freshness is how fresh a credential has to be that an app fetches.
type Freshness struct {
	// Renew asks for a new one in any case. One that can't be renewed stays.
	Renew bool
	// Remaining is how long it has to be valid for at least.
	Remaining time.Duration
}

// Fetch returns the connection with its credential, for an app that uses it by
// itself. Other than Current it doesn't return one that has ended and could not
// be renewed: there is no answer of the provider's here that would say more. The
// connection is as the store has it, also if another process has changed it.
//
// Errors are those of Current and of Renew, and *ValidityError.
func (r *Refresher) Fetch(ctx context.Context, id ID, f Freshness) (Connection, scheme.Credential, error) {
	b, err := r.Current(ctx, id)
	if err != nil {
		return Connection{}, scheme.Credential{}, err
	}
	cred, err := b.credential()
	if err != nil {
		return Connection{}, scheme.Credential{}, err
	}
	if f.Renew || b.Renewable && remaining(&cred, r.now()) < max(f.Remaining, time.Nanosecond) {
		if b, err = r.freshen(ctx, b, &cred, f); err != nil {
			return Connection{}, scheme.Credential{}, err
		}
		if cred, err = b.credential(); err != nil {
			return Connection{}, scheme.Credential{}, err
		}
	}
	if left := remaining(&cred, r.now()); left < f.Remaining {
		return Connection{}, scheme.Credential{}, &ValidityError{ID: id, Lifetime: lifetime(&cred), Remaining: left}
	}
	row, err := r.Store.Connection(ctx, id)
	switch {
	case errors.Is(err, ErrStoreUnavailable):
		row, err = b.Connection() // as good as it is known
		return row, cred, err
	case err != nil:
		return Connection{}, scheme.Credential{}, err
	case row.UID != b.UID: // made anew meanwhile
		r.Forget(id)
		return r.Fetch(ctx, id, Freshness{})
	}
	return row, cred, nil
}

// freshen renews a credential, unless that wouldn't help.
func (r *Refresher) freshen(ctx context.Context, b *Bound, cred *scheme.Credential, f Freshness) (*Bound, error) {
	if life := lifetime(cred); !f.Renew && life > 0 && life < f.Remaining {
		return b, nil // the next one wouldn't live long enough either
	}
	fresh, err := r.Renew(ctx, b)
	if errors.Is(err, scheme.ErrNotRenewable) {
		return b, nil
	}
	return fresh, err
}

// remaining is how long a credential is valid for: forever, if that isn't known.
func remaining(c *scheme.Credential, now time.Time) time.Duration {
	if c.Expires.IsZero() {
		return 1<<63 - 1
	}
	return c.Expires.Sub(now)
}

// lifetime is how long a credential was valid for when it came; 0: not known.
func lifetime(c *scheme.Credential) time.Duration {
	if c.Expires.IsZero() || c.Issued.IsZero() {
		return 0
	}
	return c.Expires.Sub(c.Issued)
}
