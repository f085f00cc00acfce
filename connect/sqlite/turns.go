package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// Turn implements connect.Store.
func (s *Store) Turn(ctx context.Context, name string, every, within time.Duration) (wait time.Duration, ok bool, err error) {
	const what = "taking a turn"
	err = s.update(ctx, what, func(tx *sql.Tx) error {
		present := now() // after the wait for other writers
		var next int64
		err := tx.QueryRowContext(ctx, `SELECT next FROM turns WHERE name = ?`, name).Scan(&next)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		at := max(next, micros(present))
		wait = time.Duration(at-micros(present)) * time.Microsecond
		ok = wait <= within
		if !ok || every <= 0 {
			return nil
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO turns (name, next) VALUES (?, ?)
			ON CONFLICT (name) DO UPDATE SET next = excluded.next`, name, at+every.Microseconds())
		return err
	})
	return wait, ok && err == nil, err
}

// Defer implements connect.Store.
func (s *Store) Defer(ctx context.Context, name string, wait time.Duration) error {
	_, err := s.exec(ctx, "deferring turns", `INSERT INTO turns (name, next) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET next = max(turns.next, excluded.next)`, name, micros(now().Add(wait)))
	return err
}

// Due implements connect.Store.
func (s *Store) Due(ctx context.Context, limit int, hold time.Duration) ([]connect.Connection, error) {
	var due []connect.Connection
	err := s.update(ctx, "reading what is due", func(tx *sql.Tx) error {
		due = nil
		present := now()
		rows, err := tx.QueryContext(ctx, `UPDATE connections SET due = ? WHERE serial IN
			(SELECT serial FROM connections WHERE due <= ? ORDER BY due LIMIT ?) RETURNING `+connectionColumns,
			micros(present.Add(hold)), micros(present), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			c, err := scanConnection(rows)
			if err != nil {
				return err
			}
			due = append(due, c)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return due, nil
}
