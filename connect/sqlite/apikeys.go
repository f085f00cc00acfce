package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

const apiKeyColumns = `name, key, former, former_until, scopes, limits, created, expires, used`

// PutAPIKey implements connect.Store.
func (s *Store) PutAPIKey(ctx context.Context, k connect.APIKey) error {
	k.Used = time.Time{}
	return s.update(ctx, "adding API key", func(tx *sql.Tx) error {
		values, err := apiKeyValues(&k)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO api_keys (key, former, former_until, scopes, limits, expires, name, created)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, append(values, k.Name, micros(k.Created))...); err != nil {
			return err
		}
		return keysChanged(ctx, tx, &k)
	})
}

// keysChanged ends a change of keys, unless it has given one a digest that is
// another's former one.
func keysChanged(ctx context.Context, tx *sql.Tx, k *connect.APIKey) error {
	if k != nil {
		var taken bool
		err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM api_keys WHERE name <> ?1 AND (former = ?2 OR ?3 IS NOT NULL AND key = ?3))`,
			k.Name, k.Key[:], maybeDigest(k.Former)).Scan(&taken)
		if err != nil {
			return err
		}
		if taken {
			return connect.ErrExists
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE api_keys_version SET version = version + 1`)
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
func (s *Store) APIKeys(ctx context.Context) ([]connect.APIKey, int64, error) {
	const what = "listing API keys"
	version, err := s.APIKeysVersion(ctx) // first: the list may be newer, and never older
	if err != nil {
		return nil, 0, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+apiKeyColumns+` FROM api_keys ORDER BY created, name`)
	if err != nil {
		return nil, 0, wrap(ctx, what, err)
	}
	defer rows.Close()
	var keys []connect.APIKey
	for rows.Next() {
		k, err := scanAPIKey(rows)
		if err != nil {
			return nil, 0, wrap(ctx, what, err)
		}
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, wrap(ctx, what, err)
	}
	return keys, version, nil
}

func scanAPIKey(row interface{ Scan(...any) error }) (k connect.APIKey, err error) {
	var (
		former                     []byte
		scopes, limits             string
		created                    int64
		formerUntil, expires, used sql.NullInt64
	)
	if err := row.Scan(&k.Name, digest{&k.Key}, &former, &formerUntil, &scopes, &limits, &created, &expires, &used); err != nil {
		return k, err
	}
	copy(k.Former[:], former)
	k.FormerUntil, k.Created, k.Expires, k.Used = fromMaybe(formerUntil), fromMicros(created), fromMaybe(expires), fromMaybe(used)
	if err := k.Scopes.UnmarshalText([]byte(scopes)); err != nil {
		return k, err
	}
	return k, json.Unmarshal([]byte(limits), &k.Limits)
}

// APIKeysVersion implements connect.Store.
func (s *Store) APIKeysVersion(ctx context.Context) (version int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT version FROM api_keys_version`).Scan(&version)
	return version, wrap(ctx, "reading the version of API keys", err)
}

// UpdateAPIKey implements connect.Store.
func (s *Store) UpdateAPIKey(ctx context.Context, name string, change func(*connect.APIKey) error) (connect.APIKey, error) {
	var (
		k       connect.APIKey
		refused error
	)
	err := s.update(ctx, "changing API key", func(tx *sql.Tx) (err error) {
		if k, err = scanAPIKey(tx.QueryRowContext(ctx, `SELECT `+apiKeyColumns+` FROM api_keys WHERE name = ?`, name)); err != nil {
			return err
		}
		was := k
		if refused = change(&k); refused != nil {
			return refused
		}
		k.Name, k.Created, k.Used = was.Name, was.Created, was.Used
		values, err := apiKeyValues(&k)
		if err != nil {
			return err
		}
		k, err = scanAPIKey(tx.QueryRowContext(ctx, `UPDATE api_keys SET key = ?, former = ?, former_until = ?, scopes = ?, limits = ?, expires = ?
			WHERE name = ? RETURNING `+apiKeyColumns, append(values, name)...))
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
	return s.update(ctx, "removing API key", func(tx *sql.Tx) error {
		var was string
		if err := tx.QueryRowContext(ctx, `DELETE FROM api_keys WHERE name = ? RETURNING name`, name).Scan(&was); err != nil {
			return err
		}
		return keysChanged(ctx, tx, nil)
	})
}

// NoteAPIKeyUse implements connect.Store.
func (s *Store) NoteAPIKeyUse(ctx context.Context, used map[string]time.Time) error {
	return s.update(ctx, "noting the use of API keys", func(tx *sql.Tx) error {
		for name, at := range used {
			if _, err := tx.ExecContext(ctx, `UPDATE api_keys SET used = ?2 WHERE name = ?1 AND (used IS NULL OR used < ?2)`, name, micros(at)); err != nil {
				return err
			}
		}
		return nil
	})
}
