package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
)

// PutSession implements connect.Store; ErrExists if the token is taken.
func (s *Store) PutSession(ctx context.Context, v connect.Session) error {
	const what = "adding session"
	endUser, err := structJSON(v.EndUser)
	if err != nil {
		return wrap(ctx, what, err)
	}
	organization, err := structJSON(v.Organization)
	if err != nil {
		return wrap(ctx, what, err)
	}
	tags, err := mapJSON(v.Tags)
	if err != nil {
		return wrap(ctx, what, err)
	}
	allowed, err := listJSON(v.Allowed)
	if err != nil {
		return wrap(ctx, what, err)
	}
	defaults, err := mapJSON(v.Defaults)
	if err != nil {
		return wrap(ctx, what, err)
	}
	look, err := structJSON(v.Look)
	if err != nil {
		return wrap(ctx, what, err)
	}
	overrides, err := mapJSON(v.Overrides)
	if err != nil {
		return wrap(ctx, what, err)
	}
	_, err = s.exec(ctx, what, `INSERT INTO sessions
		(token, end_user, organization, tags, allowed, connection, reconnect, defaults, return_url, webhook_url, language, look, overrides, created, expires, allow_account_change)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		v.Token[:], endUser, organization, tags, allowed, v.Connection, v.Reconnect, defaults, v.ReturnURL, v.WebhookURL, v.Language, look, overrides, micros(v.Created), micros(v.Expires), v.AllowAccountChange)
	return err
}

// Session implements connect.Store.
func (s *Store) Session(ctx context.Context, token connect.Digest) (connect.Session, error) {
	var (
		v                                                                       connect.Session
		endUser, organization, tags, allowed, defaults, result, look, overrides sql.NullString
		created, expires                                                        int64
	)
	err := s.read.QueryRowContext(ctx, `SELECT token, end_user, organization, tags, allowed, connection, reconnect, allow_account_change,
		defaults, return_url, webhook_url, result, language, look, overrides, created, expires FROM sessions WHERE token = ? AND expires > ?`, token[:], micros(now())).
		Scan(digest{&v.Token}, &endUser, &organization, &tags, &allowed, &v.Connection, &v.Reconnect, &v.AllowAccountChange, &defaults, &v.ReturnURL, &v.WebhookURL, &result, &v.Language, &look, &overrides, &created, &expires)
	if err == nil {
		err = fromJSON("end_user", endUser, &v.EndUser)
	}
	if err == nil {
		err = fromJSON("organization", organization, &v.Organization)
	}
	if err == nil {
		err = fromJSON("tags", tags, &v.Tags)
	}
	if err == nil {
		err = fromJSON("allowed", allowed, &v.Allowed)
	}
	if err == nil {
		err = fromJSON("defaults", defaults, &v.Defaults)
	}
	if err == nil {
		err = fromJSON("result", result, &v.Result)
	}
	if err == nil {
		err = fromJSON("overrides", overrides, &v.Overrides)
	}
	if err == nil {
		err = fromJSON("look", look, &v.Look)
	}
	if err != nil {
		return connect.Session{}, wrap(ctx, "reading session", err)
	}
	v.Created, v.Expires = fromMicros(created), fromMicros(expires)
	return v, nil
}

// NoteResult implements connect.Store.
func (s *Store) NoteResult(ctx context.Context, token connect.Digest, r connect.Result) error {
	const what = "noting a session's result"
	result, err := structJSON(&r)
	if err != nil {
		return wrap(ctx, what, err)
	}
	rows, err := s.exec(ctx, what, `UPDATE sessions SET result = ? WHERE token = ? AND expires > ?`, result, token[:], micros(now()))
	if err == nil && rows == 0 {
		return fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	return err
}

// DeleteSession implements connect.Store.
func (s *Store) DeleteSession(ctx context.Context, token connect.Digest) error {
	_, err := s.exec(ctx, "deleting session", `DELETE FROM sessions WHERE token = ?`, token[:])
	return err
}

const flowColumns = `id, state, browser, session, integration, config, redirect_url, expires, opener, waiter, outcome`

// PutFlow implements connect.Store; ErrExists if the id or the state is taken.
// f.Outcome is nil in a new flow and not looked at.
func (s *Store) PutFlow(ctx context.Context, f connect.Flow) error {
	const what = "adding flow"
	config, err := mapJSON(f.Config)
	if err != nil {
		return wrap(ctx, what, err)
	}
	_, err = s.exec(ctx, what, `INSERT INTO flows
		(id, state, browser, session, integration, config, redirect_url, expires, opener, waiter)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		f.ID, f.State[:], f.Browser[:], f.Session[:], f.Integration, config, f.RedirectURL, micros(f.Expires), f.Opener, digestOrNull(f.Waiter))
	return err
}

// TakeFlow implements connect.Store. One statement finds the flow and marks it,
// and it is on the disk as taken before anybody gets it.
func (s *Store) TakeFlow(ctx context.Context, state connect.Digest) (connect.Flow, error) {
	var f connect.Flow
	err := s.update(ctx, "taking flow", func(tx *sql.Tx) (err error) {
		f, err = scanFlow(tx.QueryRowContext(ctx, `UPDATE flows SET taken = 1
			WHERE state = ? AND taken = 0 AND expires > ? RETURNING `+flowColumns, state[:], micros(now())))
		return err
	})
	if err != nil {
		return connect.Flow{}, err
	}
	return f, nil
}

// HoldFlow implements connect.Store.
func (s *Store) HoldFlow(ctx context.Context, id string, h connect.Hold) error {
	const what = "holding flow"
	rows, err := s.exec(ctx, what, `UPDATE flows SET held_key = ?, held = ?, held_until = ?, expires = ?
		WHERE id = ? AND held_key IS NULL AND outcome IS NULL AND expires > ?`,
		h.Key[:], h.Sealed, micros(h.Until), micros(h.Until.Add(connect.FlowTTL)), id, micros(now()))
	if err != nil || rows == 1 {
		return err
	}
	if _, err := s.Flow(ctx, id); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", what, connect.ErrExists)
}

// TakeHeld implements connect.Store. What was held leaves the row in the same
// step; its key stays, so that it can't be held once more.
func (s *Store) TakeHeld(ctx context.Context, key connect.Digest) (connect.Flow, error) {
	var f connect.Flow
	err := s.update(ctx, "taking what a flow holds", func(tx *sql.Tx) (err error) {
		var (
			sealed []byte
			until  int64
		)
		err = tx.QueryRowContext(ctx, `SELECT held, held_until FROM flows
			WHERE held_key = ? AND held IS NOT NULL AND held_until > ?`, key[:], micros(now())).Scan(&sealed, &until)
		if err != nil {
			return err
		}
		f, err = scanFlow(tx.QueryRowContext(ctx, `UPDATE flows SET held = NULL
			WHERE held_key = ? AND held IS NOT NULL RETURNING `+flowColumns, key[:]))
		f.Hold = &connect.Hold{Key: key, Sealed: sealed, Until: fromMicros(until)}
		return err
	})
	if err != nil {
		return connect.Flow{}, err
	}
	return f, nil
}

// FinishFlow implements connect.Store; ErrNotFound if there is no such flow.
func (s *Store) FinishFlow(ctx context.Context, id string, o connect.Outcome, events ...connect.Event) error {
	const what = "finishing flow"
	outcome, err := structJSON(&o)
	if err != nil {
		return wrap(ctx, what, err)
	}
	return s.update(ctx, what, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `UPDATE flows SET outcome = ?, held = NULL WHERE id = ? RETURNING id`, outcome, id).Scan(&id)
		if err != nil {
			return err
		}
		return addEvents(ctx, tx, events)
	})
}

// Flow implements connect.Store.
func (s *Store) Flow(ctx context.Context, id string) (connect.Flow, error) {
	f, err := scanFlow(s.read.QueryRowContext(ctx,
		`SELECT `+flowColumns+` FROM flows WHERE id = ? AND expires > ?`, id, micros(now())))
	return f, wrap(ctx, "reading flow", err)
}

// Ended implements connect.Store.
func (s *Store) Ended(ctx context.Context, waiters []connect.Digest) (flows []connect.Flow, err error) {
	const what = "reading flows that have ended"
	args := []any{micros(now())}
	for _, w := range waiters {
		args = append(args, w[:])
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+flowColumns+` FROM flows
		WHERE outcome IS NOT NULL AND expires > ? AND waiter IN (NULL`+strings.Repeat(", ?", len(waiters))+`)`, args...)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		f, err := scanFlow(rows)
		if err != nil {
			return nil, wrap(ctx, what, err)
		}
		flows = append(flows, f)
	}
	return flows, wrap(ctx, what, rows.Err())
}

// scanFlow reads a row of flowColumns.
func scanFlow(row interface{ Scan(...any) error }) (connect.Flow, error) {
	var (
		f               connect.Flow
		config, outcome sql.NullString
		expires         int64
	)
	err := row.Scan(&f.ID, digest{&f.State}, digest{&f.Browser}, digest{&f.Session}, &f.Integration, &config, &f.RedirectURL, &expires, &f.Opener, digest{&f.Waiter}, &outcome)
	if err == nil {
		err = fromJSON("config", config, &f.Config)
	}
	if err == nil {
		err = fromJSON("outcome", outcome, &f.Outcome)
	}
	if err != nil {
		return connect.Flow{}, err
	}
	f.Expires = fromMicros(expires)
	return f, nil
}
