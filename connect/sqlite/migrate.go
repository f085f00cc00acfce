package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

//go:embed schema/*.sql
var schema embed.FS

// ErrNewer says that a newer keycaddy has migrated the database. Nothing was
// changed; the newer program has to be run, or a backup be brought back.
var ErrNewer = errors.New("sqlite: database was made by a newer keycaddy")

// Migrate implements connect.Store. All steps that are missing take effect
// together or not at all; a second process waits and then finds nothing to do.
// The database remembers how many steps it has had (PRAGMA user_version).
func (s *Store) Migrate(ctx context.Context) error {
	steps, err := migrations()
	if err != nil {
		return fmt.Errorf("migrating store: %w", err)
	}
	if err := s.useLog(ctx); err != nil {
		return wrap(ctx, "migrating store", err)
	}
	return s.update(ctx, "migrating store", func(tx *sql.Tx) error {
		var had int
		if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&had); err != nil {
			return err
		}
		if had > len(steps) {
			return fmt.Errorf("%w: it is at version %d, this one knows %d", ErrNewer, had, len(steps))
		}
		for n, step := range steps[had:] {
			if _, err := tx.ExecContext(ctx, step); err != nil {
				return fmt.Errorf("step %d: %w", had+n+1, err)
			}
		}
		if had == len(steps) {
			return nil
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, len(steps)))
		return err
	})
}

// useLog turns the write-ahead log on, which the file then remembers. SQLite
// does not wait for other processes here, so this does, for 10 s at most.
func (s *Store) useLog(ctx context.Context) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		var mode string
		err := s.write.QueryRowContext(ctx, `PRAGMA journal_mode = wal`).Scan(&mode)
		switch {
		case err == nil && mode == "wal":
			return nil
		case err == nil:
			return fmt.Errorf("the write-ahead log can't be used here (journal mode is %s)", mode)
		case sentinelOf(err) != connect.ErrStoreUnavailable || time.Now().After(deadline):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// migrations returns the steps in order. Step n is in schema/<n in four
// digits>_<what>.sql; a step that was released is never changed again.
func migrations() ([]string, error) {
	names, err := fs.Glob(schema, "schema/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var steps []string
	for n, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("schema/%04d_", n+1)) {
			return nil, fmt.Errorf("%s is not step %d", name, n+1)
		}
		step, err := schema.ReadFile(name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, string(step))
	}
	return steps, nil
}
