package connect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
)

// keep gives the world a journal. What it returns ends it, with all written.
func (w *world) keep() (stop func()) {
	j := connect.NewJournal(w.Store, w.log, func(connect.LogKind) { w.t.Error("a log was dropped") })
	w.node.Journal, w.node.Refresher.Journal = j, j
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { j.Run(ctx) })
	return func() { cancel(); running.Wait() }
}

// told says a log in short: status, code, and the names of its steps.
func (w *world) told(q connect.LogQuery) (lines []string, last connect.Log) {
	w.t.Helper()
	all, err := w.Store.Logs(w.t.Context(), q)
	must(w.t, err)
	for _, l := range all {
		l, err := w.Store.Log(w.t.Context(), l.ID)
		must(w.t, err)
		var names []string
		for _, s := range l.Steps {
			names = append(names, s.Name)
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s/%s: %s %s", l.Kind, l.Status, l.Integration, l.Connection, strings.Join(names, " "), l.Code)))
		if last.ID == "" {
			last = l
		}
	}
	return lines, last
}

func (w *world) expectLog(kind connect.LogKind, want string) connect.Log {
	w.t.Helper()
	time.Sleep(time.Second)
	lines, last := w.told(connect.LogQuery{Kind: kind, Limit: 1})
	if len(lines) != 1 || lines[0] != want {
		w.t.Fatalf("logs\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}
	return last
}

func TestAttemptsAreLoggedStepByStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		defer w.keep()()
		s := connect.Session{Connection: "ada", EndUser: &connect.EndUser{ID: "u1"}}
		step, err := w.Submit(t.Context(), w.open(s), "demo", nil)
		must(t, err)
		l := w.expectLog(connect.LogConnect, "connect running demo/ada: started redirected")
		if l.ID != step.Flow || l.EndUser != "u1" || l.Provider != "demo" || l.Steps[1].Message != "to provider.test" {
			t.Errorf("log %+v", l)
		}
		time.Sleep(30 * time.Second)
		a, err := w.Arrive(t.Context(), public+"/oauth/callback", w.consent(step.Redirect, "allow"), with(step))
		must(t, err)
		time.Sleep(time.Millisecond)
		_, err = w.Confirm(t.Context(), a.Waiting.Key, connect.Evidence{By: connect.ByPerson})
		must(t, err)
		l = w.expectLog(connect.LogConnect, "connect success demo/ada: started redirected callback waiting proved exchanged completed stored")
		if l.ID != step.Flow || l.Took < 30*time.Second {
			t.Errorf("log %+v", l)
		}

		// Refused at the provider, in its words.
		step, err = w.Submit(t.Context(), w.open(s), "demo", nil)
		must(t, err)
		time.Sleep(time.Millisecond)
		denied := w.consent(step.Redirect, "deny")
		denied.Set("error_description", "The user \x1b[31msaid\nno <b>")
		if _, err := w.arrive(t.Context(), denied, step); err == nil {
			t.Fatal("connected")
		}
		l = w.expectLog(connect.LogConnect, "connect failure demo/ada: started redirected callback failed access_denied")
		if !strings.HasPrefix(l.Detail, "The user ") || !strings.HasSuffix(l.Detail, "no <b>") || strings.ContainsAny(l.Detail, "\x1b\n") || !strings.Contains(l.Message, "access_denied") {
			t.Errorf("message %q, detail %q", l.Message, l.Detail)
		}

		// The code is refused.
		step, err = w.Submit(t.Context(), w.open(s), "demo", nil)
		must(t, err)
		time.Sleep(time.Millisecond)
		w.set(func(rw http.ResponseWriter, _ *http.Request, _ string) bool {
			rw.WriteHeader(400)
			rw.Write([]byte(`{"error":"invalid_grant","error_description":"The code is spent"}`))
			return true
		}, nil)
		a, err = w.Arrive(t.Context(), public+"/oauth/callback", w.consent(step.Redirect, "allow"), with(step))
		must(t, err)
		time.Sleep(time.Millisecond)
		if _, err = w.Confirm(t.Context(), a.Waiting.Key, connect.Evidence{By: connect.ByPerson}); err == nil {
			t.Fatal("connected")
		}
		if l = w.expectLog(connect.LogConnect, "connect failure demo/ada: started redirected callback waiting proved failed invalid_grant"); l.Detail != "The code is spent" {
			t.Errorf("detail %q", l.Detail)
		}
	})
}

func TestFormsAreLoggedStepByStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		defer w.keep()()
		answers := map[string]string{"api_key": "canary-of-the-form"}
		w.front = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(403); return true }
		if _, err := w.Submit(t.Context(), w.open(connect.Session{}), "key", answers); err == nil {
			t.Fatal("connected")
		}
		w.expectLog(connect.LogConnect, "connect failure key/: started completed failed credential_refused")
		if _, err := w.Submit(t.Context(), w.open(connect.Session{}), "key", nil); err == nil {
			t.Fatal("connected")
		}
		w.expectLog(connect.LogConnect, "connect failure key/: started failed invalid_fields")
		w.front = func(rw http.ResponseWriter, _ *http.Request) bool { return true }
		step, err := w.Submit(t.Context(), w.open(connect.Session{Connection: "c"}), "key", answers)
		must(t, err)
		w.expectLog(connect.LogConnect, "connect success key/c: started completed verified stored")
		if step.Connection.ID.Connection != "c" {
			t.Errorf("connection %v", step.Connection.ID)
		}
		for _, l := range w.logs.All() {
			if strings.Contains(fmt.Sprint(l.Message, l.ContextMap()), "canary") {
				t.Errorf("log line %s %v", l.Message, l.ContextMap())
			}
		}
	})
}

func TestRenewalsAreLoggedStepByStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		id := w.account()
		defer w.keep()()
		w.current(id)
		if lines, _ := w.told(connect.LogQuery{}); len(lines) != 0 {
			t.Errorf("logs %v", lines)
		}
		time.Sleep(time.Hour)
		w.current(id)
		if l := w.expectLog(connect.LogRefresh, "refresh success demo/ada: leased read intended asking answered spooled recorded released"); l.Provider != "demo" {
			t.Errorf("log %+v", l)
		}
		w.set(answer(503, `{"error":"temporarily_unavailable","error_description":"Back <soon>"}`), nil)
		time.Sleep(time.Hour)
		w.current(id)
		l := w.expectLog(connect.LogRefresh, "refresh failure demo/ada: leased read intended asking released failed http_503")
		if l.Detail == "" && l.Message == "" {
			t.Errorf("log %+v", l)
		}
		w.set(answer(400, `{"error":"invalid_grant","error_description":"Taken back"}`), nil)
		time.Sleep(time.Hour)
		_, err := w.Refresher.Current(t.Context(), id)
		var needs *connect.NeedsReauthError
		if !errors.As(err, &needs) {
			t.Fatal(err)
		}
		if l := w.expectLog(connect.LogRefresh, "refresh failure demo/ada: leased read intended asking released failed invalid_grant"); l.Detail != "Taken back" {
			t.Errorf("log %+v", l)
		}
	})
}

// slowStore takes no logs while it is closed.
type slowStore struct {
	connect.LogStore
	closed atomic.Bool
	mu     sync.Mutex
	got    []connect.Log
}

func (s *slowStore) WriteLogs(_ context.Context, logs []connect.Log) error {
	if s.closed.Load() {
		return connect.ErrStoreUnavailable
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, logs...)
	return nil
}

func (s *slowStore) count(kind connect.LogKind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.got {
		if l.Kind == kind {
			n++
		}
	}
	return n
}

// While the store is away, calls go on and are dropped from the log beyond what
// there is room for; attempts are not.
func TestJournalKeepsAttemptsAndDropsCallsWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(slowStore)
		store.closed.Store(true)
		var dropped atomic.Int64
		j := connect.NewJournal(store, zap.NewNop(), func(kind connect.LogKind) {
			if kind != connect.LogCall {
				t.Errorf("dropped a log of a %s", kind)
			}
			dropped.Add(1)
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { j.Run(ctx) })
		began := time.Now()
		const calls, attempts = 10_000, 3000
		for range calls {
			j.Call(connect.Log{Kind: connect.LogCall})
		}
		for range attempts {
			j.Write(t.Context(), connect.Log{Kind: connect.LogConnect})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		time.Sleep(time.Minute)
		store.closed.Store(false)
		time.Sleep(10 * time.Second)
		if n := store.count(connect.LogConnect); n != attempts {
			t.Errorf("%d of %d attempts were kept", n, attempts)
		}
		if n := store.count(connect.LogCall); n < 4096 || n+int(dropped.Load()) != calls {
			t.Errorf("%d calls were kept, %d dropped, of %d", n, dropped.Load(), calls)
		}

		// What is there when the process ends is written before.
		j.Write(t.Context(), connect.Log{Kind: connect.LogRefresh})
		j.Call(connect.Log{Kind: connect.LogCall})
		cancel()
		running.Wait()
		if store.count(connect.LogRefresh) != 1 || j.Waiting() != 0 {
			t.Errorf("%d waited at the end", j.Waiting())
		}
	})
}

// An attempt that finds no room waits for it, and not for ever.
func TestJournalThatIsFullHoldsUpAttemptsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(slowStore)
		var dropped atomic.Int64
		j := connect.NewJournal(store, zap.NewNop(), func(connect.LogKind) { dropped.Add(1) })
		for range 4096 {
			j.Write(t.Context(), connect.Log{Kind: connect.LogConnect})
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		j.Write(short, connect.Log{Kind: connect.LogConnect})
		if dropped.Load() != 1 {
			t.Errorf("%d were dropped", dropped.Load())
		}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { j.Run(ctx) })
		j.Write(t.Context(), connect.Log{Kind: connect.LogConnect})
		stop()
		running.Wait()
		if n := store.count(connect.LogConnect); n != 4097 {
			t.Errorf("%d were kept", n)
		}
	})
}

func TestFailedCallsAreLoggedAtARate(t *testing.T) {
	j := connect.NewJournal(new(slowStore), zap.NewNop(), nil)
	second := time.Unix(1_900_000_000, 0)
	for range 3 {
		n := 0
		for range 100 {
			if j.Failed(second) {
				n++
			}
		}
		if n != 20 {
			t.Errorf("%d in a second", n)
		}
		second = second.Add(time.Second)
	}
	var none *connect.Journal
	if none.Failed(second) {
		t.Error("a journal that isn't there")
	}
}

func TestLogsThatAreOldAreRemoved(t *testing.T) {
	w := newServer(t, demo.Options{})
	j := connect.NewJournal(w.Store, w.log, nil)
	j.Keep(time.Hour)
	now := time.Now()
	var logs []connect.Log
	for n := range 2500 {
		logs = append(logs, connect.Log{ID: fmt.Sprint(n), Kind: connect.LogCall, Started: now.Add(-2 * time.Hour)})
	}
	logs = append(logs, connect.Log{ID: "new", Kind: connect.LogCall, Started: now})
	must(t, w.Store.WriteLogs(t.Context(), logs))
	must(t, j.Sweep(t.Context()))
	left, err := w.Store.Logs(t.Context(), connect.LogQuery{})
	must(t, err)
	if len(left) != 1 || left[0].ID != "new" {
		t.Errorf("%d are left", len(left))
	}
}
