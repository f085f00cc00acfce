package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// save stores a grant as a new connection, or as the next version of the one
// that the session is for.
func (c *Connector) save(ctx context.Context, s *Session, in *Integration, g scheme.Grant) (Connection, error) {
	if _, ok := in.Scheme.(scheme.Redirector); ok { // any other grant was completed before it was verified
		var err error
		if g, err = c.complete(ctx, in, g); err != nil {
			return Connection{}, err
		}
	}
	return c.put(ctx, s, in, g, nil)
}

// put is save for a grant that is complete. What is imported (from) takes the
// place of all that an existing connection has.
func (c *Connector) put(ctx context.Context, s *Session, in *Integration, g scheme.Grant, from *Import) (Connection, error) {
	g.Version, g.Consent = 1, randomHex(8)
	id := ID{Integration: in.Key, Connection: s.Connection}
	if id.Connection != "" {
		conn, err := c.replace(ctx, s, id, g, from)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return conn, err
		}
		if s.Reconnect {
			return Connection{}, ErrConnectionGone
		}
	} else {
		id.Connection = uuid.NewString()
	}
	conn := Connection{
		ID: id, UID: randomHex(16), Provider: in.Provider.ID, Status: StatusActive,
		Config: g.Config, Tags: s.Tags, EndUser: s.endUser(),
		Version: g.Version, Expires: g.Expires, Due: dueAfter(&g.Credential, false), WebhookURL: s.WebhookURL,
	}
	if from != nil {
		conn.Metadata = from.Metadata
	}
	conn.Tell(EventCreated, nil)
	value, err := g.Encode()
	if err != nil {
		return Connection{}, fmt.Errorf("encoding credential: %w", err)
	}
	if _, err := c.Vault.Write(ctx, conn.VaultName(), value, 0); err != nil {
		return Connection{}, fmt.Errorf("storing the credential of %s: %w", id, err)
	}
	created, err := c.Store.Create(ctx, conn)
	if err != nil {
		// Somebody may have made it meanwhile: a form that was sent twice.
		again := errors.Is(err, ErrExists) && s.Connection != ""
		if derr := c.Vault.Delete(ctx, conn.VaultName()); derr != nil {
			c.Logger.Error("removing the credential of a connection that was not made", connectionFields(id, zap.Error(derr))...)
		}
		if again {
			return c.replace(ctx, s, id, g, from)
		}
		return Connection{}, fmt.Errorf("storing connection %s: %w", id, err)
	}
	c.Refresher.Forget(id)
	c.Logger.Info("connection created", connectionFields(id, zap.String("provider", conn.Provider))...)
	return created, nil
}

// replace gives an existing connection a new credential. What the session says
// of its user takes the place of what was known; the rest stays.
func (c *Connector) replace(ctx context.Context, s *Session, id ID, g scheme.Grant, from *Import) (Connection, error) {
	conn, err := c.Store.Connection(ctx, id)
	if err != nil {
		return Connection{}, err
	}
	// No renewal may be under way: what it spends or gets is not wanted any more.
	release, newest := c.Refresher.hold(ctx, conn)
	defer release()
	for { // one that could not be held off may come in between; the user's new grant wins over it
		held, version, err := c.Refresher.held(ctx, conn)
		if err != nil {
			return Connection{}, err
		}
		g.Version = max(held.Version, conn.Version, newest) + 1
		value, err := g.Encode()
		if err != nil {
			return Connection{}, fmt.Errorf("encoding credential: %w", err)
		}
		_, err = c.Vault.Write(ctx, conn.VaultName(), value, version)
		if err == nil {
			break
		}
		if !errors.Is(err, vault.ErrConflict) || ctx.Err() != nil {
			return Connection{}, fmt.Errorf("storing the credential of %s: %w", id, err)
		}
	}
	uid, name := conn.UID, conn.VaultName()
	conn, err = c.Store.Update(ctx, id, func(row *Connection) error {
		if row.UID != uid {
			return ErrNotFound
		}
		row.Tell(EventOverridden, nil)
		row.mend()
		row.Status, row.Cause, row.Config = StatusActive, "", g.Config
		row.Version, row.Expires, row.Due = g.Version, g.Expires, dueAfter(&g.Credential, false)
		if from != nil {
			row.Metadata, row.EndUser, row.Tags, row.WebhookURL = from.Metadata, from.EndUser, from.Tags, from.WebhookURL
			return nil
		}
		if s.EndUser != nil {
			row.EndUser = s.endUser()
		}
		if len(s.Tags) > 0 {
			row.Tags = s.Tags
		}
		if s.WebhookURL != "" {
			row.WebhookURL = s.WebhookURL
		}
		return nil
	})
	if errors.Is(err, ErrNotFound) { // removed meanwhile: nothing may be left of it (S82)
		if derr := c.Vault.Delete(ctx, name); derr != nil {
			c.Logger.Error("removing the credential of a removed connection", connectionFields(id, zap.Error(derr))...)
		}
	}
	if err != nil {
		return Connection{}, fmt.Errorf("storing connection %s: %w", id, err)
	}
	c.Refresher.Forget(id)
	c.Logger.Info("connection connected again", connectionFields(id)...)
	return conn, nil
}

func (s *Session) endUser() *EndUser {
	if s.EndUser == nil || s.Organization == nil {
		return s.EndUser
	}
	u := *s.EndUser
	u.Organization = s.Organization
	return &u
}

// SetDisabled switches a connection off or on again. While it is off, calls are
// refused, those under way are cut off, and nothing is renewed. ErrNotFound if
// there is none; a connection that needs its user stays as it is.
func (c *Connector) SetDisabled(ctx context.Context, id ID, off bool) (Connection, error) {
	conn, err := c.Store.Update(ctx, id, func(row *Connection) error {
		switch {
		case off && row.Status == StatusActive:
			row.Status, row.Due = StatusDisabled, time.Time{}
		case !off && row.Status == StatusDisabled:
			row.Status = StatusActive
		}
		return nil
	})
	if err != nil {
		return Connection{}, err
	}
	if off {
		c.Refresher.End(id, conn.UID)
	} else {
		c.Refresher.Forget(id)
	}
	c.Logger.Info("connection switched", connectionFields(id, zap.String("status", string(conn.Status)))...)
	return conn, nil
}
