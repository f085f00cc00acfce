package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

const apiKeyColumns = `name, key, former, former_until, scopes, limits, created, expires, used`

// PutAPIKey implements connect.Store.
func (s *Store) PutAPIKey(ctx context.Context, k connect.APIKey) error {
	values, err := apiKeyValues(&k)
	if err == nil {
		values = append(values, k.Name, micros(k.Created))
		err = checkText(values)
	}
	if err != nil {
		return wrap(ctx, "adding API key", err)
	}
	return s.transact(ctx, s.timeout, "adding API key", once, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO keycaddy.api_keys (key, former, former_until, scopes, limits, expires, name, created)
			VALUES ($1, $2::bytea, $3::timestamptz, $4, $5::jsonb, $6::timestamptz, $7, $8)`, values...); err != nil {
			return err
		}
		return keysChanged(ctx, tx, &k)
	})
}

// keysChanged ends a change of keys, unless it has given one a digest that is
// another's former one. Changes wait for each other at the version's row, so
// that this is seen.
func keysChanged(ctx context.Context, tx pgx.Tx, k *connect.APIKey) error {
	if _, err := tx.Exec(ctx, `UPDATE keycaddy.api_keys_version SET version = version + 1`); err != nil || k == nil {
		return err
	}
	var taken bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM keycaddy.api_keys WHERE name <> $1 AND (former = $2::bytea OR key = $3::bytea))`,
		k.Name, k.Key[:], maybeDigest(k.Former)).Scan(&taken)
	if err == nil && taken {
		err = connect.ErrExists
	}
	return err
}

func apiKeyValues(k *connect.APIKey) ([]any, error) {
	scopes, err := k.Scopes.MarshalText()
	if err != nil {
		return nil, err
	}
	limits, err := asJSON(k.Limits, false)
	if err != nil {
		return nil, err
	}
	return []any{k.Key[:], maybeDigest(k.Former), maybe(k.FormerUntil), string(scopes), limits, maybe(k.Expires)}, nil
}

func maybeDigest(d connect.Digest) any {
	if d == (connect.Digest{}) {
		return nil
	}
	return d[:]
}

// APIKeys implements connect.Store.
func (s *Store) APIKeys(ctx context.Context) (keys []connect.APIKey, version int64, err error) {
	if version, err = s.APIKeysVersion(ctx); err != nil { // first: the list may be newer, and never older
		return nil, 0, err
	}
	err = s.rows(ctx, "listing API keys", func() { keys = nil }, func(row pgx.Row) error {
		k, err := scanAPIKey(row)
		keys = append(keys, k)
		return err
	}, `SELECT `+apiKeyColumns+` FROM keycaddy.api_keys ORDER BY created, name`)
	if err != nil {
		return nil, 0, err
	}
	return keys, version, nil
}

func scanAPIKey(row pgx.Row) (k connect.APIKey, err error) {
	var (
		former, limits             []byte
		scopes                     string
		formerUntil, expires, used *time.Time
	)
	if err := row.Scan(&k.Name, digest{&k.Key}, &former, &formerUntil, &scopes, &limits, &k.Created, &expires, &used); err != nil {
		return k, err
	}
	copy(k.Former[:], former)
	k.FormerUntil, k.Created, k.Expires, k.Used = fromMaybe(formerUntil), k.Created.UTC(), fromMaybe(expires), fromMaybe(used)
	if err := k.Scopes.UnmarshalText([]byte(scopes)); err != nil {
		return k, err
	}
	return k, json.Unmarshal(limits, &k.Limits)
}

// APIKeysVersion implements connect.Store.
func (s *Store) APIKeysVersion(ctx context.Context) (version int64, err error) {
	err = s.row(ctx, "reading the version of API keys", again, func(row pgx.Row) error { return row.Scan(&version) },
		`SELECT version FROM keycaddy.api_keys_version`)
	return version, err
}

// UpdateAPIKey implements connect.Store.
func (s *Store) UpdateAPIKey(ctx context.Context, name string, change func(*connect.APIKey) error) (connect.APIKey, error) {
	const what = "changing API key"
	if !keepable(name) {
		return connect.APIKey{}, wrap(ctx, what, connect.ErrNotFound)
	}
	var (
		k       connect.APIKey
		refused error
	)
	err := s.transact(ctx, s.timeout, what, once, func(ctx context.Context, tx pgx.Tx) (err error) {
		if k, err = scanAPIKey(tx.QueryRow(ctx, `SELECT `+apiKeyColumns+` FROM keycaddy.api_keys WHERE name = $1 FOR UPDATE`, name)); err != nil {
			return err
		}
		was := k
		if refused = change(&k); refused != nil {
			return errRefused // whatever change says must not look like the database's
		}
		k.Name, k.Created, k.Used = was.Name, was.Created, was.Used
		values, err := apiKeyValues(&k)
		if err != nil {
			return err
		}
		if err := checkText(values); err != nil {
			return err
		}
		k, err = scanAPIKey(tx.QueryRow(ctx, `UPDATE keycaddy.api_keys SET key = $1, former = $2::bytea, former_until = $3::timestamptz,
			scopes = $4, limits = $5::jsonb, expires = $6::timestamptz WHERE name = $7 RETURNING `+apiKeyColumns, append(values, name)...))
		if err != nil {
			return err
		}
		return keysChanged(ctx, tx, &k)
	})
	switch {
	case refused != nil:
		return connect.APIKey{}, refused
	case err != nil:
		return connect.APIKey{}, err
	}
	return k, nil
}

// DeleteAPIKey implements connect.Store.
func (s *Store) DeleteAPIKey(ctx context.Context, name string) error {
	const what = "removing API key"
	if !keepable(name) {
		return wrap(ctx, what, connect.ErrNotFound)
	}
	return s.transact(ctx, s.timeout, what, once, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM keycaddy.api_keys WHERE name = $1`, name)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return connect.ErrNotFound
		}
		return keysChanged(ctx, tx, nil)
	})
}

// NoteAPIKeyUse implements connect.Store.
func (s *Store) NoteAPIKeyUse(ctx context.Context, used map[string]time.Time) error {
	return s.transact(ctx, s.timeout, "noting the use of API keys", again, func(ctx context.Context, tx pgx.Tx) error {
		for name, at := range used {
			if !keepable(name) {
				continue
			}
			if _, err := tx.Exec(ctx, `UPDATE keycaddy.api_keys SET used = $2::timestamptz WHERE name = $1 AND (used IS NULL OR used < $2::timestamptz)`, name, micros(at)); err != nil {
				return err
			}
		}
		return nil
	})
}
