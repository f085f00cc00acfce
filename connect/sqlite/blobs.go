package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"math"
)

// ReadBlob returns the blob with the name and its version; ok is false if there
// is none. With WriteBlob and DeleteBlob it makes Store the table of the vault
// in vault/sealed, whose interface Blobs says more.
func (s *Store) ReadBlob(ctx context.Context, name string) (data []byte, version uint64, ok bool, err error) {
	var kept int64
	err = s.read.QueryRowContext(ctx, `SELECT version, data FROM blobs WHERE name = ?`, name).Scan(&kept, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, wrap(ctx, "reading blob", err)
	}
	return data, uint64(kept), true, nil
}

// WriteBlob makes data the blob with the name, as version after+1, if its
// version is after (0: there is none). It is on the disk when WriteBlob returns.
func (s *Store) WriteBlob(ctx context.Context, name string, data []byte, after uint64) (written bool, err error) {
	const what = "writing blob"
	if data == nil {
		data = []byte{} // which isn't NULL
	}
	var rows int64
	switch {
	case after == 0:
		rows, err = s.exec(ctx, what, `INSERT INTO blobs (name, version, data) VALUES (?, 1, ?) ON CONFLICT DO NOTHING`, name, data)
	case after < math.MaxInt64:
		rows, err = s.exec(ctx, what, `UPDATE blobs SET data = ?, version = version + 1 WHERE name = ? AND version = ?`, data, name, int64(after))
	}
	return rows == 1 && err == nil, err
}

// DeleteBlob removes the blob; removing none is no error.
func (s *Store) DeleteBlob(ctx context.Context, name string) error {
	_, err := s.exec(ctx, "deleting blob", `DELETE FROM blobs WHERE name = ?`, name)
	return err
}

// HasBlobs tells whether there is any blob: if so, a lost key ring must not be
// replaced by a new one.
func (s *Store) HasBlobs(ctx context.Context) (bool, error) {
	var has bool
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM blobs)`).Scan(&has)
	return has, wrap(ctx, "looking for blobs", err)
}
