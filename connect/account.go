package connect

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

var (
	// ErrOtherAccount says that a connection would have become one of another
	// account at the provider than it is of. Nothing of it was changed.
	ErrOtherAccount = errors.New("connect: this is another account than the one that was connected before")
	// ErrAccountUnknown says that it couldn't be found out whose account a new
	// grant is for, where it is known of the connection that it was to renew.
	// Nothing of it was changed.
	ErrAccountUnknown = errors.New("connect: it can't be told whether this is the account that was connected before")
)

// identify finds out whose account a grant is for; nil if that can't be known.
// A new connection works without it; whether an old one may be connected again,
// is for sameAccount to say.
func (c *Connector) identify(ctx context.Context, in *Integration, g scheme.Grant) *Account {
	a, err := in.Scheme.Account(ctx, g)
	if err != nil {
		c.Logger.Info("it could not be found out whose account was connected", zap.String("integration", in.Key), zap.Error(err))
	}
	if err != nil || a.ID == "" {
		return nil
	}
	return &a
}

// replaceable returns the connection that a grant is to renew. A grant for
// another account than the connection is of is refused and let go of, unless the
// operator or the app lets accounts be changed (S51). So is one whose account
// isn't known: only where that of the connection never was, there is nothing to
// compare.
//
// Errors: ErrNotFound, ErrOtherAccount, ErrAccountUnknown.
func (c *Connector) replaceable(ctx context.Context, s *Session, in *Integration, id ID, g scheme.Grant, who *Account) (Connection, error) {
	conn, err := c.Store.Connection(ctx, id)
	if err != nil {
		return Connection{}, err
	}
	was := conn.Account
	if was == nil || who != nil && who.ID == was.ID || in.AllowAccountChange || s.AllowAccountChange {
		return conn, nil
	}
	err = ErrOtherAccount
	if who == nil {
		err = ErrAccountUnknown
	}
	c.Logger.Warn("refused to connect again with another account", append(accountFields(id, was, who), zap.String("event", "account_change_refused"), zap.Error(err))...)
	if derr := c.discard(context.WithoutCancel(ctx), in, g, who); derr != nil {
		c.Logger.Error("revoking a grant that isn't used; its user may do so at the provider", connectionFields(id, zap.Error(derr))...)
	}
	return Connection{}, err
}

// noteAccount tells of a connection that has become one of another account.
func (c *Connector) noteAccount(id ID, was, who *Account) {
	if was != nil && (who == nil || who.ID != was.ID) {
		c.Logger.Warn("the connection is one of another account from now on", append(accountFields(id, was, who), zap.String("event", "account_changed"))...)
	}
}

func accountFields(id ID, was, who *Account) []zap.Field {
	fields := connectionFields(id, zap.String("was", was.ID))
	if who != nil {
		fields = append(fields, zap.String("account", who.ID))
	}
	return fields
}

// discard lets go of a grant that isn't stored, since it is for another account.
// It is revoked, now or later, where the entry knows how. Not if the account is
// connected otherwise: some providers end with one grant all that the same user
// has given to the same client. For the same reason one whose account isn't
// known is left alone: it may well be the connection's own.
func (c *Connector) discard(ctx context.Context, in *Integration, g scheme.Grant, who *Account) error {
	revoker, ok := in.Scheme.(scheme.Revoker)
	if !ok || !revoker.Revokes() || who == nil {
		return nil
	}
	others, err := c.Store.Connections(ctx, Query{Account: who.ID, Limit: 1})
	if err != nil {
		return fmt.Errorf("looking whether the account is connected otherwise: %w", err)
	}
	if len(others) > 0 {
		return nil
	}
	// As a connection that is removed before it was made: what is recorded
	// first, is tried until it is done.
	gone := Connection{ID: ID{Integration: in.Key, Connection: "refused"}, UID: randomHex(16), Config: g.Config}
	value, err := g.Encode()
	if err != nil {
		return fmt.Errorf("encoding credential: %w", err)
	}
	lease, err := c.Refresher.removal(ctx, gone)
	if err != nil {
		return err
	}
	if _, err := c.Vault.Write(ctx, gone.VaultName(), value, 0); err != nil {
		lease.Intent = nil
		return errors.Join(fmt.Errorf("keeping a grant that is to be revoked: %w", err), c.Store.Release(ctx, lease))
	}
	c.Refresher.clearUp(ctx, lease)
	return nil
}
