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
func (s *Store) Lease(ctx context.Context, name, node string, ttl time.Duration) (connect.Lease, error) {
	const what = "taking lease"
	if ttl < time.Microsecond {
		return connect.Lease{}, fmt.Errorf("%s: %v is too short", what, ttl)
	}
	l := connect.Lease{Name: name, Node: node, Holder: rand.Text()}
	err := s.update(ctx, what, func(tx *sql.Tx) error {
		present := now() // after the wait for other writers
		l.Until = present.Add(ttl.Truncate(time.Microsecond))
		if err := tx.QueryRowContext(ctx, `UPDATE generations SET last = last + 1 RETURNING last`).Scan(&l.Generation); err != nil {
			return err
		}
		var intent sql.NullString
		err := tx.QueryRowContext(ctx, `INSERT INTO leases (name, node, holder, generation, until) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET
				node = excluded.node, holder = excluded.holder, generation = excluded.generation, until = excluded.until
			WHERE leases.until <= ? RETURNING intent`,
			name, node, l.Holder, l.Generation, micros(l.Until), micros(present)).Scan(&intent)
		if errors.Is(err, sql.ErrNoRows) {
			return connect.ErrHeld // and the generation isn't used up
		}
		if err != nil {
			return err
		}
		return fromJSON("intent", intent, &l.Intent)
	})
	if err != nil {
		return connect.Lease{}, err
	}
	return l, nil
}

// Extend implements connect.Store.
func (s *Store) Extend(ctx context.Context, l connect.Lease, ttl time.Duration) (connect.Lease, error) {
	const what = "extending lease"
	intent, err := structJSON(l.Intent)
	if err != nil {
		return connect.Lease{}, fmt.Errorf("%s: %w", what, err)
	}
	until := now().Add(ttl.Truncate(time.Microsecond))
	rows, err := s.exec(ctx, what, `UPDATE leases SET until = ?, intent = ? WHERE name = ? AND holder = ? AND generation = ?`,
		micros(until), intent, l.Name, l.Holder, l.Generation)
	if err == nil && rows == 0 {
		err = fmt.Errorf("%s: %w", what, connect.ErrHeld)
	}
	if err != nil {
		return connect.Lease{}, err
	}
	l.Until = until
	return l, nil
}

// Release implements connect.Store. A row stays as long as it has an intent.
func (s *Store) Release(ctx context.Context, l connect.Lease) error {
	const what = "releasing lease"
	if l.Intent == nil {
		_, err := s.exec(ctx, what, `DELETE FROM leases WHERE name = ? AND holder = ? AND generation = ?`,
			l.Name, l.Holder, l.Generation)
		return err
	}
	intent, err := structJSON(l.Intent)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	_, err = s.exec(ctx, what, `UPDATE leases SET holder = '', until = 0, intent = ? WHERE name = ? AND holder = ? AND generation = ?`,
		intent, l.Name, l.Holder, l.Generation)
	return err
}

// Vacate implements connect.Store.
func (s *Store) Vacate(ctx context.Context, node string) error {
	_, err := s.exec(ctx, "vacating leases", `UPDATE leases SET holder = '', until = 0 WHERE node = ? AND holder <> ''`, node)
	return err
}

// Intents implements connect.Store.
func (s *Store) Intents(ctx context.Context, limit int) ([]connect.Lease, error) {
	const what = "reading intents"
	rows, err := s.read.QueryContext(ctx, `SELECT name, node, holder, generation, until, intent FROM leases
		WHERE intent IS NOT NULL AND until <= ? ORDER BY until LIMIT ?`, micros(now()), limit)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	defer rows.Close()
	var found []connect.Lease
	for rows.Next() {
		var (
			l      connect.Lease
			until  int64
			intent sql.NullString
		)
		err := rows.Scan(&l.Name, &l.Node, &l.Holder, &l.Generation, &until, &intent)
		if err == nil {
			err = fromJSON("intent", intent, &l.Intent)
		}
		if err != nil {
			return nil, wrap(ctx, what, err)
		}
		l.Until = fromMicros(until)
		found = append(found, l)
	}
	return found, wrap(ctx, what, rows.Err())
}

// Sweep implements connect.Store. Nothing that is still good is removed, even
// if before is in the future.
func (s *Store) Sweep(ctx context.Context, before time.Time) error {
	limit := min(micros(before), micros(now()))
	return s.update(ctx, "sweeping store", func(tx *sql.Tx) error {
		for _, statement := range []string{
			`DELETE FROM sessions WHERE expires < ?`,
			`DELETE FROM flows WHERE expires < ?`,
			`DELETE FROM leases WHERE until < ? AND intent IS NULL`,
			`DELETE FROM turns WHERE next < ?`,
		} {
			if _, err := tx.ExecContext(ctx, statement, limit); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM removed WHERE at < ?`, limit-time.Hour.Microseconds()); err != nil {
			return err
		}
		return sweepOutbox(ctx, tx, limit)
	})
}
