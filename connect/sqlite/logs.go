package sqlite

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// upsertLog adds what is new to a log that is there: the status, since it only
// goes forward, and texts that aren't empty.
const upsertLog = `INSERT INTO logs
	(id, kind, status, integration, connection, provider, end_user, caller, code, message, detail,
	method, path, answer, retries, replayed, started, changed, took, search)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (id) DO UPDATE SET
		status     = CASE WHEN excluded.status = 'running' THEN logs.status ELSE excluded.status END,
		connection = CASE WHEN excluded.connection = '' THEN logs.connection ELSE excluded.connection END,
		provider   = CASE WHEN excluded.provider = '' THEN logs.provider ELSE excluded.provider END,
		end_user   = CASE WHEN excluded.end_user = '' THEN logs.end_user ELSE excluded.end_user END,
		caller     = CASE WHEN excluded.caller = '' THEN logs.caller ELSE excluded.caller END,
		code       = CASE WHEN excluded.code = '' THEN logs.code ELSE excluded.code END,
		message    = CASE WHEN excluded.message = '' THEN logs.message ELSE excluded.message END,
		detail     = CASE WHEN excluded.detail = '' THEN logs.detail ELSE excluded.detail END,
		started    = min(logs.started, excluded.started),
		changed    = excluded.changed,
		took       = max(logs.took, excluded.took,
			CASE WHEN excluded.status = 'running' THEN 0 ELSE excluded.started - logs.started END),
		search     = CASE WHEN excluded.status = 'running' OR instr(logs.search, excluded.search) > 0 THEN logs.search
			ELSE substr(logs.search || char(31) || excluded.search, 1, 4000) END
	RETURNING serial`

// WriteLogs implements connect.LogStore.
func (s *Store) WriteLogs(ctx context.Context, logs []connect.Log) error {
	return s.update(ctx, "writing logs", func(tx *sql.Tx) error {
		present := micros(now())
		for i := range logs {
			l := &logs[i]
			var serial int64
			if err := tx.QueryRowContext(ctx, upsertLog,
				l.ID, string(l.Kind), string(l.Status), l.Integration, l.Connection, l.Provider, l.EndUser, l.Caller, l.Code, l.Message, l.Detail,
				l.Method, l.Path, l.Answer, l.Retries, l.Replayed, micros(l.Started), present, l.Took.Microseconds(), l.SearchText()).Scan(&serial); err != nil {
				return err
			}
			for _, step := range l.Steps {
				if _, err := tx.ExecContext(ctx, `INSERT INTO log_steps (log, at, name, message, detail) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
					serial, micros(step.At), step.Name, step.Message, step.Detail); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

const logColumns = `serial, id, kind, status, integration, connection, provider, end_user, caller, code, message, detail,
	method, path, answer, retries, replayed, started, changed, took`

func scanLog(row interface{ Scan(...any) error }) (connect.Log, error) {
	var (
		l                      connect.Log
		started, changed, took int64
	)
	err := row.Scan(&l.Serial, &l.ID, &l.Kind, &l.Status, &l.Integration, &l.Connection, &l.Provider, &l.EndUser, &l.Caller, &l.Code, &l.Message, &l.Detail,
		&l.Method, &l.Path, &l.Answer, &l.Retries, &l.Replayed, &started, &changed, &took)
	if err != nil {
		return connect.Log{}, err
	}
	l.Started, l.Changed, l.Took = fromMicros(started), fromMicros(changed), time.Duration(took)*time.Microsecond
	return l, nil
}

// Logs implements connect.LogStore.
func (s *Store) Logs(ctx context.Context, q connect.LogQuery) ([]connect.Log, error) {
	const what = "listing logs"
	all, args := []string{"true"}, []any{}
	add := func(condition string, value any) { all, args = append(all, condition), append(args, value) }
	if q.Kind != "" {
		add("kind = ?", string(q.Kind))
	}
	if q.Status != "" {
		add("status = ?", string(q.Status))
	}
	if q.Integration != "" {
		add("integration = ?", q.Integration)
	}
	if q.Connection != "" {
		add("connection = ? AND connection <> ''", q.Connection) // the second lets the partial index be used
	}
	if q.Text != "" {
		add(`search LIKE ? ESCAPE '\'`, "%"+likeEscaper.Replace(strings.ToLower(q.Text))+"%")
	}
	for condition, at := range map[string]time.Time{"started >= ?": q.Since, "started < ?": q.Until, "changed > ?": q.ChangedSince} {
		if !at.IsZero() {
			add(condition, micros(at))
		}
	}
	if q.Before > 0 {
		add("serial < ?", q.Before)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+logColumns+` FROM logs WHERE `+strings.Join(all, ` AND `)+` ORDER BY serial DESC LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, wrap(ctx, what, err)
	}
	defer rows.Close()
	var found []connect.Log
	for rows.Next() {
		l, err := scanLog(rows)
		if err != nil {
			return nil, wrap(ctx, what, err)
		}
		found = append(found, l)
	}
	return found, wrap(ctx, what, rows.Err())
}

// Log implements connect.LogStore.
func (s *Store) Log(ctx context.Context, id string) (connect.Log, error) {
	const what = "reading log"
	l, err := scanLog(s.read.QueryRowContext(ctx, `SELECT `+logColumns+` FROM logs WHERE id = ?`, id))
	if err != nil {
		return connect.Log{}, wrap(ctx, what, err)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT at, name, message, detail FROM log_steps WHERE log = ? ORDER BY at`, l.Serial)
	if err != nil {
		return connect.Log{}, wrap(ctx, what, err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			step connect.LogStep
			at   int64
		)
		if err := rows.Scan(&at, &step.Name, &step.Message, &step.Detail); err != nil {
			return connect.Log{}, wrap(ctx, what, err)
		}
		step.At = fromMicros(at)
		l.Steps = append(l.Steps, step)
	}
	if err := rows.Err(); err != nil {
		return connect.Log{}, wrap(ctx, what, err)
	}
	return l, nil
}

// SweepLogs implements connect.LogStore.
func (s *Store) SweepLogs(ctx context.Context, before time.Time, limit int) (int, error) {
	rows, err := s.exec(ctx, "sweeping logs", `DELETE FROM logs WHERE serial IN (SELECT serial FROM logs WHERE started < ? LIMIT ?)`, micros(before), limit)
	return int(rows), err
}
