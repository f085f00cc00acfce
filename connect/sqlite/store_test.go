package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (first, second connect.Store) {
		path := filepath.Join(t.TempDir(), "keycaddy.db")
		return openTest(t, path), openTest(t, path)
	})
}

func TestOpenDoesNothingUntilItIsUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "keycaddy.db")
	s := openTest(t, path)
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("Open made something: %v", err)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(""); err == nil {
		t.Error("an empty path was accepted")
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := openTest(t, filepath.Join(dir, "keycaddy.db"))
	migrate(t, s)
	write(t, s, "a", "value", 0)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("files: %v, want the database, its log and its index", files)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", f.Name(), mode)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o700 {
		t.Errorf("the folder has mode %o", mode)
	}
}

func TestPathsMayHaveAnyCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c=d&%20#ü;'", "key caddy?.db")
	s := openTest(t, path)
	migrate(t, s)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

func TestEveryConnectionIsSetUp(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "keycaddy.db"))
	migrate(t, s)
	for name, db := range map[string]*sql.DB{"writer": s.write, "reader": s.read} {
		for pragma, want := range map[string]string{
			"journal_mode": "wal",
			"synchronous":  "2", // FULL
			"foreign_keys": "1",
			"busy_timeout": "10000",
			"query_only":   map[string]string{"writer": "0", "reader": "1"}[name],
		} {
			var got string
			if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("%s: %s is %s, want %s", name, pragma, got, want)
			}
		}
	}
}

func TestMigrateRefusesANewerDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keycaddy.db")
	s := openTest(t, path)
	migrate(t, s)
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA user_version = 99`); err != nil {
		t.Fatal(err)
	}
	err := openTest(t, path).Migrate(t.Context())
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "version 99") {
		t.Fatalf("got %v, want ErrNewer", err)
	}
}

func TestS118AFailingStepLeavesNothingHalfDone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keycaddy.db")
	s := openTest(t, path)
	// A table of the same name is in the way in the middle of step 1.
	if _, err := s.write.ExecContext(t.Context(), `CREATE TABLE leases (x)`); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "step 1") {
		t.Fatalf("got %v, want an error naming the step", err)
	}
	var tables, version int
	err := errors.Join(
		s.write.QueryRowContext(t.Context(), `SELECT count(*) FROM sqlite_schema`).Scan(&tables),
		s.write.QueryRowContext(t.Context(), `PRAGMA user_version`).Scan(&version))
	if err != nil || tables != 1 || version != 0 {
		t.Fatalf("%d tables, version %d, %v", tables, version, err)
	}
	if _, err := s.write.ExecContext(t.Context(), `DROP TABLE leases`); err != nil {
		t.Fatal(err)
	}
	migrate(t, s)
}

func TestQueriesUseTheIndexes(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "keycaddy.db"))
	migrate(t, s)
	for index, q := range map[string]connect.Query{
		"connections_end_user":     {EndUsers: []string{"u1"}},
		"connections_organization": {Organization: "o1"},
		"connections_connection":   {Connections: []string{"c1"}},
	} {
		where, args, err := conditions(q)
		if err != nil {
			t.Fatal(err)
		}
		var id, parent, unused int
		var plan string
		row := s.read.QueryRowContext(t.Context(), `EXPLAIN QUERY PLAN SELECT serial FROM connections`+where, args...)
		if err := row.Scan(&id, &parent, &unused, &plan); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, index) {
			t.Errorf("%+v: %s", q, plan)
		}
	}
}

func TestLockedDatabaseIsUnavailable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keycaddy.db")
	s, other := openTest(t, path), openTest(t, path)
	migrate(t, s)
	tx, err := other.write.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()

	// A caller who can't wait gets its own error, at once.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.WriteBlob(ctx, "a", nil, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	if waited := time.Since(start); waited > 3*time.Second {
		t.Errorf("waited %v for a context of 100 ms", waited)
	}
	// Readers don't wait for writers.
	if _, _, _, err := s.ReadBlob(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	// And one who can, is told to come again.
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA busy_timeout = 50`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteBlob(t.Context(), "a", nil, 0); !errors.Is(err, connect.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	write(t, s, "a", "value", 0)
}

func TestFullDiskIsUnavailable(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "keycaddy.db"))
	migrate(t, s)
	write(t, s, "a", "before", 0)
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA max_page_count = 1`); err != nil { // as it is now
		t.Fatal(err)
	}
	_, err := s.WriteBlob(t.Context(), "b", make([]byte, 500<<10), 0)
	if !errors.Is(err, connect.ErrStoreUnavailable) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("got %v, want ErrStoreUnavailable saying that the disk is full", err)
	}
	if data, version, ok, err := s.ReadBlob(t.Context(), "a"); string(data) != "before" || version != 1 || !ok || err != nil {
		t.Fatalf("%q %d %v %v", data, version, ok, err)
	}
}

func TestBrokenFileIsNotWorthTryingAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keycaddy.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	err := openTest(t, path).Migrate(t.Context())
	if err == nil || errors.Is(err, connect.ErrStoreUnavailable) || !strings.HasPrefix(err.Error(), "migrating store: ") {
		t.Fatalf("got %v", err)
	}
}

func TestFolderThatCannotBeMadeIsUnavailable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openTest(t, filepath.Join(file, "keycaddy.db")).Ping(t.Context()); !errors.Is(err, connect.ErrStoreUnavailable) {
		t.Fatalf("got %v, want ErrStoreUnavailable", err)
	}
}

func TestDeletedConnectionLeavesNoRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keycaddy.db")
	s := openTest(t, path)
	migrate(t, s)
	const canary = "canary-person@example.com"
	c := connect.Connection{ID: connect.ID{Integration: "a", Connection: "b"}, UID: "c", EndUser: &connect.EndUser{ID: "u", Email: canary}}
	if _, err := s.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), c.ID, nil); err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM connections`).Scan(&rows); err != nil || rows != 0 {
		t.Fatalf("%d rows, %v", rows, err)
	}
	// Nor bytes, once the log has been tidied away. (Reading the file while
	// SQLite has it open would drop its locks.)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), canary) {
		t.Error("the file still holds the deleted e-mail address")
	}
}

// openTest returns a store that is closed at the end of the test.
func openTest(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func migrate(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
}
