package nangodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Connection is one of Nango's connections.
type Connection struct {
	ID          int    `json:"id"`
	Integration string `json:"provider_config_key"`
	Connection  string `json:"connection_id"`

	Credentials map[string]any             `json:"-"`
	Config      map[string]json.RawMessage `json:"connection_config"`
	Metadata    json.RawMessage            `json:"metadata"`
	Tags        map[string]string          `json:"tags"`
	WebhookURL  string                     `json:"webhook_url_override"`
	EndUser     *EndUser                   `json:"-"`

	// Broken says why its credentials can't be read.
	Broken error `json:"-"`
}

// EndUser is whose connection it is.
type EndUser struct {
	ID          string            `json:"end_user_id"`
	Email       string            `json:"email"`
	DisplayName string            `json:"display_name"`
	Tags        map[string]string `json:"tags"`
}

func (d *Database) from() string {
	return d.table("_nango_connections") + ` c JOIN ` + d.table("_nango_configs") + ` g ON g.id = c.config_id AND NOT g.deleted
		LEFT JOIN ` + d.table("end_users") + ` u ON u.id = c.end_user_id WHERE c.environment_id = $1 AND NOT c.deleted`
}

// Count returns how many connections there are.
func (d *Database) Count(ctx context.Context) (n int, err error) {
	err = d.reads.QueryRow(ctx, `SELECT count(*) FROM `+d.from(), d.env).Scan(&n)
	return n, err
}

// Connections returns at most limit connections with ids above after, by id.
func (d *Database) Connections(ctx context.Context, after, limit int) ([]Connection, error) {
	rows, err := d.query(ctx, `SELECT to_jsonb(c) || jsonb_build_object('provider_config_key', g.unique_key), to_jsonb(u) FROM `+d.from()+`
		AND c.id > $2 ORDER BY c.id LIMIT $3`, d.env, after, limit)
	if err != nil {
		return nil, fmt.Errorf("reading connections: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Connection, err error) {
		var raw, user []byte
		if err := row.Scan(&raw, &user); err != nil {
			return c, err
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			c.Broken = fmt.Errorf("the row can't be read: %w", err)
		}
		if len(user) > 0 {
			c.EndUser = new(EndUser)
			if err := json.Unmarshal(user, c.EndUser); err != nil {
				c.Broken = errors.Join(c.Broken, fmt.Errorf("its end user can't be read: %w", err))
			}
		}
		credentials, err := d.credentials(raw)
		c.Credentials, c.Broken = credentials, errors.Join(c.Broken, err)
		return c, nil
	})
}

type sealedRow struct {
	Credentials json.RawMessage `json:"credentials"`
	IV          string          `json:"credentials_iv"`
	Tag         string          `json:"credentials_tag"`
}

func (d *Database) credentials(row []byte) (map[string]any, error) {
	var r sealedRow
	if err := json.Unmarshal(row, &r); err != nil {
		return nil, err
	}
	var sealed struct {
		Text string `json:"encrypted_credentials"`
	}
	plain := []byte(r.Credentials)
	if json.Unmarshal(plain, &sealed) == nil && sealed.Text != "" && r.IV != "" {
		var err error
		if plain, err = d.keys.open(sealed.Text, r.IV, r.Tag); err != nil {
			return nil, err
		}
	}
	var out map[string]any
	if err := json.Unmarshal(plain, &out); err != nil {
		return nil, errors.New("its credentials can't be read")
	}
	return out, nil
}

// Freeze makes sure that nobody else is at the database, and then lets nobody
// read or write connections until Commit or Close: a Nango that is started in
// between finds none to renew. With stopped it is the caller who knows that Nango
// is. Errors: *BusyError.
func (d *Database) Freeze(ctx context.Context, stopped bool) error {
	if !stopped {
		rows, err := d.reads.Query(ctx, `SELECT format('%s from %s (%s)', coalesce(nullif(application_name, ''), 'somebody'), coalesce(host(client_addr), 'this machine'), count(*))
			FROM pg_stat_activity WHERE datname = current_database() AND coalesce(backend_type, 'client backend') = 'client backend' AND pid NOT IN (pg_backend_pid(), $1)
			GROUP BY application_name, client_addr ORDER BY 1`, d.notes.PgConn().PID())
		if err != nil {
			return fmt.Errorf("looking who is connected: %w", err)
		}
		sessions, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("looking who is connected: %w", err)
		}
		if len(sessions) > 0 {
			return &BusyError{sessions}
		}
	}
	if _, err := d.notes.Exec(ctx, `CREATE TABLE IF NOT EXISTS `+d.table("keycaddy_import")+` (connection integer PRIMARY KEY, begun timestamptz NOT NULL DEFAULT now())`); err != nil {
		return fmt.Errorf("making a table for how far it has come: %w", err)
	}
	tx, err := d.reads.Begin(ctx)
	if err == nil {
		_, err = tx.Exec(ctx, `SET LOCAL lock_timeout = '10s'`)
	}
	if err == nil {
		_, err = tx.Exec(ctx, `LOCK TABLE `+d.table("_nango_connections")+` IN ACCESS EXCLUSIVE MODE`)
	}
	if err != nil {
		return fmt.Errorf("locking Nango's connections: %w", err)
	}
	d.tx = tx
	return nil
}

// Begun returns the connections that an import has begun to bring over, now or
// before.
func (d *Database) Begun(ctx context.Context) (map[int]bool, error) {
	rows, err := d.notes.Query(ctx, `SELECT connection FROM `+d.table("keycaddy_import"))
	if err != nil {
		return nil, fmt.Errorf("reading how far it had come: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	begun := make(map[int]bool, len(ids))
	for _, id := range ids {
		begun[id] = true
	}
	return begun, err
}

// Begin notes, for good, that connections are about to be brought over.
func (d *Database) Begin(ctx context.Context, ids []int) error {
	_, err := d.notes.Exec(ctx, `INSERT INTO `+d.table("keycaddy_import")+` (connection) SELECT unnest($1::int[]) ON CONFLICT DO NOTHING`, ids)
	return err
}

// Retire takes from a connection that was brought over what it could be renewed
// with; on Commit.
func (d *Database) Retire(ctx context.Context, c *Connection) error {
	withoutRefresh(c.Credentials)
	plain, err := json.Marshal(c.Credentials)
	if err != nil {
		return err
	}
	text, iv, tag := string(plain), (*string)(nil), (*string)(nil)
	if d.keys != nil {
		sealed, nonce, mac := d.keys.seal(plain)
		wrapped, err := json.Marshal(map[string]string{"encrypted_credentials": sealed})
		if err != nil {
			return err
		}
		text, iv, tag = string(wrapped), &nonce, &mac
	}
	_, err = d.tx.Exec(ctx, `UPDATE `+d.table("_nango_connections")+` SET credentials = $1::text::json, credentials_iv = $2, credentials_tag = $3, refresh_exhausted = true WHERE id = $4`, text, iv, tag, c.ID)
	if err != nil {
		return fmt.Errorf("retiring connection %d: %w", c.ID, err)
	}
	return nil
}

// withoutRefresh takes refresh tokens out, at every depth.
func withoutRefresh(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "refresh_token")
		for _, child := range v {
			withoutRefresh(child)
		}
	case []any:
		for _, child := range v {
			withoutRefresh(child)
		}
	}
}

// Commit makes what was retired hold, and gives the lock back.
func (d *Database) Commit(ctx context.Context) error {
	err := d.tx.Commit(ctx)
	d.tx = nil
	return err
}
