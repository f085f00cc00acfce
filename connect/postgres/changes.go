package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

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
		var c connect.Change
		err := row.Scan(&c.ID.Integration, &c.ID.Connection, &c.UID, &c.Version, &c.Status, &c.Removed)
		changes = append(changes, c)
		return err
	}, `
		SELECT integration, connection, uid, version, status, false FROM keycaddy.connections WHERE updated > $1::timestamptz
		UNION ALL
		SELECT integration, connection, uid, 0, '', true FROM keycaddy.removed WHERE at > $1::timestamptz`, micros(since))
	return changes, present.UTC(), err
}
