package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

// upsertLog adds what is new to a log that is there: the status, since it only
// goes forward, and texts that aren't empty.
const upsertLog = `WITH l AS (
	INSERT INTO keycaddy.logs AS l
		(id, kind, status, integration, connection, provider, end_user, caller, code, message, detail,
		method, path, answer, retries, replayed, started, changed, took, search)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, clock_timestamp(), $18, $19)
	ON CONFLICT (id) DO UPDATE SET
		status     = CASE WHEN excluded.status = 'running' THEN l.status ELSE excluded.status END,
		connection = CASE WHEN excluded.connection = '' THEN l.connection ELSE excluded.connection END,
		provider   = CASE WHEN excluded.provider = '' THEN l.provider ELSE excluded.provider END,
		end_user   = CASE WHEN excluded.end_user = '' THEN l.end_user ELSE excluded.end_user END,
		caller     = CASE WHEN excluded.caller = '' THEN l.caller ELSE excluded.caller END,
		code       = CASE WHEN excluded.code = '' THEN l.code ELSE excluded.code END,
		message    = CASE WHEN excluded.message = '' THEN l.message ELSE excluded.message END,
		detail     = CASE WHEN excluded.detail = '' THEN l.detail ELSE excluded.detail END,
		started    = least(l.started, excluded.started),
		changed    = excluded.changed,
		took       = greatest(l.took, excluded.took, CASE WHEN excluded.status = 'running' THEN 0
			ELSE (extract(epoch FROM excluded.started - l.started) * 1000000)::bigint END),
		search     = CASE WHEN excluded.status = 'running' OR strpos(l.search, excluded.search) > 0 THEN l.search
			ELSE left(l.search || chr(31) || excluded.search, 4000) END
	RETURNING serial)
	INSERT INTO keycaddy.log_steps (log, at, name, message, detail)
	SELECT l.serial, s.at, s.name, s.message, s.detail
	FROM l, unnest($20::timestamptz[], $21::text[], $22::text[], $23::text[]) AS s (at, name, message, detail)
	ON CONFLICT DO NOTHING`

// WriteLogs implements connect.LogStore. All of them go in one round trip.
func (s *Store) WriteLogs(ctx context.Context, logs []connect.Log) error {
	return s.transact(ctx, s.timeout, "writing logs", again, func(ctx context.Context, tx pgx.Tx) error {
		batch := new(pgx.Batch)
		for i := range logs {
			l := &logs[i]
			var at []time.Time
			var names, messages, details []string
			for _, step := range l.Steps {
				at, names = append(at, micros(step.At)), append(names, step.Name)
				messages, details = append(messages, step.Message), append(details, step.Detail)
			}
			args := []any{
				l.ID, string(l.Kind), string(l.Status), l.Integration, l.Connection, l.Provider, l.EndUser, l.Caller, l.Code, l.Message, l.Detail,
				l.Method, l.Path, int64(l.Answer), int64(l.Retries), l.Replayed, micros(l.Started), l.Took.Microseconds(), l.SearchText(),
				at, names, messages, details,
			}
			if err := checkText(args); err != nil {
				return err
			}
			batch.Queue(upsertLog, args...)
		}
		return tx.SendBatch(ctx, batch).Close()
	})
}

const logColumns = `serial, id, kind, status, integration, connection, provider, end_user, caller, code, message, detail,
	method, path, answer, retries, replayed, started, changed, took`

func scanLog(row pgx.Row) (connect.Log, error) {
	var (
		l    connect.Log
		took int64
	)
	err := row.Scan(&l.Serial, &l.ID, &l.Kind, &l.Status, &l.Integration, &l.Connection, &l.Provider, &l.EndUser, &l.Caller, &l.Code, &l.Message, &l.Detail,
		&l.Method, &l.Path, &l.Answer, &l.Retries, &l.Replayed, &l.Started, &l.Changed, &took)
	if err != nil {
		return connect.Log{}, err
	}
	l.Started, l.Changed, l.Took = l.Started.UTC(), l.Changed.UTC(), time.Duration(took)*time.Microsecond
	return l, nil
}

// Logs implements connect.LogStore.
func (s *Store) Logs(ctx context.Context, q connect.LogQuery) ([]connect.Log, error) {
	all, args, ok := []string{"true"}, []any{}, true
	add := func(condition string, value any) {
		args = append(args, value)
		all = append(all, fmt.Sprintf(condition, len(args)))
		if text, is := value.(string); is && !keepable(text) {
			ok = false // nothing has it
		}
	}
	if q.Kind != "" {
		add("kind = $%d", string(q.Kind))
	}
	if q.Status != "" {
		add("status = $%d", string(q.Status))
	}
	if q.Integration != "" {
		add("integration = $%d", q.Integration)
	}
	if q.Connection != "" {
		add("connection = $%d AND connection <> ''", q.Connection) // the second lets the partial index be used
	}
	if q.Text != "" {
		add(`search LIKE $%d ESCAPE '\'`, "%"+likeEscaper.Replace(strings.ToLower(q.Text))+"%")
	}
	for condition, at := range map[string]time.Time{"started >= $%d": q.Since, "started < $%d": q.Until, "changed > $%d": q.ChangedSince} {
		if !at.IsZero() {
			add(condition, micros(at))
		}
	}
	if q.Before > 0 {
		add("serial < $%d", q.Before)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	add("true ORDER BY serial DESC LIMIT $%d", int64(limit))
	if !ok {
		return nil, ctx.Err()
	}
	var found []connect.Log
	err := s.rows(ctx, "listing logs", func() { found = nil }, func(row pgx.Row) error {
		l, err := scanLog(row)
		found = append(found, l)
		return err
	}, `SELECT `+logColumns+` FROM keycaddy.logs WHERE `+strings.Join(all, ` AND `), args...)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Log implements connect.LogStore.
func (s *Store) Log(ctx context.Context, id string) (l connect.Log, err error) {
	const what = "reading log"
	if !keepable(id) {
		return l, fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	}
	err = s.row(ctx, what, again, func(row pgx.Row) (err error) {
		l, err = scanLog(row)
		return err
	}, `SELECT `+logColumns+` FROM keycaddy.logs WHERE id = $1`, id)
	if err != nil {
		return connect.Log{}, err
	}
	err = s.rows(ctx, what, func() { l.Steps = nil }, func(row pgx.Row) error {
		var step connect.LogStep
		if err := row.Scan(&step.At, &step.Name, &step.Message, &step.Detail); err != nil {
			return err
		}
		step.At = step.At.UTC()
		l.Steps = append(l.Steps, step)
		return nil
	}, `SELECT at, name, message, detail FROM keycaddy.log_steps WHERE log = $1 ORDER BY at`, l.Serial)
	if err != nil {
		return connect.Log{}, err
	}
	return l, nil
}

// SweepLogs implements connect.LogStore.
func (s *Store) SweepLogs(ctx context.Context, before time.Time, limit int) (int, error) {
	rows, err := s.exec(ctx, "sweeping logs", again, `DELETE FROM keycaddy.logs WHERE serial IN
		(SELECT serial FROM keycaddy.logs WHERE started < $1 LIMIT $2)`, micros(before), int64(limit))
	return int(rows), err
}
