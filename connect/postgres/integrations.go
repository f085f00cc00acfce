package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

const integrationColumns = `uid, key, provider, display_name, forward_webhooks, sealed, removing, created, updated`

// bump counts a change of an integration.
const bump = `UPDATE keycaddy.revisions SET revision = revision + 1 WHERE name = 'integrations'`

// PutIntegration implements connect.Store.
func (s *Store) PutIntegration(ctx context.Context, i connect.StoredIntegration) (added connect.StoredIntegration, err error) {
	const what = "adding integration"
	args := []any{i.UID, i.Key, i.Provider, i.DisplayName, i.ForwardWebhooks, i.Sealed, i.Removing, maybe(i.Created), maybe(i.Updated)}
	if err := checkText(args); err != nil {
		return added, wrap(ctx, what, err)
	}
	err = s.transact(ctx, s.timeout, what, once, func(ctx context.Context, tx pgx.Tx) (err error) {
		added, err = scanIntegration(tx.QueryRow(ctx, `INSERT INTO keycaddy.integrations (`+integrationColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8::timestamptz, now()), coalesce($9::timestamptz, $8::timestamptz, now()))
			RETURNING `+integrationColumns, args...))
		if err == nil {
			_, err = tx.Exec(ctx, bump)
		}
		return err
	})
	if err != nil {
		return connect.StoredIntegration{}, err
	}
	s.announce(ctx)
	return added, nil
}

// UpdateIntegration implements connect.Store. As with Update, change may run
// again.
func (s *Store) UpdateIntegration(ctx context.Context, key string, change func(*connect.StoredIntegration) error) (connect.StoredIntegration, error) {
	const what = "updating integration"
	if !keepable(key) {
		return connect.StoredIntegration{}, fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	var (
		updated        connect.StoredIntegration
		refused, inUse error
	)
	err := s.transact(ctx, s.timeout, what, once, func(ctx context.Context, tx pgx.Tx) error {
		i, err := scanIntegration(tx.QueryRow(ctx, `SELECT `+integrationColumns+` FROM keycaddy.integrations WHERE key = $1 FOR UPDATE`, key))
		if err != nil {
			return err
		}
		was := i
		if refused = change(&i); refused != nil {
			return errRefused
		}
		if i.Key != was.Key {
			var one int
			err := tx.QueryRow(ctx, `SELECT 1 FROM keycaddy.connections WHERE integration = $1 LIMIT 1`, was.Key).Scan(&one)
			if err == nil {
				inUse = connect.ErrInUse
				return errRefused
			}
			if !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
		}
		args := []any{i.Key, i.Provider, i.DisplayName, i.ForwardWebhooks, i.Sealed, i.Removing, was.UID}
		if err := checkText(args); err != nil {
			return err
		}
		updated, err = scanIntegration(tx.QueryRow(ctx, `UPDATE keycaddy.integrations SET key = $1, provider = $2, display_name = $3,
			forward_webhooks = $4, sealed = $5, removing = $6, updated = clock_timestamp() WHERE uid = $7 RETURNING `+integrationColumns, args...))
		if err == nil {
			_, err = tx.Exec(ctx, bump)
		}
		return err
	})
	switch {
	case refused != nil:
		return connect.StoredIntegration{}, refused
	case inUse != nil:
		return connect.StoredIntegration{}, fmt.Errorf("%s: %w", what, inUse)
	case err != nil:
		return connect.StoredIntegration{}, err
	}
	s.announce(ctx)
	return updated, nil
}

// DeleteIntegration implements connect.Store.
func (s *Store) DeleteIntegration(ctx context.Context, uid string) error {
	err := s.transact(ctx, s.timeout, "deleting integration", again, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM keycaddy.integrations WHERE uid = $1`, uid)
		if err == nil {
			_, err = tx.Exec(ctx, bump)
		}
		return err
	})
	if err == nil {
		s.announce(ctx)
	}
	return err
}

// StoredIntegrations implements connect.Store.
func (s *Store) StoredIntegrations(ctx context.Context) ([]connect.StoredIntegration, int64, error) {
	revision, err := s.IntegrationsRevision(ctx)
	if err != nil {
		return nil, 0, err
	}
	var all []connect.StoredIntegration
	err = s.rows(ctx, "listing integrations", func() { all = nil }, func(row pgx.Row) error {
		i, err := scanIntegration(row)
		all = append(all, i)
		return err
	}, `SELECT `+integrationColumns+` FROM keycaddy.integrations ORDER BY key COLLATE "C"`)
	if err != nil {
		return nil, 0, err
	}
	return all, revision, nil
}

// IntegrationsRevision implements connect.Store.
func (s *Store) IntegrationsRevision(ctx context.Context) (revision int64, err error) {
	err = s.row(ctx, "asking for changed integrations", again, func(row pgx.Row) error { return row.Scan(&revision) },
		`SELECT revision FROM keycaddy.revisions WHERE name = 'integrations'`)
	return revision, err
}

// scanIntegration reads a row of integrationColumns.
func scanIntegration(row pgx.Row) (connect.StoredIntegration, error) {
	var i connect.StoredIntegration
	err := row.Scan(&i.UID, &i.Key, &i.Provider, &i.DisplayName, &i.ForwardWebhooks, &i.Sealed, &i.Removing, &i.Created, &i.Updated)
	i.Created, i.Updated = i.Created.UTC(), i.Updated.UTC()
	return i, err
}
