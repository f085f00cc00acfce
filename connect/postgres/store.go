// Package postgres is the store for more than one machine: any number of
// keycaddy nodes on one PostgreSQL database, or on one that speaks its protocol.
// Nothing in it needs more than PostgreSQL 12 has: no session state, no
// advisory locks, no prepared statements. All tables are in the schema keycaddy,
// so that search_path plays no part. LISTEN, on a connection beside the pool,
// makes changes known at once; where it doesn't work, asking twice a second does.
//
// Store is a connect.Store, and also the table that the vault in vault/sealed
// keeps its blobs in.
//
// # Connection string
//
// It is a URL (postgres://user:password@host/database?sslmode=verify-full) or
// key=value pairs, as libpq has them. Passwords are better kept out of it, in
// PGPASSWORD or a passfile. Beside libpq's settings it may have
//
//	pool_max_conns           connections of this node at most; 10 unless given
//	pool_max_conn_lifetime   1h, and up to a tenth longer
//	connect_timeout          in seconds, for each host; 3 unless given
//	default_query_exec_mode  exec unless given; see below
//
// and what else pgxpool.ParseConfig knows. For a database that fails over, name
// all hosts and add target_session_attrs=read-write.
//
// # PgBouncer
//
// Works in transaction mode as it is. pgx's own default, named prepared
// statements, does not: they belong to a server connection, which PgBouncer
// swaps under the client. The default here is therefore exec: one unnamed
// statement and one round trip for every call, and nothing that could be stale
// after a migration. The price is that the server plans each statement anew.
// cache_describe is as safe in transaction mode but costs a second round trip
// for the first use of every statement on every connection, and its types can
// get stale. Without a pooler in between (or with PgBouncer 1.21 and its
// max_prepared_statements) default_query_exec_mode=cache_statement saves the
// planning. simple_protocol works too, for poolers that know nothing else.
//
// PgBouncer refuses settings that it doesn't track, such as search_path or
// statement_timeout, in the connection string: set those with ALTER ROLE.
//
// # CockroachDB, YugabyteDB
//
// Both are expected to work and neither is tested. Transactions that they ask
// to run again are. YugabyteDB hands sequence numbers out in blocks, by which
// serials and generations would not rise across nodes: it has to be started
// with ysql_sequence_cache_minval=1.
//
// It may import connect, vault, github.com/jackc/pgx/v5 and the standard
// library only.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keycaddy/keycaddy/connect"
)

// What Options and the connection string don't say.
const (
	DefaultTimeout        = 10 * time.Second
	DefaultAcquireTimeout = 5 * time.Second

	defaultMaxConns       = 10
	defaultConnectTimeout = 3 * time.Second
	pingTimeout           = time.Second // for a connection that has been idle
)

// Options are what the connection string can't say; zero fields mean defaults.
type Options struct {
	// Timeout bounds every call, its retries included. Migrate has a minute.
	// Default: DefaultTimeout.
	Timeout time.Duration
	// AcquireTimeout bounds the wait for a free connection, or a new one, in
	// every attempt of a call. Default: DefaultAcquireTimeout.
	AcquireTimeout time.Duration
}

// Store is a pool of connections to a database. All methods may be called
// concurrently.
//
// Errors wrap connect.ErrStoreUnavailable if the database can't be reached, is
// read-only, shuts down, is full, has no connection free, or doesn't answer in
// time, after the retries that call describes. Such an error may
// mean that a change was made and its confirmation lost.
type Store struct {
	pool           *pgxpool.Pool
	timeout        time.Duration
	acquireTimeout time.Duration
	// mute: the database knows no NOTIFY.
	mute atomic.Bool
}

var _ connect.Store = (*Store)(nil)

// errDSN tells nothing about the connection string itself: where it can't be
// parsed, nobody knows which part of it is the password.
var errDSN = errors.New("the connection string can't be parsed (it isn't shown, since it may hold a password); " +
	"it has the form postgres://user:password@host:5432/database?sslmode=verify-full, with special characters in percent-encoding")

// Open prepares to use the database that the connection string dsn names. It
// reads the files that dsn names (certificates, passfile) but doesn't connect:
// that is done when the store is first used, the tables are made by Migrate.
// (Only with pool_min_conns are connections made ahead, in the background.)
// No error shows dsn.
func Open(ctx context.Context, dsn string, o Options) (*Store, error) {
	if strings.TrimSpace(dsn) == "" {
		return nil, errors.New("opening store: the connection string is empty")
	}
	if o.Timeout < 0 || o.AcquireTimeout < 0 {
		return nil, errors.New("opening store: a timeout is negative")
	}
	config, err := parse(dsn)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", hide(err))
	}
	s := &Store{pool: pool, timeout: o.Timeout, acquireTimeout: o.AcquireTimeout}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.acquireTimeout == 0 {
		s.acquireTimeout = DefaultAcquireTimeout
	}
	return s, nil
}

// parse returns the pool's settings: those of dsn, and our own where it has none.
func parse(dsn string) (*pgxpool.Config, error) {
	if strings.Contains(dsn, "://") && strings.Count(dsn, "@") > 1 {
		// A password that has an @ of its own would be taken for a host's
		// name, looked up and shown.
		return nil, errDSN
	}
	given, err := pgconn.ParseConfig(dsn) // which keeps what the others take out
	if err != nil {
		return nil, errDSN
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errDSN
	}
	says := func(name string) bool { _, ok := given.RuntimeParams[name]; return ok }
	if !says("default_query_exec_mode") {
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	if !says("pool_max_conns") {
		config.MaxConns = max(defaultMaxConns, config.MinConns, config.MinIdleConns)
	}
	if !says("pool_max_conn_lifetime_jitter") {
		config.MaxConnLifetimeJitter = config.MaxConnLifetime / 10
	}
	if !says("pool_ping_timeout") {
		config.PingTimeout = pingTimeout
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = defaultConnectTimeout
	}
	params := config.ConnConfig.RuntimeParams
	if params["application_name"] == "" {
		params["application_name"] = "keycaddy"
	}
	// Values travel as text, which these say how to read, whatever is set for
	// the role or the database. PgBouncer tracks all of them.
	for name, value := range map[string]string{
		"client_encoding": "UTF8", "datestyle": "ISO, MDY", "timezone": "UTC", "standard_conforming_strings": "on",
	} {
		for other := range params {
			if strings.EqualFold(other, name) {
				delete(params, other)
			}
		}
		params[name] = value
	}
	return config, nil
}

// Ping implements connect.Store: the database answers. That it can be written
// to, or has been migrated, is not asked.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.exec(ctx, "pinging store", again, `SELECT 1`)
	return err
}

// Close implements connect.Store. It waits for calls that are under way, which
// have their deadlines; closing again does nothing.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}
