package sqlite

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// micros is how a time is kept: microseconds since 1970. What is finer is cut.
func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }

// maybe keeps the zero time as NULL.
func maybe(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: micros(t), Valid: !t.IsZero()}
}

func fromMaybe(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return fromMicros(n.Int64)
}

// now is the time as the database keeps it.
func now() time.Time { return fromMicros(micros(time.Now())) }

// asJSON returns v as a JSON column: NULL if it is empty.
func asJSON[T any](v T, empty bool) (sql.NullString, error) {
	if empty {
		return sql.NullString{}, nil
	}
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // so that SQL, too, sees the text as it is
	if err := e.Encode(v); err != nil {
		return sql.NullString{}, err
	}
	return sql.NullString{String: strings.TrimSuffix(out.String(), "\n"), Valid: true}, nil
}

func mapJSON[M ~map[string]V, V any](m M) (sql.NullString, error) { return asJSON(m, len(m) == 0) }

func listJSON(l []string) (sql.NullString, error) { return asJSON(l, len(l) == 0) }

func structJSON[T any](p *T) (sql.NullString, error) { return asJSON(p, p == nil) }

// fromJSON fills *v from a JSON column; NULL leaves it alone. column goes into
// the error, which does not quote what is in there.
func fromJSON[T any](column string, s sql.NullString, v *T) error {
	if !s.Valid {
		return nil
	}
	if err := json.Unmarshal([]byte(s.String), v); err != nil {
		return fmt.Errorf("column %s is not the JSON expected", column)
	}
	return nil
}

// object checks that raw is one JSON object, or nothing.
func object(raw json.RawMessage) (sql.NullString, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return sql.NullString{}, nil
	}
	if !json.Valid(raw) || bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		return sql.NullString{}, fmt.Errorf("metadata is not a JSON object")
	}
	return sql.NullString{String: string(raw), Valid: true}, nil
}

// digestOrNull is a digest as it is stored, of which the zero one is none.
func digestOrNull(d connect.Digest) any {
	if d == (connect.Digest{}) {
		return nil
	}
	return d[:]
}

// digest scans a column that holds a connect.Digest.
type digest struct{ to *connect.Digest }

// Scan implements sql.Scanner.
func (d digest) Scan(v any) error {
	if v == nil { // there is none
		*d.to = connect.Digest{}
		return nil
	}
	p, ok := v.([]byte)
	if !ok || len(p) != len(d.to) {
		return fmt.Errorf("not a digest of %d bytes", len(d.to))
	}
	copy(d.to[:], p)
	return nil
}
