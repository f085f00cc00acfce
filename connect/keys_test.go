package connect_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/sqlite"
)

const (
	secretOne = "3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11"
	secretTwo = "3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a12"
)

// keyNode is what a process knows of the API keys.
type keyNode struct {
	*connect.Keys
	ring  *connect.Keyring
	ended chan string
}

// keyNodes are processes on one store, of which each hears of the others.
func keyNodes(t *testing.T, n int) []keyNode {
	t.Helper()
	path := t.TempDir() + "/db"
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(stop)
	nodes := make([]keyNode, n)
	for i := range nodes {
		store, err := sqlite.Open(path)
		must(t, err)
		t.Cleanup(func() { store.Close() })
		must(t, store.Migrate(t.Context()))
		ended := make(chan string, 10)
		stored := &connect.StoredKeys{Store: store, Logger: zap.NewNop(), Ended: func(c *connect.Caller) { ended <- c.Name }}
		must(t, stored.Load(t.Context()))
		running.Go(func() { stored.Run(ctx) })
		nodes[i] = keyNode{&connect.Keys{Store: store, Stored: stored, Logger: zap.NewNop()}, connect.NewKeyring(nil, stored), ended}
	}
	return nodes
}

// becomes waits until a key is good, or not, and returns how long it took.
func (n keyNode) becomes(t *testing.T, secret string, good bool) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		_, err := n.ring.Check("Bearer "+secret, time.Now())
		if (err == nil) == good {
			return time.Since(start)
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("the key is good: %v; %v", !good, err)
		}
	}
}

func code(err error) string {
	var auth *connect.AuthError
	errors.As(err, &auth)
	if auth == nil {
		return ""
	}
	return auth.Code
}

func TestAKeyThatIsMadeOrRevokedIsSoEverywhereWithinASecond(t *testing.T) {
	nodes := keyNodes(t, 2)
	ctx := t.Context()
	must(t, nodes[0].Make(ctx, connect.APIKey{Name: "app", Key: connect.DigestOf(secretOne), Scopes: policy.DefaultScopes}, "test"))
	if took := nodes[0].becomes(t, secretOne, true); took > 50*time.Millisecond {
		t.Errorf("where it was made it is good after %v", took)
	}
	if took := nodes[1].becomes(t, secretOne, true); took > time.Second {
		t.Errorf("elsewhere it is good after %v", took)
	}
	must(t, nodes[1].Revoke(ctx, "app", "test"))
	for i, n := range []keyNode{nodes[1], nodes[0]} {
		if took := n.becomes(t, secretOne, false); took > time.Second {
			t.Errorf("node %d: revoked after %v", i, took)
		}
		if name := <-n.ended; name != "app" {
			t.Errorf("node %d: the calls of %q are cut off", i, name)
		}
	}
	if err := nodes[0].Revoke(ctx, "app", "test"); !errors.Is(err, connect.ErrNotFound) {
		t.Errorf("revoked again: %v", err)
	}
}

func TestAKeyIsRotatedWithoutAGap(t *testing.T) {
	n := keyNodes(t, 1)[0]
	ctx := t.Context()
	must(t, n.Make(ctx, connect.APIKey{Name: "app", Key: connect.DigestOf(secretOne), Scopes: policy.DefaultScopes}, "test"))
	fine := func(*connect.APIKey) error { return nil }
	k, err := n.Rotate(ctx, "app", connect.DigestOf(secretTwo), time.Hour, fine, "test")
	must(t, err)
	for _, secret := range []string{secretOne, secretTwo} {
		if c, err := n.ring.Check("Bearer "+secret, time.Now()); err != nil || c.Name != "app" {
			t.Errorf("%s: %v", secret, err)
		}
	}
	if _, err := n.ring.Check("Bearer "+secretOne, k.FormerUntil); code(err) != "expired_api_key" {
		t.Errorf("at its end the former key gets %v", err)
	}
	if _, err := n.ring.Check("Bearer "+secretTwo, k.FormerUntil); err != nil {
		t.Error(err)
	}
	// Without an overlap the one before ends at once.
	_, err = n.Rotate(ctx, "app", connect.DigestOf(secretOne), 0, fine, "test")
	must(t, err)
	if _, err := n.ring.Check("Bearer "+secretTwo, time.Now()); code(err) != "unknown_account" {
		t.Errorf("the key from before gets %v", err)
	}
	refusal := errors.New("no")
	if _, err := n.Rotate(ctx, "app", connect.DigestOf(secretTwo), 0, func(*connect.APIKey) error { return refusal }, "test"); !errors.Is(err, refusal) {
		t.Error(err)
	}
	if len(n.ended) > 0 {
		t.Error("a rotation cuts calls off")
	}
}

func TestAKeyEndsAndKeepsItsLimits(t *testing.T) {
	n := keyNodes(t, 1)[0]
	ctx, now := t.Context(), time.Now()
	must(t, n.Make(ctx, connect.APIKey{Name: "app", Key: connect.DigestOf(secretOne), Expires: now.Add(time.Hour), Limits: policy.Limits{Rate: "2/1h"}}, "test"))
	c, err := n.ring.Check(secretOne, now)
	must(t, err)
	if err := c.Needs(policy.ProxyCall); err == nil {
		t.Error("it has a scope that it was not given")
	}
	must(t, c.Count(now))
	// The list being read again forgets nothing of what was counted.
	must(t, n.Make(ctx, connect.APIKey{Name: "other", Key: connect.DigestOf(secretTwo)}, "test"))
	again, err := n.ring.Check(secretOne, now)
	must(t, err)
	must(t, again.Count(now))
	var rate *connect.RateError
	if err := again.Count(now); !errors.As(err, &rate) || rate.RetryAfter <= 0 {
		t.Errorf("a third call: %v", err)
	}
	if _, err := n.ring.Check(secretOne, now.Add(time.Hour)); code(err) != "expired_api_key" {
		t.Errorf("after its end: %v", err)
	}
	var bad *policy.LimitError
	if _, err := n.Change(ctx, "app", func(k *connect.APIKey) error { k.Limits.Calls = []string{"x"}; return nil }, "test"); !errors.As(err, &bad) {
		t.Errorf("limits that can't be: %v", err)
	}
	k, err := n.Change(ctx, "app", func(k *connect.APIKey) error {
		k.Scopes, k.Key = policy.DefaultScopes, connect.DigestOf("x") // the key itself stays
		return nil
	}, "test")
	must(t, err)
	if c, err = n.ring.Check(secretOne, now); err != nil || c.Needs(policy.ProxyCall) != nil || k.Key != connect.DigestOf(secretOne) {
		t.Errorf("%v; %v", err, c)
	}
}

// unreadable is a store with a key whose limits another version has written.
type unreadable struct{ connect.KeyStore }

func (unreadable) APIKeys(context.Context) ([]connect.APIKey, int64, error) {
	return []connect.APIKey{{Name: "a", Key: connect.DigestOf(secretOne), Scopes: policy.AllScopes, Limits: policy.Limits{Calls: []string{"GET ~/x"}}}}, 1, nil
}

func TestAKeyWhoseLimitsCantBeReadIsGoodForNothing(t *testing.T) {
	stored := &connect.StoredKeys{Store: unreadable{}, Logger: zap.NewNop()}
	must(t, stored.Load(t.Context()))
	c, err := connect.NewKeyring(nil, stored).Check(secretOne, time.Now())
	must(t, err)
	if _, err := c.Rules.Decide("GET", "x", ""); err == nil {
		t.Error("a call is let through")
	}
}

func TestUseIsNotedWithoutAWritePerCall(t *testing.T) {
	path := t.TempDir() + "/db"
	store, err := sqlite.Open(path)
	must(t, err)
	defer store.Close()
	must(t, store.Migrate(t.Context()))
	must(t, store.PutAPIKey(t.Context(), connect.APIKey{Name: "app", Key: connect.DigestOf(secretOne), Created: time.Now()}))
	counting := &noteCounter{KeyStore: store}
	stored := &connect.StoredKeys{Store: counting, Logger: zap.NewNop()}
	must(t, stored.Load(t.Context()))
	ring := connect.NewKeyring(nil, stored)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { stored.Run(ctx) })
	before := time.Now()
	for range 10_000 {
		if _, err := ring.Check(secretOne, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	running.Wait() // which tells the store, at the end
	keys, _, err := store.APIKeys(t.Context())
	must(t, err)
	if used := keys[0].Used; used.Before(before.Add(-time.Second)) || used.After(time.Now()) || counting.n != 1 {
		t.Errorf("used %v, noted %d times", used, counting.n)
	}
}

type noteCounter struct {
	connect.KeyStore
	n int
}

func (c *noteCounter) NoteAPIKeyUse(ctx context.Context, used map[string]time.Time) error {
	c.n++
	return c.KeyStore.NoteAPIKeyUse(ctx, used)
}
