package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func TestS118MigrateByEightNodesAtOnce(t *testing.T) {
	t.Parallel()
	dsn := sharedCluster(t).database(t)
	var nodes [8]*Store
	for n := range nodes {
		nodes[n] = openTest(t, dsn)
	}
	var done sync.WaitGroup
	start := make(chan struct{})
	for _, s := range nodes {
		done.Go(func() {
			<-start
			if err := s.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	done.Wait()
	steps := ourSteps(t)
	expectVersion(t, dsn, len(steps), steps[len(steps)-1].compatible)
	for _, s := range nodes {
		if has, err := s.HasBlobs(t.Context()); has || err != nil {
			t.Errorf("%v, %v", has, err)
		}
	}
}

// TestS118TwoVersionsWorkSideBySide deploys a newer version beside this one,
// which goes on, and then one that takes away what this one needs.
func TestS118TwoVersionsWorkSideBySide(t *testing.T) {
	t.Parallel()
	old, dsn := migrated(t)
	newer := openTest(t, dsn)
	ours := ourSteps(t)
	expanded := append(ours[:len(ours):len(ours)], step{"expand", len(ours),
		`ALTER TABLE keycaddy.connections ADD COLUMN IF NOT EXISTS note text;
		CREATE TABLE IF NOT EXISTS keycaddy.notes (id text PRIMARY KEY);`})
	contracted := append(expanded[:len(expanded):len(expanded)], step{"contract", len(expanded),
		`ALTER TABLE keycaddy.connections DROP COLUMN IF EXISTS cause`})

	// While it is used.
	busy, stop := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for n := 0; busy.Err() == nil; n++ {
			c, err := old.Create(t.Context(), newConnection("a", time.Now().String()))
			if err == nil {
				_, err = old.Update(t.Context(), c.ID, func(c *connect.Connection) error { c.Cause = "old"; return nil })
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	time.Sleep(50 * time.Millisecond)
	if err := newer.migrate(t.Context(), expanded); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	stop()
	traffic.Wait()
	expectVersion(t, dsn, len(expanded), len(ours))

	// A node of the old version starts, and one of the new.
	for _, start := range []func() error{
		func() error { return openTest(t, dsn).Migrate(t.Context()) },
		func() error { return newer.migrate(t.Context(), expanded) },
	} {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	expectVersion(t, dsn, len(expanded), len(ours))
	// The new one's data outlives the old one's writing.
	c, err := old.Create(t.Context(), newConnection("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	do(t, dsn, `UPDATE keycaddy.connections SET note = 'kept' WHERE connection = 'b'`)
	if _, err := old.Update(t.Context(), c.ID, func(c *connect.Connection) error { c.Cause = "old"; return nil }); err != nil {
		t.Fatal(err)
	}
	var note string
	if err := dial(t, dsn).QueryRow(t.Context(), `SELECT note FROM keycaddy.connections WHERE connection = 'b'`).Scan(&note); err != nil || note != "kept" {
		t.Fatalf("%q, %v", note, err)
	}

	// The version after that takes something away: this one is too old now,
	// the one before isn't.
	if err := openTest(t, dsn).migrate(t.Context(), contracted); err != nil {
		t.Fatal(err)
	}
	expectVersion(t, dsn, len(contracted), len(expanded))
	if err := newer.migrate(t.Context(), expanded); err != nil {
		t.Fatal(err)
	}
	err = openTest(t, dsn).Migrate(t.Context())
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), fmt.Sprintf("at version %d and needs one that knows %d, this one knows %d", len(contracted), len(expanded), len(ours))) {
		t.Fatalf("got %v, want ErrNewer", err)
	}
	expectVersion(t, dsn, len(contracted), len(expanded))
}

func TestS118AFailingStepLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	s, dsn := migrated(t)
	ours := ourSteps(t)
	bad := append(ours[:len(ours):len(ours)],
		step{"good", 1, `CREATE TABLE IF NOT EXISTS keycaddy.good (x text)`},
		step{"bad", 1, `CREATE TABLE IF NOT EXISTS keycaddy.half (x text); SELECT 1/0;`})
	if err := s.migrate(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "step bad") {
		t.Fatalf("got %v, want an error naming the step", err)
	}
	expectVersion(t, dsn, len(ours), 1)
	var left int
	err := dial(t, dsn).QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relname IN ('good', 'half')`).Scan(&left)
	if err != nil || left != 0 {
		t.Fatalf("%d tables are left, %v", left, err)
	}
}

// Where statements are committed one by one, a node may have died anywhere in a
// step. Running all of them again has to be the way out.
func TestS118StepsCanRunAgain(t *testing.T) {
	t.Parallel()
	s, dsn := migrated(t)
	do(t, dsn, `DROP TABLE keycaddy.blobs`, `UPDATE keycaddy.schema_version SET version = 0`)
	migrate(t, s)
	if _, err := s.HasBlobs(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A step that waits for somebody's long transaction doesn't stop the service:
// whoever comes after it would have to wait as well.
func TestS118AStepThatHasToWaitLetsGo(t *testing.T) {
	t.Parallel()
	s, dsn := migrated(t)
	tx, err := dial(t, dsn).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE keycaddy.blobs IN ACCESS SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	ours := ourSteps(t)
	wide := append(ours[:len(ours):len(ours)], step{"wide", 1, `ALTER TABLE keycaddy.blobs ADD COLUMN IF NOT EXISTS x text`})
	migrating := make(chan error, 1)
	go func() { migrating <- s.migrate(t.Context(), wide) }()
	time.Sleep(200 * time.Millisecond) // it queues up for the table
	if _, _, _, err := s.ReadBlob(t.Context(), "a"); err != nil {
		t.Errorf("behind the step: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-migrating; err != nil {
		t.Fatal(err)
	}
	expectVersion(t, dsn, len(wide), 1)
}

func TestS117MigrateOfAnUpToDateStandbyOnlyReads(t *testing.T) {
	t.Parallel()
	_, dsn := migrated(t)
	do(t, dsn, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
	s := openTest(t, dsn)
	migrate(t, s)
	if _, err := s.WriteBlob(t.Context(), "a", nil, 0); !errors.Is(err, connect.ErrStoreUnavailable) {
		t.Fatalf("got %v, want ErrStoreUnavailable", err)
	}
}

// An operator may give the role nothing but the schema.
func TestMigrateNeedsTheSchemaOnly(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	name := c.databaseName(t)
	do(t, c.dsn(name), `CREATE ROLE lesser LOGIN PASSWORD 'lesser'`, `CREATE SCHEMA keycaddy AUTHORIZATION lesser`,
		`REVOKE ALL ON SCHEMA public FROM PUBLIC`)
	lesser := strings.Replace(c.dsn(name), role+":"+password, "lesser:lesser", 1)
	migrate(t, openTest(t, lesser))
	err := openTest(t, strings.Replace(lesser, "/"+name, "/"+c.databaseName(t), 1)).Migrate(t.Context())
	if err == nil || errors.Is(err, connect.ErrStoreUnavailable) || !strings.Contains(err.Error(), "permission denied for database") {
		t.Errorf("got %v", err)
	}
}

func ourSteps(t *testing.T) []step {
	t.Helper()
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func expectVersion(t *testing.T, dsn string, version, compatible int) {
	t.Helper()
	var v, c int
	if err := dial(t, dsn).QueryRow(t.Context(), selectVersion).Scan(&v, &c); err != nil || v != version || c != compatible {
		t.Fatalf("version %d, compatible %d, %v; want %d and %d", v, c, err, version, compatible)
	}
}

// newConnection returns a connection with little in it.
func newConnection(integration, id string) connect.Connection {
	return connect.Connection{
		ID:  connect.ID{Integration: integration, Connection: id},
		UID: connectionUID(), Provider: "github", Status: connect.StatusActive,
	}
}
