package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

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
	_, err = s.exec(ctx, what, once, `INSERT INTO keycaddy.sessions
		(token, end_user, organization, tags, allowed, connection, reconnect, defaults, return_url, webhook_url, language, look, created, expires, overrides, allow_account_change)
		VALUES ($1, $2::jsonb, $3::jsonb, $4::jsonb, $5::jsonb, $6, $7, $8::jsonb, $9, $10, $11, $12::jsonb, $13, $14, $15::jsonb, $16)`,
		v.Token[:], endUser, organization, tags, allowed, v.Connection, v.Reconnect, defaults, v.ReturnURL, v.WebhookURL, v.Language, look, micros(v.Created), micros(v.Expires), overrides, v.AllowAccountChange)
	return err
}

// Session implements connect.Store. Like flows, sessions expire by the
// database's clock.
func (s *Store) Session(ctx context.Context, token connect.Digest) (v connect.Session, err error) {
	err = s.row(ctx, "reading session", again, func(row pgx.Row) (err error) {
		v, err = scanSession(row)
		return err
	}, `SELECT token, end_user, organization, tags, allowed, connection, reconnect, allow_account_change, defaults, return_url, webhook_url, result, language, look, overrides, created, expires
		FROM keycaddy.sessions WHERE token = $1 AND expires > now()`, token[:])
	return v, err
}

func scanSession(row pgx.Row) (connect.Session, error) {
	var (
		v                                                                       connect.Session
		endUser, organization, tags, allowed, defaults, result, look, overrides []byte
	)
	err := row.Scan(digest{&v.Token}, &endUser, &organization, &tags, &allowed, &v.Connection, &v.Reconnect, &v.AllowAccountChange, &defaults, &v.ReturnURL, &v.WebhookURL, &result, &v.Language, &look, &overrides, &v.Created, &v.Expires)
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
		return connect.Session{}, err
	}
	v.Created, v.Expires = v.Created.UTC(), v.Expires.UTC()
	return v, nil
}

// NoteResult implements connect.Store.
func (s *Store) NoteResult(ctx context.Context, token connect.Digest, r connect.Result) error {
	const what = "noting a session's result"
	result, err := structJSON(&r)
	if err != nil {
		return wrap(ctx, what, err)
	}
	rows, err := s.exec(ctx, what, again, `UPDATE keycaddy.sessions SET result = $1::jsonb WHERE token = $2 AND expires > now()`, result, token[:])
	if err == nil && rows == 0 {
		return fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	return err
}

// DeleteSession implements connect.Store.
func (s *Store) DeleteSession(ctx context.Context, token connect.Digest) error {
	_, err := s.exec(ctx, "deleting session", again, `DELETE FROM keycaddy.sessions WHERE token = $1`, token[:])
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
	_, err = s.exec(ctx, what, once, `INSERT INTO keycaddy.flows
		(id, state, browser, session, integration, config, redirect_url, expires, opener, waiter)
		VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $8, $9, $10)`,
		f.ID, f.State[:], f.Browser[:], f.Session[:], f.Integration, config, f.RedirectURL, micros(f.Expires), f.Opener, digestOrNull(f.Waiter))
	return err
}

// TakeFlow implements connect.Store. One statement finds the flow and marks it.
// If the connection breaks before its answer arrives, the flow may be taken and
// nobody have it: the visitor has to start over.
func (s *Store) TakeFlow(ctx context.Context, state connect.Digest) (f connect.Flow, err error) {
	err = s.row(ctx, "taking flow", once, func(row pgx.Row) (err error) {
		f, err = scanFlow(row)
		return err
	}, `UPDATE keycaddy.flows SET taken = true WHERE state = $1 AND NOT taken AND expires > now() RETURNING `+flowColumns, state[:])
	if err != nil {
		return connect.Flow{}, err
	}
	return f, nil
}

// HoldFlow implements connect.Store.
func (s *Store) HoldFlow(ctx context.Context, id string, h connect.Hold) error {
	const what = "holding flow"
	if !keepable(id) {
		return fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	rows, err := s.exec(ctx, what, once, `UPDATE keycaddy.flows SET held_key = $1, held = $2, held_until = $3, expires = $4
		WHERE id = $5 AND held_key IS NULL AND outcome IS NULL AND expires > now()`,
		h.Key[:], h.Sealed, micros(h.Until), micros(h.Until.Add(connect.FlowTTL)), id)
	if err != nil || rows == 1 {
		return err
	}
	if _, err := s.Flow(ctx, id); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", what, connect.ErrExists)
}

// TakeHeld implements connect.Store. One statement finds the flow and empties
// it; what was held comes from the row as it was locked. Its key stays, so that
// it can't be held once more. As with TakeFlow, an answer that is lost on the
// way makes the visitor start over.
func (s *Store) TakeHeld(ctx context.Context, key connect.Digest) (f connect.Flow, err error) {
	hold := connect.Hold{Key: key}
	err = s.row(ctx, "taking what a flow holds", once, func(row pgx.Row) (err error) {
		f, err = scanFlow(row, &hold.Sealed, &hold.Until)
		return err
	}, `WITH found AS (SELECT id AS found_id, held AS found_held, held_until AS found_until FROM keycaddy.flows
			WHERE held_key = $1 AND held IS NOT NULL AND held_until > now() FOR UPDATE)
		UPDATE keycaddy.flows SET held = NULL FROM found WHERE id = found_id
		RETURNING `+flowColumns+`, found_held, found_until`, key[:])
	if err != nil {
		return connect.Flow{}, err
	}
	hold.Until = hold.Until.UTC()
	f.Hold = &hold
	return f, nil
}

// FinishFlow implements connect.Store; ErrNotFound if there is no such flow.
func (s *Store) FinishFlow(ctx context.Context, id string, o connect.Outcome, events ...connect.Event) error {
	const what = "finishing flow"
	if !keepable(id) {
		return fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	outcome, err := structJSON(&o)
	if err != nil {
		return wrap(ctx, what, err)
	}
	return s.transact(ctx, s.timeout, what, again, func(ctx context.Context, tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `UPDATE keycaddy.flows SET outcome = $1::jsonb, held = NULL WHERE id = $2 RETURNING id`, outcome, id).Scan(&id)
		if err != nil {
			return err
		}
		return addEvents(ctx, tx, events)
	})
}

// Flow implements connect.Store.
func (s *Store) Flow(ctx context.Context, id string) (f connect.Flow, err error) {
	const what = "reading flow"
	if !keepable(id) {
		return f, fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	err = s.row(ctx, what, again, func(row pgx.Row) (err error) {
		f, err = scanFlow(row)
		return err
	}, `SELECT `+flowColumns+` FROM keycaddy.flows WHERE id = $1 AND expires > now()`, id)
	return f, err
}

// Ended implements connect.Store.
func (s *Store) Ended(ctx context.Context, waiters []connect.Digest) (flows []connect.Flow, err error) {
	names := make([][]byte, len(waiters))
	for i := range waiters {
		names[i] = waiters[i][:]
	}
	err = s.rows(ctx, "reading flows that have ended", func() { flows = nil }, func(row pgx.Row) error {
		f, err := scanFlow(row)
		flows = append(flows, f)
		return err
	}, `SELECT `+flowColumns+` FROM keycaddy.flows WHERE outcome IS NOT NULL AND expires > now() AND waiter = ANY($1)`, names)
	return flows, err
}

// scanFlow reads a row of flowColumns, and what else was selected.
func scanFlow(row pgx.Row, more ...any) (connect.Flow, error) {
	var (
		f               connect.Flow
		config, outcome []byte
	)
	err := row.Scan(append([]any{&f.ID, digest{&f.State}, digest{&f.Browser}, digest{&f.Session}, &f.Integration, &config, &f.RedirectURL, &f.Expires, &f.Opener, digest{&f.Waiter}, &outcome}, more...)...)
	if err == nil {
		err = fromJSON("config", config, &f.Config)
	}
	if err == nil {
		err = fromJSON("outcome", outcome, &f.Outcome)
	}
	if err != nil {
		return connect.Flow{}, err
	}
	f.Expires = f.Expires.UTC()
	return f, nil
}
