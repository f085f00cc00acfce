// Package sqlite is the store that keycaddy brings along: one SQLite database
// file, for one machine. Several processes on that machine may share it (not
// over a network file system: SQLite's locks don't work there).
//
// Store is a connect.Store, and also the table that the vault in vault/sealed
// keeps its blobs in.
//
// It may import connect, vault, modernc.org/sqlite and the standard library only.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"

	"github.com/keycaddy/keycaddy/connect"
)

// readers is how many statements that only read may run at once in one
// process. They don't wait for the writer, nor does it for them.
const readers = 4

// Store is an open database. All methods may be called concurrently.
//
// Errors wrap connect.ErrStoreUnavailable if the database was locked by another
// process for 10 seconds, the disk is full or fails, or the file can't be opened.
type Store struct {
	// write is one connection, so that writers of this process queue up here,
	// fairly and without spinning on SQLite's lock.
	write *sql.DB
	read  *sql.DB
	close func() error
}

var _ connect.Store = (*Store)(nil)

// Open prepares to use the database file at path; relative paths are taken from
// the working directory. It does no I/O: the file (mode 0600) and its folder
// (mode 0700) are made when first used, the tables by Migrate. A file that
// exists keeps its mode.
func Open(path string) (*Store, error) {
	if path == "" {
		return nil, errors.New("opening store: path is empty")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	write, err := open(path, url.Values{"_txlock": {"immediate"}})
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	write.SetMaxOpenConns(1)
	read, err := open(path, url.Values{"_query_only": {"1"}})
	if err != nil {
		write.Close()
		return nil, fmt.Errorf("opening store: %w", err)
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	return &Store{
		write: write,
		read:  read,
		close: sync.OnceValue(func() error {
			// The writer last: it then tidies the write-ahead log away.
			return errors.Join(read.Close(), write.Close())
		}),
	}, nil
}

// open returns a pool of connections with the settings that all of them need;
// Migrate sets the one that the file itself remembers (the write-ahead log).
func open(path string, settings url.Values) (*sql.DB, error) {
	settings.Set("_busy_timeout", "10000") // milliseconds; a done context ends it earlier
	settings.Set("_foreign_keys", "1")
	// FULL: a commit is on the disk when it returns. With NORMAL, the usual
	// choice beside a write-ahead log, a power loss could take the last commits
	// back, and with them a refresh token that the provider gave out only once.
	settings.Set("_synchronous", "FULL")
	settings.Set("_dqs", "0") // "x" is a column, never quietly a string
	// Deleted rows are overwritten in the pages that are written anyway.
	settings.Set("_pragma", "secure_delete(fast)")
	file := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: settings.Encode()}
	base, err := sqlite.NewConnector(file.String())
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{base, path}), nil
}

// connector makes the file before SQLite would, which gives it the mode that
// the umask leaves. SQLite's other files (-wal, -shm) get the mode of this one.
type connector struct {
	driver.Connector
	path string
}

// making is held while a file is made: closing it drops all locks that this
// process has on it by then, those of SQLite included.
var making sync.Mutex

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := makeFile(c.path); err != nil {
		return nil, fmt.Errorf("%w: making the database file: %w", connect.ErrStoreUnavailable, err)
	}
	return c.Connector.Connect(ctx)
}

func makeFile(path string) error {
	making.Lock()
	defer making.Unlock()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// Ping implements connect.Store.
func (s *Store) Ping(ctx context.Context) error {
	var tables int
	err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&tables)
	return wrap(ctx, "pinging store", err)
}

// Close implements connect.Store. Closing again does nothing and returns what
// the first call did.
func (s *Store) Close() error { return s.close() }

// update runs do in a transaction that is the only one to write, in all
// processes, and commits unless do fails. what, a gerund phrase, goes before
// the error.
func (s *Store) update(ctx context.Context, what string, do func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return wrap(ctx, what, err)
	}
	defer tx.Rollback() // does nothing after Commit
	if err := do(tx); err != nil {
		return wrap(ctx, what, err)
	}
	return wrap(ctx, what, tx.Commit())
}

// exec runs one statement as a transaction of its own and returns how many rows
// it changed.
func (s *Store) exec(ctx context.Context, what, statement string, args ...any) (rows int64, err error) {
	err = s.update(ctx, what, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, statement, args...)
		if err != nil {
			return err
		}
		rows, err = result.RowsAffected()
		return err
	})
	return rows, err
}
