package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// failing makes the first tries of an event on a table (such as INSERT ON
// keycaddy.sessions) do something else: raise, or whatever SQL says.
func failing(t *testing.T, dsn, event string, tries int, sql string) {
	t.Helper()
	do(t, dsn, `CREATE SEQUENCE tries`, fmt.Sprintf(`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF nextval('tries') <= %d THEN %s; END IF; RETURN NEW; END $$`, tries, sql),
		`CREATE TRIGGER fail BEFORE `+event+` FOR EACH ROW EXECUTE FUNCTION fail()`)
}

func raise(code string) string {
	return fmt.Sprintf(`RAISE EXCEPTION 'made to fail' USING ERRCODE = '%s'`, code)
}

// triedTimes tells how often the failing event came.
func triedTimes(t *testing.T, dsn string) (n int) {
	t.Helper()
	if err := dial(t, dsn).QueryRow(t.Context(), `SELECT last_value FROM tries`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestS117WhatPassesIsTriedAgain(t *testing.T) {
	t.Parallel()
	const always = 1000
	s, dsn := migrated(t)
	for name, test := range map[string]struct {
		sql         string
		fails       int
		again       bool // a call that may be made again
		tried       int
		unavailable bool
	}{
		"serialization failure":             {raise("40001"), 3, false, 4, false},
		"deadlock":                          {raise("40P01"), 3, false, 4, false},
		"lock timeout":                      {raise("55P03"), 1, false, 2, false},
		"endless conflict":                  {raise("40001"), always, false, attempts, true},
		"disk full":                         {raise("53100"), always, false, 1, true},
		"statement timeout":                 {raise("57014"), always, false, 1, true},
		"outcome unknown":                   {raise("40003"), always, false, 1, true},
		"outcome unknown, can be repeated":  {raise("40003"), 2, true, 3, false},
		"PgBouncer lost the server":         {raise("08P01"), always, false, 1, true},
		"killed by an operator":             {`PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(1)`, always, false, 1, true},
		"killed, and can be repeated":       {`PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(1)`, 2, true, 3, false},
		"a bug, which won't go away":        {raise("42703"), always, true, 1, false},
		"a value that the database refuses": {raise("22003"), always, true, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			defer do(t, dsn, `DROP FUNCTION fail CASCADE`, `DROP SEQUENCE tries`, `TRUNCATE keycaddy.sessions, keycaddy.flows`)
			f := connect.Flow{ID: "a", State: connect.DigestOf("a"), Expires: time.Now().Add(time.Hour)}
			if err := s.PutFlow(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			call := func() error {
				return s.PutSession(t.Context(), connect.Session{Token: connect.DigestOf("a"), Expires: time.Now().Add(time.Hour)})
			}
			event := `INSERT ON keycaddy.sessions`
			if test.again {
				call = func() error { return s.FinishFlow(t.Context(), "a", connect.Outcome{}) }
				event = `UPDATE ON keycaddy.flows`
			}
			failing(t, dsn, event, test.fails, test.sql)
			err := call()
			if (err != nil) != (test.fails == always) || errors.Is(err, connect.ErrStoreUnavailable) != test.unavailable {
				t.Errorf("got %v", err)
			}
			if n := triedTimes(t, dsn); n != test.tried {
				t.Errorf("tried %d times, want %d", n, test.tried)
			}
		})
	}
}

func TestS117UpdateIsTriedAgainFromTheStart(t *testing.T) {
	t.Parallel()
	s, dsn := migrated(t)
	c, err := s.Create(t.Context(), newConnection("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	failing(t, dsn, `UPDATE ON keycaddy.connections`, 2, raise("40001"))
	calls := 0
	c, err = s.Update(t.Context(), c.ID, func(c *connect.Connection) error { calls++; c.Version++; return nil })
	if err != nil || c.Version != 1 || calls != 3 {
		t.Fatalf("version %d after %d calls, %v", c.Version, calls, err)
	}
}

// TestS117LostConfirmation cuts the connection when the database has done what
// it was asked, before its answer arrives.
func TestS117LostConfirmation(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) { lostConfirmation(t, "&default_query_exec_mode="+mode) })
	}
}

func lostConfirmation(t *testing.T, mode string) {
	direct, dsn := migrated(t)
	p := startProxy(t, dsn)
	s := openTest(t, p.dsn+mode)
	ctx := t.Context()
	c, err := s.Create(ctx, newConnection("a", "b"))
	if err != nil {
		t.Fatal(err)
	}

	// Not repeated: a second one would find the first.
	session := connect.Session{Token: connect.DigestOf("a"), Expires: time.Now().Add(time.Hour)}
	p.cutAfter("INSERT INTO keycaddy.sessions")
	if err := s.PutSession(ctx, session); !errors.Is(err, connect.ErrStoreUnavailable) || errors.Is(err, connect.ErrExists) {
		t.Errorf("PutSession: %v", err)
	}
	if _, err := direct.Session(ctx, session.Token); err != nil {
		t.Errorf("it was not added: %v", err)
	}

	calls := 0
	p.cutAfter("commit\x00") // and not "begin isolation level read committed"
	_, err = s.Update(ctx, c.ID, func(c *connect.Connection) error { calls++; c.Version++; return nil })
	got, err2 := direct.Connection(ctx, c.ID)
	if !errors.Is(err, connect.ErrStoreUnavailable) || err2 != nil || got.Version != 1 || calls != 1 {
		t.Errorf("Update: %v, %v; version %d after %d calls", err, err2, got.Version, calls)
	}

	// Repeated from the start: it was cut before the commit.
	calls = 0
	p.cutAfter("UPDATE keycaddy.connections")
	got, err = s.Update(ctx, c.ID, func(c *connect.Connection) error { calls++; c.Version++; return nil })
	if err != nil || got.Version != 2 || calls != 2 {
		t.Errorf("Update: %v; version %d after %d calls", err, got.Version, calls)
	}

	// Repeated: the lease is its holder's already.
	p.cutAfter("INSERT INTO keycaddy.leases")
	l, err := s.Lease(ctx, "lease", "node", time.Minute)
	if err != nil {
		t.Fatalf("Lease: %v", err)
	}
	if _, err := direct.Lease(ctx, "lease", "node", time.Minute); !errors.Is(err, connect.ErrHeld) {
		t.Errorf("got %v, want ErrHeld", err)
	}
	p.cutAfter("UPDATE keycaddy.leases")
	if err := s.Release(ctx, l); err != nil {
		t.Errorf("Release: %v", err)
	}
	if _, err := direct.Lease(ctx, "lease", "node", time.Minute); err != nil {
		t.Error(err)
	}
	p.cutAfter("SELECT version, data")
	if _, _, ok, err := s.ReadBlob(ctx, "a"); ok || err != nil {
		t.Errorf("ReadBlob: %v, %v", ok, err)
	}
}

// A database that doesn't answer costs a call its deadline and no more.
func TestS117SilentServerIsBounded(t *testing.T) {
	t.Parallel()
	_, dsn := migrated(t)
	p := startProxy(t, dsn)
	s := openTest(t, p.dsn, Options{Timeout: time.Second, AcquireTimeout: 500 * time.Millisecond})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.silence(true)
	for range 2 { // on the open connection, and on a new one
		start := time.Now()
		err := s.Ping(t.Context())
		if took := time.Since(start); took > time.Second+slack || !errors.Is(err, connect.ErrStoreUnavailable) {
			t.Errorf("after %v: %v", took, err)
		}
	}
	p.silence(false)
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if err = s.Ping(t.Context()); err == nil {
			return
		}
	}
	t.Errorf("it speaks again: %v", err)
}

// proxy stands between a store and its database.
type proxy struct {
	dsn    string
	target string

	mu     sync.Mutex
	marker []byte // in what the client sends: the answer to it is lost
	silent bool
}

func startProxy(t *testing.T, dsn string) *proxy {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &proxy{dsn: strings.Replace(dsn, u.Host, l.Addr().String(), 1), target: u.Host}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	cut := make(chan struct{}, 1)
	go func() { // answers
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			select {
			case <-cut:
				err = io.EOF
				n = 0
			default:
			}
			if err == nil && p.isSilent() {
				continue
			}
			if _, werr := client.Write(buffer[:n]); err != nil || werr != nil {
				client.Close()
				return
			}
		}
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if p.isMarked(buffer[:n]) {
			cut <- struct{}{}
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) isMarked(sent []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marker == nil || !bytes.Contains(sent, p.marker) {
		return false
	}
	p.marker = nil // once
	return true
}

func (p *proxy) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

func (p *proxy) cutAfter(marker string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marker = []byte(marker)
}

func (p *proxy) silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
}
