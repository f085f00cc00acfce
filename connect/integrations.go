package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/vault"
)

// FixedError says that an integration is in the configuration, and can be changed
// there only.
type FixedError struct{ Key string }

func (e *FixedError) Error() string {
	return fmt.Sprintf("integration %q is in the configuration", e.Key)
}

// DraftError says why an integration can't be made like that.
type DraftError struct{ Reason error }

func (e *DraftError) Error() string { return "integration can't be used: " + e.Reason.Error() }

func (e *DraftError) Unwrap() error { return e.Reason }

// Draft is an integration that is to be made.
type Draft struct {
	Key, Provider   string
	DisplayName     string // empty: the provider's
	ForwardWebhooks bool
	Client          Client
}

// Edit changes an integration; what is nil stays.
type Edit struct {
	Key, DisplayName *string
	ForwardWebhooks  *bool
	// Client edits what is in the vault.
	Client func(*Client) error
}

// removeWait is how long who deletes an integration waits for its connections to
// be gone; the rest follows.
const removeWait = 5 * time.Second

// CreateIntegration makes an integration. Its client goes to the vault first,
// then the row that names it to the store, so that a crash in between leaves a
// secret that nothing leads to. All nodes know it within a second, this one at
// once.
//
// Errors: ErrExists, *FixedError (there is one with that key in the
// configuration), *DraftError.
func (c *Connector) CreateIntegration(ctx context.Context, d Draft) (*Integration, error) {
	if c.Setup.fixed(d.Key) {
		return nil, &FixedError{d.Key}
	}
	row := StoredIntegration{
		UID: randomHex(16), Key: d.Key, Provider: d.Provider, DisplayName: d.DisplayName,
		ForwardWebhooks: d.ForwardWebhooks, Sealed: !d.Client.empty(),
	}
	if _, err := c.Setup.integration(row, d.Client); err != nil {
		return nil, &DraftError{err}
	}
	if row.Sealed {
		value, err := d.Client.encode()
		if err != nil {
			return nil, fmt.Errorf("encoding the client of integration %s: %w", d.Key, err)
		}
		if _, err := c.Vault.Write(ctx, row.VaultName(), value, 0); err != nil {
			return nil, fmt.Errorf("storing the client of integration %s: %w", d.Key, err)
		}
	}
	if _, err := c.Store.PutIntegration(ctx, row); err != nil {
		if row.Sealed {
			err = errors.Join(err, c.Vault.Delete(context.WithoutCancel(ctx), row.VaultName()))
		}
		return nil, fmt.Errorf("storing integration %s: %w", d.Key, err)
	}
	c.Logger.Info("integration created", zap.String("integration", d.Key), zap.String("provider", d.Provider))
	return c.settled(ctx, d.Key)
}

// settled returns an integration as this node knows it after a change.
func (c *Connector) settled(ctx context.Context, key string) (*Integration, error) {
	if err := c.Refresher.LoadIntegrations(ctx); err != nil {
		return nil, fmt.Errorf("reading integration %s back: %w", key, err)
	}
	return c.Setup.Integration(key)
}

// EditIntegration changes an integration that was made through the API. Its
// connections stay, and use the new client from their next call on.
//
// Errors: *UnknownIntegrationError, *FixedError, ErrExists (the new key is
// taken), ErrInUse (it has connections, and can't have a new key), *DraftError,
// and what Edit.Client has returned.
func (c *Connector) EditIntegration(ctx context.Context, key string, e Edit) (*Integration, error) {
	row, err := c.stored(ctx, key)
	if err != nil {
		return nil, err
	}
	if e.Key != nil && *e.Key != key && c.Setup.fixed(*e.Key) {
		return nil, &FixedError{*e.Key}
	}
	sealed := row.Sealed
	if e.Client != nil {
		if sealed, err = c.editClient(ctx, row, e.Client); err != nil {
			return nil, err
		}
	}
	row, err = c.Store.UpdateIntegration(ctx, key, func(i *StoredIntegration) error {
		if i.UID != row.UID || i.Removing {
			return ErrNotFound
		}
		i.Sealed = sealed
		if e.Key != nil {
			i.Key = *e.Key
		}
		if e.DisplayName != nil {
			i.DisplayName = *e.DisplayName
		}
		if e.ForwardWebhooks != nil {
			i.ForwardWebhooks = *e.ForwardWebhooks
		}
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return nil, &UnknownIntegrationError{key}
	}
	if err != nil {
		return nil, fmt.Errorf("storing integration %s: %w", key, err)
	}
	c.Logger.Info("integration changed", zap.String("integration", row.Key))
	return c.settled(ctx, row.Key)
}

// editClient changes what is in the vault, if the integration can be used with it
// then.
func (c *Connector) editClient(ctx context.Context, row StoredIntegration, edit func(*Client) error) (sealed bool, err error) {
	for {
		client, version, err := c.Refresher.readClient(ctx, &row)
		if err != nil {
			return false, err
		}
		if err := edit(&client); err != nil {
			return false, err
		}
		if _, err := c.Setup.integration(row, client); err != nil {
			return false, &DraftError{err}
		}
		value, err := client.encode()
		if err != nil {
			return false, fmt.Errorf("encoding the client of integration %s: %w", row.Key, err)
		}
		_, err = c.Vault.Write(ctx, row.VaultName(), value, version)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, vault.ErrConflict) || ctx.Err() != nil {
			return false, fmt.Errorf("storing the client of integration %s: %w", row.Key, err)
		}
	}
}

// stored finds an integration that was made through the API.
func (c *Connector) stored(ctx context.Context, key string) (StoredIntegration, error) {
	if c.Setup.fixed(key) {
		return StoredIntegration{}, &FixedError{key}
	}
	rows, _, err := c.Store.StoredIntegrations(ctx)
	if err != nil {
		return StoredIntegration{}, fmt.Errorf("reading integration %s: %w", key, err)
	}
	for _, row := range rows {
		if row.Key == key && !row.Removing {
			return row, nil
		}
	}
	return StoredIntegration{}, &UnknownIntegrationError{key}
}

// IntegrationClient returns the client of an integration, for apps that may see
// it: from the vault, or from the configuration.
func (c *Connector) IntegrationClient(ctx context.Context, key string) (Client, error) {
	in, err := c.Setup.Integration(key)
	if err != nil {
		return Client{}, err
	}
	if in.uid == "" {
		return clientOfApp(&in.App), nil
	}
	row, err := c.stored(ctx, key)
	if err != nil {
		return Client{}, err
	}
	if !row.Sealed {
		return Client{}, nil
	}
	return c.Refresher.clientOf(ctx, &row)
}

// RemoveIntegration removes an integration that was made through the API, with
// its connections. When it returns, nobody can use or connect it any more, here
// at once and on other nodes within a second; connections that can't be cleared
// up in a few seconds follow, by any node.
//
// Errors: *UnknownIntegrationError, *FixedError.
func (c *Connector) RemoveIntegration(ctx context.Context, key string) error {
	row, err := c.stored(ctx, key)
	if err != nil {
		return err
	}
	row, err = c.Store.UpdateIntegration(ctx, key, func(i *StoredIntegration) error {
		if i.UID != row.UID {
			return ErrNotFound
		}
		i.Removing = true
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return &UnknownIntegrationError{key}
	}
	if err != nil {
		return fmt.Errorf("removing integration %s: %w", key, err)
	}
	if err := c.Refresher.LoadIntegrations(ctx); err != nil {
		return fmt.Errorf("removing integration %s: %w", key, err)
	}
	wait, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	if err := c.Refresher.removeIntegration(wait, row); err != nil {
		c.Logger.Warn("an integration's connections are not all cleared up yet; that goes on", zap.String("integration", key), zap.Error(err))
		return nil
	}
	return c.Refresher.LoadIntegrations(ctx)
}
