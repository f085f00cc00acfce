package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/keycaddy/keycaddy/connect"
)

// wrap says what failed, a gerund phrase, and adds the sentinel of connect that
// fits. A done context comes before anything that it may have caused.
func wrap(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	sentinel := sentinelOf(err)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case sentinel == nil:
		return fmt.Errorf("%s: %w", what, err)
	case sentinel == connect.ErrStoreUnavailable:
		return fmt.Errorf("%s: %w: %w", what, sentinel, err)
	}
	return fmt.Errorf("%s: %w", what, sentinel) // the cause says no more
}

// sentinelOf returns the sentinel of connect that err calls for, or nil. The
// codes are listed at https://sqlite.org/rescode.html
func sentinelOf(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return connect.ErrNotFound
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code() {
	case lib.SQLITE_CONSTRAINT_UNIQUE, lib.SQLITE_CONSTRAINT_PRIMARYKEY:
		return connect.ErrExists
	}
	switch e.Code() & 0xff { // without the detail
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL, lib.SQLITE_INTERRUPT, // others are in the way
		lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN, lib.SQLITE_NOMEM: // the machine is
		return connect.ErrStoreUnavailable
	}
	return nil // such as SQLITE_CORRUPT: trying again won't help
}
