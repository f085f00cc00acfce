package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// addEvents writes events in the transaction of the change that they tell of.
func addEvents(ctx context.Context, tx *sql.Tx, events []connect.Event) error {
	for i := range events {
		body, err := structJSON(&events[i])
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO events (id, body, at) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			events[i].ID, body, micros(events[i].At)); err != nil {
			return err
		}
	}
	return nil
}

// Route implements connect.Outbox.
func (s *Store) Route(ctx context.Context, limit int, to func(*connect.Event) []connect.Target) (int, error) {
	const what = "routing events"
	var some bool // looking first lets other processes write
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM events WHERE routed = 0)`).Scan(&some)
	if err != nil || !some {
		return 0, wrap(ctx, what, err)
	}
	var routed int
	err = s.update(ctx, what, func(tx *sql.Tx) error {
		events, serials, err := unrouted(ctx, tx, limit)
		if err != nil {
			return err
		}
		routed = len(events)
		present := micros(now())
		endpoints := make(map[string]string)
		for i := range events {
			e := &events[i]
			for _, t := range to(e) {
				endpoints[t.Endpoint] = t.URL
				if _, err := tx.ExecContext(ctx, `INSERT INTO deliveries
					(event, endpoint, integration, connection, state, attempts, since, next, status, error)
					VALUES (?, ?, ?, ?, 'waiting', 0, ?, ?, 0, '') ON CONFLICT DO NOTHING`,
					serials[i], t.Endpoint, e.Integration, e.Connection, present, present); err != nil {
					return err
				}
			}
			if _, err := tx.ExecContext(ctx, `UPDATE events SET routed = 1 WHERE serial = ?`, serials[i]); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(endpoints)) {
			if err := wake(ctx, tx, name, endpoints[name], present); err != nil {
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

func unrouted(ctx context.Context, tx *sql.Tx, limit int) (events []connect.Event, serials []int64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT serial, body FROM events WHERE routed = 0 ORDER BY serial LIMIT ?`, limit)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			serial int64
			body   string
			e      connect.Event
		)
		if err := rows.Scan(&serial, &body); err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			return nil, nil, fmt.Errorf("event %d is not the JSON expected", serial)
		}
		events, serials = append(events, e), append(serials, serial)
	}
	return events, serials, rows.Err()
}

// wake has an endpoint looked at, at once.
func wake(ctx context.Context, tx *sql.Tx, name, url string, present int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO endpoints (name, url, next) VALUES (?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET next = min(coalesce(endpoints.next, excluded.next), excluded.next)`, name, url, present)
	return err
}

// ClaimEndpoints implements connect.Outbox.
func (s *Store) ClaimEndpoints(ctx context.Context, names []string, limit int, hold time.Duration) ([]connect.Endpoint, error) {
	const what = "claiming endpoints"
	const due = ` FROM endpoints WHERE next <= ?1 AND paused <= ?1 AND held <= ?1
		AND (url <> '' OR name IN (SELECT value FROM json_each(?2)))`
	known, err := asJSON(names, false)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	if names == nil {
		known.String = "[]"
	}
	var some bool
	err = s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1`+due+`)`, micros(now()), known).Scan(&some)
	if err != nil || !some {
		return nil, wrap(ctx, what, err)
	}
	var claimed []connect.Endpoint
	holder := rand.Text()
	err = s.update(ctx, what, func(tx *sql.Tx) error {
		claimed = nil
		present := now()
		rows, err := tx.QueryContext(ctx, `UPDATE endpoints SET holder = ?3, held = ?4 WHERE name IN
			(SELECT name`+due+` ORDER BY next LIMIT ?5) RETURNING name, url, failures, paused`,
			micros(present), known, holder, micros(present.Add(hold)), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			e := connect.Endpoint{Holder: holder}
			var paused int64
			if err := rows.Scan(&e.Name, &e.URL, &e.Failures, &paused); err != nil {
				return err
			}
			e.PausedUntil = fromPaused(paused)
			claimed = append(claimed, e)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// ReleaseEndpoint implements connect.Outbox.
func (s *Store) ReleaseEndpoint(ctx context.Context, e connect.Endpoint) error {
	paused := int64(0)
	if !e.PausedUntil.IsZero() {
		paused = micros(e.PausedUntil)
	}
	_, err := s.exec(ctx, "releasing endpoint", `UPDATE endpoints SET failures = ?, paused = ?, holder = '', held = 0,
		next = (SELECT min(next) FROM deliveries WHERE endpoint = name AND state = 'waiting')
		WHERE name = ? AND holder = ?`, e.Failures, paused, e.Name, e.Holder)
	return err
}

func fromPaused(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return fromMicros(micros)
}

const selectDeliveries = `SELECT d.serial, e.body, d.endpoint, d.state, d.attempts, d.since, d.next, d.tried, d.status, d.error
	FROM deliveries d JOIN events e ON e.serial = d.event`

// DueDeliveries implements connect.Outbox.
func (s *Store) DueDeliveries(ctx context.Context, endpoint string, limit int) ([]connect.Delivery, error) {
	return s.deliveries(ctx, "reading due deliveries", selectDeliveries+`
		WHERE d.endpoint = ? AND d.state = 'waiting' AND d.next <= ? ORDER BY d.next, d.serial LIMIT ?`, endpoint, micros(now()), limit)
}

// Deliveries implements connect.Outbox.
func (s *Store) Deliveries(ctx context.Context, q connect.DeliveryQuery) ([]connect.Delivery, error) {
	all, args := []string{"true"}, []any{}
	for column, value := range map[string]string{
		"d.state": string(q.State), "d.endpoint": q.Endpoint, "e.id": q.Event, "d.integration": q.Integration, "d.connection": q.Connection,
	} {
		if value != "" {
			all, args = append(all, column+" = ?"), append(args, value)
		}
	}
	if q.Before > 0 {
		all, args = append(all, "d.serial < ?"), append(args, q.Before)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	return s.deliveries(ctx, "listing deliveries", selectDeliveries+` WHERE `+strings.Join(all, ` AND `)+` ORDER BY d.serial DESC LIMIT ?`,
		append(args, limit)...)
}

func (s *Store) deliveries(ctx context.Context, what, statement string, args ...any) ([]connect.Delivery, error) {
	rows, err := s.read.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	defer rows.Close()
	var found []connect.Delivery
	for rows.Next() {
		var (
			d           connect.Delivery
			body        sql.NullString
			since, next int64
			tried       sql.NullInt64
		)
		err := rows.Scan(&d.Serial, &body, &d.Endpoint, &d.State, &d.Attempts, &since, &next, &tried, &d.Status, &d.Error)
		if err == nil {
			err = fromJSON("body", body, &d.Event)
		}
		if err != nil {
			return nil, wrap(ctx, what, err)
		}
		d.Since, d.Next, d.Tried = fromMicros(since), fromMicros(next), fromMaybe(tried)
		found = append(found, d)
	}
	return found, wrap(ctx, what, rows.Err())
}

// NoteAttempt implements connect.Outbox.
func (s *Store) NoteAttempt(ctx context.Context, d connect.Delivery) error {
	_, err := s.exec(ctx, "noting an attempt to deliver", `UPDATE deliveries
		SET state = ?, attempts = ?, next = ?, tried = ?, status = ?, error = ? WHERE serial = ? AND state = 'waiting'`,
		string(d.State), d.Attempts, micros(d.Next), maybe(d.Tried), d.Status, d.Error, d.Serial)
	return err
}

// Redeliver implements connect.Outbox.
func (s *Store) Redeliver(ctx context.Context, event, endpoint string) (int, error) {
	const what = "delivering again"
	var names []string
	err := s.update(ctx, what, func(tx *sql.Tx) error {
		names = nil
		present := micros(now())
		rows, err := tx.QueryContext(ctx, `UPDATE deliveries SET state = 'waiting', attempts = 0, since = ?1, next = ?1
			WHERE event = (SELECT serial FROM events WHERE id = ?2) AND (?3 = '' OR endpoint = ?3) RETURNING endpoint`, present, event, endpoint)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			names = append(names, name)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if len(names) == 0 {
			return connect.ErrNotFound
		}
		for _, name := range names { // each has a row: it had a delivery before
			if err := wake(ctx, tx, name, "", present); err != nil {
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
func (s *Store) Endpoints(ctx context.Context) ([]connect.Endpoint, error) {
	const what = "listing endpoints"
	rows, err := s.read.QueryContext(ctx, `SELECT name, url, failures, paused,
		(SELECT count(*) FROM deliveries WHERE endpoint = name AND state = 'waiting') FROM endpoints ORDER BY name`)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	defer rows.Close()
	var found []connect.Endpoint
	for rows.Next() {
		var (
			e      connect.Endpoint
			paused int64
		)
		if err := rows.Scan(&e.Name, &e.URL, &e.Failures, &paused, &e.Waiting); err != nil {
			return nil, wrap(ctx, what, err)
		}
		e.PausedUntil = fromPaused(paused)
		found = append(found, e)
	}
	return found, wrap(ctx, what, rows.Err())
}

// OutboxDepth implements connect.Outbox.
func (s *Store) OutboxDepth(ctx context.Context) (depth int, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM events WHERE routed = 0)
		+ (SELECT count(*) FROM deliveries WHERE state = 'waiting')`).Scan(&depth)
	return depth, wrap(ctx, "measuring the outbox", err)
}

// sweepOutbox gives up what was tried for long enough and removes what is old.
// limit is in microseconds.
func sweepOutbox(ctx context.Context, tx *sql.Tx, limit int64) error {
	if _, err := tx.ExecContext(ctx, `UPDATE deliveries SET state = 'given_up' WHERE state = 'waiting' AND since < ?`,
		limit-(connect.RetryFor+time.Hour).Microseconds()); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM events WHERE at < ? AND NOT EXISTS
		(SELECT 1 FROM deliveries WHERE event = events.serial AND state = 'waiting')`, limit-connect.EventsKept.Microseconds()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM endpoints WHERE next IS NULL AND held <= ?1 AND paused <= ?1
		AND NOT EXISTS (SELECT 1 FROM deliveries WHERE endpoint = name)`, limit)
	return err
}
