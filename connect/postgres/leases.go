package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

// Lease implements connect.Store. Whether a lease has run out is told by the
// database's clock alone, as is Until: a node whose clock is wrong can neither
// take a lease that is held nor keep one that has run out. What a node may
// misjudge is how long its own lease still lasts, by as much as its clock is off.
//
// Generations come from one sequence, for all leases together. A row that was
// released or has run out stays for an hour (see Sweep), so that the number for
// the next holding is drawn while the row is locked: after, and so higher than,
// that of the holding before. Drawn any earlier, it could be overtaken.
func (s *Store) Lease(ctx context.Context, name string, ttl time.Duration) (connect.Lease, error) {
	const what = "taking lease"
	if ttl < time.Microsecond {
		return connect.Lease{}, fmt.Errorf("%s: %v is too short", what, ttl)
	}
	l := connect.Lease{Name: name, Holder: rand.Text()}
	// now() is when the statement began, before it waited for others: at worst
	// a lease that ran out meanwhile still counts as held.
	err := s.row(ctx, what, again, func(row pgx.Row) error { return row.Scan(&l.Generation, &l.Until) },
		`INSERT INTO keycaddy.leases AS l (name, holder, generation, until)
		VALUES ($1, $2, nextval('keycaddy.generations'), now() + $3::bigint * interval '1 microsecond')
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder,
			generation = greatest(nextval('keycaddy.generations'), l.generation + 1), until = excluded.until
		WHERE l.until <= now() OR l.holder = '' OR l.holder = excluded.holder
		RETURNING generation, until`, name, l.Holder, ttl.Microseconds())
	if errors.Is(err, connect.ErrNotFound) {
		return connect.Lease{}, fmt.Errorf("%s: %w", what, connect.ErrHeld)
	}
	if err != nil {
		return connect.Lease{}, err
	}
	l.Until = l.Until.UTC()
	return l, nil
}

// Release implements connect.Store.
func (s *Store) Release(ctx context.Context, l connect.Lease) error {
	_, err := s.exec(ctx, "releasing lease", again, `UPDATE keycaddy.leases SET holder = '', until = least(until, now())
		WHERE name = $1 AND holder = $2 AND generation = $3`, l.Name, l.Holder, l.Generation)
	return err
}

// sweepBatch is how many rows one statement of Sweep removes at most, so that
// none runs for long and holds many locks.
const sweepBatch = 1000

// Sweep implements connect.Store. Nothing that is still good by the database's
// clock is removed, even if before is in the future. Leases are removed an hour
// later than that: see Lease.
func (s *Store) Sweep(ctx context.Context, before time.Time) error {
	for _, statement := range []string{
		`DELETE FROM keycaddy.sessions WHERE token IN
			(SELECT token FROM keycaddy.sessions WHERE expires < least($1::timestamptz, now()) LIMIT $2)`,
		`DELETE FROM keycaddy.flows WHERE id IN
			(SELECT id FROM keycaddy.flows WHERE expires < least($1::timestamptz, now()) LIMIT $2)`,
		// The condition is there twice, since a lease may be taken in between.
		`DELETE FROM keycaddy.leases WHERE until < least($1::timestamptz, now()) - interval '1 hour' AND name IN
			(SELECT name FROM keycaddy.leases WHERE until < least($1::timestamptz, now()) - interval '1 hour' LIMIT $2)`,
		`DELETE FROM keycaddy.removed WHERE uid IN
			(SELECT uid FROM keycaddy.removed WHERE at < least($1::timestamptz, now()) - interval '1 hour' LIMIT $2)`,
	} {
		for rows := int64(sweepBatch); rows == sweepBatch; {
			var err error
			if rows, err = s.exec(ctx, "sweeping store", again, statement, micros(before), int64(sweepBatch)); err != nil {
				return err
			}
		}
	}
	return nil
}
