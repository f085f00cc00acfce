// Package vaulttest is the contract that every vault.Vault must pass. A vault
// calls Run from a test of its own; what passes can hold keycaddy's secrets.
//
// It may import vault and the standard library only.
package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keycaddy/keycaddy/vault"
)

// writers is how many goroutines race in the contract, as if 50 requests had
// found the same expired token.
const writers = 50

// Run runs the contract, each part in a subtest with a vault of its own from
// open. The vault may hold other things already and open may return the same
// vault each time: all names used are random.
func Run(t *testing.T, open func(t *testing.T) vault.Vault) {
	for _, part := range []struct {
		name string
		test func(*testing.T, vault.Vault)
	}{
		{"reading what was never written is ErrNotFound", notFound},
		{"the first write makes version 1", firstWrite},
		{"versions rise by one", versions},
		{"a write after the wrong version is ErrConflict and changes nothing", conflict},
		{"a deleted name is gone and can be written again", deleteAndWrite},
		{"of 50 writers of one version exactly one wins", race},
		{"of 50 first writers exactly one wins", firstRace},
		{"names do not disturb each other", manyNames},
		{"bad names are ErrName", badNames},
		{"names of MaxName bytes are kept", longNames},
		{"MaxValue bytes are kept and one more is ErrTooLarge", largeValues},
		{"values keep every byte", anyBytes},
		{"values belong to the caller", aliasing},
		{"a done context ends every call", canceled},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, open(t)) })
	}
}

func notFound(t *testing.T, v vault.Vault) {
	name := newName()
	e, err := v.Read(t.Context(), name)
	if !errors.Is(err, vault.ErrNotFound) {
		t.Fatalf("Read: got %v, want ErrNotFound", err)
	}
	if e.Value != nil || e.Version != 0 {
		t.Errorf("Read returned an entry (version %d) beside the error", e.Version)
	}
	if err := v.Delete(t.Context(), name); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

func firstWrite(t *testing.T, v vault.Vault) {
	name := newName()
	write(t, v, name, "one", 0)
	expect(t, v, name, "one", 1)
}

func versions(t *testing.T, v vault.Vault) {
	name := newName()
	for n := range vault.Version(20) {
		value := fmt.Sprint("value ", n)
		write(t, v, name, value, n)
		expect(t, v, name, value, n+1)
	}
}

func conflict(t *testing.T, v vault.Vault) {
	name := newName()
	refused := func(after vault.Version) {
		t.Helper()
		version, err := v.Write(t.Context(), name, []byte("late"), after)
		if !errors.Is(err, vault.ErrConflict) {
			t.Errorf("Write after %d: got %v, want ErrConflict", after, err)
		}
		if version != 0 {
			t.Errorf("Write after %d: version %d beside the error", after, version)
		}
	}
	refused(1)
	refused(^vault.Version(0))
	if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrNotFound) {
		t.Fatalf("a refused first write left something: %v", err)
	}
	write(t, v, name, "one", 0)
	refused(0) // somebody else was first
	refused(2) // a version nobody has written
	expect(t, v, name, "one", 1)
	write(t, v, name, "two", 1)
	refused(0)
	refused(1) // what another writer had read
	refused(3)
	refused(^vault.Version(0))
	expect(t, v, name, "two", 2)
}

func deleteAndWrite(t *testing.T, v vault.Vault) {
	name, other := newName(), newName()
	write(t, v, other, "other", 0)
	write(t, v, name, "one", 0)
	write(t, v, name, "two", 1)
	for range 2 { // deleting again is no error
		if err := v.Delete(t.Context(), name); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrNotFound) {
			t.Fatalf("Read after Delete: got %v, want ErrNotFound", err)
		}
	}
	if _, err := v.Write(t.Context(), name, []byte("late"), 2); !errors.Is(err, vault.ErrConflict) {
		t.Fatalf("a late writer brought a deleted name back: %v", err)
	}
	write(t, v, name, "again", 0)
	expect(t, v, name, "again", 1)
	expect(t, v, other, "other", 1)
}

func race(t *testing.T, v vault.Vault) {
	name := newName()
	write(t, v, name, "first", 0)
	winner := winnerOf(t, v, name, 1)
	expect(t, v, name, winner, 2)
}

func firstRace(t *testing.T, v vault.Vault) {
	name := newName()
	winner := winnerOf(t, v, name, 0)
	expect(t, v, name, winner, 1)
}

// winnerOf lets all writers write after the same version and returns the value
// of the only one that got through.
func winnerOf(t *testing.T, v vault.Vault, name string, after vault.Version) string {
	t.Helper()
	var (
		mu      sync.Mutex
		winners []string
		start   = make(chan struct{})
		done    sync.WaitGroup
	)
	for n := range writers {
		done.Go(func() {
			value := fmt.Sprint("writer ", n)
			<-start
			version, err := v.Write(t.Context(), name, []byte(value), after)
			switch {
			case err == nil && version == after+1:
				mu.Lock()
				winners = append(winners, value)
				mu.Unlock()
			case err == nil:
				t.Errorf("%s: version %d after %d", value, version, after)
			case !errors.Is(err, vault.ErrConflict):
				t.Errorf("%s: got %v, want ErrConflict", value, err)
			}
		})
	}
	close(start)
	done.Wait()
	if len(winners) != 1 {
		t.Fatalf("%d writers won: %q", len(winners), winners)
	}
	return winners[0]
}

func manyNames(t *testing.T, v vault.Vault) {
	base := newName()
	// Names that begin alike, differ by case, or look like folders of others.
	names := []string{base, base + "/a", base + "/A", base + "/a/b", base + "/ab", base + "/a.b", base + "/a~b", base + "/a_b", base + "/a-b"}
	for n := range 30 {
		names = append(names, fmt.Sprintf("%s/n/%d", base, n))
	}
	var done sync.WaitGroup
	for _, name := range names {
		done.Go(func() {
			for n := range vault.Version(3) {
				if _, err := v.Write(t.Context(), name, []byte(name), n); err != nil {
					t.Errorf("Write %s after %d: %v", name, n, err)
				}
			}
		})
	}
	done.Wait()
	for _, name := range names {
		expect(t, v, name, name, 3)
	}
	if err := v.Delete(t.Context(), names[1]); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	for n, name := range names {
		if n != 1 {
			expect(t, v, name, name, 3)
		}
	}
}

func badNames(t *testing.T, v vault.Vault) {
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b",
		"a b", "a%2e", `a\b`, "a?b", "a#b", "a:b", "a*", "a'b", `a"b`, "a\x00", "a\n", "ä", "\xff",
		strings.Repeat("a", vault.MaxName+1),
	} {
		if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrName) {
			t.Errorf("Read %.40q: got %v, want ErrName", name, err)
		}
		if _, err := v.Write(t.Context(), name, []byte("x"), 0); !errors.Is(err, vault.ErrName) {
			t.Errorf("Write %.40q: got %v, want ErrName", name, err)
		}
		if err := v.Delete(t.Context(), name); !errors.Is(err, vault.ErrName) {
			t.Errorf("Delete %.40q: got %v, want ErrName", name, err)
		}
	}
}

func longNames(t *testing.T, v vault.Vault) {
	name := newName() + "/"
	name += strings.Repeat("x", 200) + "/"
	name += strings.Repeat("y", vault.MaxName-len(name))
	other := name[:len(name)-1] + "z"
	write(t, v, name, "long", 0)
	write(t, v, other, "other", 0)
	expect(t, v, name, "long", 1)
	expect(t, v, other, "other", 1)
}

func largeValues(t *testing.T, v vault.Vault) {
	name := newName()
	value := make([]byte, vault.MaxValue+1)
	rand.Read(value)
	if _, err := v.Write(t.Context(), name, value, 0); !errors.Is(err, vault.ErrTooLarge) {
		t.Fatalf("one byte over MaxValue: got %v, want ErrTooLarge", err)
	}
	if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrNotFound) {
		t.Fatalf("a refused value left something: %v", err)
	}
	value = value[:vault.MaxValue]
	write(t, v, name, string(value), 0)
	expect(t, v, name, string(value), 1)
}

func anyBytes(t *testing.T, v vault.Vault) {
	every := make([]byte, 256)
	for n := range every {
		every[n] = byte(n)
	}
	name := newName()
	for n, value := range []string{"", "\x00", string(every), "\xff\xfe not UTF-8", `{"json":"<&>"}`, " spaces \r\n", "ünïcödé 🔑"} {
		write(t, v, name, value, vault.Version(n))
		expect(t, v, name, value, vault.Version(n+1))
	}
}

func aliasing(t *testing.T, v vault.Vault) {
	name := newName()
	mine := []byte("mine")
	if _, err := v.Write(t.Context(), name, mine, 0); err != nil {
		t.Fatalf("Write: %v", err)
	}
	if string(mine) != "mine" {
		t.Error("Write changed the caller's value")
	}
	clear(mine)
	for range 2 {
		e, err := v.Read(t.Context(), name)
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
		if string(e.Value) != "mine" {
			t.Fatalf("the vault's value is %q after the caller changed its own", e.Value)
		}
		clear(e.Value)
	}
}

func canceled(t *testing.T, v vault.Vault) {
	name := newName()
	write(t, v, name, "one", 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Read(ctx, name); !errors.Is(err, context.Canceled) {
		t.Errorf("Read: got %v, want context.Canceled", err)
	}
	if _, err := v.Write(ctx, name, []byte("two"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Write: got %v, want context.Canceled", err)
	}
	if err := v.Delete(ctx, name); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete: got %v, want context.Canceled", err)
	}
	expect(t, v, name, "one", 1)
}

// newName returns a name that no vault holds yet.
func newName() string { return "vaulttest/" + strings.ToLower(rand.Text()) }

func write(t *testing.T, v vault.Vault, name, value string, after vault.Version) {
	t.Helper()
	version, err := v.Write(t.Context(), name, []byte(value), after)
	if err != nil {
		t.Fatalf("Write after %d: %v", after, err)
	}
	if version != after+1 {
		t.Fatalf("Write after %d returned version %d", after, version)
	}
}

func expect(t *testing.T, v vault.Vault, name, value string, version vault.Version) {
	t.Helper()
	e, err := v.Read(t.Context(), name)
	switch {
	case err != nil:
		t.Fatalf("Read: %v", err)
	case !bytes.Equal(e.Value, []byte(value)):
		t.Fatalf("Read %.80q, want %.80q", e.Value, value)
	case e.Version != version:
		t.Fatalf("Read version %d, want %d", e.Version, version)
	}
}
