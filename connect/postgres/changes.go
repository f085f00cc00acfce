package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keycaddy/keycaddy/connect"
)

// Changes implements connect.Store, by the database's clock.
func (s *Store) Changes(ctx context.Context, since time.Time) (changes []connect.Change, present time.Time, err error) {
	const what = "reading changes"
	err = s.row(ctx, what, again, func(row pgx.Row) error { return row.Scan(&present) }, `SELECT clock_timestamp()`)
	if err != nil || since.IsZero() {
		return nil, present.UTC(), err
	}
	err = s.rows(ctx, what, func() { changes = nil }, func(row pgx.Row) error {
		var (
			c       connect.Change
			updated *time.Time
		)
		err := row.Scan(&c.ID.Integration, &c.ID.Connection, &c.UID, &c.Version, &c.Status, &c.Removed, &updated)
		c.Updated = fromMaybe(updated)
		changes = append(changes, c)
		return err
	}, `
		SELECT integration, connection, uid, version, status, false, updated FROM keycaddy.connections WHERE updated > $1::timestamptz
		UNION ALL
		SELECT integration, connection, uid, 0, '', true, NULL FROM keycaddy.removed WHERE at > $1::timestamptz`, micros(since))
	return changes, present.UTC(), err
}

const (
	channel = "keycaddy"
	// A node that can't listen tries again, since the database may be back.
	listenAgain = 5 * time.Second
)

// Announced implements connect.Store, with LISTEN on a connection of its own.
// That says nothing where there is a pooler in between, or a database that
// doesn't know it.
func (s *Store) Announced(ctx context.Context) <-chan struct{} {
	heard := make(chan struct{}, 1)
	go func() {
		for {
			s.listen(ctx, heard)
			select {
			case <-time.After(listenAgain):
			case <-ctx.Done():
				return
			}
		}
	}()
	return heard
}

// listen rings until the connection ends, or can't be made.
func (s *Store) listen(ctx context.Context, heard chan<- struct{}) {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return
		}
		select {
		case heard <- struct{}{}:
		default: // it has not looked yet since the one before
		}
	}
}

// announce tells other nodes to ask for changes. It may fail: they ask anyway.
func (s *Store) announce(ctx context.Context) {
	if s.mute.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, err := s.pool.Exec(ctx, "NOTIFY "+channel)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == syntaxError || refused.Code == notSupported) {
		s.mute.Store(true)
	}
}
