package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

// maxPage is how many connections a query returns at most.
const maxPage = 10_000

const (
	connectionColumns = `serial, uid, integration, connection, provider, status, cause,
	config, metadata, tags, end_user, version, expires, due, webhook_url, trouble,
	account, missing_scopes, created, updated`

	selectConnection = `SELECT ` + connectionColumns + ` FROM keycaddy.connections WHERE integration = $1 AND connection = $2`
)

// errNoConnectionID answers for an ID that PostgreSQL couldn't have kept.
func errNoConnectionID(what string) error { return fmt.Errorf("%s: %w", what, connect.ErrNotFound) }

func keepableID(id connect.ID) bool { return keepable(id.Integration) && keepable(id.Connection) }

// Connection implements connect.Store.
func (s *Store) Connection(ctx context.Context, id connect.ID) (c connect.Connection, err error) {
	const what = "reading connection"
	if !keepableID(id) {
		return c, errNoConnectionID(what)
	}
	err = s.row(ctx, what, again, func(row pgx.Row) (err error) {
		c, err = scanConnection(row)
		return err
	}, selectConnection, id.Integration, id.Connection)
	return c, err
}

// Connections implements connect.Store. Upper and lower case are alike in
// q.Search for all letters.
func (s *Store) Connections(ctx context.Context, q connect.Query) ([]connect.Connection, error) {
	where, args, ok := conditions(q)
	limit := q.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	page := max(q.Page, 0)
	if !ok || page > math.MaxInt64/limit {
		return nil, ctx.Err()
	}
	args = append(args, int64(limit), int64(page)*int64(limit))
	statement := fmt.Sprintf(`SELECT %s FROM keycaddy.connections%s ORDER BY serial DESC LIMIT $%d OFFSET $%d`,
		connectionColumns, where, len(args)-1, len(args))
	var found []connect.Connection
	err := s.rows(ctx, "listing connections", func() { found = nil }, func(row pgx.Row) error {
		c, err := scanConnection(row)
		found = append(found, c)
		return err
	}, statement, args...)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// conditions returns the WHERE clause for q, or "". ok is false if q has text
// that no connection can have.
func conditions(q connect.Query) (where string, args []any, ok bool) {
	var all []string
	texts := slices.Concat([]string{q.Search, q.Organization, q.Account, string(q.Status)}, q.Connections, q.Integrations, q.EndUsers)
	// add takes one value, for every %[1]s.
	add := func(condition string, value any) {
		args = append(args, value)
		all = append(all, fmt.Sprintf(condition, fmt.Sprintf("$%d", len(args))))
	}
	if len(q.Connections) > 0 {
		add(`connection = ANY (%[1]s::text[])`, q.Connections)
	}
	if len(q.Integrations) > 0 {
		add(`integration = ANY (%[1]s::text[])`, q.Integrations)
	}
	if q.Search != "" {
		add(`search LIKE %[1]s ESCAPE '\'`, "%"+likeEscaper.Replace(strings.ToLower(q.Search))+"%")
	}
	if len(q.EndUsers) > 0 {
		// The second condition is what lets the partial index be used.
		add(`end_user_id = ANY (%[1]s::text[]) AND end_user_id <> ''`, q.EndUsers)
	}
	if q.Organization != "" {
		add(`organization_id = %[1]s AND organization_id <> ''`, q.Organization)
	}
	if q.Account != "" {
		add(`account_id = %[1]s AND account_id <> ''`, q.Account)
	}
	if q.Status != "" {
		add(`status = %[1]s`, string(q.Status))
	}
	for name, value := range q.Tags {
		texts = append(texts, name, value)
		tag, err := mapJSON(map[string]string{name: value})
		if err != nil {
			return "", nil, false
		}
		add(`tags @> %[1]s::jsonb`, tag)
	}
	if slices.ContainsFunc(texts, func(s string) bool { return !keepable(s) }) {
		return "", nil, false
	}
	if len(all) == 0 {
		return "", nil, true
	}
	return ` WHERE ` + strings.Join(all, ` AND `), args, true
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Create implements connect.Store. The present is the database's.
func (s *Store) Create(ctx context.Context, c connect.Connection) (created connect.Connection, err error) {
	const what = "creating connection"
	values, err := connectionValues(&c)
	if err != nil {
		return created, wrap(ctx, what, err)
	}
	args := append([]any{c.UID, c.Integration, c.Connection, maybe(c.Created), maybe(c.Updated)}, values...)
	if err := checkText(args); err != nil {
		return created, wrap(ctx, what, err)
	}
	err = s.transact(ctx, s.timeout, what, once, func(ctx context.Context, tx pgx.Tx) (err error) {
		created, err = scanConnection(tx.QueryRow(ctx, `INSERT INTO keycaddy.connections
			(uid, integration, connection, created, updated, provider, status, cause, config, metadata, tags,
			end_user, end_user_id, organization_id, search, version, expires, due, webhook_url, trouble,
			account, account_id, missing_scopes)
			VALUES ($1, $2, $3, coalesce($4::timestamptz, now()), coalesce($5::timestamptz, $4::timestamptz, now()),
			$6, $7, $8, $9::jsonb, $10::jsonb, $11::jsonb, $12::jsonb, $13, $14, $15, $16, $17::timestamptz, $18::timestamptz,
			$19, $20::jsonb, $21::jsonb, $22, $23::jsonb)
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

// Update implements connect.Store. change runs while the row is locked, and
// must not call the store; its error is returned as it is. It runs again if the
// transaction has failed in a way that may pass.
func (s *Store) Update(ctx context.Context, id connect.ID, change func(*connect.Connection) error) (connect.Connection, error) {
	const what = "updating connection"
	if !keepableID(id) {
		return connect.Connection{}, errNoConnectionID(what)
	}
	var (
		updated connect.Connection
		refused error
	)
	err := s.transact(ctx, s.timeout, what, once, func(ctx context.Context, tx pgx.Tx) (err error) {
		updated, refused, err = updateRow(ctx, tx, id, change)
		return err
	})
	switch {
	case refused != nil:
		return connect.Connection{}, refused
	case err != nil:
		return connect.Connection{}, err
	}
	s.announce(ctx)
	return updated, nil
}

// UpdateAll implements connect.Store. Rows are locked in one order, so that two
// of these don't wait for each other.
func (s *Store) UpdateAll(ctx context.Context, ids []connect.ID, change func(*connect.Connection) error) ([]connect.Connection, error) {
	order := make([]int, len(ids))
	for n, id := range ids {
		if order[n] = n; !keepableID(id) {
			return nil, &connect.MissingError{ID: id}
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(strings.Compare(ids[a].Integration, ids[b].Integration), strings.Compare(ids[a].Connection, ids[b].Connection))
	})
	var (
		all     = make([]connect.Connection, len(ids))
		refused error
	)
	err := s.transact(ctx, s.timeout, "updating connections", once, func(ctx context.Context, tx pgx.Tx) (err error) {
		for _, n := range order {
			all[n], refused, err = updateRow(ctx, tx, ids[n], change)
			if errors.Is(err, pgx.ErrNoRows) {
				refused, err = &connect.MissingError{ID: ids[n]}, errRefused
			}
			if err != nil {
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
	s.announce(ctx)
	return all, nil
}

// updateRow changes one connection within a transaction. refused is what change
// has said; the error is then errRefused, so that it can't look like the
// database's.
func updateRow(ctx context.Context, tx pgx.Tx, id connect.ID, change func(*connect.Connection) error) (updated connect.Connection, refused, err error) {
	c, err := scanConnection(tx.QueryRow(ctx, selectConnection+` FOR UPDATE`, id.Integration, id.Connection))
	if err != nil {
		return updated, nil, err
	}
	was := c
	if err := change(&c); err != nil {
		return updated, err, errRefused
	}
	c.ID, c.UID, c.Serial, c.Created = was.ID, was.UID, was.Serial, was.Created
	values, err := connectionValues(&c)
	if err != nil {
		return updated, nil, err
	}
	if err := checkText(values); err != nil {
		return updated, nil, err
	}
	// Not now(), which is when the transaction began to wait for the row.
	updated, err = scanConnection(tx.QueryRow(ctx, `UPDATE keycaddy.connections SET
		provider = $1, status = $2, cause = $3, config = $4::jsonb, metadata = $5::jsonb, tags = $6::jsonb,
		end_user = $7::jsonb, end_user_id = $8, organization_id = $9, search = $10, version = $11,
		expires = $12::timestamptz, due = $13::timestamptz, webhook_url = $14, trouble = $15::jsonb,
		account = $16::jsonb, account_id = $17, missing_scopes = $18::jsonb, updated = clock_timestamp()
		WHERE serial = $19 RETURNING `+connectionColumns, append(values, was.Serial)...))
	if err == nil {
		err = addEvents(ctx, tx, c.Events())
	}
	return updated, nil, err
}

// Delete implements connect.Store.
func (s *Store) Delete(ctx context.Context, id connect.ID, tell func(*connect.Connection)) (deleted connect.Connection, err error) {
	const what = "deleting connection"
	if !keepableID(id) {
		return deleted, errNoConnectionID(what)
	}
	err = s.transact(ctx, s.timeout, what, once, func(ctx context.Context, tx pgx.Tx) (err error) {
		deleted, err = scanConnection(tx.QueryRow(ctx, `WITH gone AS (
				DELETE FROM keycaddy.connections WHERE integration = $1 AND connection = $2 RETURNING `+connectionColumns+`
			), told AS (
				INSERT INTO keycaddy.removed (uid, integration, connection, at)
				SELECT uid, integration, connection, clock_timestamp() FROM gone
			)
			SELECT `+connectionColumns+` FROM gone`, id.Integration, id.Connection))
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
	s.announce(ctx)
	return deleted, nil
}

// connectionValues returns what Create and Update both write: provider, status,
// cause, config, metadata, tags, end_user, end_user_id, organization_id, search,
// version, expires, due, webhook_url, trouble, account, account_id,
// missing_scopes.
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
		c.WebhookURL, trouble, account, accountID, missing,
	}, nil
}

// scanConnection reads a row of connectionColumns.
func scanConnection(row pgx.Row) (connect.Connection, error) {
	var (
		c                                                          connect.Connection
		config, metadata, tags, endUser, trouble, account, missing []byte
		version                                                    int64
		expires, due                                               *time.Time
	)
	err := row.Scan(&c.Serial, &c.UID, &c.Integration, &c.ID.Connection, &c.Provider, &c.Status, &c.Cause,
		&config, &metadata, &tags, &endUser, &version, &expires, &due, &c.WebhookURL, &trouble, &account, &missing, &c.Created, &c.Updated)
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
	if metadata != nil {
		c.Metadata = json.RawMessage(metadata)
	}
	c.Version = uint64(version)
	c.Expires, c.Due = fromMaybe(expires), fromMaybe(due)
	c.Created, c.Updated = c.Created.UTC(), c.Updated.UTC()
	return c, nil
}
