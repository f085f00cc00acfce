package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// slack is what a call may take beyond its deadline on a busy machine.
const slack = 2 * time.Second

// TestS117ServerCrashesAndComesBackMidTraffic kills the server under load.
func TestS117ServerCrashesAndComesBackMidTraffic(t *testing.T) {
	t.Parallel()
	c := ownCluster(t)
	dsn := c.database(t)
	limits := Options{Timeout: 2 * time.Second, AcquireTimeout: time.Second}
	s := openTest(t, dsn, limits)
	migrate(t, s)

	var workers [6]*worker
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for n := range workers {
		w := &worker{t: t, s: s, limit: limits.Timeout, c: newConnection("a", strconv.Itoa(n))}
		if _, err := s.Create(ctx, w.c); err != nil {
			t.Fatal(err)
		}
		workers[n] = w
		done.Go(func() { w.work(ctx) })
	}
	everyWorker := func(what string, since []int64, enough func(*worker, int64) bool) {
		t.Helper()
		for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			left := false
			for n, w := range workers {
				left = left || !enough(w, since[n])
			}
			if !left {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("waited too long: %s", what)
			}
		}
	}
	counts := func(of func(*worker) *atomic.Int64) (all []int64) {
		for _, w := range workers {
			all = append(all, of(w).Load())
		}
		return all
	}
	successes := func(w *worker) *atomic.Int64 { return &w.successes }
	failures := func(w *worker) *atomic.Int64 { return &w.failures }
	for range 2 {
		everyWorker("work", counts(successes), func(w *worker, n int64) bool { return w.successes.Load() > n+5 })
		c.crash()
		everyWorker("failing", counts(failures), func(w *worker, n int64) bool { return w.failures.Load() > n })
		if err := c.start(); err != nil {
			t.Fatal(err)
		}
		everyWorker("recovery", counts(successes), func(w *worker, n int64) bool { return w.successes.Load() > n+5 })
	}
	stop()
	done.Wait()
	for _, w := range workers {
		w.check()
		t.Logf("%d successes, %d failures", w.successes.Load(), w.failures.Load())
	}
}

// worker writes rising numbers into one connection and one blob.
type worker struct {
	t                   *testing.T
	s                   *Store
	c                   connect.Connection
	limit               time.Duration
	successes, failures atomic.Int64

	tried, updated int64  // the connection's number
	written        uint64 // the blob's version that was confirmed
}

func (w *worker) work(ctx context.Context) {
	var version uint64
	for ctx.Err() == nil {
		w.tried++
		n := w.tried
		if w.timed(func() error {
			_, err := w.s.Update(context.WithoutCancel(ctx), w.c.ID, func(c *connect.Connection) error {
				c.Tags = map[string]string{"n": strconv.FormatInt(n, 10)}
				c.Metadata = json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))
				c.Cause = strconv.FormatInt(n, 10)
				return nil
			})
			return err
		}) {
			w.updated = n
		}
		var written bool
		if w.timed(func() (err error) {
			written, err = w.s.WriteBlob(context.WithoutCancel(ctx), w.c.UID, fmt.Append(nil, version+1), version)
			return err
		}) && written {
			version++
			w.written = version
			continue
		}
		// Whether it was written isn't known: look, as a vault's caller does.
		w.timed(func() error {
			_, now, _, err := w.s.ReadBlob(context.WithoutCancel(ctx), w.c.UID)
			if err == nil {
				version = now
			}
			return err
		})
	}
}

// timed makes a call and tells whether it has succeeded. If not, it must be for
// the one reason, and within the call's deadline.
func (w *worker) timed(call func() error) bool {
	start := time.Now()
	err := call()
	if took := time.Since(start); took > w.limit+slack {
		w.t.Errorf("a call took %v", took)
	}
	if err == nil {
		w.successes.Add(1)
		return true
	}
	if !errors.Is(err, connect.ErrStoreUnavailable) {
		w.t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
	w.failures.Add(1)
	return false
}

// check looks for what was written by half, or was confirmed and is gone.
func (w *worker) check() {
	c, err := w.s.Connection(w.t.Context(), w.c.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := strconv.ParseInt(c.Cause, 10, 64)
	if err != nil || n < w.updated || n > w.tried || c.Tags["n"] != c.Cause || !strings.Contains(string(c.Metadata), " "+c.Cause+"}") {
		w.t.Errorf("%q, tag %q, %s; confirmed was %d", c.Cause, c.Tags["n"], c.Metadata, w.updated)
	}
	data, version, ok, err := w.s.ReadBlob(w.t.Context(), w.c.UID)
	if !ok || err != nil || string(data) != fmt.Sprint(version) || version < w.written {
		w.t.Errorf("blob %q, version %d, %v, %v; confirmed was %d", data, version, ok, err, w.written)
	}
}

func TestS117ServerIsDownAtTheStart(t *testing.T) {
	t.Parallel()
	c := ownCluster(t)
	dsn := c.database(t)
	c.crash()
	s := openTest(t, dsn)
	start := time.Now()
	for name, call := range map[string]func(context.Context) error{
		"Ping": s.Ping, "Migrate": s.Migrate,
		"Connection": func(ctx context.Context) error { _, err := s.Connection(ctx, connect.ID{}); return err },
		"PutSession": func(ctx context.Context) error { return s.PutSession(ctx, connect.Session{}) },
	} {
		if err := call(t.Context()); !errors.Is(err, connect.ErrStoreUnavailable) {
			t.Errorf("%s: got %v, want ErrStoreUnavailable", name, err)
		}
	}
	if took := time.Since(start); took > 4*DefaultTimeout {
		t.Errorf("4 calls took %v", took)
	}
	// A caller's own deadline ends the attempts, and both is said.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start = time.Now()
	err := s.Ping(ctx)
	if took := time.Since(start); took > slack || !errors.Is(err, connect.ErrStoreUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after %v: %v", took, err)
	}
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	migrate(t, s)
}

func TestS117PoolExhaustionIsBounded(t *testing.T) {
	t.Parallel()
	const wait = time.Second
	s := openTest(t, sharedCluster(t).database(t)+"&pool_max_conns=2", Options{AcquireTimeout: wait})
	migrate(t, s)
	first, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Release()
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("with a free connection: %v", err)
	}
	second, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = s.Ping(t.Context())
	if took := time.Since(start); took < wait || took > wait+slack || !errors.Is(err, connect.ErrStoreUnavailable) || !strings.Contains(err.Error(), "2 of 2") {
		t.Errorf("after %v: %v", took, err)
	}
	second.Release()
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("with a free connection again: %v", err)
	}
}

// TestS117ReadOnlyServer is what a node sees whose primary became a standby.
func TestS117ReadOnlyServer(t *testing.T) {
	t.Parallel()
	c := ownCluster(t)
	dsn := c.database(t)
	s := openTest(t, dsn)
	migrate(t, s)
	created, err := s.Create(t.Context(), newConnection("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	readOnlyIs := func(value string) {
		t.Helper()
		do(t, c.dsn("postgres"), `ALTER SYSTEM SET default_transaction_read_only = `+value, `SELECT pg_reload_conf()`)
		for range 100 { // until the reload has reached new connections
			var now string
			conn := dial(t, dsn)
			err := conn.QueryRow(t.Context(), `SHOW default_transaction_read_only`).Scan(&now)
			conn.Close(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if now == value {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("the reload has no effect")
	}
	readOnlyIs("on")
	for name, call := range map[string]func() error{
		"Update": func() error {
			_, err := s.Update(t.Context(), created.ID, func(*connect.Connection) error { return nil })
			return err
		},
		"WriteBlob": func() error { _, err := s.WriteBlob(t.Context(), "a", nil, 0); return err },
		"Lease":     func() error { _, err := s.Lease(t.Context(), "a", "node", time.Minute); return err },
		"Sweep":     func() error { return s.Sweep(t.Context(), time.Now()) },
	} {
		start := time.Now()
		err := call()
		if took := time.Since(start); took > DefaultTimeout || !errors.Is(err, connect.ErrStoreUnavailable) || !strings.Contains(err.Error(), "25006") {
			t.Errorf("%s: after %v: %v", name, took, err)
		}
	}
	if _, err := s.Connection(t.Context(), created.ID); err != nil {
		t.Errorf("reading: %v", err)
	}
	// A failover that ends while a call is being tried is not noticed.
	written := make(chan error, 1)
	go func() {
		_, err := s.WriteBlob(t.Context(), "a", nil, 0)
		written <- err
	}()
	time.Sleep(50 * time.Millisecond)
	readOnlyIs("off")
	if err := <-written; err != nil {
		t.Error(err)
	}
}
