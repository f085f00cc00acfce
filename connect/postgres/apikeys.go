package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

// PutAPIKey implements connect.Store.
func (s *Store) PutAPIKey(ctx context.Context, k connect.APIKey) error {
	_, err := s.exec(ctx, "adding API key", once, `INSERT INTO keycaddy.api_keys (name, key, created) VALUES ($1, $2, $3)`,
		k.Name, k.Key[:], micros(k.Created))
	return err
}

// APIKeys implements connect.Store. The oldest come first.
func (s *Store) APIKeys(ctx context.Context) ([]connect.APIKey, error) {
	var keys []connect.APIKey
	err := s.rows(ctx, "listing API keys", func() { keys = nil }, func(row pgx.Row) error {
		var k connect.APIKey
		if err := row.Scan(&k.Name, digest{&k.Key}, &k.Created); err != nil {
			return err
		}
		k.Created = k.Created.UTC()
		keys = append(keys, k)
		return nil
	}, `SELECT name, key, created FROM keycaddy.api_keys ORDER BY created, name`)
	if err != nil {
		return nil, err
	}
	return keys, nil
}
