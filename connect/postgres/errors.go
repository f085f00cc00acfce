package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keycaddy/keycaddy/connect"
)

var (
	errNoConnection = errors.New("no connection to the database was free or made")
	errRefused      = errors.New("the change was refused")
	errText         = errors.New("text that PostgreSQL can't keep: it has a zero byte or isn't UTF-8")
)

// undoneError says that the database has not done what it was asked.
type undoneError struct{ error }

func (e undoneError) Unwrap() error { return e.error }

// The codes that are looked at by name; all are listed at
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	uniqueViolation     = "23505"
	readOnly            = "25006"
	invalidSchema       = "3F000"
	serialization       = "40001"
	completionUnknown   = "40003"
	deadlock            = "40P01"
	duplicateSchema     = "42P06"
	duplicateTable      = "42P07"
	duplicateObject     = "42710"
	undefinedTable      = "42P01"
	syntaxError         = "42601"
	notSupported        = "0A000"
	tooManyConnections  = "53300"
	lockNotAvailable    = "55P03"
	queryCanceled       = "57014"
	cannotConnectNow    = "57P03"
	internalError       = "XX000"
	classConnection     = "08"
	classResources      = "53"
	classIntervention   = "57"
	classSystem         = "58"
	classData           = "22"
	classIntegrity      = "23"
	classAuthentication = "28"
)

// codeOf returns the SQLSTATE that the server has sent, or "".
func codeOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// verdict is what an error means for the call.
type verdict struct {
	unavailable bool // the same call may succeed later
	retry       bool // and it may be soon
	undone      bool // nothing has taken effect
}

func judge(err error) verdict {
	var (
		undone     undoneError
		connecting *pgconn.ConnectError
		network    net.Error
		system     syscall.Errno
	)
	v := verdict{undone: errors.As(err, &undone)}
	code := codeOf(err)
	switch {
	case err == nil:
	case errors.Is(err, errNoConnection):
		v = verdict{unavailable: true, undone: true} // it has been waited for
	case errors.As(err, &connecting):
		// What the server refuses for good (a password, a database that isn't
		// there) can be put right there, but not within this call.
		passing := code == "" || code == tooManyConnections || strings.HasPrefix(code, classIntervention)
		v = verdict{unavailable: true, retry: passing, undone: true}
	case code != "":
		v = judgeCode(code, v.undone)
	case pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed):
		// "Closed" claims to be safe as well, but pgx 5.12 says it also of a
		// connection that broke while a statement without arguments, such as
		// a commit, waited for its answer (MultiResultReader.NextResult).
		v = verdict{unavailable: true, retry: true, undone: true}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), pgconn.Timeout(err),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, pgconn.ErrConnClosed), errors.As(err, &network), errors.As(err, &system):
		v.unavailable, v.retry = true, true
	}
	return v
}

// judgeCode judges what a server that was connected to has answered.
func judgeCode(code string, undone bool) verdict {
	switch code {
	case serialization, deadlock, lockNotAvailable, readOnly, tooManyConnections, cannotConnectNow:
		return verdict{unavailable: true, retry: true, undone: true}
	case queryCanceled: // statement_timeout, or an operator
		return verdict{unavailable: true, undone: true}
	case completionUnknown:
		return verdict{unavailable: true, retry: true, undone: undone}
	}
	switch code[:min(2, len(code))] {
	case classResources: // such as a full disk
		return verdict{unavailable: true, undone: true}
	case classConnection, classIntervention, classSystem:
		// Shutdown (57P01), crash (57P02), and what PgBouncer says of lost
		// servers. Between a commit and its confirmation these look alike.
		return verdict{unavailable: true, retry: true, undone: undone}
	}
	return verdict{undone: undone}
}

// wrap says what failed and adds the sentinel of connect that fits. A done
// context comes before anything that it may have caused; beside a deadline that
// was spent on waiting for the database, ErrStoreUnavailable is said as well.
func wrap(ctx context.Context, what string, err error) error {
	v := judge(err)
	switch done := ctx.Err(); {
	case err == nil:
		return nil
	case errors.Is(done, context.DeadlineExceeded) && v.unavailable:
		return fmt.Errorf("%s: %w: %w", what, connect.ErrStoreUnavailable, done)
	case done != nil:
		return fmt.Errorf("%s: %w", what, done)
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%s: %w", what, connect.ErrNotFound)
	case codeOf(err) == uniqueViolation:
		return fmt.Errorf("%s: %w", what, connect.ErrExists)
	case v.unavailable:
		return fmt.Errorf("%s: %w: %w", what, connect.ErrStoreUnavailable, hide(err))
	}
	return fmt.Errorf("%s: %w", what, hide(err))
}

// hide returns an error of pgx as its text alone. Its structs hold the password
// (pgconn.ConnectError), or values of the row (the Detail of pgconn.PgError);
// the server's message may quote a value if it is about data.
func hide(err error) error {
	var (
		server     *pgconn.PgError
		connecting *pgconn.ConnectError
	)
	switch {
	case errors.As(err, &connecting):
		return errors.New(err.Error())
	case errors.As(err, &server):
		where, _, _ := strings.Cut(err.Error(), server.Error()) // said by this package
		switch server.Code[:min(2, len(server.Code))] {
		case classData, classIntegrity:
			return fmt.Errorf("%sthe database refused a value (SQLSTATE %s)", where, server.Code)
		}
		return fmt.Errorf("%s%s (SQLSTATE %s)", where, server.Message, server.Code)
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return errors.New("no answer in time")
	case judge(err).unavailable:
		return errors.New(err.Error())
	}
	return err
}
