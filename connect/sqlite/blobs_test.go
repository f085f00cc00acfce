package sqlite

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/sealed"
	"github.com/keycaddy/keycaddy/vault/vaulttest"
)

var _ sealed.Blobs = (*Store)(nil)

// TestSealedVaultContract runs the vault's contract over two handles, used by
// turns, as two processes would.
func TestSealedVaultContract(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keycaddy.db")
	first, second := openTest(t, path), openTest(t, path)
	migrate(t, first)
	keys, err := sealed.OpenKeys(filepath.Join(dir, "keys.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.Run(t, func(t *testing.T) vault.Vault {
		return sealed.New(&turns{[]sealed.Blobs{first, second}, atomic.Uint64{}}, keys)
	})
}

func TestS54SwappedRowsFailToOpen(t *testing.T) {
	s, v := sealedTest(t, t.TempDir())
	for _, name := range []string{"connections/github/a", "connections/github/b"} {
		if _, err := v.Write(t.Context(), name, []byte("token of "+name), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, statement := range []string{
		`UPDATE blobs SET name = 'x' WHERE name = 'connections/github/a'`,
		`UPDATE blobs SET name = 'connections/github/a' WHERE name = 'connections/github/b'`,
		`UPDATE blobs SET name = 'connections/github/b' WHERE name = 'x'`,
	} {
		if _, err := s.write.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"connections/github/a", "connections/github/b"} {
		if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

func TestFilesHoldNeitherSecretsNorKeys(t *testing.T) {
	const canary = "canary-refresh-token-7f3a"
	dir := t.TempDir()
	s, v := sealedTest(t, dir)
	if _, err := v.Write(t.Context(), "a", []byte(strings.Repeat(canary, 50)), 0); err != nil {
		t.Fatal(err)
	}
	// The log is looked at while open: SQLite locks the database file only.
	log, err := os.ReadFile(filepath.Join(dir, "keycaddy.db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "keycaddy.db"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(append(log, data...), []byte(canary[:10])) {
		t.Error("the secret can be read in the database's files")
	}
}

func TestHasBlobsTellsWhetherAKeyRingIsNeeded(t *testing.T) {
	s, v := sealedTest(t, t.TempDir())
	expect := func(want bool) {
		t.Helper()
		if got, err := s.HasBlobs(t.Context()); got != want || err != nil {
			t.Fatalf("%v, %v; want %v", got, err, want)
		}
	}
	expect(false)
	if _, err := v.Write(t.Context(), "a", nil, 0); err != nil {
		t.Fatal(err)
	}
	expect(true)
	if err := v.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	expect(false)
}

func sealedTest(t testing.TB, dir string) (*Store, *sealed.Vault) {
	t.Helper()
	s := openTest(t, filepath.Join(dir, "keycaddy.db"))
	migrate(t, s)
	keys, err := sealed.OpenKeys(filepath.Join(dir, "keys.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	return s, sealed.New(s, keys)
}

func write(t testing.TB, s *Store, name, value string, after uint64) {
	t.Helper()
	if written, err := s.WriteBlob(t.Context(), name, []byte(value), after); !written || err != nil {
		t.Fatalf("writing %s after %d: %v, %v", name, after, written, err)
	}
}

const benchSize = 4 << 10 // bytes; a large OAuth bundle

func BenchmarkReadBlob(b *testing.B) {
	s, _ := sealedTest(b, b.TempDir())
	write(b, s, "a", string(make([]byte, benchSize)), 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok, err := s.ReadBlob(b.Context(), "a"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkWriteBlob(b *testing.B) {
	s, _ := sealedTest(b, b.TempDir())
	data := make([]byte, benchSize)
	b.ReportAllocs()
	var version uint64
	for b.Loop() {
		if written, err := s.WriteBlob(b.Context(), "a", data, version); !written || err != nil {
			b.Fatal(written, err)
		}
		version++
	}
}

func BenchmarkSealedRead(b *testing.B) {
	_, v := sealedTest(b, b.TempDir())
	if _, err := v.Write(b.Context(), "a", make([]byte, benchSize), 0); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Read(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealedWrite(b *testing.B) {
	_, v := sealedTest(b, b.TempDir())
	data := make([]byte, benchSize)
	b.ReportAllocs()
	var version vault.Version
	for b.Loop() {
		var err error
		if version, err = v.Write(b.Context(), "a", data, version); err != nil {
			b.Fatal(err)
		}
	}
}
