package postgres

import (
	"context"
	"errors"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/keycaddy/keycaddy/connect"
)

// ReadBlob returns the blob with the name and its version; ok is false if there
// is none. With WriteBlob and DeleteBlob it makes Store the table of the vault
// in vault/sealed, whose interface Blobs says more.
func (s *Store) ReadBlob(ctx context.Context, name string) (data []byte, version uint64, ok bool, err error) {
	if !keepable(name) {
		return nil, 0, false, nil
	}
	var kept int64
	err = s.row(ctx, "reading blob", again, func(row pgx.Row) error { return row.Scan(&kept, &data) },
		`SELECT version, data FROM keycaddy.blobs WHERE name = $1`, name)
	if errors.Is(err, connect.ErrNotFound) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, err
	}
	return data, uint64(kept), true, nil
}

// WriteBlob makes data the blob with the name, as version after+1, if its
// version is after (0: there is none). After an error that wraps
// connect.ErrStoreUnavailable it may have been written: reading it tells.
func (s *Store) WriteBlob(ctx context.Context, name string, data []byte, after uint64) (written bool, err error) {
	const what = "writing blob"
	if data == nil {
		data = []byte{} // which isn't NULL
	}
	var rows int64
	switch {
	case after == 0:
		rows, err = s.exec(ctx, what, once, `INSERT INTO keycaddy.blobs (name, version, data) VALUES ($1, 1, $2) ON CONFLICT (name) DO NOTHING`, name, data)
	case after < math.MaxInt64:
		rows, err = s.exec(ctx, what, once, `UPDATE keycaddy.blobs SET data = $1, version = version + 1 WHERE name = $2 AND version = $3`, data, name, int64(after))
	}
	return rows == 1 && err == nil, err
}

// DeleteBlob removes the blob; removing none is no error.
func (s *Store) DeleteBlob(ctx context.Context, name string) error {
	_, err := s.exec(ctx, "deleting blob", again, `DELETE FROM keycaddy.blobs WHERE name = $1`, name)
	return err
}

// HasBlobs tells whether there is any blob: if so, a lost key ring must not be
// replaced by a new one.
func (s *Store) HasBlobs(ctx context.Context) (has bool, err error) {
	err = s.row(ctx, "looking for blobs", again, func(row pgx.Row) error { return row.Scan(&has) },
		`SELECT EXISTS (SELECT 1 FROM keycaddy.blobs)`)
	return has, err
}
