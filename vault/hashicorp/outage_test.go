package hashicorp

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/vault"
)

func TestS112SealedVaultIsUnavailableAndComesBack(t *testing.T) {
	s := startServer(t)
	v := open(t, s.config())
	mustWrite(t, v, "a", "one", 0)
	s.do(t, "PUT", "sys/seal", nil)
	var status *StatusError
	_, err := v.Read(t.Context(), "a")
	if !errors.Is(err, vault.ErrUnavailable) || !errors.As(err, &status) || status.Status != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("Read: %v", err)
	}
	if _, err := v.Write(t.Context(), "a", []byte("two"), 1); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("Write: %v", err)
	}
	if err := v.Delete(t.Context(), "a"); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("Delete: %v", err)
	}
	began := time.Now()
	for range 100 {
		v.Read(t.Context(), "a")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("100 calls while Vault is sealed took %s", took)
	}
	s.unseal(t)
	within(t, longest+2*time.Second, "reads work again", func() bool {
		e, err := v.Read(t.Context(), "a")
		return err == nil && string(e.Value) == "one"
	})
	mustWrite(t, v, "a", "two", 1)
}

func TestS112HangingVaultHoldsUpNobodyForLong(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	c := s.config()
	c.Address, c.Timeout = f.URL, 500*time.Millisecond
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	before := runtime.NumGoroutine()

	var held atomic.Int32
	f.do(func(_ http.ResponseWriter, r *http.Request) bool {
		held.Add(1)
		defer held.Add(-1)
		<-r.Context().Done()
		return true
	})
	var done sync.WaitGroup
	var most atomic.Int32
	for n := range 500 {
		done.Go(func() {
			time.Sleep(time.Duration(n) * 4 * time.Millisecond) // 250 calls a second
			began := time.Now()
			_, err := v.Read(t.Context(), "a")
			if !errors.Is(err, vault.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want ErrUnavailable and not the caller's deadline", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("a call took %s", took)
			}
			for now := held.Load(); now > most.Load(); {
				most.Store(now)
			}
		})
	}
	done.Wait()
	if n := most.Load(); n > maxCalls+16 { // the proxy learns late that a call has ended
		t.Errorf("%d requests were under way at once", n)
	}
	if n := f.calls("GET secret/data/keycaddy/a"); n > 200 {
		t.Errorf("%d requests of 500 calls to a Vault that hangs", n)
	}
	f.before.Store(nil)
	within(t, longest+2*time.Second, "reads work again", func() bool {
		_, err := v.Read(t.Context(), "a")
		return err == nil
	})
	within(t, 5*time.Second, "nothing is left under way", func() bool { return runtime.NumGoroutine() < before+20 })
}

func TestS112CallersDeadlineIsItsOwn(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	c := s.config()
	c.Address = f.URL
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	f.do(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	for range 10 { // impatient callers don't make Vault look down
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := v.Read(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's DeadlineExceeded", err)
		}
		cancel()
	}
	f.before.Store(nil)
	expectValue(t, v, "a", "one", 1)
}

func TestS115StatusesThatPassAreTriedAgain(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	c := s.config()
	c.Address = f.URL
	for _, status := range []int{412, 429, 472, 473, 500, 502, 503, 504} {
		v := open(t, c)
		name := fmt.Sprint("a/", status)
		mustWrite(t, v, name, "one", 0)
		var left atomic.Int32
		f.do(func(w http.ResponseWriter, r *http.Request) bool {
			if left.Add(-1) < 0 {
				return false
			}
			http.Error(w, `{"errors":["not now"]}`, status)
			return true
		})
		left.Store(2)
		expectValue(t, v, name, "one", 1)
		left.Store(2)
		mustWrite(t, v, name, "two", 1)
		left.Store(1000)
		var got *StatusError
		if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrUnavailable) || !errors.As(err, &got) || got.Status != status {
			t.Errorf("%d for good: %v", status, err)
		}
		f.before.Store(nil)
		v.Close()
	}
}

func TestS115StatusesThatStayAreNotTriedAgain(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	c := s.config()
	c.Address = f.URL
	for _, status := range []int{400, 405, 413, 418} {
		v := open(t, c)
		name := fmt.Sprint("a/", status)
		mustWrite(t, v, name, "one", 0)
		f.do(func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, `{"errors":["never"]}`, status)
			return true
		})
		if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrUnavailable) || !strings.Contains(err.Error(), "never") {
			t.Errorf("%d: %v", status, err)
		}
		if _, err := v.Write(t.Context(), name, nil, 1); !errors.Is(err, vault.ErrUnavailable) || errors.Is(err, vault.ErrConflict) {
			t.Errorf("%d: %v", status, err)
		}
		f.before.Store(nil)
		if n := f.calls("GET secret/data/keycaddy/" + name); n != 1 {
			t.Errorf("%d: %d attempts", status, n)
		}
		v.Close()
	}
}

// Vault's own rate limit: the calls wait as it asks and get through, or say how
// long to wait.
func TestS115RateLimit(t *testing.T) {
	s := startServer(t)
	v := open(t, s.config())
	mustWrite(t, v, "a", "one", 0)
	s.do(t, "POST", "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
	s.do(t, "POST", "sys/quotas/rate-limit/kv", map[string]any{"path": "secret/", "rate": 2, "interval": "1s"})
	for range 6 {
		expectValue(t, v, "a", "one", 1)
	}
	s.do(t, "POST", "sys/quotas/rate-limit/kv", map[string]any{"path": "secret/", "rate": 1, "interval": "60s"})
	var limited *StatusError
	within(t, 5*time.Second, "the limit is reached", func() bool {
		_, err := v.Read(t.Context(), "a")
		return errors.As(err, &limited)
	})
	if limited.Status != http.StatusTooManyRequests || limited.RetryAfter < 10*time.Second || limited.RetryAfter > time.Minute {
		t.Errorf("got %v", limited)
	}
	began := time.Now()
	if _, err := v.Read(t.Context(), "a"); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %s to say that it takes longer than the timeout", took)
	}
}

func TestS70ConcurrentWritersLoseNothing(t *testing.T) {
	s := startServer(t)
	c := s.config()
	c.TransitKey = "keycaddy"
	nodes := []*Vault{open(t, c), open(t, c), open(t, c)}
	var done sync.WaitGroup
	var conflicts atomic.Int32
	for n := range 60 {
		done.Go(func() {
			v, name := nodes[n%3], fmt.Sprintf("connections/github/%d", n%10)
			for range 5 { // each adds one byte
				for {
					e, err := v.Read(t.Context(), name)
					if err != nil && !errors.Is(err, vault.ErrNotFound) {
						t.Error(err)
						return
					}
					_, err = v.Write(t.Context(), name, append(e.Value, 'x'), e.Version)
					if err == nil {
						break
					}
					if !errors.Is(err, vault.ErrConflict) {
						t.Error(err)
						return
					}
					conflicts.Add(1)
				}
			}
		})
	}
	done.Wait()
	for n := range 10 {
		expectValue(t, nodes[0], fmt.Sprintf("connections/github/%d", n), strings.Repeat("x", 30), 30)
	}
	t.Logf("%d conflicts", conflicts.Load())
}

func TestTLSIsVerified(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, true)
	t.Setenv("VAULT_SKIP_VERIFY", "true") // has no effect
	t.Setenv("VAULT_TOKEN", "hvs.wrong")
	t.Setenv("VAULT_NAMESPACE", "wrong")
	c := s.config()
	c.Address = f.URL
	expectProbe(t, c, "certificate signed by unknown authority")
	c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	expectProbe(t, c)
	c.ServerName = "example.com" // in the test certificate
	expectProbe(t, c)
	c.ServerName = "vault.internal"
	expectProbe(t, c, "vault.internal")
}

func TestSecretsAreNotPrinted(t *testing.T) {
	s := startServer(t)
	logger, logs := observed()
	c := s.config()
	c.Logger = logger
	c.Login = AppRole{RoleID: "role", SecretID: "sesame"}
	v := open(t, c)
	_, err := v.Read(t.Context(), "a")
	c.Login = Token{Value: "hvs.sesame"}
	other := open(t, c)
	_, err2 := other.Read(t.Context(), "a")
	zap.New(logger.Core()).Info("all", zap.Any("config", c), zap.Any("approle", AppRole{SecretID: "sesame"}), zap.Reflect("token", Token{Value: "sesame"}))
	text := fmt.Sprint(err, err2, logs.All(), fmt.Sprintf("%v %+v %#v %s %q %x", c, c, c.Login, c.Login, Token{Value: "sesame"}, AppRole{SecretID: "sesame"}))
	for _, e := range logs.All() {
		text += fmt.Sprint(e.Message, e.ContextMap())
	}
	if strings.Contains(text, "sesame") || strings.Contains(text, "736573616d65") {
		t.Errorf("a secret is printed: %s", text)
	}
	if logs.Len() < 3 {
		t.Errorf("logins that fail are not logged: %v", logs.All())
	}
}
