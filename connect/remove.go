package connect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

const (
	// removeTimeout bounds one attempt to clear up after a connection.
	removeTimeout = 10 * time.Second
	// revokeFor is how long the provider is told again that a grant isn't used
	// any more; after that the secret is removed all the same.
	revokeFor = 24 * time.Hour
	// After a failed attempt the next one waits, longer each time.
	removeMin, removeMax = 2 * time.Second, 10 * time.Minute
)

const removalPrefix = "remove/"

// Disconnect removes a connection. When it returns, nothing can use it any more
// and its calls are cut off, here at once and on other nodes within a second.
// Its grant is revoked at the provider, if that can be told, and its secret
// removed from the vault: now, or later if the provider or the vault is down;
// that is remembered in the store (S83). ErrNotFound if there is none.
func (c *Connector) Disconnect(ctx context.Context, id ID) error {
	conn, err := c.Store.Connection(ctx, id)
	if err != nil {
		return err
	}
	// What is to be cleared up is recorded first: a crash after the row has
	// gone would leave a secret that nothing leads to.
	lease, err := c.Refresher.removal(ctx, conn)
	if err != nil {
		return err
	}
	gone, err := c.Store.Delete(ctx, id, func(gone *Connection) { gone.Tell(EventDeleted, nil) })
	if err == nil && gone.UID != conn.UID { // it was made anew in between
		c.Refresher.End(id, gone.UID)
		var other Lease
		if other, err = c.Refresher.removal(ctx, gone); err == nil {
			c.Refresher.clearUp(context.WithoutCancel(ctx), other)
		}
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		lease.Intent = nil
		return errors.Join(err, c.Store.Release(context.WithoutCancel(ctx), lease))
	}
	c.Refresher.End(id, conn.UID)
	c.Logger.Info("connection removed", connectionFields(id)...)
	c.Refresher.clearUp(context.WithoutCancel(ctx), lease)
	return nil
}

// removal records that a connection's grant and secret are to be removed.
func (r *Refresher) removal(ctx context.Context, c Connection) (Lease, error) {
	l, err := r.Store.Lease(ctx, removalPrefix+c.UID, r.node(), removeTimeout)
	if err != nil {
		return Lease{}, fmt.Errorf("removing connection %s: %w", c.ID, err)
	}
	l.Intent = &Intent{ID: c.ID, Node: r.node(), Config: c.Config}
	l, err = r.Store.Extend(ctx, l, removeTimeout)
	if err != nil {
		return Lease{}, fmt.Errorf("removing connection %s: %w", c.ID, err)
	}
	return l, nil
}

// clearUp makes an attempt to clear up after a removed connection, and gives
// the lease back.
func (r *Refresher) clearUp(ctx context.Context, l Lease) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	i := l.Intent
	uid := strings.TrimPrefix(l.Name, removalPrefix)
	err := r.tryClearUp(ctx, i, uid)
	if err == nil {
		l.Intent = nil
	} else {
		wait := min(removeMin<<min(i.Attempt, 16), removeMax)
		i.Attempt++
		i.Patience = time.Now().Add(wait)
		r.Logger.Warn("clearing up after a removed connection; trying again", connectionFields(i.ID, zap.Duration("in", wait), zap.Error(err))...)
	}
	r.giveBack(context.WithoutCancel(ctx), l)
}

func (r *Refresher) tryClearUp(ctx context.Context, i *Intent, uid string) error {
	c := Connection{ID: i.ID, UID: uid}
	if row, err := r.Store.Connection(ctx, i.ID); err == nil && row.UID == uid {
		return nil // it was never removed
	} else if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	r.forgetParcel(uid)
	e, err := r.Vault.Read(ctx, c.VaultName())
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.revokeStored(ctx, i, e.Value); err != nil {
		return err
	}
	return r.Vault.Delete(ctx, c.VaultName())
}

func (r *Refresher) revokeStored(ctx context.Context, i *Intent, value []byte) error {
	cred, err := scheme.DecodeCredential(value)
	if err != nil {
		return nil // it can't be used by anyone
	}
	return r.revoke(ctx, i, cred)
}

// revoke tells the provider that a grant isn't used any more. Once it is no use
// to tell again, that is told as an error and the end of it.
func (r *Refresher) revoke(ctx context.Context, i *Intent, cred scheme.Credential) error {
	in, err := r.setup.Load().known(i.ID.Integration)
	if err != nil {
		return nil // nobody knows how any more
	}
	revoker, ok := in.Scheme.(scheme.Revoker)
	if !ok || !revoker.Revokes() {
		return nil
	}
	err = revoker.Revoke(ctx, scheme.Grant{Credential: cred, Config: i.Config})
	var te *scheme.TokenError
	switch {
	case err == nil:
		r.Logger.Info("grant revoked at the provider", connectionFields(i.ID)...)
		return nil
	case errors.As(err, &te) && te.Class == scheme.Transient && spent(i.Attempt) < revokeFor:
		return fmt.Errorf("revoking the grant: %w", err)
	}
	r.Logger.Error("the provider has not revoked the grant of a removed connection; its user may do so at the provider",
		connectionFields(i.ID, zap.Error(err))...)
	return nil
}

// spent is how long a number of attempts takes.
func spent(attempts int) time.Duration {
	var sum time.Duration
	for n := range attempts {
		sum += min(removeMin<<min(n, 16), removeMax)
	}
	return sum
}

// resume goes on with a removal that was not finished.
func (r *Refresher) resume(ctx context.Context, found Lease) {
	if time.Until(found.Intent.Patience) > 0 {
		return
	}
	l, err := r.Store.Lease(ctx, found.Name, r.node(), removeTimeout)
	if err != nil {
		return // somebody is at it
	}
	if l.Intent != nil {
		r.clearUp(ctx, l)
	}
}
