package hashicorp

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/vaulttest"
)

func TestContract(t *testing.T) {
	s := startServer(t)
	v := open(t, s.config())
	t.Run("KV", func(t *testing.T) { vaulttest.Run(t, func(*testing.T) vault.Vault { return v }) })
	c := s.config()
	c.TransitKey = "keycaddy"
	sealed := open(t, c)
	t.Run("KV and Transit", func(t *testing.T) { vaulttest.Run(t, func(*testing.T) vault.Vault { return sealed }) })
	s.do(t, "POST", "transit/keys/derived", map[string]any{"type": "chacha20-poly1305", "derived": true})
	c.TransitKey, c.Prefix = "derived", "other/prefix"
	derived := open(t, c)
	t.Run("KV and Transit with derivation", func(t *testing.T) {
		vaulttest.Run(t, func(*testing.T) vault.Vault { return derived })
	})
}

// What an administrator has removed by halves is never taken for nothing, since
// then a blank credential would take its place.
func TestS56DeletedVersionsAreCorruptAndNotOverwritten(t *testing.T) {
	s := startServer(t)
	v := open(t, s.config())
	const name, path = "connections/github/a", "keycaddy/connections/github/a"
	mustWrite(t, v, name, "one", 0)
	mustWrite(t, v, name, "two", 1)

	s.do(t, "DELETE", "secret/data/"+path, nil)
	expectCorrupt(t, v, name, "version, 2, was deleted")
	expectConflict(t, v, name, 0)
	expectConflict(t, v, name, 1)

	s.do(t, "POST", "secret/undelete/"+path, map[string]any{"versions": []int{2}})
	expectValue(t, v, name, "two", 2)

	s.do(t, "PUT", "secret/destroy/"+path, map[string]any{"versions": []int{2}})
	expectCorrupt(t, v, name, "version, 2, was destroyed")
	expectConflict(t, v, name, 0)
	// A user who connects again writes after the version that was there.
	mustWrite(t, v, name, "three", 2)
	expectValue(t, v, name, "three", 3)

	s.do(t, "DELETE", "secret/metadata/"+path, nil)
	if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("after metadata delete: got %v, want ErrNotFound", err)
	}
}

func TestS56ExpiredVersionIsCorrupt(t *testing.T) {
	s := startServer(t)
	v := open(t, s.config())
	mustWrite(t, v, "a", "one", 0)
	s.do(t, "POST", "secret/metadata/keycaddy/b", map[string]any{"delete_version_after": "1s"})
	mustWrite(t, v, "b", "one", 0) // metadata alone is nothing yet
	expectValue(t, v, "b", "one", 1)
	time.Sleep(1200 * time.Millisecond)
	expectCorrupt(t, v, "b", "was deleted")
	expectValue(t, v, "a", "one", 1)
}

func TestS56PrunedVersionsDontMatter(t *testing.T) {
	s := startServer(t)
	s.do(t, "POST", "secret/config", map[string]any{"max_versions": 2})
	v := open(t, s.config())
	for n := range vault.Version(12) {
		mustWrite(t, v, "a", strings.Repeat("x", int(n)), n)
	}
	expectValue(t, v, "a", strings.Repeat("x", 11), 12)
	expectConflict(t, v, "a", 3)
}

func TestWhatKeycaddyHasNotWrittenIsCorrupt(t *testing.T) {
	s := startServer(t)
	v := open(t, s.config())
	for name, data := range map[string]map[string]any{
		"other-field": {"password": "hunter2"},
		"number":      {"value": 12},
		"object":      {"value": map[string]string{"a": "b"}},
		"not-base64":  {"value": "hunter2!"},
		"sealed":      {"value": "vault:v1:AAAA"},
	} {
		s.do(t, "POST", "secret/data/keycaddy/"+name, map[string]any{"data": data})
		_, err := v.Read(t.Context(), name)
		if !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes the value: %v", name, err)
		}
	}
}

// A write whose answer is lost has been done: sending it again must not look as
// if somebody else had.
func TestS69WriteWithALostAnswer(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	c := s.config()
	c.Address = f.URL
	for _, transit := range []string{"", "keycaddy"} {
		c.TransitKey = transit
		v := open(t, c)
		name := "a" + transit
		mustWrite(t, v, name, "one", 0)
		var lost atomic.Int32
		lose := func(res *http.Response) bool {
			return res.Request.Method == http.MethodPut && strings.Contains(res.Request.URL.Path, "/data/") && lost.Add(1) == 1
		}
		f.lose.Store(&lose)
		mustWrite(t, v, name, "two", 1)
		f.lose.Store(nil)
		if lost.Load() != 2 {
			t.Errorf("%d attempts, want 2", lost.Load())
		}
		expectValue(t, v, name, "two", 2)

		// And if somebody else has written meanwhile, it is a conflict.
		mustWrite(t, v, name, "three", 2)
		lost.Store(0)
		f.lose.Store(&lose)
		var wrote atomic.Bool
		f.do(func(_ http.ResponseWriter, r *http.Request) bool {
			if lost.Load() == 1 && r.Method == http.MethodPut && wrote.CompareAndSwap(false, true) {
				s.do(t, "POST", "secret/data/keycaddy/"+name, map[string]any{"data": map[string]string{"value": "b3RoZXI="}})
			}
			return false
		})
		if _, err := v.Write(t.Context(), name, []byte("mine"), 3); !errors.Is(err, vault.ErrConflict) {
			t.Errorf("got %v, want ErrConflict", err)
		}
		f.lose.Store(nil)
		f.before.Store(nil)
	}
}

func TestReadOnlyWritesNothing(t *testing.T) {
	s := startServer(t)
	mustWrite(t, open(t, s.config()), "a", "one", 0)
	c := s.config()
	c.ReadOnly = true
	v := open(t, c)
	if _, err := v.Write(t.Context(), "a", []byte("two"), 1); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Write: %v", err)
	}
	if err := v.Delete(t.Context(), "a"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Delete: %v", err)
	}
	expectValue(t, v, "a", "one", 1)
}

func TestRestartKeepsSecrets(t *testing.T) {
	s := &server{folder: t.TempDir()}
	s.run(t)
	s.initialize(t)
	s.setUp(t)
	c := s.config()
	c.TransitKey = "keycaddy"
	v := open(t, c)
	mustWrite(t, v, "connections/github/a", "one", 0)
	s.stop()
	s.run(t) // on the same address
	if _, err := v.Read(t.Context(), "connections/github/a"); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("sealed after the restart: got %v, want ErrUnavailable", err)
	}
	s.unseal(t)
	within(t, 15*time.Second, "the secret is back", func() bool {
		e, err := v.Read(t.Context(), "connections/github/a")
		return err == nil && string(e.Value) == "one"
	})
	mustWrite(t, v, "connections/github/a", "two", 1)
}

// A Vault that was restored from an older backup is read as it is: what to make
// of a version that is lower than the store's is not the vault's business.
func TestS57OlderBackupHasOlderVersions(t *testing.T) {
	s := &server{folder: t.TempDir()}
	s.run(t)
	s.initialize(t)
	s.setUp(t)
	c := s.config()
	c.TransitKey = "keycaddy"
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	s.stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(s.folder)); err != nil {
		t.Fatal(err)
	}
	s.run(t)
	s.unseal(t)
	v = open(t, c)
	mustWrite(t, v, "a", "two", 1)
	s.stop()
	s.folder = backup
	s.run(t)
	s.unseal(t)
	v = open(t, c)
	expectValue(t, v, "a", "one", 1)
	expectConflict(t, v, "a", 2)
	mustWrite(t, v, "a", "again", 1)
}

func mustWrite(t *testing.T, v *Vault, name, value string, after vault.Version) {
	t.Helper()
	version, err := v.Write(t.Context(), name, []byte(value), after)
	if err != nil || version != after+1 {
		t.Fatalf("Write after %d: version %d, %v", after, version, err)
	}
}

func expectValue(t *testing.T, v *Vault, name, value string, version vault.Version) {
	t.Helper()
	e, err := v.Read(t.Context(), name)
	if err != nil || string(e.Value) != value || e.Version != version {
		t.Fatalf("Read: %q, version %d, %v; want %q, version %d", e.Value, e.Version, err, value, version)
	}
}

func expectCorrupt(t *testing.T, v *Vault, name, why string) {
	t.Helper()
	e, err := v.Read(t.Context(), name)
	if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), why) {
		t.Errorf("Read %s: got %v, want ErrCorrupt with %q", name, err, why)
	}
	if e.Value != nil {
		t.Errorf("Read %s returned a value beside the error", name)
	}
}

func expectConflict(t *testing.T, v *Vault, name string, after vault.Version) {
	t.Helper()
	if _, err := v.Write(t.Context(), name, []byte("blank"), after); !errors.Is(err, vault.ErrConflict) {
		t.Errorf("Write %s after %d: got %v, want ErrConflict", name, after, err)
	}
}
