package postgres

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keycaddy/keycaddy/connect"
)

// micros is a time as it is kept: to the microsecond, the rest cut (PostgreSQL
// itself would round), in UTC.
func micros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// maybe keeps the zero time as NULL.
func maybe(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return micros(t)
}

// fromMaybe is a time that was scanned from a column that may be NULL.
func fromMaybe(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// asJSON returns v as a parameter for a jsonb column: NULL if it is empty.
func asJSON[T any](v T, empty bool) (any, error) {
	if empty {
		return nil, nil
	}
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func mapJSON[M ~map[string]V, V any](m M) (any, error) { return asJSON(m, len(m) == 0) }

func listJSON(l []string) (any, error) { return asJSON(l, len(l) == 0) }

func structJSON[T any](p *T) (any, error) { return asJSON(p, p == nil) }

// fromJSON fills *v from a jsonb column; NULL leaves it alone. column goes into
// the error, which does not quote what is in there.
func fromJSON[T any](column string, data []byte, v *T) error {
	if data == nil {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("column %s is not the JSON expected", column)
	}
	return nil
}

// object checks that raw is one JSON object, or nothing.
func object(raw json.RawMessage) (any, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if !json.Valid(raw) || bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		return nil, errors.New("metadata is not a JSON object")
	}
	return string(raw), nil
}

// keepable tells whether PostgreSQL can keep the text. What it can't keep isn't
// in the database either.
func keepable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// checkText refuses what PostgreSQL would: in the simple protocol, where text
// is a part of the statement, it must not come to that.
func checkText(args []any) error {
	for _, a := range args {
		if s, ok := a.(string); ok && !keepable(s) {
			return errText
		}
	}
	return nil
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

// ScanBytes implements pgtype.BytesScanner.
func (d digest) ScanBytes(p []byte) error {
	if p == nil { // there is none
		*d.to = connect.Digest{}
		return nil
	}
	if len(p) != len(d.to) {
		return fmt.Errorf("not a digest of %d bytes", len(d.to))
	}
	copy(d.to[:], p)
	return nil
}
