package connect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// renew replaces a stale credential: with what somebody else has stored
// meanwhile, or with what the provider gives. It runs once per connection in
// this process, on a context of its own.
func (r *Refresher) renew(ctx context.Context, stale *Bound) (*Bound, error) {
	id := stale.Connection.ID
	if r.ReadOnly {
		b, err := r.adopt(ctx, stale)
		if err == nil && !b.newerThan(stale) {
			return nil, scheme.ErrNotRenewable
		}
		return b, err
	}
	lease, newer, err := r.lease(ctx, stale)
	if err != nil || newer != nil {
		return newer, err
	}
	defer r.release(ctx, lease)

	// The holder before us may have been done by the time we got the lease.
	c, v, err := r.read(ctx, stale.Connection)
	if err != nil {
		return nil, err
	}
	if v.Version > stale.Version {
		return r.bind(c, v)
	}
	cred, err := scheme.DecodeCredential(v.Value)
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", id, err)
	}
	sch, err := r.scheme(c)
	if err != nil {
		return nil, err
	}
	renewer, ok := sch.(scheme.Renewer)
	if !ok {
		return nil, scheme.ErrNotRenewable
	}
	began := time.Now()
	fresh, err := renewer.Renew(ctx, scheme.Grant{Credential: cred, Config: c.Config})
	if err != nil {
		return r.refused(ctx, stale, err)
	}
	version, err := r.commit(ctx, c, fresh.Credential, v.Version)
	if errors.Is(err, vault.ErrConflict) {
		// Somebody has stored a newer credential in spite of our lease (a
		// reconnect does so): theirs holds.
		return r.adopt(ctx, stale)
	}
	if err != nil {
		return nil, err
	}
	before := c
	c, err = r.Store.Update(ctx, id, func(row *Connection) error {
		if row.UID != before.UID {
			return ErrNotFound
		}
		if row.Version > version {
			return vault.ErrConflict
		}
		row.Status, row.Cause = StatusActive, ""
		row.Version, row.Expires = version, fresh.Expires
		row.Config = changed(row.Config, before.Config, fresh.Config)
		return nil
	})
	switch {
	case errors.Is(err, vault.ErrConflict): // the user has connected again since the write
		return r.adopt(ctx, stale)
	case errors.Is(err, ErrNotFound):
		return nil, r.bury(ctx, stale.Connection, err)
	case err != nil:
		// The vault has it, and that is what counts; the row catches up with
		// the next renewal.
		r.Logger.Error("recording a renewal", connectionFields(id, zap.Error(err))...)
		c = before
		c.Config = fresh.Config
	}
	r.Logger.Info("credential renewed", connectionFields(id,
		zap.Uint64("version", uint64(version)),
		zap.Duration("took", time.Since(began)),
		zap.Time("expires", fresh.Expires))...)
	return r.bindCredential(c, version, fresh.Credential)
}

// changed returns a row's config with what a renewal has brought anew. All else
// is the row's: the user may have connected again with other values meanwhile.
func changed(row, before, after map[string]string) map[string]string {
	out := maps.Clone(row)
	for k, v := range after {
		if old, ok := before[k]; ok && old == v {
			continue
		}
		if out == nil {
			out = make(map[string]string)
		}
		out[k] = v
	}
	return out
}

// lease takes the connection's refresh lease. While another process holds it,
// the vault is watched: as soon as a newer version shows up there is nothing
// left to do but to use it.
func (r *Refresher) lease(ctx context.Context, stale *Bound) (Lease, *Bound, error) {
	const pollMin, pollMax = 10 * time.Millisecond, 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	name := "refresh/" + stale.Connection.UID
	for wait := pollMin; ; wait = min(wait*2, pollMax) {
		l, err := r.Store.Lease(ctx, name, leaseTTL)
		if err == nil {
			return l, nil, nil
		}
		if !errors.Is(err, ErrHeld) {
			return Lease{}, nil, fmt.Errorf("taking the refresh lease of %s: %w", stale.Connection.ID, err)
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return Lease{}, nil, fmt.Errorf("waiting for the refresh lease of %s: %w", stale.Connection.ID, ctx.Err())
		}
		c, v, err := r.read(ctx, stale.Connection)
		if err != nil {
			return Lease{}, nil, err
		}
		if v.Version > stale.Version {
			b, err := r.bind(c, v)
			return Lease{}, b, err
		}
	}
}

func (r *Refresher) release(ctx context.Context, l Lease) {
	// The flight's deadline may be over, and the next holder shouldn't have to
	// sit out the lease.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := r.Store.Release(ctx, l); err != nil {
		r.Logger.Warn("giving back a lease; it will run out by itself", zap.String("lease", l.Name), zap.Error(err))
	}
}

// read reads the row and the newest version of the connection that c is a
// former state of.
func (r *Refresher) read(ctx context.Context, c Connection) (Connection, vault.Entry, error) {
	row, err := r.Store.Connection(ctx, c.ID)
	if err != nil {
		return c, vault.Entry{}, fmt.Errorf("reading connection %s: %w", c.ID, err)
	}
	if row.UID != c.UID {
		return c, vault.Entry{}, fmt.Errorf("connection %s was made anew: %w", c.ID, ErrNotFound)
	}
	if row.Status == StatusNeedsReauth {
		return c, vault.Entry{}, &NeedsReauthError{ID: c.ID, Cause: row.Cause}
	}
	v, err := r.Vault.Read(ctx, row.VaultName())
	if err != nil {
		return c, vault.Entry{}, fmt.Errorf("reading the credential of %s: %w", c.ID, err)
	}
	return row, v, nil
}

// adopt binds what the vault holds now.
func (r *Refresher) adopt(ctx context.Context, stale *Bound) (*Bound, error) {
	c, v, err := r.read(ctx, stale.Connection)
	if err != nil {
		return nil, err
	}
	return r.bind(c, v)
}

// commit writes a credential that the provider has just issued. The provider
// has forgotten the one before, so giving up loses the connection: it is tried
// until the flight's time is over.
func (r *Refresher) commit(ctx context.Context, c Connection, cred scheme.Credential, after vault.Version) (vault.Version, error) {
	value, err := cred.Encode()
	if err != nil {
		return 0, fmt.Errorf("encoding credential: %w", err)
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		version, err := r.Vault.Write(ctx, c.VaultName(), value, after)
		if err == nil || errors.Is(err, vault.ErrConflict) {
			return version, err
		}
		r.Logger.Error("storing a renewed credential; trying again", connectionFields(c.ID, zap.Error(err))...)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, fmt.Errorf("storing the renewed credential of %s: %w", c.ID, err)
		}
	}
}

// refused handles a token request that failed. A refusal for good counts only
// if the refused credential is still the newest (S61).
func (r *Refresher) refused(ctx context.Context, stale *Bound, cause error) (*Bound, error) {
	id := stale.Connection.ID
	var te *scheme.TokenError
	if !errors.As(cause, &te) || te.Class != scheme.Revoked {
		r.Logger.Warn("renewing credential", connectionFields(id, zap.Error(cause))...)
		return nil, cause
	}
	if b, err := r.adopt(ctx, stale); err != nil || b.newerThan(stale) {
		return b, err
	}
	_, err := r.Store.Update(ctx, id, func(row *Connection) error {
		if row.UID != stale.Connection.UID {
			return ErrNotFound
		}
		if row.Version > stale.Version {
			return vault.ErrConflict
		}
		row.Status, row.Cause = StatusNeedsReauth, te.Code
		return nil
	})
	if errors.Is(err, vault.ErrConflict) { // the user has connected again just now
		return r.adopt(ctx, stale)
	}
	if err != nil {
		return nil, fmt.Errorf("recording that %s needs its user: %w", id, err)
	}
	r.Logger.Warn("connection needs its user again", connectionFields(id, zap.Error(cause))...)
	return nil, &NeedsReauthError{ID: id, Cause: te.Code}
}

// bury removes a version that was written for a connection that has been
// removed meanwhile (S82).
func (r *Refresher) bury(ctx context.Context, c Connection, cause error) error {
	if err := r.Vault.Delete(ctx, c.VaultName()); err != nil {
		r.Logger.Error("removing the credential of a removed connection", connectionFields(c.ID, zap.Error(err))...)
	}
	return fmt.Errorf("connection %s was removed while it was renewed: %w", c.ID, cause)
}

func connectionFields(id ID, more ...zap.Field) []zap.Field {
	return append([]zap.Field{zap.String("integration", id.Integration), zap.String("connection", id.Connection)}, more...)
}
