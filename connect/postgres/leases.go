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
func (s *Store) Lease(ctx context.Context, name, node string, ttl time.Duration) (connect.Lease, error) {
	const what = "taking lease"
	if ttl < time.Microsecond {
		return connect.Lease{}, fmt.Errorf("%s: %v is too short", what, ttl)
	}
	l := connect.Lease{Name: name, Node: node, Holder: rand.Text()}
	// now() is when the statement began, before it waited for others: at worst
	// a lease that ran out meanwhile still counts as held.
	err := s.row(ctx, what, again, func(row pgx.Row) error {
		var intent []byte
		if err := row.Scan(&l.Generation, &l.Until, &intent); err != nil {
			return err
		}
		return fromJSON("intent", intent, &l.Intent)
	}, `INSERT INTO keycaddy.leases AS l (name, node, holder, generation, until)
		VALUES ($1, $2, $3, nextval('keycaddy.generations'), now() + $4::bigint * interval '1 microsecond')
		ON CONFLICT (name) DO UPDATE SET node = excluded.node, holder = excluded.holder,
			generation = greatest(nextval('keycaddy.generations'), l.generation + 1), until = excluded.until
		WHERE l.until <= now() OR l.holder = '' OR l.holder = excluded.holder
		RETURNING generation, until, intent`, name, node, l.Holder, ttl.Microseconds())
	if errors.Is(err, connect.ErrNotFound) {
		return connect.Lease{}, fmt.Errorf("%s: %w", what, connect.ErrHeld)
	}
	if err != nil {
		return connect.Lease{}, err
	}
	l.Until = l.Until.UTC()
	return l, nil
}

// Extend implements connect.Store.
func (s *Store) Extend(ctx context.Context, l connect.Lease, ttl time.Duration) (connect.Lease, error) {
	const what = "extending lease"
	intent, err := structJSON(l.Intent)
	if err != nil {
		return connect.Lease{}, fmt.Errorf("%s: %w", what, err)
	}
	err = s.row(ctx, what, again, func(row pgx.Row) error { return row.Scan(&l.Until) },
		`UPDATE keycaddy.leases SET until = now() + $1::bigint * interval '1 microsecond', intent = $2::jsonb
		WHERE name = $3 AND holder = $4 AND generation = $5 RETURNING until`,
		ttl.Microseconds(), intent, l.Name, l.Holder, l.Generation)
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
	const what = "releasing lease"
	intent, err := structJSON(l.Intent)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	_, err = s.exec(ctx, what, again, `UPDATE keycaddy.leases SET holder = '', until = least(until, now()), intent = $1::jsonb
		WHERE name = $2 AND holder = $3 AND generation = $4`, intent, l.Name, l.Holder, l.Generation)
	return err
}

// Vacate implements connect.Store.
func (s *Store) Vacate(ctx context.Context, node string) error {
	_, err := s.exec(ctx, "vacating leases", again, `UPDATE keycaddy.leases SET holder = '', until = least(until, now())
		WHERE node = $1 AND holder <> ''`, node)
	return err
}

// Intents implements connect.Store.
func (s *Store) Intents(ctx context.Context, limit int) (found []connect.Lease, err error) {
	err = s.rows(ctx, "reading intents", func() { found = nil }, func(row pgx.Row) error {
		var (
			l      connect.Lease
			intent []byte
		)
		if err := row.Scan(&l.Name, &l.Node, &l.Holder, &l.Generation, &l.Until, &intent); err != nil {
			return err
		}
		l.Until = l.Until.UTC()
		found = append(found, l)
		return fromJSON("intent", intent, &found[len(found)-1].Intent)
	}, `SELECT name, node, holder, generation, until, intent FROM keycaddy.leases
		WHERE intent IS NOT NULL AND until <= now() ORDER BY until LIMIT $1`, int64(limit))
	return found, err
}

// sweepBatch is how many rows one statement of Sweep removes at most, so that
// none runs for long and holds many locks.
const sweepBatch = 1000

// Sweep implements connect.Store. Nothing that is still good by the database's
// clock is removed, even if before is in the future. Leases are removed an hour
// later than that: see Lease.
func (s *Store) Sweep(ctx context.Context, before time.Time) error {
	for _, statement := range append([]string{
		`DELETE FROM keycaddy.sessions WHERE token IN
			(SELECT token FROM keycaddy.sessions WHERE expires < least($1::timestamptz, now()) LIMIT $2)`,
		`DELETE FROM keycaddy.flows WHERE id IN
			(SELECT id FROM keycaddy.flows WHERE expires < least($1::timestamptz, now()) LIMIT $2)`,
		// The condition is there twice, since a lease may be taken in between.
		`DELETE FROM keycaddy.leases WHERE until < least($1::timestamptz, now()) - interval '1 hour' AND intent IS NULL AND name IN
			(SELECT name FROM keycaddy.leases WHERE until < least($1::timestamptz, now()) - interval '1 hour' AND intent IS NULL LIMIT $2)`,
		`DELETE FROM keycaddy.turns WHERE next < least($1::timestamptz, now()) AND name IN
			(SELECT name FROM keycaddy.turns WHERE next < least($1::timestamptz, now()) LIMIT $2)`,
		`DELETE FROM keycaddy.removed WHERE uid IN
			(SELECT uid FROM keycaddy.removed WHERE at < least($1::timestamptz, now()) - interval '1 hour' LIMIT $2)`,
	}, outboxSweeps...) {
		for rows := int64(sweepBatch); rows == sweepBatch; {
			var err error
			if rows, err = s.exec(ctx, "sweeping store", again, statement, micros(before), int64(sweepBatch)); err != nil {
				return err
			}
		}
	}
	return nil
}
