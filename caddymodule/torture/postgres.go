//go:build unix

package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/keycaddy/keycaddy/connect/postgres"
)

// cluster is a PostgreSQL server of the harness's own.
type cluster struct {
	programs, folder string
	owner            *syscall.Credential
	port             int
	log              io.Writer
	process          *process
}

const (
	role     = "keycaddy"
	database = "postgres" // the one that is always there
)

// newCluster makes a server in a folder and starts it.
func newCluster(programs, folder string, log io.Writer) (*cluster, error) {
	programs, err := postgresPrograms(programs)
	if err != nil {
		return nil, err
	}
	c := &cluster{programs: programs, folder: folder, log: log}
	if c.owner, err = servant(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	if c.owner != nil {
		if err := os.Chown(folder, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
			return nil, err
		}
	}
	initdb := exec.Command(filepath.Join(programs, "initdb"), "-D", filepath.Join(folder, "data"), "-U", role,
		"-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync")
	initdb.Dir = folder
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	if c.port, err = unusedPort(); err != nil {
		return nil, err
	}
	return c, c.start()
}

// StartPostgres starts a server of its own in a folder that isn't there yet, for
// tests. Stop ends it.
func StartPostgres(folder string, log io.Writer) (dsn string, stop func(), err error) {
	c, err := newCluster("", folder, log)
	if err != nil {
		return "", nil, err
	}
	return c.dsn(), c.crash, nil
}

// start starts the server and waits until it answers. Unlike in a test, what is
// committed is on the disk: it has to outlive a crash.
func (c *cluster) start() error {
	cmd := exec.Command(filepath.Join(c.programs, "postgres"), "-D", filepath.Join(c.folder, "data"), "-p", strconv.Itoa(c.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "shared_buffers=16MB")
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.folder, c.log, c.log
	var err error
	if c.process, err = start(cmd, c.owner); err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := postgres.Open(ctx, c.dsn(), postgres.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := eventually(time.Minute, func() error { return s.Ping(ctx) }); err != nil {
		return fmt.Errorf("PostgreSQL doesn't answer: %w", err)
	}
	return nil
}

// crash is what `pg_ctl stop -m immediate` does.
func (c *cluster) crash() { c.process.end(syscall.SIGQUIT) }

func (c *cluster) dsn() string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", role, c.port, database)
}

// postgresPrograms finds the folder of initdb and postgres: in the folder given,
// in PATH, or where Debian keeps them, the newest first.
func postgresPrograms(given string) (string, error) {
	folders := []string{given}
	if given == "" {
		folders = nil
		if path, err := exec.LookPath("initdb"); err == nil {
			if path, err = filepath.EvalSymlinks(path); err != nil { // it is linked alone at times
				return "", err
			}
			folders = append(folders, filepath.Dir(path))
		}
		debian, err := filepath.Glob("/usr/lib/postgresql/*/bin")
		if err != nil {
			return "", err
		}
		version := func(path string) int { n, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))); return n }
		slices.SortFunc(debian, func(a, b string) int { return version(b) - version(a) })
		folders = append(folders, debian...)
	}
	for _, f := range folders {
		_, err1 := os.Stat(filepath.Join(f, "initdb"))
		_, err2 := os.Stat(filepath.Join(f, "postgres"))
		if errors.Join(err1, err2) == nil {
			return f, nil
		}
	}
	if given != "" {
		return "", fmt.Errorf("%s has no initdb and postgres in it", given)
	}
	return "", errors.New("PostgreSQL's programs are neither in PATH nor in /usr/lib/postgresql/*/bin; name their folder with --postgres-programs")
}
