package webhook

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/postgres"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
)

var (
	kills = flag.Int("kills", 4, "how often TestS124… kills a process that makes and delivers events")
	nodes = flag.Int("nodes", 2, "how many of these processes there are at once")
	where = flag.String("store", "", "the PostgreSQL database that they share, empty and not used by others; without one it is a file")
)

// The process that is killed is this test's program once more.
const childEnv, childURL = "KEYCADDY_WEBHOOK_TEST_STORE", "KEYCADDY_WEBHOOK_TEST_URL"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := child(path, os.Getenv(childURL)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// openStore opens a database, or a file.
func openStore(at string) (connect.Store, error) {
	if strings.HasPrefix(at, "postgres") {
		return postgres.Open(context.Background(), at, postgres.Options{})
	}
	return sqlite.Open(at)
}

func deliverer(store connect.Store, url string) *Sender {
	s := &Sender{Outbox: store, Logger: zap.NewNop(), Timeout: 250 * time.Millisecond, every: 10 * time.Millisecond}
	s.Configure(&Config{
		Endpoints: []Endpoint{{Name: "app", URL: url, Secrets: []scheme.Secret{secret}}},
		Client:    &http.Client{}, AuthMode: func(string) string { return "OAUTH2" },
	})
	return s
}

// child makes connections and removes every other one, says what was done, and
// delivers what was told, until it is killed.
func child(path, url string) error {
	store, err := openStore(path)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	go deliverer(store, url).Run(ctx)
	for n := 0; ; n++ {
		name := fmt.Sprintf("c%d-%d", os.Getpid(), n)
		c := connect.Connection{ID: connect.ID{Integration: "github", Connection: name}, UID: name, Status: connect.StatusActive}
		c.Tell(connect.EventCreated, nil)
		if _, err := store.Create(ctx, c); err != nil {
			return err
		}
		fmt.Println("creation " + name)
		if n%2 == 1 {
			continue
		}
		if _, err := store.Delete(ctx, c.ID, func(c *connect.Connection) { c.Tell(connect.EventDeleted, nil) }); err != nil {
			return err
		}
		fmt.Println("deletion " + name)
		time.Sleep(time.Millisecond)
	}
}

// Every change that was made is told, however often the process is killed that
// makes and delivers: none is lost. (Several may come twice, with one id.)
//
//	go test ./connect/webhook -run TestS124NoEventIsLost -timeout 20m -args -kills 500
func TestS124NoEventIsLostInKills(t *testing.T) {
	var mu sync.Mutex
	got, ids, requests := make(map[string]int), make(map[string]bool), 0
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct{ Operation, ConnectionID string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got[body.Operation+" "+body.ConnectionID]++
		ids[r.Header.Get("Webhook-Id")] = true
		requests++
	}))
	defer srv.Close()
	path := cmp.Or(*where, filepath.Join(t.TempDir(), "db"))
	var done []string
	var left atomic.Int64
	left.Store(int64(*kills))
	var living sync.WaitGroup
	for range *nodes {
		living.Go(func() {
			for left.Add(-1) >= 0 {
				told := life(t, path, srv.URL, 200*time.Millisecond+rand.N(600*time.Millisecond))
				mu.Lock()
				done = append(done, told...)
				mu.Unlock()
			}
		})
	}
	living.Wait()

	store, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	waited, err := store.OutboxDepth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { deliverer(store, srv.URL).Run(ctx) })
	defer running.Wait()
	defer cancel()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if n, err := store.OutboxDepth(t.Context()); err != nil {
			t.Fatal(err)
		} else if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the outbox is not empty five minutes after the last kill")
		}
	}
	rows := 0 // also those whose maker was killed before it said so
	for page := 0; ; page++ {
		found, err := store.Connections(t.Context(), connect.Query{Page: page})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			break
		}
		rows += len(found)
		for _, c := range found {
			done = append(done, "creation "+c.ID.Connection)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, change := range done {
		if got[change] == 0 {
			t.Errorf("never told: %s", change)
		}
	}
	t.Logf("%d kills of %d nodes; %d changes, %d events delivered in %d requests; %d waited after the last kill", *kills, *nodes, len(done)-rows, len(ids), requests, waited)
	if len(done) < 5**kills {
		t.Errorf("only %d changes", len(done))
	}
}

// life runs a process for a while and returns what it says it has done.
func life(t *testing.T, path, url string, while time.Duration) (done []string) {
	self, err := os.Executable()
	if err != nil {
		t.Error(err)
		return nil
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+path, childURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	lines := bufio.NewScanner(out)
	var kill *time.Timer
	for lines.Scan() {
		if kill == nil { // it has begun
			kill = time.AfterFunc(while, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		}
		done = append(done, lines.Text())
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("a process ended by itself: %v", err)
	}
	return done
}
