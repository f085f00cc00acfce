package sqlite

import (
	"context"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// Changes implements connect.Store. The clock is the machine's, which all
// processes on a file share.
func (s *Store) Changes(ctx context.Context, since time.Time) (changes []connect.Change, present time.Time, err error) {
	const what = "reading changes"
	present = now()
	if since.IsZero() {
		return nil, present, nil
	}
	rows, err := s.read.QueryContext(ctx, `
		SELECT integration, connection, uid, version, status, 0, updated FROM connections WHERE updated > ?1
		UNION ALL
		SELECT integration, connection, uid, 0, '', 1, 0 FROM removed WHERE at > ?1`, micros(since))
	if err != nil {
		return nil, present, wrap(ctx, what, err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			c       connect.Change
			updated int64
		)
		if err := rows.Scan(&c.ID.Integration, &c.ID.Connection, &c.UID, &c.Version, &c.Status, &c.Removed, &updated); err != nil {
			return nil, present, wrap(ctx, what, err)
		}
		if !c.Removed {
			c.Updated = fromMicros(updated)
		}
		changes = append(changes, c)
	}
	return changes, present, wrap(ctx, what, rows.Err())
}

// Announced implements connect.Store: other processes can only be asked.
func (s *Store) Announced(context.Context) <-chan struct{} { return nil }
