package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// Lease implements connect.Store. Whether a lease has run out is told by the
// clock of this machine, which all processes on the store share. Generations
// count all leases of the store together.
func (s *Store) Lease(ctx context.Context, name string, ttl time.Duration) (connect.Lease, error) {
	const what = "taking lease"
	if ttl < time.Microsecond {
		return connect.Lease{}, fmt.Errorf("%s: %v is too short", what, ttl)
	}
	l := connect.Lease{Name: name, Holder: rand.Text()}
	err := s.update(ctx, what, func(tx *sql.Tx) error {
		present := now() // after the wait for other writers
		l.Until = present.Add(ttl.Truncate(time.Microsecond))
		if err := tx.QueryRowContext(ctx, `UPDATE generations SET last = last + 1 RETURNING last`).Scan(&l.Generation); err != nil {
			return err
		}
		var taken int64
		err := tx.QueryRowContext(ctx, `INSERT INTO leases (name, holder, generation, until) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, generation = excluded.generation, until = excluded.until
			WHERE leases.until <= ? RETURNING generation`,
			name, l.Holder, l.Generation, micros(l.Until), micros(present)).Scan(&taken)
		if errors.Is(err, sql.ErrNoRows) {
			return connect.ErrHeld // and the generation isn't used up
		}
		return err
	})
	if err != nil {
		return connect.Lease{}, err
	}
	return l, nil
}

// Release implements connect.Store.
func (s *Store) Release(ctx context.Context, l connect.Lease) error {
	_, err := s.exec(ctx, "releasing lease", `DELETE FROM leases WHERE name = ? AND holder = ? AND generation = ?`,
		l.Name, l.Holder, l.Generation)
	return err
}

// Sweep implements connect.Store. Nothing that is still good is removed, even
// if before is in the future.
func (s *Store) Sweep(ctx context.Context, before time.Time) error {
	limit := min(micros(before), micros(now()))
	return s.update(ctx, "sweeping store", func(tx *sql.Tx) error {
		for _, statement := range []string{
			`DELETE FROM sessions WHERE expires < ?`,
			`DELETE FROM flows WHERE expires < ?`,
			`DELETE FROM leases WHERE until < ?`,
		} {
			if _, err := tx.ExecContext(ctx, statement, limit); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM removed WHERE at < ?`, limit-time.Hour.Microseconds())
		return err
	})
}
