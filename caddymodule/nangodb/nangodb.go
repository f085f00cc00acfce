// Package nangodb reads the database of a Nango that was stopped, and takes from
// it what would let it renew a credential once more: a refresh token that rotates
// must have one owner.
//
// It may import pgx.
package nangodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database is one environment in the database of a Nango. Open it; Close has to
// be called.
type Database struct {
	reads *pgx.Conn // and holds the lock, once frozen
	notes *pgx.Conn // keeps how far it has come, whatever becomes of the lock
	tx    pgx.Tx
	keys  *cipherKey
	env   int
	table func(name string) string
}

// EnvironmentError says that there is no such environment.
type EnvironmentError struct {
	Name  string
	Known []string
}

func (e *EnvironmentError) Error() string {
	return fmt.Sprintf("there is no environment %q; there are %s", e.Name, strings.Join(e.Known, ", "))
}

// BusyError says that somebody else is connected to the database.
type BusyError struct{ Sessions []string }

func (e *BusyError) Error() string {
	return "others are connected to the database: " + strings.Join(e.Sessions, "; ")
}

// Open connects to a database and finds the environment. Key is what Nango has in
// NANGO_ENCRYPTION_KEY; empty if it has none.
func Open(ctx context.Context, dsn, schema, environment, key string) (*Database, error) {
	d := &Database{table: func(name string) string { return pgx.Identifier{schema, name}.Sanitize() }}
	var err error
	if d.keys, err = parseKey(key); err != nil {
		return nil, err
	}
	for _, c := range []**pgx.Conn{&d.reads, &d.notes} {
		if *c, err = pgx.Connect(ctx, dsn); err != nil {
			d.Close()
			return nil, fmt.Errorf("connecting to Nango's database: %w", err)
		}
	}
	known := make(map[string]int)
	rows, err := d.reads.Query(ctx, `SELECT to_jsonb(e) FROM `+d.table("_nango_environments")+` e ORDER BY id`)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("reading Nango's environments: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[struct {
		ID      int
		Name    string
		Deleted bool
	}])
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("reading Nango's environments: %w", err)
	}
	for _, e := range all {
		if !e.Deleted {
			known[e.Name] = e.ID
		}
	}
	id, ok := known[environment]
	if !ok {
		d.Close()
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, &EnvironmentError{environment, names}
	}
	d.env = id
	return d, nil
}

// Close ends the connections; what was retired and not committed comes back.
func (d *Database) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, c := range []*pgx.Conn{d.reads, d.notes} {
		if c != nil {
			_ = c.Close(ctx) // there is nothing to be saved
		}
	}
}

// Integration is one of Nango's integrations.
type Integration struct {
	Key      string `json:"unique_key"`
	Provider string `json:"provider"`
	Display  string `json:"display_name"`
	ClientID string `json:"oauth_client_id"`
	Secret   string `json:"oauth_client_secret"`
	Scopes   string `json:"oauth_scopes"`
	AppLink  string `json:"app_link"`
	Forward  bool   `json:"forward_webhooks"`
	// Shared is set if the client is one of Nango's own.
	Shared *int `json:"shared_credentials_id"`
	// Custom has what else there is, as text.
	Custom map[string]string `json:"-"`
	// Broken says why its secret can't be read.
	Broken error `json:"-"`
}

// Integrations returns those that were not deleted.
func (d *Database) Integrations(ctx context.Context) ([]Integration, error) {
	rows, err := d.query(ctx, `SELECT to_jsonb(c) FROM `+d.table("_nango_configs")+` c WHERE environment_id = $1 AND NOT deleted ORDER BY unique_key`, d.env)
	if err != nil {
		return nil, fmt.Errorf("reading integrations: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (in Integration, err error) {
		var raw []byte
		if err := row.Scan(&raw); err != nil {
			return in, err
		}
		var more struct {
			IV     string          `json:"oauth_client_secret_iv"`
			Tag    string          `json:"oauth_client_secret_tag"`
			Custom json.RawMessage `json:"custom"`
		}
		if err := errors.Join(json.Unmarshal(raw, &in), json.Unmarshal(raw, &more)); err != nil {
			return in, err
		}
		if in.Secret != "" && more.IV != "" {
			secret, err := d.keys.open(in.Secret, more.IV, more.Tag)
			in.Secret, in.Broken = string(secret), err
		}
		custom, err := d.custom(more.Custom)
		in.Custom, in.Broken = custom, errors.Join(in.Broken, err)
		return in, nil
	})
}

func (d *Database) custom(raw json.RawMessage) (map[string]string, error) {
	var sealed struct{ EncryptedValue, IV, AuthTag string }
	if json.Unmarshal(raw, &sealed) == nil && sealed.EncryptedValue != "" {
		plain, err := d.keys.open(sealed.EncryptedValue, sealed.IV, sealed.AuthTag)
		if err != nil {
			return nil, err
		}
		raw = plain
	}
	var values map[string]any
	if len(raw) == 0 || json.Unmarshal(raw, &values) != nil {
		return nil, nil
	}
	out := make(map[string]string)
	for name, v := range values {
		if s, ok := v.(string); ok && s != "" {
			out[name] = s
		}
	}
	return out, nil
}

// Key is an API key.
type Key struct {
	Name, Key string
	Scopes    []string
}

// Keys returns the environment's API keys. Those that can't be read are left out.
func (d *Database) Keys(ctx context.Context) ([]Key, error) {
	var exists bool
	if err := d.reads.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, d.table("customer_keys")).Scan(&exists); err != nil {
		return nil, err
	}
	statement := `SELECT display_name, secret, iv, tag, NULL::text[] FROM ` + d.table("api_secrets") + ` WHERE environment_id = $1 ORDER BY id`
	if exists {
		statement = `SELECT k.display_name, k.secret, k.iv, k.tag, k.scopes FROM ` + d.table("customer_keys") + ` k JOIN ` + d.table("customer_keys_relations") + ` r
			ON r.customer_key_id = k.id AND r.entity_type = 'environment' AND r.entity_id = $1 WHERE k.key_type = 'api' AND k.deleted_at IS NULL ORDER BY k.id`
	}
	rows, err := d.query(ctx, statement, d.env)
	if err != nil {
		return nil, fmt.Errorf("reading API keys: %w", err)
	}
	var keys []Key
	var k Key
	var secret, iv, tag string
	_, err = pgx.ForEachRow(rows, []any{&k.Name, &secret, &iv, &tag, &k.Scopes}, func() error {
		if k.Key = secret; iv != "" {
			plain, err := d.keys.open(secret, iv, tag)
			if err != nil {
				return fmt.Errorf("API key %s: %w", k.Name, err)
			}
			k.Key = string(plain)
		}
		keys = append(keys, k)
		return nil
	})
	return keys, err
}

// query reads by the connection that has the lock, if it has been taken.
func (d *Database) query(ctx context.Context, statement string, args ...any) (pgx.Rows, error) {
	if d.tx != nil {
		return d.tx.Query(ctx, statement, args...)
	}
	return d.reads.Query(ctx, statement, args...)
}
