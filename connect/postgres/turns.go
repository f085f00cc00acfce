package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

// Turn implements connect.Store, by the database's clock. Without a rate it
// only reads. A turn whose confirmation was lost is reserved and not used.
func (s *Store) Turn(ctx context.Context, name string, every, within time.Duration) (wait time.Duration, ok bool, err error) {
	const what = "taking a turn"
	read := func(row pgx.Row) error {
		var micros int64
		err := row.Scan(&micros)
		wait = max(0, time.Duration(micros)*time.Microsecond)
		return err
	}
	if every > 0 {
		err = s.row(ctx, what, once, read, `INSERT INTO keycaddy.turns AS t (name, next)
			VALUES ($1, clock_timestamp() + $2::bigint * interval '1 microsecond')
			ON CONFLICT (name) DO UPDATE SET
				next = greatest(t.next, clock_timestamp()) + $2::bigint * interval '1 microsecond'
			WHERE t.next <= clock_timestamp() + $3::bigint * interval '1 microsecond'
			RETURNING (extract(epoch FROM next - clock_timestamp()) * 1000000)::bigint - $2::bigint`,
			name, every.Microseconds(), within.Microseconds())
		if !errors.Is(err, connect.ErrNotFound) {
			return wait, err == nil, err
		}
	}
	err = s.row(ctx, what, again, read,
		`SELECT (extract(epoch FROM next - clock_timestamp()) * 1000000)::bigint FROM keycaddy.turns WHERE name = $1`, name)
	switch {
	case errors.Is(err, connect.ErrNotFound):
		return 0, true, nil
	case err != nil:
		return 0, false, err
	}
	return wait, every <= 0 && wait <= within, nil
}

// Defer implements connect.Store.
func (s *Store) Defer(ctx context.Context, name string, wait time.Duration) error {
	_, err := s.exec(ctx, "deferring turns", again, `INSERT INTO keycaddy.turns AS t (name, next)
		VALUES ($1, clock_timestamp() + $2::bigint * interval '1 microsecond')
		ON CONFLICT (name) DO UPDATE SET next = greatest(t.next, excluded.next)`, name, wait.Microseconds())
	return err
}

// Due implements connect.Store. Rows that another node is just taking are
// passed over.
func (s *Store) Due(ctx context.Context, limit int, hold time.Duration) (due []connect.Connection, err error) {
	const what = "reading what is due"
	err = s.rows(ctx, what, func() { due = nil }, func(row pgx.Row) error {
		c, err := scanConnection(row)
		due = append(due, c)
		return err
	}, `UPDATE keycaddy.connections SET due = now() + $1::bigint * interval '1 microsecond' WHERE serial IN
		(SELECT serial FROM keycaddy.connections WHERE due <= now() ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED)
		RETURNING `+connectionColumns, hold.Microseconds(), int64(limit))
	return due, err
}
