package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
)

// maxPage is how many connections a query returns at most.
const maxPage = 10_000

const connectionColumns = `serial, uid, integration, connection, provider, status, cause,
	config, metadata, tags, end_user, version, expires, due, webhook_url, trouble,
	account, missing_scopes, created, updated`

// Connection implements connect.Store.
func (s *Store) Connection(ctx context.Context, id connect.ID) (connect.Connection, error) {
	c, err := scanConnection(s.read.QueryRowContext(ctx, selectConnection, id.Integration, id.Connection))
	return c, wrap(ctx, "reading connection", err)
}

const selectConnection = `SELECT ` + connectionColumns + ` FROM connections WHERE integration = ? AND connection = ?`

// Connections implements connect.Store. Upper and lower case are alike in
// q.Search for all letters, not just those of ASCII.
func (s *Store) Connections(ctx context.Context, q connect.Query) ([]connect.Connection, error) {
	const what = "listing connections"
	where, args, err := conditions(q)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	limit := q.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	page := max(q.Page, 0)
	if page > math.MaxInt64/limit {
		return nil, nil
	}
	statement := `SELECT ` + connectionColumns + ` FROM connections` + where + ` ORDER BY serial DESC LIMIT ? OFFSET ?`
	rows, err := s.read.QueryContext(ctx, statement, append(args, limit, page*limit)...)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	defer rows.Close()
	var found []connect.Connection
	for rows.Next() {
		c, err := scanConnection(rows)
		if err != nil {
			return nil, wrap(ctx, what, err)
		}
		found = append(found, c)
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(ctx, what, err)
	}
	return found, nil
}

// conditions returns the WHERE clause for q, or "".
func conditions(q connect.Query) (string, []any, error) {
	var (
		all  []string
		args []any
	)
	add := func(condition string, values ...any) {
		all = append(all, condition)
		args = append(args, values...)
	}
	for _, one := range []struct {
		column string
		of     []string
	}{{"connection", q.Connections}, {"integration", q.Integrations}, {"end_user_id", q.EndUsers}} {
		if len(one.of) == 0 {
			continue
		}
		values := make([]any, len(one.of))
		for i, v := range one.of {
			values[i] = v
		}
		add(one.column+` IN (?`+strings.Repeat(", ?", len(values)-1)+`)`, values...)
	}
	if len(q.EndUsers) > 0 {
		add(`end_user_id <> ''`) // lets SQLite use the partial index
	}
	if q.Search != "" {
		add(`search LIKE ? ESCAPE '\'`, "%"+likeEscaper.Replace(strings.ToLower(q.Search))+"%")
	}
	if q.Organization != "" {
		add(`organization_id = ? AND organization_id <> ''`, q.Organization)
	}
	if q.Account != "" {
		add(`account_id = ? AND account_id <> ''`, q.Account)
	}
	if q.Status != "" {
		add(`status = ?`, string(q.Status))
	}
	for name, value := range q.Tags {
		add(`EXISTS (SELECT 1 FROM json_each(tags) WHERE key = ? AND value = ?)`, name, value)
	}
	if len(all) == 0 {
		return "", nil, nil
	}
	return ` WHERE ` + strings.Join(all, ` AND `), args, nil
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Create implements connect.Store. Created and Updated are set to the present
// where they are zero.
func (s *Store) Create(ctx context.Context, c connect.Connection) (connect.Connection, error) {
	const what = "creating connection"
	present := now()
	if c.Created.IsZero() {
		c.Created = present
	}
	if c.Updated.IsZero() {
		c.Updated = c.Created
	}
	var created connect.Connection
	values, err := connectionValues(&c)
	if err != nil {
		return created, wrap(ctx, what, err)
	}
	args := append([]any{c.UID, c.Integration, c.Connection, micros(c.Created)}, values...)
	err = s.update(ctx, what, func(tx *sql.Tx) (err error) {
		created, err = scanConnection(tx.QueryRowContext(ctx, `INSERT INTO connections
			(uid, integration, connection, created, provider, status, cause, config, metadata, tags,
			end_user, end_user_id, organization_id, search, version, expires, due, webhook_url, trouble,
			account, account_id, missing_scopes, updated)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			RETURNING `+connectionColumns, args...))
		if err != nil {
			return err
		}
		return addEvents(ctx, tx, c.Events())
	})
	if err != nil {
		return connect.Connection{}, err
	}
	return created, nil
}

// Update implements connect.Store. change runs once, while no process can
// write; it must not call the store. Its error is returned as it is.
func (s *Store) Update(ctx context.Context, id connect.ID, change func(*connect.Connection) error) (connect.Connection, error) {
	var (
		updated connect.Connection
		refused error
	)
	err := s.update(ctx, "updating connection", func(tx *sql.Tx) (err error) {
		updated, refused, err = updateRow(ctx, tx, id, change)
		return errors.Join(refused, err)
	})
	switch {
	case refused != nil:
		return connect.Connection{}, refused
	case err != nil:
		return connect.Connection{}, err
	}
	return updated, nil
}

// UpdateAll implements connect.Store.
func (s *Store) UpdateAll(ctx context.Context, ids []connect.ID, change func(*connect.Connection) error) ([]connect.Connection, error) {
	var (
		all     = make([]connect.Connection, len(ids))
		refused error
	)
	err := s.update(ctx, "updating connections", func(tx *sql.Tx) (err error) {
		for n, id := range ids {
			all[n], refused, err = updateRow(ctx, tx, id, change)
			if errors.Is(err, sql.ErrNoRows) {
				refused = &connect.MissingError{ID: id}
			}
			if err = errors.Join(refused, err); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case refused != nil:
		return nil, refused
	case err != nil:
		return nil, err
	}
	return all, nil
}

// updateRow changes one connection within a transaction. refused is what change
// has said.
func updateRow(ctx context.Context, tx *sql.Tx, id connect.ID, change func(*connect.Connection) error) (updated connect.Connection, refused, err error) {
	c, err := scanConnection(tx.QueryRowContext(ctx, selectConnection, id.Integration, id.Connection))
	if err != nil {
		return updated, nil, err
	}
	was := c
	if err := change(&c); err != nil {
		return updated, err, nil
	}
	c.ID, c.UID, c.Serial, c.Created, c.Updated = was.ID, was.UID, was.Serial, was.Created, now()
	values, err := connectionValues(&c)
	if err != nil {
		return updated, nil, err
	}
	updated, err = scanConnection(tx.QueryRowContext(ctx, `UPDATE connections SET
		provider = ?, status = ?, cause = ?, config = ?, metadata = ?, tags = ?,
		end_user = ?, end_user_id = ?, organization_id = ?, search = ?, version = ?, expires = ?,
		due = ?, webhook_url = ?, trouble = ?, account = ?, account_id = ?, missing_scopes = ?, updated = ?
		WHERE serial = ? RETURNING `+connectionColumns, append(values, was.Serial)...))
	if err == nil {
		err = addEvents(ctx, tx, c.Events())
	}
	return updated, nil, err
}

// Delete implements connect.Store.
func (s *Store) Delete(ctx context.Context, id connect.ID, tell func(*connect.Connection)) (connect.Connection, error) {
	var deleted connect.Connection
	err := s.update(ctx, "deleting connection", func(tx *sql.Tx) (err error) {
		deleted, err = scanConnection(tx.QueryRowContext(ctx, `DELETE FROM connections
			WHERE integration = ? AND connection = ? RETURNING `+connectionColumns, id.Integration, id.Connection))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO removed (uid, integration, connection, at) VALUES (?, ?, ?, ?)`,
			deleted.UID, id.Integration, id.Connection, micros(now()))
		if err != nil || tell == nil {
			return err
		}
		last := deleted
		tell(&last)
		return addEvents(ctx, tx, last.Events())
	})
	if err != nil {
		return connect.Connection{}, err
	}
	return deleted, nil
}

// connectionValues returns what Create and Update both write: provider, status,
// cause, config, metadata, tags, end_user, end_user_id, organization_id, search,
// version, expires, due, webhook_url, trouble, account, account_id,
// missing_scopes, updated.
func connectionValues(c *connect.Connection) ([]any, error) {
	config, err := mapJSON(c.Config)
	if err != nil {
		return nil, err
	}
	metadata, err := object(c.Metadata)
	if err != nil {
		return nil, err
	}
	tags, err := mapJSON(c.Tags)
	if err != nil {
		return nil, err
	}
	endUser, err := structJSON(c.EndUser)
	if err != nil {
		return nil, err
	}
	trouble, err := structJSON(c.Trouble)
	if err != nil {
		return nil, err
	}
	var user connect.EndUser
	if c.EndUser != nil {
		user = *c.EndUser
	}
	var organization string
	if user.Organization != nil {
		organization = user.Organization.ID
	}
	account, err := structJSON(c.Account)
	if err != nil {
		return nil, err
	}
	var accountID string
	if c.Account != nil {
		accountID = c.Account.ID
	}
	missing, err := listJSON(c.MissingScopes)
	if err != nil {
		return nil, err
	}
	return []any{
		c.Provider, string(c.Status), c.Cause, config, metadata, tags,
		endUser, user.ID, organization, c.SearchText(), int64(c.Version), maybe(c.Expires), maybe(c.Due),
		c.WebhookURL, trouble, account, accountID, missing, micros(c.Updated),
	}, nil
}

// scanConnection reads a row of connectionColumns.
func scanConnection(row interface{ Scan(...any) error }) (connect.Connection, error) {
	var (
		c                                                          connect.Connection
		config, metadata, tags, endUser, trouble, account, missing sql.NullString
		version, created, updated                                  int64
		expires, due                                               sql.NullInt64
	)
	err := row.Scan(&c.Serial, &c.UID, &c.Integration, &c.ID.Connection, &c.Provider, &c.Status, &c.Cause,
		&config, &metadata, &tags, &endUser, &version, &expires, &due, &c.WebhookURL, &trouble, &account, &missing, &created, &updated)
	if err == nil {
		err = fromJSON("config", config, &c.Config)
	}
	if err == nil {
		err = fromJSON("tags", tags, &c.Tags)
	}
	if err == nil {
		err = fromJSON("end_user", endUser, &c.EndUser)
	}
	if err == nil {
		err = fromJSON("trouble", trouble, &c.Trouble)
	}
	if err == nil {
		err = fromJSON("account", account, &c.Account)
	}
	if err == nil {
		err = fromJSON("missing_scopes", missing, &c.MissingScopes)
	}
	if err != nil {
		return connect.Connection{}, err
	}
	if metadata.Valid {
		c.Metadata = json.RawMessage(metadata.String)
	}
	c.Version = uint64(version)
	c.Expires, c.Due = fromMaybe(expires), fromMaybe(due)
	c.Created, c.Updated = fromMicros(created), fromMicros(updated)
	return c, nil
}
