package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keycaddy/keycaddy/connect"
)

// Statistics implements connect.StatisticsStore.
func (s *Store) Statistics(ctx context.Context, since time.Time) (out connect.Statistics, err error) {
	err = s.call(ctx, s.timeout, "counting", again, func(ctx context.Context, c *pgxpool.Conn) error {
		out = connect.Statistics{Connections: map[connect.Status]int{}}
		var status string
		var n int
		rows, _ := c.Query(ctx, `SELECT status, count(*) FROM keycaddy.connections GROUP BY status`)
		_, err := pgx.ForEachRow(rows, []any{&status, &n}, func() error {
			out.Connections[connect.Status(status)] = n
			return nil
		})
		if err != nil {
			return err
		}
		var hour, took int64
		var h connect.HourStatistics
		rows, _ = c.Query(ctx, `SELECT floor(extract(epoch FROM started) / 3600)::bigint, kind, status, count(*), avg(took)::bigint
			FROM keycaddy.logs WHERE started >= $1::timestamptz GROUP BY 1, 2, 3`, micros(since))
		_, err = pgx.ForEachRow(rows, []any{&hour, &h.Kind, &h.Status, &h.Count, &took}, func() error {
			h.Hour, h.Took = time.Unix(hour*3600, 0).UTC(), time.Duration(took)*time.Microsecond
			out.Hours = append(out.Hours, h)
			return nil
		})
		return err
	})
	return out, err
}
