package sqlite

import (
	"context"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// Statistics implements connect.StatisticsStore.
func (s *Store) Statistics(ctx context.Context, since time.Time) (connect.Statistics, error) {
	const what = "counting"
	out := connect.Statistics{Connections: map[connect.Status]int{}}
	rows, err := s.read.QueryContext(ctx, `SELECT status, count(*) FROM connections GROUP BY status`)
	if err != nil {
		return out, wrap(ctx, what, err)
	}
	defer rows.Close()
	for rows.Next() {
		var status string
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			return out, wrap(ctx, what, err)
		}
		out.Connections[connect.Status(status)] = n
	}
	if err := rows.Err(); err != nil {
		return out, wrap(ctx, what, err)
	}
	hours, err := s.read.QueryContext(ctx, `SELECT started / 3600000000, kind, status, count(*), CAST(avg(took) AS INTEGER)
		FROM logs WHERE started >= ? GROUP BY 1, 2, 3`, micros(since))
	if err != nil {
		return out, wrap(ctx, what, err)
	}
	defer hours.Close()
	for hours.Next() {
		var h connect.HourStatistics
		var hour, took int64
		if err := hours.Scan(&hour, &h.Kind, &h.Status, &h.Count, &took); err != nil {
			return out, wrap(ctx, what, err)
		}
		h.Hour, h.Took = time.Unix(hour*3600, 0).UTC(), time.Duration(took)*time.Microsecond
		out.Hours = append(out.Hours, h)
	}
	return out, wrap(ctx, what, hours.Err())
}
