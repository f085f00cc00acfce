package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// effect tells what a second run of the same statement would do after a first
// one that may have taken effect without anybody having been told.
type effect bool

const (
	// once: something else, such as finding the row that the first has added.
	once effect = false
	// again: the same. Reading is so, and setting or deleting what is named.
	again effect = true
)

// A call is tried 8 times at most, with pauses of about 10, 20, 40 … 500 ms in
// between: about a second together. That is for restarts, conflicts and a
// quick failover. A longer outage is the caller's to wait for, who may have
// something better to do than to hold a request.
const (
	attempts   = 8
	firstPause = 10 * time.Millisecond
	longPause  = 500 * time.Millisecond
)

// call runs do with a connection, for as long as limit. Failures that may pass
// are tried again where that is safe: if the database has surely not done what
// it was asked (a conflict, a deadlock, a read-only server, or nothing was sent
// yet), or if doing it again makes no difference. what, a gerund phrase, goes
// before the error.
func (s *Store) call(ctx context.Context, limit time.Duration, what string, e effect, do func(context.Context, *pgxpool.Conn) error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var err error
	for n := range attempts {
		if n > 0 && !pause(limited, n) {
			break
		}
		if err = s.attempt(limited, do); err == nil {
			return nil
		}
		if v := judge(err); !v.retry || e == once && !v.undone {
			break
		}
	}
	return wrap(ctx, what, err)
}

func (s *Store) attempt(ctx context.Context, do func(context.Context, *pgxpool.Conn) error) error {
	c, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release() // which closes it, if it is broken or in a transaction
	err = do(ctx, c)
	if codeOf(err) == readOnly {
		// This server isn't the primary any more; a new connection may lead
		// to the one that is.
		c.Conn().Close(ctx)
	}
	return err
}

// acquire returns a free connection or a new one.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, s.acquireTimeout)
	defer cancel()
	c, err := s.pool.Acquire(wait)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return nil, fmt.Errorf("%w within %v; this node has %d of %d", errNoConnection, s.acquireTimeout,
			s.pool.Stat().TotalConns(), s.pool.Stat().MaxConns())
	}
	if err != nil {
		return nil, undoneError{err}
	}
	return c, nil
}

// pause waits before attempt n, from 1, and tells whether there is time for it.
// The random part keeps those apart that were in each other's way.
func pause(ctx context.Context, n int) bool {
	d := min(firstPause<<(n-1), longPause)
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// transact runs do in a transaction and commits unless do fails. It may run do
// more than once; e is what a second run does after a commit whose outcome
// isn't known. The isolation is said, in case the database's default is
// stricter and would let transactions fail that needn't.
func (s *Store) transact(ctx context.Context, limit time.Duration, what string, e effect, do func(context.Context, pgx.Tx) error) error {
	return s.call(ctx, limit, what, e, func(ctx context.Context, c *pgxpool.Conn) error {
		tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
		if err != nil {
			return undoneError{err}
		}
		defer func() { // does nothing after Commit
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			tx.Rollback(ctx)
		}()
		if err := do(ctx, tx); err != nil {
			return undoneError{err}
		}
		return tx.Commit(ctx)
	})
}

// exec runs one statement and returns how many rows it changed.
func (s *Store) exec(ctx context.Context, what string, e effect, statement string, args ...any) (rows int64, err error) {
	if err := checkText(args); err != nil {
		return 0, wrap(ctx, what, err)
	}
	err = s.call(ctx, s.timeout, what, e, func(ctx context.Context, c *pgxpool.Conn) error {
		tag, err := c.Exec(ctx, statement, args...)
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}

// row runs one statement and scans the first row that it returns;
// connect.ErrNotFound if there is none.
func (s *Store) row(ctx context.Context, what string, e effect, scan func(pgx.Row) error, statement string, args ...any) error {
	if err := checkText(args); err != nil {
		return wrap(ctx, what, err)
	}
	return s.call(ctx, s.timeout, what, e, func(ctx context.Context, c *pgxpool.Conn) error {
		return scan(c.QueryRow(ctx, statement, args...))
	})
}

// rows runs one statement and lets scan read every row that it returns. reset
// is called before each attempt.
func (s *Store) rows(ctx context.Context, what string, reset func(), scan func(pgx.Row) error, statement string, args ...any) error {
	if err := checkText(args); err != nil {
		return wrap(ctx, what, err)
	}
	return s.call(ctx, s.timeout, what, again, func(ctx context.Context, c *pgxpool.Conn) error {
		reset()
		rows, err := c.Query(ctx, statement, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}
