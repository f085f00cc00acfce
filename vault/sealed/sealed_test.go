package sealed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/vaulttest"
)

func TestContract(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vault.Vault { return New(&table{}, testKeys(t)) })
}

func TestS54SwappedRowsFailToOpen(t *testing.T) {
	b := &table{}
	v := New(b, testKeys(t))
	mustWrite(t, v, "connections/github/a", "token of a", 0)
	mustWrite(t, v, "connections/github/b", "token of b", 0)
	a := b.rows["connections/github/a"]
	b.rows["connections/github/a"] = b.rows["connections/github/b"]
	b.rows["connections/github/b"] = a
	expectCorrupt(t, v, "connections/github/a", "another name or version")
	expectCorrupt(t, v, "connections/github/b", "another name or version")
}

func TestOldVersionPutBackFailsToOpen(t *testing.T) {
	b := &table{}
	v := New(b, testKeys(t))
	mustWrite(t, v, "a", "spent token", 0)
	old := b.rows["a"]
	mustWrite(t, v, "a", "fresh token", 1)
	old.version = 2
	b.rows["a"] = old
	expectCorrupt(t, v, "a", "another name or version")
	// And it is not healed by a blank value: the error stays.
	expectCorrupt(t, v, "a", "another name or version")
}

func TestChangedBlobFailsToOpen(t *testing.T) {
	b := &table{}
	v := New(b, testKeys(t))
	mustWrite(t, v, "a", "token", 0)
	whole := b.rows["a"].data
	for bit := range len(whole) * 8 {
		changed := bytes.Clone(whole)
		changed[bit/8] ^= 1 << (bit % 8)
		b.rows["a"] = row{changed, 1}
		if _, err := v.Read(t.Context(), "a"); !errors.Is(err, vault.ErrCorrupt) {
			t.Fatalf("bit %d flipped: got %v, want ErrCorrupt", bit, err)
		}
	}
	for n := range len(whole) {
		b.rows["a"] = row{whole[:n], 1}
		if _, err := v.Read(t.Context(), "a"); !errors.Is(err, vault.ErrCorrupt) {
			t.Fatalf("cut to %d bytes: got %v, want ErrCorrupt", n, err)
		}
	}
	b.rows["a"] = row{append(bytes.Clone(whole), 0), 1}
	expectCorrupt(t, v, "a", "changed")
}

func TestUnknownKeyIsNamed(t *testing.T) {
	b := &table{}
	mustWrite(t, New(b, testKeys(t)), "a", "token", 0)
	expectCorrupt(t, New(b, testKeys(t)), "a", "is not in the key ring")
}

func TestPlaceIsDifferentForDifferentNamesAndVersions(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"a", "a/b", "aa", "a\x00", "a\x00\x00\x00\x00\x00\x00\x00\x01"} {
		for _, version := range []uint64{1, 2, 1 << 8, 1 << 56} {
			p := string(place(name, version))
			if was, ok := seen[p]; ok {
				t.Errorf("%q version %d makes the same bytes as %s", name, version, was)
			}
			seen[p] = name
		}
	}
}

func TestS55RotatedRowsStillOpenAndNewRowsUseTheNewKey(t *testing.T) {
	b, k := &table{}, testKeys(t)
	v := New(b, k)
	mustWrite(t, v, "old", "old value", 0)
	mustWrite(t, v, "both", "first", 0)
	first := k.ring.Load().primary

	if err := k.Rotate(); err != nil {
		t.Fatal(err)
	}
	second := k.ring.Load().primary
	if first == second {
		t.Fatal("Rotate kept the key")
	}
	expectValue(t, v, "old", "old value", 1)
	mustWrite(t, v, "both", "second", 1)
	mustWrite(t, v, "new", "new value", 0)
	expectKey(t, b, "old", first)
	expectKey(t, b, "both", second)
	expectKey(t, b, "new", second)

	// The file holds both, for the next start.
	again, err := OpenKeys(k.path, false)
	if err != nil {
		t.Fatal(err)
	}
	expectValue(t, New(b, again), "old", "old value", 1)
	expectValue(t, New(b, again), "both", "second", 2)
}

func TestS55RewrappedRowsOpenAfterTheOldKeyIsRetired(t *testing.T) {
	b, k := &table{}, testKeys(t)
	v := New(b, k)
	mustWrite(t, v, "kept", "value", 0)
	mustWrite(t, v, "forgotten", "value", 0)
	if err := k.Rotate(); err != nil {
		t.Fatal(err)
	}
	for want, n := true, 0; n < 2; want, n = false, n+1 {
		if did, err := v.Rewrap(t.Context(), "kept"); err != nil || did != want {
			t.Fatalf("Rewrap: %v, %v; want %v", did, err, want)
		}
	}
	if err := k.Retire(); err != nil {
		t.Fatal(err)
	}
	expectValue(t, v, "kept", "value", 2)
	expectCorrupt(t, v, "forgotten", "is not in the key ring")
	if _, err := v.Rewrap(t.Context(), "nothing"); !errors.Is(err, vault.ErrNotFound) {
		t.Fatalf("Rewrap of nothing: %v", err)
	}
}

func TestS55KeyMadeByAnotherProcessIsFoundWithoutARestart(t *testing.T) {
	b, server := &table{}, testKeys(t)
	command, err := OpenKeys(server.path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Rotate(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, New(b, command), "a", "from the command", 0)
	expectValue(t, New(b, server), "a", "from the command", 1)

	if err := command.Rotate(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, New(b, server), "b", "from the server", 0)
	expectKey(t, b, "b", command.ring.Load().primary)
}

func TestTableHoldsNeitherValuesNorKeys(t *testing.T) {
	const canary = "canary-refresh-token-7f3a"
	b, k := &table{}, testKeys(t)
	v := New(b, k)
	mustWrite(t, v, "a", canary, 0)
	mustWrite(t, v, "b", strings.Repeat(canary, 100), 0)
	keys := keyBytes(t, k.path)
	for name, r := range b.rows {
		if bytes.Contains(r.data, []byte(canary[:8])) {
			t.Errorf("row %s holds the value", name)
		}
		for _, key := range keys {
			if bytes.Contains(r.data, key) {
				t.Errorf("row %s holds the key", name)
			}
		}
	}
	if got := len(b.rows["a"].data); got != len(canary)+Overhead {
		t.Errorf("blob has %d bytes, want %d", got, len(canary)+Overhead)
	}
}

func TestTableErrorsAreErrUnavailable(t *testing.T) {
	broken := errors.New("disk on fire")
	v := New(&table{err: broken}, testKeys(t))
	_, readErr := v.Read(t.Context(), "a")
	_, writeErr := v.Write(t.Context(), "a", nil, 0)
	for call, err := range map[string]error{"Read": readErr, "Write": writeErr, "Delete": v.Delete(t.Context(), "a")} {
		if !errors.Is(err, vault.ErrUnavailable) || !errors.Is(err, broken) {
			t.Errorf("%s: got %v, want ErrUnavailable and the cause", call, err)
		}
	}
}

// table is a Blobs in memory.
type table struct {
	mu   sync.Mutex
	rows map[string]row
	err  error
}

type row struct {
	data    []byte
	version uint64
}

func (b *table) ReadBlob(ctx context.Context, name string) ([]byte, uint64, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.rows[name]
	return bytes.Clone(r.data), r.version, ok, b.fail(ctx)
}

func (b *table) WriteBlob(ctx context.Context, name string, data []byte, after uint64) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail(ctx); err != nil || b.rows[name].version != after {
		return false, err
	}
	if b.rows == nil {
		b.rows = map[string]row{}
	}
	b.rows[name] = row{bytes.Clone(data), after + 1}
	return true, nil
}

func (b *table) DeleteBlob(ctx context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail(ctx); err != nil {
		return err
	}
	delete(b.rows, name)
	return nil
}

func (b *table) fail(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return b.err
}

func testKeys(t testing.TB) *Keys {
	t.Helper()
	k, err := OpenKeys(filepath.Join(t.TempDir(), "keys.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustWrite(t *testing.T, v *Vault, name, value string, after vault.Version) {
	t.Helper()
	if _, err := v.Write(t.Context(), name, []byte(value), after); err != nil {
		t.Fatal(err)
	}
}

func expectValue(t *testing.T, v *Vault, name, value string, version vault.Version) {
	t.Helper()
	e, err := v.Read(t.Context(), name)
	if err != nil || string(e.Value) != value || e.Version != version {
		t.Fatalf("Read %s: %q version %d, %v; want %q version %d", name, e.Value, e.Version, err, value, version)
	}
}

func expectCorrupt(t *testing.T, v *Vault, name, says string) {
	t.Helper()
	e, err := v.Read(t.Context(), name)
	if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), says) {
		t.Fatalf("Read %s: got %v, want ErrCorrupt saying %q", name, err, says)
	}
	if e.Value != nil {
		t.Fatal("Read returned a value beside the error")
	}
}

func expectKey(t *testing.T, b *table, name string, key uint32) {
	t.Helper()
	if got := binary.BigEndian.Uint32(b.rows[name].data[1:5]); got != key {
		t.Errorf("row %s is sealed with key %08x, want %08x", name, got, key)
	}
}

func BenchmarkRead(b *testing.B) {
	v := New(&table{}, testKeys(b))
	if _, err := v.Write(b.Context(), "a", make([]byte, 4<<10), 0); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Read(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	v := New(&table{}, testKeys(b))
	value := make([]byte, 4<<10)
	b.SetBytes(4 << 10)
	b.ReportAllocs()
	var version vault.Version
	for b.Loop() {
		var err error
		if version, err = v.Write(b.Context(), "a", value, version); err != nil {
			b.Fatal(err)
		}
	}
}
