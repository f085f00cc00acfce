package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/storetest"
)

// TestContract runs the contract as it is by default, and with text alone.
func TestContract(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	for name, settings := range map[string]string{
		"default":         "&pool_max_conns=4",
		"simple_protocol": "&pool_max_conns=4&default_query_exec_mode=simple_protocol",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := c.database(t)
			contract(t, database, database+settings)
		})
	}
}

func TestS117ContractThroughPgBouncerInTransactionMode(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	b := startBouncer(t, c)
	name := c.databaseName(t)
	contract(t, c.dsn(name), b.dsn(name)+"&pool_max_conns=4")
}

// contract runs the contract on one database that is emptied for each part.
func contract(t *testing.T, database, dsn string) {
	storetest.Run(t, func(t *testing.T) (first, second connect.Store) {
		do(t, database, `DROP SCHEMA IF EXISTS keycaddy CASCADE`)
		return openTest(t, dsn), openTest(t, dsn)
	})
}

// TestOtherModesKeepEverything looks at what differs between modes: how values
// are sent and read.
func TestOtherModesKeepEverything(t *testing.T) {
	t.Parallel()
	s, dsn := migrated(t)
	at := time.Date(2031, 2, 3, 4, 5, 6, 789012000, time.UTC)
	c := connect.Connection{
		UID: connectionUID(), Provider: "github", Status: connect.StatusActive, Cause: "'$1",
		Config: map[string]string{"a": "<\\'\">"}, Metadata: json.RawMessage(`{"a": [1, null]}`), Tags: map[string]string{"ü": "'"},
		EndUser: &connect.EndUser{ID: "u", Organization: &connect.Organization{ID: "o"}},
		Version: 7, Expires: at, Created: at, Updated: at,
	}
	session := connect.Session{Allowed: []string{"a", "'b"}, Reconnect: true, Created: at, Expires: at}
	flow := connect.Flow{State: connect.DigestOf("s"), Expires: at}
	for _, mode := range []string{"exec", "simple_protocol", "cache_statement", "cache_describe", "describe_exec"} {
		m := openTest(t, dsn+"&default_query_exec_mode="+mode)
		for range 2 { // the second time from a cache, where there is one
			c.ID = connect.ID{Integration: mode, Connection: connectionUID()}
			c.UID, flow.ID = connectionUID(), connectionUID()
			session.Token, flow.State = connect.DigestOf(c.UID), connect.DigestOf(c.UID)
			created, err := m.Create(t.Context(), c)
			if err := errors.Join(err, m.PutSession(t.Context(), session), m.PutFlow(t.Context(), flow)); err != nil {
				t.Fatalf("%s: %v", mode, err)
			}
			c.Serial = created.Serial
			list, err1 := m.Connections(t.Context(), connect.Query{Integrations: []string{mode, "x"}, EndUsers: []string{"u"}, Search: c.ID.Connection, Tags: c.Tags, Limit: 1})
			gotSession, err2 := m.Session(t.Context(), session.Token)
			gotFlow, err3 := m.TakeFlow(t.Context(), flow.State)
			kept, err4 := s.Connection(t.Context(), c.ID)
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Fatalf("%s: %v", mode, err)
			}
			for _, pair := range [][2]any{{created, c}, {list, []connect.Connection{c}}, {kept, c}, {gotSession, session}, {gotFlow, flow}} {
				if !reflect.DeepEqual(pair[0], pair[1]) {
					t.Errorf("%s: got\n%+v\nwant\n%+v", mode, pair[0], pair[1])
				}
			}
		}
	}
}

func TestUnixSocketAndKeyValuePairs(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	s := openTest(t, fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s", c.dir, c.port, role, password, c.databaseName(t)))
	migrate(t, s)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The default is what it is because of this.
func TestS117NamedStatementsFailBehindPgBouncer(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	b := startBouncer(t, c)
	dsn := b.dsn(c.databaseName(t))
	migrate(t, openTest(t, dsn))
	named := dsn + "&default_query_exec_mode=cache_statement"
	var failed error
	for range 20 {
		s := openTest(t, named)
		for range 3 {
			if _, err := s.HasBlobs(t.Context()); err != nil {
				failed = err
			}
		}
	}
	if failed == nil {
		t.Log("this PgBouncer keeps track of prepared statements, as since 1.21 it can")
		return
	}
	t.Log(failed)
}

// bouncer is a PgBouncer in transaction mode: with few server connections, so
// that clients share them.
type bouncer struct {
	dir, port string
	process   *process
}

func startBouncer(t *testing.T, c *cluster) *bouncer {
	t.Helper()
	path := "/usr/sbin/pgbouncer" // not in everybody's $PATH
	if !program("/usr/sbin", "pgbouncer") {
		var err error
		if path, err = exec.LookPath("pgbouncer"); err != nil {
			t.Fatal(needPgBouncer)
		}
	}
	dir, owner, err := serverFolder("kc-pgb-")
	if err != nil {
		t.Fatal(err)
	}
	port, err := unusedPort()
	if err != nil {
		t.Fatal(err)
	}
	b := &bouncer{dir: dir, port: port}
	t.Cleanup(b.destroy)
	for name, text := range map[string]string{
		"users": fmt.Sprintf("%q %q\n", role, password),
		"ini": fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = md5
auth_file = %s/users
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
server_tls_sslmode = disable
`, c.port, port, dir),
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if owner != nil {
			if err := os.Chown(file, int(owner.Uid), int(owner.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if b.process, err = startProcess(owner, dir, path, filepath.Join(dir, "ini")); err != nil {
		t.Fatal(err)
	}
	if err := b.process.ready(b.dsn("postgres")); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bouncer) dsn(database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%s/%s?sslmode=disable", role, password, b.port, database)
}

func (b *bouncer) destroy() {
	if b.process != nil {
		b.process.end(syscall.SIGTERM) // at once, to PgBouncer
	}
	os.RemoveAll(b.dir)
}
