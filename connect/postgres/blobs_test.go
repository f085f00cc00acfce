package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/sealed"
	"github.com/keycaddy/keycaddy/vault/vaulttest"
)

var _ sealed.Blobs = (*Store)(nil)

func connectionUID() string { return fmt.Sprintf("%x", rand.Text())[:32] }

// TestSealedVaultContract runs the vault's contract over two handles, used by
// turns, as two nodes would.
func TestSealedVaultContract(t *testing.T) {
	t.Parallel()
	first, dsn := migrated(t)
	second := openTest(t, dsn)
	keys, err := sealed.OpenKeys(filepath.Join(t.TempDir(), "keys.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.Run(t, func(t *testing.T) vault.Vault {
		return sealed.New(&turns{handles: []sealed.Blobs{first, second}}, keys)
	})
}

func TestS54SwappedRowsFailToOpen(t *testing.T) {
	t.Parallel()
	s, dsn := migrated(t)
	v := sealedTest(t, s)
	names := []string{"connections/github/a", "connections/github/b"}
	for _, name := range names {
		if _, err := v.Write(t.Context(), name, []byte("token of "+name), 0); err != nil {
			t.Fatal(err)
		}
	}
	do(t, dsn,
		`UPDATE keycaddy.blobs SET name = 'x' WHERE name = 'connections/github/a'`,
		`UPDATE keycaddy.blobs SET name = 'connections/github/a' WHERE name = 'connections/github/b'`,
		`UPDATE keycaddy.blobs SET name = 'connections/github/b' WHERE name = 'x'`)
	for _, name := range names {
		if _, err := v.Read(t.Context(), name); !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

func TestHasBlobsTellsWhetherAKeyRingIsNeeded(t *testing.T) {
	t.Parallel()
	s, _ := migrated(t)
	expect := func(want bool) {
		t.Helper()
		if got, err := s.HasBlobs(t.Context()); got != want || err != nil {
			t.Fatalf("%v, %v; want %v", got, err, want)
		}
	}
	expect(false)
	if written, err := s.WriteBlob(t.Context(), "a", nil, 0); !written || err != nil {
		t.Fatal(written, err)
	}
	expect(true)
	if err := s.DeleteBlob(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	expect(false)
}

func TestTextThatPostgresCannotKeepIsNotThere(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"", "&default_query_exec_mode=simple_protocol"} {
		dsn := sharedCluster(t).database(t) + mode
		s := openTest(t, dsn)
		migrate(t, s)
		ctx := t.Context()
		for _, text := range []string{"a\xffb", "a\x00b", "a\x00' OR '1'='1"} {
			id := connect.ID{Integration: "a", Connection: text}
			_, err1 := s.Connection(ctx, id)
			_, err2 := s.Update(ctx, id, func(*connect.Connection) error { return nil })
			_, err3 := s.Delete(ctx, id, nil)
			_, err4 := s.Flow(ctx, text)
			for _, err := range []error{err1, err2, err3, err4, s.FinishFlow(ctx, text, connect.Outcome{})} {
				if !errors.Is(err, connect.ErrNotFound) {
					t.Errorf("%q: got %v, want ErrNotFound", text, err)
				}
			}
			for _, q := range []connect.Query{
				{Connections: []string{text}}, {Integrations: []string{text}}, {Search: text}, {EndUsers: []string{text}}, {Organization: text},
				{Tags: map[string]string{text: "x"}}, {Tags: map[string]string{"x": text}},
			} {
				if list, err := s.Connections(ctx, q); len(list) != 0 || err != nil {
					t.Errorf("%+v: %v, %v", q, list, err)
				}
			}
			c := newConnection("a", "b")
			c.EndUser = &connect.EndUser{ID: text}
			if _, err := s.Create(ctx, c); err == nil || errors.Is(err, connect.ErrStoreUnavailable) {
				t.Errorf("%q: Create: %v", text, err)
			}
			if _, _, ok, err := s.ReadBlob(ctx, text); ok || err != nil {
				t.Errorf("%q: ReadBlob: %v, %v", text, ok, err)
			}
			if _, err := s.WriteBlob(ctx, text, nil, 0); err == nil {
				t.Errorf("%q: WriteBlob has done it", text)
			}
		}
	}
}

func TestQueriesUseTheIndexes(t *testing.T) {
	t.Parallel()
	_, dsn := migrated(t)
	conn := dial(t, dsn)
	if _, err := conn.Exec(t.Context(), `SET enable_seqscan = off`); err != nil { // which pays off for few rows
		t.Fatal(err)
	}
	for index, q := range map[string]connect.Query{
		"connections_end_user":     {EndUsers: []string{"u1"}},
		"connections_organization": {Organization: "o1"},
		"connections_connection":   {Connections: []string{"c1"}},
	} {
		where, args, _ := conditions(q)
		rows, err := conn.Query(t.Context(), `EXPLAIN SELECT serial FROM keycaddy.connections`+where, args...)
		if err != nil {
			t.Fatal(err)
		}
		var plan string
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan += line + "\n"
		}
		if !strings.Contains(plan, index) {
			t.Errorf("%+v: %s", q, plan)
		}
	}
}

func sealedTest(t testing.TB, s *Store) *sealed.Vault {
	t.Helper()
	keys, err := sealed.OpenKeys(filepath.Join(t.TempDir(), "keys.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	return sealed.New(s, keys)
}

// turns uses several handles on one store by turns.
type turns struct {
	handles []sealed.Blobs
	calls   atomic.Uint64
}

func (t *turns) next() sealed.Blobs { return t.handles[t.calls.Add(1)%uint64(len(t.handles))] }

func (t *turns) ReadBlob(ctx context.Context, name string) ([]byte, uint64, bool, error) {
	return t.next().ReadBlob(ctx, name)
}

func (t *turns) WriteBlob(ctx context.Context, name string, data []byte, after uint64) (bool, error) {
	return t.next().WriteBlob(ctx, name, data, after)
}

func (t *turns) DeleteBlob(ctx context.Context, name string) error {
	return t.next().DeleteBlob(ctx, name)
}
