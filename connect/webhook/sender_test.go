package webhook

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
)

const secret = scheme.Secret("canary-of-the-webhook-secret")

// app receives webhooks, in this process: the tests have time of their own.
type app struct {
	t      testing.TB
	mu     sync.Mutex
	got    []received
	answer func(r received, n int) (status int, headers []string) // nil: 204
	fail   error
}

type received struct {
	id, kind, path, body string
	at                   time.Time
}

func (a *app) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	fail := a.fail
	a.mu.Unlock()
	if fail != nil {
		return nil, fail
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	got := received{id: r.Header.Get("Webhook-Id"), kind: r.Header.Get("Keycaddy-Event"), path: r.URL.Path, body: string(body), at: time.Now()}
	if sum := hex.EncodeToString(mac([]byte(secret), body)); !hmac.Equal([]byte(sum), []byte(r.Header.Get("X-Nango-Hmac-Sha256"))) {
		a.t.Errorf("signature of %s", got.id)
	}
	a.mu.Lock()
	a.got = append(a.got, got)
	n, answer := len(a.got), a.answer
	a.mu.Unlock()
	rec := httptest.NewRecorder()
	status, headers := http.StatusNoContent, []string(nil)
	if answer != nil {
		status, headers = answer(got, n)
	}
	for i := 0; i < len(headers); i += 2 {
		rec.Header().Set(headers[i], headers[i+1])
	}
	rec.WriteHeader(status)
	return rec.Result(), nil
}

func (a *app) answers(answer func(r received, n int) (int, []string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *app) requests() []received {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.got
	a.got = nil
	return got
}

// rig is an app, a store, and a sender at work.
type rig struct {
	*app
	store  *sqlite.Store
	sender *Sender
	logs   *observer.ObservedLogs
	counts map[string]int
	stop   func()
}

// newRig looks into the outbox every so often.
func newRig(t *testing.T, every time.Duration, endpoints ...Endpoint) *rig {
	t.Helper()
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rig{app: &app{t: t}, store: store, counts: make(map[string]int)}
	core, logs := observer.New(zap.DebugLevel)
	r.logs = logs
	r.sender = &Sender{Outbox: store, every: every, Logger: zap.New(core), Observe: func(result string) {
		r.app.mu.Lock()
		defer r.app.mu.Unlock()
		r.counts[result]++
	}}
	for i := range endpoints {
		endpoints[i].Secrets = []scheme.Secret{secret}
	}
	r.sender.Configure(&Config{
		Endpoints: endpoints, Secrets: []scheme.Secret{secret}, Environment: "prod", AuthMode: func(string) string { return "OAUTH2" },
		Client: &http.Client{Transport: r.app, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	})
	r.start()
	t.Cleanup(func() { r.stop(); store.Close() })
	return r
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.sender.Run(ctx) })
	r.stop = func() { cancel(); running.Wait() }
}

// tell makes a connection, which is one event, and returns its id.
func (r *rig) tell(name string, change func(*connect.Connection)) string {
	r.t.Helper()
	c := connect.Connection{ID: connect.ID{Integration: "github", Connection: name}, UID: name, Provider: "github", Status: connect.StatusActive}
	c.Tell(connect.EventCreated, nil)
	if change != nil {
		change(&c)
	}
	if _, err := r.store.Create(context.Background(), c); err != nil {
		r.t.Fatal(err)
	}
	return name
}

func (r *rig) delivery(connection string) connect.Delivery {
	r.t.Helper()
	all, err := r.store.Deliveries(context.Background(), connect.DeliveryQuery{Connection: connection})
	if err != nil || len(all) != 1 {
		r.t.Fatalf("%d deliveries of %s, %v", len(all), connection, err)
	}
	return all[0]
}

func one(path string, kinds ...connect.EventKind) Endpoint {
	return Endpoint{Name: path[1:], URL: "https://app.example" + path + "?key=canary-in-the-query", Events: kinds}
}

func TestEventsGoWhereTheyAreWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Second, one("/all"), one("/some", connect.EventNeedsReauth, connect.EventRecovered))
		r.tell("a", nil)
		r.tell("own", func(c *connect.Connection) { c.WebhookURL = "https://elsewhere.example/hook?canary-in-the-query" })
		if _, err := r.store.Update(t.Context(), connect.ID{Integration: "github", Connection: "a"}, func(c *connect.Connection) error {
			c.Tell(connect.EventRecovered, nil)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		got := map[string]int{}
		ids := map[string]bool{}
		for _, q := range r.requests() {
			got[q.path+" "+q.kind]++
			ids[q.id] = true
			if !strings.Contains(q.body, `"providerConfigKey":"github"`) {
				t.Errorf("body %s", q.body)
			}
		}
		want := map[string]int{"/all connection.created": 1, "/all connection.recovered": 1, "/some connection.recovered": 1, "/hook connection.created": 1}
		if fmt.Sprint(got) != fmt.Sprint(want) || len(ids) != 3 {
			t.Errorf("got %v of %d events", got, len(ids))
		}
		time.Sleep(10 * time.Minute)
		if more := r.requests(); len(more) != 0 {
			t.Errorf("again: %+v", more)
		}
		r.noSecrets()
	})
}

// noSecrets looks for what must not be told in the log and in the store.
func (r *rig) noSecrets() {
	r.t.Helper()
	for _, l := range r.logs.All() {
		if s := fmt.Sprint(l.Message, l.ContextMap()); strings.Contains(s, "canary") {
			r.t.Errorf("log: %s", s)
		}
	}
	all, err := r.store.Deliveries(context.Background(), connect.DeliveryQuery{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range all {
		if s := d.Endpoint + d.Error; strings.Contains(s, "canary") {
			r.t.Errorf("delivery: %s", s)
		}
	}
}

func TestDeliveryIsTriedForThreeDays(t *testing.T) {
	const late = pauseMax + 40*time.Minute // an attempt is made when its endpoint is looked after next
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 20*time.Minute, one("/all"))
		began := time.Now()
		r.answers(func(received, int) (int, []string) { return 500, nil })
		r.tell("a", nil)
		time.Sleep(4 * 24 * time.Hour)
		got := r.requests()
		var before time.Time
		for n, q := range got {
			if q.id != got[0].id || q.body != got[0].body {
				t.Error("an attempt differs from the first")
			}
			wait := q.at.Sub(before)
			if n > 0 && (wait < 4*time.Second || wait > backoffMax*6/5+late) {
				t.Errorf("attempt %d after %v", n+1, wait)
			}
			before = q.at
		}
		if len(got) < 13 || len(got) > 40 || before.Sub(began) < 2*24*time.Hour || before.Sub(began) > connect.RetryFor+late {
			t.Errorf("%d attempts, the last after %v", len(got), before.Sub(began))
		}
		if d := r.delivery("a"); d.State != connect.DeliveryGivenUp || d.Attempts != len(got) || d.Status != 500 {
			t.Errorf("delivery %+v", d)
		}
		r.app.mu.Lock()
		counts := maps.Clone(r.counts)
		r.app.mu.Unlock()
		if counts["given_up"] != 1 || counts["failed"] != len(got)-1 {
			t.Errorf("counted %v", counts)
		}
		// By hand it starts anew.
		r.answers(nil)
		if n, err := r.store.Redeliver(t.Context(), got[0].id, ""); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(late)
		if got := r.requests(); len(got) != 1 {
			t.Errorf("%d attempts after it was asked for", len(got))
		}
		if d := r.delivery("a"); d.State != connect.DeliveryDelivered || d.Attempts != 1 || d.Status != 204 {
			t.Errorf("delivery %+v", d)
		}
	})
}

func TestS124EndpointThatIsDownIsLeftAloneAndOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 30*time.Second, one("/down"), one("/up"))
		var down atomic.Bool
		down.Store(true)
		r.answers(func(q received, _ int) (int, []string) {
			if q.path == "/down" && down.Load() {
				return 503, nil
			}
			return 200, nil
		})
		for n := range 60 {
			r.tell(fmt.Sprint("c", n), nil)
		}
		time.Sleep(time.Hour)
		byPath := map[string]int{}
		for _, q := range r.requests() {
			byPath[q.path]++
		}
		if byPath["/up"] != 60 || byPath["/down"] < circuitAfter || byPath["/down"] > 25 {
			t.Errorf("requests %v", byPath)
		}
		down.Store(false)
		time.Sleep(pauseMax + 2*time.Minute)
		ids := map[string]bool{}
		for _, q := range r.requests() {
			ids[q.id] = true
		}
		if len(ids) != 60 {
			t.Errorf("%d events after it was back", len(ids))
		}
		if n, err := r.store.OutboxDepth(t.Context()); n != 0 || err != nil {
			t.Errorf("%d wait, %v", n, err)
		}
	})
}

func TestEndpointSaysWhenToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 30*time.Second, one("/all"))
		r.answers(func(_ received, n int) (int, []string) {
			if n == 1 {
				return 429, []string{"Retry-After", "1800"}
			}
			return 200, nil
		})
		r.tell("a", nil)
		time.Sleep(time.Minute)
		r.tell("b", nil) // has to wait as well
		time.Sleep(time.Hour)
		got := r.requests()
		if len(got) != 3 {
			t.Fatalf("%d attempts", len(got))
		}
		for _, q := range got[1:] {
			if wait := q.at.Sub(got[0].at); wait < 30*time.Minute || wait > 31*time.Minute {
				t.Errorf("came again after %v", wait)
			}
		}
	})
}

func TestRetryAfterIsBounded(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"7200":                          2 * time.Hour,
		"Sat, 01 Jan 2000 03:00:00 GMT": 3 * time.Hour,
		"Fri, 31 Dec 1999 03:00:00 GMT": 0,
		"99999999":                      retryAfterMax,
		"Sat, 01 Jan 2050 03:00:00 GMT": retryAfterMax,
		"99999999999999999999":          0,
		"-1":                            0,
		"soon":                          0,
		"":                              0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestS124RedirectsAreNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Second, one("/all"))
		r.answers(func(received, int) (int, []string) { return 307, []string{"Location", "https://app.example/other"} })
		r.tell("a", nil)
		time.Sleep(time.Minute)
		for _, q := range r.requests() {
			if q.path != "/all" {
				t.Errorf("went to %s", q.path)
			}
		}
		if d := r.delivery("a"); d.Status != 307 || d.State != connect.DeliveryWaiting {
			t.Errorf("delivery %+v", d)
		}
	})
}

// Whatever goes wrong on the way is kept without the address.
func TestS124ErrorsDoNotShowTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Second, one("/all"))
		r.app.mu.Lock()
		r.app.fail = errors.New("connection refused")
		r.app.mu.Unlock()
		r.tell("a", nil)
		time.Sleep(3 * time.Second)
		if d := r.delivery("a"); d.Error != "connection refused" || d.Status != 0 {
			t.Errorf("delivery %+v", d)
		}
		r.noSecrets()
	})
}

func TestOwnEndpointNeedsASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Second)
		c := *r.sender.config.Load()
		c.Secrets = nil
		r.sender.Configure(&c)
		r.tell("a", func(c *connect.Connection) { c.WebhookURL = "https://elsewhere.example/hook" })
		time.Sleep(time.Minute)
		if got := r.requests(); len(got) != 0 {
			t.Errorf("sent %+v", got)
		}
		if d := r.delivery("a"); !strings.Contains(d.Error, "webhook_secret") {
			t.Errorf("delivery %+v", d)
		}
	})
}

// Two nodes on one store deliver once as long as nobody dies, and what a node
// that died had in hand is delivered by the other.
func TestNodesShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Second, one("/a"), one("/b"))
		other := &Sender{Outbox: r.store, every: time.Second, Logger: zap.NewNop()}
		other.Configure(r.sender.config.Load())
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { other.Run(ctx) })
		for n := range 30 {
			r.tell(fmt.Sprint("c", n), nil)
		}
		time.Sleep(5 * time.Second)
		if got := r.requests(); len(got) != 60 {
			t.Errorf("%d requests", len(got))
		}
		r.stop() // and while it is at it, the other one dies
		r.answers(func(received, int) (int, []string) { cancel(); return 200, nil })
		r.tell("last", nil)
		time.Sleep(3 * time.Second)
		running.Wait()
		r.answers(nil)
		r.requests()
		r.start()
		time.Sleep(holdFactor*DefaultTimeout + time.Second)
		all, err := r.store.Deliveries(t.Context(), connect.DeliveryQuery{Connection: "last"})
		if err != nil || len(all) != 2 || all[0].State != connect.DeliveryDelivered || all[1].State != connect.DeliveryDelivered {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

// The address is checked where the connection is made, as for all that keycaddy
// sends: TestS* in connect/egress have the ways around.
func TestS124EndpointsAreNotPrivateAddresses(t *testing.T) {
	listener := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("reached") }))
	defer listener.Close()
	s := &Sender{}
	c := &Config{
		Endpoints: []Endpoint{{Name: "a", URL: listener.URL, Secrets: []scheme.Secret{secret}}},
		Client:    egress.NewClient(egress.Policy{}, time.Second), AuthMode: func(string) string { return "" },
	}
	o := s.attempt(t.Context(), c, &connect.Endpoint{Name: "a"}, &connect.Delivery{})
	if o.ok() || !strings.Contains(o.err, "loopback") {
		t.Errorf("%+v", o)
	}
}
