package sqlite

import (
	"context"

	"github.com/keycaddy/keycaddy/connect"
)

// PutAPIKey implements connect.Store.
func (s *Store) PutAPIKey(ctx context.Context, k connect.APIKey) error {
	_, err := s.exec(ctx, "adding API key", `INSERT INTO api_keys (name, key, created) VALUES (?, ?, ?)`,
		k.Name, k.Key[:], micros(k.Created))
	return err
}

// APIKeys implements connect.Store. The oldest come first.
func (s *Store) APIKeys(ctx context.Context) ([]connect.APIKey, error) {
	const what = "listing API keys"
	rows, err := s.read.QueryContext(ctx, `SELECT name, key, created FROM api_keys ORDER BY created, name`)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	defer rows.Close()
	var keys []connect.APIKey
	for rows.Next() {
		var (
			k       connect.APIKey
			created int64
		)
		if err := rows.Scan(&k.Name, digest{&k.Key}, &created); err != nil {
			return nil, wrap(ctx, what, err)
		}
		k.Created = fromMicros(created)
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(ctx, what, err)
	}
	return keys, nil
}
