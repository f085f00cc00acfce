package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/keycaddy/keycaddy/connect"
)

const integrationColumns = `uid, key, provider, display_name, forward_webhooks, sealed, removing, created, updated`

// bump counts a change of an integration.
const bump = `UPDATE revisions SET revision = revision + 1 WHERE name = 'integrations'`

// PutIntegration implements connect.Store.
func (s *Store) PutIntegration(ctx context.Context, i connect.StoredIntegration) (connect.StoredIntegration, error) {
	if i.Created.IsZero() {
		i.Created = now()
	}
	if i.Updated.IsZero() {
		i.Updated = i.Created
	}
	err := s.update(ctx, "adding integration", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO integrations (`+integrationColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			i.UID, i.Key, i.Provider, i.DisplayName, i.ForwardWebhooks, i.Sealed, i.Removing, micros(i.Created), micros(i.Updated))
		if err == nil {
			_, err = tx.ExecContext(ctx, bump)
		}
		return err
	})
	i.Created, i.Updated = fromMicros(micros(i.Created)), fromMicros(micros(i.Updated))
	return i, err
}

// UpdateIntegration implements connect.Store.
func (s *Store) UpdateIntegration(ctx context.Context, key string, change func(*connect.StoredIntegration) error) (connect.StoredIntegration, error) {
	var (
		i       connect.StoredIntegration
		refused error
	)
	err := s.update(ctx, "updating integration", func(tx *sql.Tx) (err error) {
		if i, err = scanIntegration(tx.QueryRowContext(ctx, `SELECT `+integrationColumns+` FROM integrations WHERE key = ?`, key)); err != nil {
			return err
		}
		was := i
		if refused = change(&i); refused != nil {
			return refused
		}
		i.UID, i.Created, i.Updated = was.UID, was.Created, now()
		if i.Key != was.Key {
			var one int
			err := tx.QueryRowContext(ctx, `SELECT 1 FROM connections WHERE integration = ? LIMIT 1`, was.Key).Scan(&one)
			if err == nil {
				return connect.ErrInUse
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE integrations SET key = ?, provider = ?, display_name = ?,
			forward_webhooks = ?, sealed = ?, removing = ?, updated = ? WHERE uid = ?`,
			i.Key, i.Provider, i.DisplayName, i.ForwardWebhooks, i.Sealed, i.Removing, micros(i.Updated), i.UID)
		if err == nil {
			_, err = tx.ExecContext(ctx, bump)
		}
		return err
	})
	switch {
	case refused != nil:
		return connect.StoredIntegration{}, refused
	case err != nil:
		return connect.StoredIntegration{}, err
	}
	return i, nil
}

// DeleteIntegration implements connect.Store.
func (s *Store) DeleteIntegration(ctx context.Context, uid string) error {
	return s.update(ctx, "deleting integration", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM integrations WHERE uid = ?`, uid)
		if err == nil {
			_, err = tx.ExecContext(ctx, bump)
		}
		return err
	})
}

// StoredIntegrations implements connect.Store.
func (s *Store) StoredIntegrations(ctx context.Context) ([]connect.StoredIntegration, int64, error) {
	const what = "listing integrations"
	revision, err := s.IntegrationsRevision(ctx)
	if err != nil {
		return nil, 0, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+integrationColumns+` FROM integrations ORDER BY key`)
	if err != nil {
		return nil, 0, wrap(ctx, what, err)
	}
	defer rows.Close()
	var all []connect.StoredIntegration
	for rows.Next() {
		i, err := scanIntegration(rows)
		if err != nil {
			return nil, 0, wrap(ctx, what, err)
		}
		all = append(all, i)
	}
	return all, revision, wrap(ctx, what, rows.Err())
}

// IntegrationsRevision implements connect.Store.
func (s *Store) IntegrationsRevision(ctx context.Context) (revision int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT revision FROM revisions WHERE name = 'integrations'`).Scan(&revision)
	return revision, wrap(ctx, "asking for changed integrations", err)
}

// scanIntegration reads a row of integrationColumns.
func scanIntegration(row interface{ Scan(...any) error }) (connect.StoredIntegration, error) {
	var (
		i                connect.StoredIntegration
		created, updated int64
	)
	err := row.Scan(&i.UID, &i.Key, &i.Provider, &i.DisplayName, &i.ForwardWebhooks, &i.Sealed, &i.Removing, &created, &updated)
	i.Created, i.Updated = fromMicros(created), fromMicros(updated)
	return i, err
}
