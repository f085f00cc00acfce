package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

// addEvents writes events in the transaction of the change that they tell of.
func addEvents(ctx context.Context, tx pgx.Tx, events []connect.Event) error {
	for i := range events {
		body, err := structJSON(&events[i])
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO keycaddy.events (id, body, at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
			events[i].ID, body, micros(events[i].At)); err != nil {
			return err
		}
	}
	return nil
}

// Route implements connect.Outbox. Several nodes may do so at once: each takes
// events that no other is at.
func (s *Store) Route(ctx context.Context, limit int, to func(*connect.Event) []connect.Target) (routed int, err error) {
	const what = "routing events"
	var some bool // looking first costs a transaction less
	err = s.row(ctx, what, again, func(row pgx.Row) error { return row.Scan(&some) },
		`SELECT EXISTS (SELECT 1 FROM keycaddy.events WHERE NOT routed)`)
	if err != nil || !some {
		return 0, err
	}
	err = s.transact(ctx, s.timeout, what, again, func(ctx context.Context, tx pgx.Tx) error {
		events, serials, err := unrouted(ctx, tx, limit)
		if err != nil {
			return err
		}
		routed = len(events)
		endpoints := make(map[string]string)
		for i := range events {
			e := &events[i]
			for _, t := range to(e) {
				endpoints[t.Endpoint] = t.URL
				if _, err := tx.Exec(ctx, `INSERT INTO keycaddy.deliveries
					(event, endpoint, integration, connection, state, attempts, since, next, status, error)
					VALUES ($1, $2, $3, $4, 'waiting', 0, now(), now(), 0, '') ON CONFLICT DO NOTHING`,
					serials[i], t.Endpoint, e.Integration, e.Connection); err != nil {
					return err
				}
			}
		}
		if _, err := tx.Exec(ctx, `UPDATE keycaddy.events SET routed = true WHERE serial = ANY ($1::bigint[])`, serials); err != nil {
			return err
		}
		// In one order, so that nodes don't lock each other out.
		for _, name := range slices.Sorted(maps.Keys(endpoints)) {
			if err := wake(ctx, tx, name, endpoints[name]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return routed, nil
}

func unrouted(ctx context.Context, tx pgx.Tx, limit int) (events []connect.Event, serials []int64, err error) {
	rows, err := tx.Query(ctx, `SELECT serial, body FROM keycaddy.events WHERE NOT routed ORDER BY serial LIMIT $1 FOR UPDATE SKIP LOCKED`, int64(limit))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			serial int64
			body   []byte
			e      connect.Event
		)
		if err := rows.Scan(&serial, &body); err != nil {
			return nil, nil, err
		}
		if err := fromJSON("body", body, &e); err != nil {
			return nil, nil, err
		}
		events, serials = append(events, e), append(serials, serial)
	}
	return events, serials, rows.Err()
}

// wake has an endpoint looked at, at once. Its row is locked after the
// deliveries were written; ReleaseEndpoint counts on that.
func wake(ctx context.Context, tx pgx.Tx, name, url string) error {
	_, err := tx.Exec(ctx, `INSERT INTO keycaddy.endpoints AS e (name, url, next) VALUES ($1, $2, now())
		ON CONFLICT (name) DO UPDATE SET next = least(coalesce(e.next, excluded.next), excluded.next)`, name, url)
	return err
}

// ClaimEndpoints implements connect.Outbox.
func (s *Store) ClaimEndpoints(ctx context.Context, names []string, limit int, hold time.Duration) (claimed []connect.Endpoint, err error) {
	const what = "claiming endpoints"
	const due = ` FROM keycaddy.endpoints WHERE next <= now() AND paused <= now() AND held <= now() AND (url <> '' OR name = ANY ($1::text[]))`
	if names == nil {
		names = []string{}
	}
	var some bool
	err = s.row(ctx, what, again, func(row pgx.Row) error { return row.Scan(&some) }, `SELECT EXISTS (SELECT 1`+due+`)`, names)
	if err != nil || !some {
		return nil, err
	}
	holder := rand.Text()
	err = s.rows(ctx, what, func() { claimed = nil }, func(row pgx.Row) error {
		e := connect.Endpoint{Holder: holder}
		if err := row.Scan(&e.Name, &e.URL, &e.Failures, &e.PausedUntil); err != nil {
			return err
		}
		e.PausedUntil = fromPaused(e.PausedUntil)
		claimed = append(claimed, e)
		return nil
	}, `UPDATE keycaddy.endpoints SET holder = $2, held = now() + $3::bigint * interval '1 microsecond' WHERE name IN
		(SELECT name`+due+` ORDER BY next LIMIT $4 FOR UPDATE SKIP LOCKED) RETURNING name, url, failures, paused`,
		names, holder, hold.Microseconds(), int64(limit))
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// ReleaseEndpoint implements connect.Outbox. The row is locked first, and what
// waits is looked up after: what somebody has added meanwhile is seen, or who
// adds it waits and sees that nothing did.
func (s *Store) ReleaseEndpoint(ctx context.Context, e connect.Endpoint) error {
	paused := e.PausedUntil
	if paused.IsZero() {
		paused = time.Unix(0, 0)
	}
	return s.transact(ctx, s.timeout, "releasing endpoint", again, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `SELECT 1 FROM keycaddy.endpoints WHERE name = $1 AND holder = $2 FOR UPDATE`, e.Name, e.Holder)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE keycaddy.endpoints SET failures = $1, paused = $2, holder = '', held = 'epoch',
			next = (SELECT min(next) FROM keycaddy.deliveries WHERE endpoint = $3 AND state = 'waiting') WHERE name = $3`,
			int64(e.Failures), micros(paused), e.Name)
		return err
	})
}

func fromPaused(t time.Time) time.Time {
	if t.Unix() == 0 {
		return time.Time{}
	}
	return t.UTC()
}

const selectDeliveries = `SELECT d.serial, e.body, d.endpoint, d.state, d.attempts, d.since, d.next, d.tried, d.status, d.error
	FROM keycaddy.deliveries d JOIN keycaddy.events e ON e.serial = d.event`

// DueDeliveries implements connect.Outbox.
func (s *Store) DueDeliveries(ctx context.Context, endpoint string, limit int) ([]connect.Delivery, error) {
	return s.deliveries(ctx, "reading due deliveries", selectDeliveries+`
		WHERE d.endpoint = $1 AND d.state = 'waiting' AND d.next <= now() ORDER BY d.next, d.serial LIMIT $2`, endpoint, int64(limit))
}

// Deliveries implements connect.Outbox.
func (s *Store) Deliveries(ctx context.Context, q connect.DeliveryQuery) ([]connect.Delivery, error) {
	all, args := []string{"true"}, []any{}
	add := func(condition string, value any) {
		args = append(args, value)
		all = append(all, fmt.Sprintf(condition, len(args)))
	}
	for column, value := range map[string]string{
		"d.state": string(q.State), "d.endpoint": q.Endpoint, "e.id": q.Event, "d.integration": q.Integration, "d.connection": q.Connection,
	} {
		switch {
		case value == "":
		case !keepable(value):
			return nil, ctx.Err()
		default:
			add(column+" = $%d", value)
		}
	}
	if q.Before > 0 {
		add("d.serial < $%d", q.Before)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	add("true ORDER BY d.serial DESC LIMIT $%d", int64(limit))
	return s.deliveries(ctx, "listing deliveries", selectDeliveries+` WHERE `+strings.Join(all, ` AND `), args...)
}

func (s *Store) deliveries(ctx context.Context, what, statement string, args ...any) (found []connect.Delivery, err error) {
	err = s.rows(ctx, what, func() { found = nil }, func(row pgx.Row) error {
		var (
			d     connect.Delivery
			body  []byte
			tried *time.Time
		)
		if err := row.Scan(&d.Serial, &body, &d.Endpoint, &d.State, &d.Attempts, &d.Since, &d.Next, &tried, &d.Status, &d.Error); err != nil {
			return err
		}
		d.Since, d.Next, d.Tried = d.Since.UTC(), d.Next.UTC(), fromMaybe(tried)
		found = append(found, d)
		return fromJSON("body", body, &found[len(found)-1].Event)
	}, statement, args...)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// NoteAttempt implements connect.Outbox.
func (s *Store) NoteAttempt(ctx context.Context, d connect.Delivery) error {
	_, err := s.exec(ctx, "noting an attempt to deliver", again, `UPDATE keycaddy.deliveries
		SET state = $1, attempts = $2, next = $3, tried = $4::timestamptz, status = $5, error = $6 WHERE serial = $7 AND state = 'waiting'`,
		string(d.State), int64(d.Attempts), micros(d.Next), maybe(d.Tried), int64(d.Status), d.Error, d.Serial)
	return err
}

// Redeliver implements connect.Outbox.
func (s *Store) Redeliver(ctx context.Context, event, endpoint string) (int, error) {
	const what = "delivering again"
	if !keepable(event) || !keepable(endpoint) {
		return 0, fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	var names []string
	err := s.transact(ctx, s.timeout, what, again, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `UPDATE keycaddy.deliveries SET state = 'waiting', attempts = 0, since = now(), next = now()
			WHERE event = (SELECT serial FROM keycaddy.events WHERE id = $1) AND ($2 = '' OR endpoint = $2) RETURNING endpoint`, event, endpoint)
		if err != nil {
			return err
		}
		if names, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return err
		}
		if len(names) == 0 {
			return pgx.ErrNoRows
		}
		slices.Sort(names)
		for _, name := range names { // each has a row: it had a delivery before
			if err := wake(ctx, tx, name, ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(names), nil
}

// Endpoints implements connect.Outbox.
func (s *Store) Endpoints(ctx context.Context) (found []connect.Endpoint, err error) {
	err = s.rows(ctx, "listing endpoints", func() { found = nil }, func(row pgx.Row) error {
		var e connect.Endpoint
		if err := row.Scan(&e.Name, &e.URL, &e.Failures, &e.PausedUntil, &e.Waiting); err != nil {
			return err
		}
		e.PausedUntil = fromPaused(e.PausedUntil)
		found = append(found, e)
		return nil
	}, `SELECT name, url, failures, paused, (SELECT count(*) FROM keycaddy.deliveries WHERE endpoint = name AND state = 'waiting')
		FROM keycaddy.endpoints ORDER BY name COLLATE "C"`)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// OutboxDepth implements connect.Outbox.
func (s *Store) OutboxDepth(ctx context.Context) (depth int, err error) {
	err = s.row(ctx, "measuring the outbox", again, func(row pgx.Row) error { return row.Scan(&depth) },
		`SELECT (SELECT count(*) FROM keycaddy.events WHERE NOT routed)
			+ (SELECT count(*) FROM keycaddy.deliveries WHERE state = 'waiting')`)
	return depth, err
}

// outboxSweeps give up what was tried for long enough and remove what is old.
// The parameters are those of all of Sweep's statements.
var outboxSweeps = []string{
	`UPDATE keycaddy.deliveries SET state = 'given_up' WHERE serial IN
		(SELECT serial FROM keycaddy.deliveries WHERE state = 'waiting'
		AND since < least($1::timestamptz, now()) - ` + seconds(connect.RetryFor+time.Hour) + ` LIMIT $2)`,
	`DELETE FROM keycaddy.events WHERE serial IN
		(SELECT serial FROM keycaddy.events WHERE at < least($1::timestamptz, now()) - ` + seconds(connect.EventsKept) + `
		AND NOT EXISTS (SELECT 1 FROM keycaddy.deliveries WHERE event = events.serial AND state = 'waiting') LIMIT $2)`,
	`DELETE FROM keycaddy.endpoints WHERE name IN
		(SELECT name FROM keycaddy.endpoints WHERE next IS NULL AND greatest(held, paused) <= least($1::timestamptz, now())
		AND NOT EXISTS (SELECT 1 FROM keycaddy.deliveries WHERE endpoint = name) LIMIT $2 FOR UPDATE SKIP LOCKED)`,
}

// seconds is a duration as SQL has it.
func seconds(d time.Duration) string {
	return fmt.Sprintf("interval '%d seconds'", int(d.Seconds()))
}
