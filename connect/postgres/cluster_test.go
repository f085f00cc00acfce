package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The tests need PostgreSQL's own programs; there is no stand-in for it.
const (
	needPostgres  = "these tests need PostgreSQL 12 or newer: sudo apt-get install postgresql"
	needPgBouncer = "these tests need PgBouncer: sudo apt-get install pgbouncer"
)

const (
	role     = "keycaddy"
	password = "canary-Passw0rd~4c1" // of the role, and never to be seen
)

// shared is the server of all tests that don't break it, and the one that
// racing processes are told of.
var shared = sync.OnceValues(startCluster)

// running are the servers to stop at the end.
var running struct {
	sync.Mutex
	all []interface{ destroy() }
}

func TestMain(m *testing.M) {
	// Most tests wait for something most of the time: a lease to run out, a
	// server to come back.
	flag.Set("test.parallel", "6")
	code := m.Run()
	for _, s := range slices.Backward(running.all) {
		s.destroy()
	}
	os.Exit(code)
}

// cluster is a PostgreSQL server of the tests' own, with a folder of its own,
// on a Unix socket and a free port of loopback.
type cluster struct {
	bin, dir string
	port     string
	owner    *syscall.Credential // nil: this user
	process  *process
	made     atomic.Int64 // databases
}

func startCluster() (*cluster, error) {
	bin, err := postgresPrograms()
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin}
	if c.dir, c.owner, err = serverFolder("kc-pg-"); err != nil {
		return nil, err
	}
	keep(c)
	passwordFile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(password+"\n"), 0o600); err != nil {
		return nil, err
	}
	if c.owner != nil {
		if err := os.Chown(passwordFile, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
			return nil, err
		}
	}
	// In the clear, since it is loopback, and SCRAM takes most of the tests' time.
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", c.data(), "-U", role, "--pwfile", passwordFile,
		"-A", "password", "-E", "UTF8", "--locale", "C", "--no-sync")
	initdb.Dir = c.dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	if c.port, err = unusedPort(); err != nil {
		return nil, err
	}
	return c, c.start()
}

// start starts the server and waits until it answers.
func (c *cluster) start() (err error) {
	c.process, err = startProcess(c.owner, c.dir, filepath.Join(c.bin, "postgres"), "-D", c.data(), "-p", c.port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+c.dir,
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off",
		"-c", "wal_level=minimal", "-c", "max_wal_senders=0", "-c", "max_connections=200", "-c", "shared_buffers=16MB")
	if err != nil {
		return err
	}
	return c.process.ready(c.dsn("postgres"))
}

// crash is what pg_ctl stop -m immediate does.
func (c *cluster) crash() { c.process.end(syscall.SIGQUIT) }

func (c *cluster) destroy() {
	if c.process != nil {
		c.process.end(syscall.SIGQUIT)
	}
	os.RemoveAll(c.dir)
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *cluster) dsn(database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%s/%s?sslmode=disable", role, password, c.port, database)
}

// database makes a new database and returns its connection string.
func (c *cluster) database(t testing.TB) string { t.Helper(); return c.dsn(c.databaseName(t)) }

func (c *cluster) databaseName(t testing.TB) string {
	t.Helper()
	name := fmt.Sprint("test", c.made.Add(1))
	conn := dial(t, c.dsn("postgres"))
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return name
}

// sharedCluster returns the shared server.
func sharedCluster(t testing.TB) *cluster {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// breakable is the server that one test at a time may break, and mends.
var (
	breakable = sync.OnceValues(startCluster)
	breaking  sync.Mutex
)

// ownCluster returns a server that nobody else uses during the test.
func ownCluster(t testing.TB) *cluster {
	t.Helper()
	breaking.Lock()
	t.Cleanup(breaking.Unlock)
	c, err := breakable()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dial returns a connection beside the store.
func dial(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// do runs statements beside the store.
func do(t testing.TB, dsn string, statements ...string) {
	t.Helper()
	conn := dial(t, dsn)
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(context.Background(), s, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// openTest returns a store that is closed at the end of the test.
func openTest(t testing.TB, dsn string, o ...Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dsn, append(o, Options{})[0])
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

// migrated returns a store on a new database of the shared server.
func migrated(t testing.TB) (s *Store, dsn string) {
	t.Helper()
	dsn = sharedCluster(t).database(t)
	s = openTest(t, dsn)
	migrate(t, s)
	return s, dsn
}

func migrate(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// postgresPrograms returns the folder of initdb and the others.
func postgresPrograms() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // Debian's, not in $PATH
	version := func(path string) int { n, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))); return n }
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) }) // the newest first
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		found = append(found, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, filepath.Dir(path))
	}
	for _, dir := range found {
		if program(dir, "initdb") && program(dir, "postgres") && program(dir, "pg_dump") {
			return dir, nil
		}
	}
	return "", errors.New(needPostgres)
}

func program(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// serverFolder returns a new folder for a server, and whom it has to run as:
// PostgreSQL and PgBouncer refuse to run as root.
func serverFolder(prefix string) (string, *syscall.Credential, error) {
	dir, err := os.MkdirTemp("", prefix) // not t.TempDir, whose path is long for a socket and closed to others
	if err != nil || os.Getuid() != 0 {
		return dir, nil, err
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2, os.Chown(dir, int(uid), int(gid))); err != nil {
			return "", nil, err
		}
		return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return "", nil, errors.New("root can't run PostgreSQL, and there is no user postgres or nobody to do so")
}

func keep(s interface{ destroy() }) {
	running.Lock()
	defer running.Unlock()
	running.all = append(running.all, s)
}

// unusedPort is a port that no other server gets meanwhile: those that the system
// hands out begin above, and no two tests of this process ask for the same.
func unusedPort() (string, error) {
	for range 100 {
		port := strconv.Itoa(10000 + (os.Getpid()*101+int(portsAsked.Add(1)))%20000)
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			return port, l.Close()
		}
	}
	return "", errors.New("no port is free")
}

var portsAsked atomic.Int32

// process is a server that was started, and ends with the tests, however those
// end.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	log   *os.File
}

func startProcess(owner *syscall.Credential, dir, path string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(path, args...), ended: make(chan struct{}), log: log}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Pdeathsig: syscall.SIGQUIT}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread ends
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

// ready waits until the server answers.
func (p *process) ready(dsn string) error {
	var err error
	for range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		var conn *pgx.Conn
		if conn, err = pgx.Connect(ctx, dsn); err == nil {
			err = conn.Close(ctx)
			cancel()
			return err
		}
		cancel()
		select {
		case <-p.ended:
			p.log.Seek(0, io.SeekStart)
			text, _ := io.ReadAll(p.log)
			return fmt.Errorf("the server has ended: %s", text)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return err
}

// end ends the process and waits for it.
func (p *process) end(s syscall.Signal) {
	p.cmd.Process.Signal(s)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
	p.log.Close()
}
