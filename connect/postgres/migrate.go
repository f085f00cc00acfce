package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed schema/*.sql
var schema embed.FS

// ErrNewer says that a newer keycaddy has taken something out of the database
// that this one needs. Nothing was changed; the newer program has to be run, or
// a backup be brought back.
var ErrNewer = errors.New("postgres: database was made by a newer keycaddy")

// migrateTimeout bounds Migrate, with the wait for another node that migrates.
const migrateTimeout = time.Minute

// step is one change of the schema, schema/<number in four digits>_<what>.sql.
// A step that was released is never changed again.
//
// Nodes are replaced one after the other, and sometimes back again, so that two
// versions of keycaddy work on one database for a while. Therefore a change is
// made in two releases. The first expands: it adds tables, indexes, and columns
// that may be NULL or have a default; it must understand rows that the former
// release goes on writing, and write what that one reads. A later release
// contracts: it takes away what the release before it doesn't use any more.
//
// The first line of a step, "-- compatible: <number>", says how old a program
// may be to work with its outcome: the number of the last step that it has to
// know. Steps that expand repeat the number of the step before; a step that
// contracts has the number of the step since which nobody uses what it removes.
// A program refuses a database only if that number is beyond its own steps.
// It looks when it starts: nodes that are older than that must have been
// stopped before.
//
// Statements say IF NOT EXISTS or IF EXISTS, since some databases that aren't
// PostgreSQL commit them one by one: there a step that fails has to be able to
// run again. Columns that are read keep their type, and nothing is renamed. An
// index on a table that may be large needs a release note: it keeps writers
// waiting while it is made.
type step struct {
	name       string
	compatible int
	sql        string
}

// Migrate implements connect.Store. All steps that are missing take effect
// together or not at all; any number of nodes may call it at once: one does the
// work, the others wait for its lock on a row (no session lock) and find nothing
// to do. Where there is nothing to do it only reads, also from a standby. A step
// that waits for another's transaction for 5 seconds lets go and tries again, so
// that nobody queues up behind it for longer.
//
// The role needs the right to create in the schema keycaddy, which an operator
// may have made for it, or else the right to create schemas in the database.
func (s *Store) Migrate(ctx context.Context) error {
	steps, err := migrations()
	if err != nil {
		return fmt.Errorf("migrating store: %w", err)
	}
	return s.migrate(ctx, steps)
}

func (s *Store) migrate(ctx context.Context, steps []step) error {
	const what = "migrating store"
	version, err := s.schemaVersion(ctx, steps)
	if err != nil || version == len(steps) {
		return err
	}
	if version == 0 {
		if err := s.makeVersion(ctx); err != nil {
			return err
		}
	}
	return s.transact(ctx, migrateTimeout, what, again, func(ctx context.Context, tx pgx.Tx) error {
		had, err := readVersion(tx.QueryRow(ctx, selectVersion+` FOR UPDATE`), steps)
		if err != nil || had == len(steps) {
			return err
		}
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '5s'`); err != nil {
			return err
		}
		for n, step := range steps[had:] {
			// In this mode there may be several statements in one string.
			if _, err := tx.Exec(ctx, step.sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("step %s: %w", step.name, err)
			}
			if _, err := tx.Exec(ctx, `UPDATE keycaddy.schema_version
				SET version = $1, compatible = greatest(compatible, $2), migrated = now() WHERE id = 1`,
				int64(had+n+1), int64(step.compatible)); err != nil {
				return err
			}
		}
		return nil
	})
}

const selectVersion = `SELECT version, compatible FROM keycaddy.schema_version WHERE id = 1`

// schemaVersion returns how many of the steps the database has had.
func (s *Store) schemaVersion(ctx context.Context, steps []step) (version int, err error) {
	err = s.call(ctx, s.timeout, "migrating store", again, func(ctx context.Context, c *pgxpool.Conn) (err error) {
		version, err = readVersion(c.QueryRow(ctx, selectVersion), steps)
		switch code := codeOf(err); {
		case code == undefinedTable, code == invalidSchema, errors.Is(err, pgx.ErrNoRows):
			return nil
		}
		return err
	})
	return version, err
}

// readVersion scans a row of selectVersion. A database that has had more steps
// than there are, and is compatible, counts as having had all of them.
func readVersion(row pgx.Row, steps []step) (int, error) {
	var version, compatible int
	if err := row.Scan(&version, &compatible); err != nil {
		return 0, err
	}
	if compatible > len(steps) {
		return 0, fmt.Errorf("%w: it is at version %d and needs one that knows %d, this one knows %d", ErrNewer, version, compatible, len(steps))
	}
	return min(version, len(steps)), nil
}

// makeVersion makes the row that Migrate locks. Several nodes that do so at
// once get in each other's way, in spite of IF NOT EXISTS: each statement takes
// effect by itself, and who loses looks again.
func (s *Store) makeVersion(ctx context.Context) error {
	return s.call(ctx, s.timeout, "migrating store", again, func(ctx context.Context, c *pgxpool.Conn) error {
		var err error
		for n := range attempts {
			if n > 0 && !pause(ctx, n) {
				return ctx.Err()
			}
			err = tryMakeVersion(ctx, c)
			switch codeOf(err) {
			case uniqueViolation, duplicateSchema, duplicateTable, duplicateObject, invalidSchema, internalError:
				continue
			}
			return err
		}
		return err
	})
}

func tryMakeVersion(ctx context.Context, c *pgxpool.Conn) error {
	// CREATE SCHEMA IF NOT EXISTS needs the right to create also if it exists.
	var exists bool
	if err := c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'keycaddy')`).Scan(&exists); err != nil {
		return err
	}
	statements := []string{
		`CREATE SCHEMA IF NOT EXISTS keycaddy`,
		`CREATE TABLE IF NOT EXISTS keycaddy.schema_version (
			id         smallint    PRIMARY KEY CHECK (id = 1),
			version    bigint      NOT NULL, -- how many steps the database has had
			compatible bigint      NOT NULL, -- how many a program has to know
			migrated   timestamptz NOT NULL
		)`,
		`INSERT INTO keycaddy.schema_version (id, version, compatible, migrated) VALUES (1, 0, 0, now()) ON CONFLICT (id) DO NOTHING`,
	}
	if exists {
		statements = statements[1:]
	}
	for _, statement := range statements {
		if _, err := c.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

var compatibleLine = regexp.MustCompile(`\A-- compatible: ([0-9]+)\n`)

// migrations returns the steps in order.
func migrations() ([]step, error) {
	names, err := fs.Glob(schema, "schema/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var steps []step
	for n, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("schema/%04d_", n+1)) {
			return nil, fmt.Errorf("%s is not step %d", name, n+1)
		}
		text, err := schema.ReadFile(name)
		if err != nil {
			return nil, err
		}
		found := compatibleLine.FindSubmatch(text)
		if found == nil {
			return nil, fmt.Errorf("%s doesn't begin with what it is compatible with", name)
		}
		compatible, err := strconv.Atoi(string(found[1]))
		if err != nil || compatible < 1 || compatible > n+1 {
			return nil, fmt.Errorf("%s can't be compatible with %s", name, found[1])
		}
		steps = append(steps, step{strings.TrimPrefix(name, "schema/"), compatible, string(text)})
	}
	return steps, nil
}
