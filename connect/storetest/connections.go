package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// connection returns a new connection with little in it.
func connection(integration, id string) connect.Connection {
	return connect.Connection{
		ID:       connect.ID{Integration: integration, Connection: id},
		UID:      newUID(),
		Provider: "github",
		Status:   connect.StatusActive,
	}
}

func create(t *testing.T, s connect.Store, c connect.Connection) connect.Connection {
	t.Helper()
	created, err := s.Create(t.Context(), c)
	if err != nil {
		t.Fatalf("creating %q: %v", c.ID, err)
	}
	return created
}

// full returns a connection with something in every field but those that the
// store sets. A field added to Connection fails the test until it is kept.
func full(t *testing.T) connect.Connection {
	c := connect.Connection{
		ID:       connect.ID{Integration: "github-prod", Connection: "user/1"},
		UID:      newUID(),
		Serial:   -1,
		Provider: "github",
		Status:   connect.StatusNeedsReauth,
		Cause:    "refresh_refused",
		Config:   map[string]string{"subdomain": "acme", "empty": "", "html": "<a href='x'>&\"\\"},
		Metadata: json.RawMessage(`{"a":[1,2.5,null,"ü<&>"],"b":{"c":true}}`),
		Tags:     map[string]string{"team": "blue", "ünï": "cödé"},
		EndUser: &connect.EndUser{
			ID: "u1", Email: "u1@example.com", DisplayName: "Ünï O'User", Tags: map[string]string{"plan": "pro"},
			Organization: &connect.Organization{ID: "o1", DisplayName: "Acme & Söhne"},
		},
		Account: &connect.Account{ID: "acct/1<&>", Label: "Ünï Ltd."}, MissingScopes: []string{"files:read", "user info"},
		Version:    7,
		Expires:    time.Date(2031, 2, 3, 4, 5, 6, 789012000, time.UTC),
		Due:        time.Date(2032, 2, 3, 4, 5, 6, 789012000, time.UTC),
		WebhookURL: "https://app.example.com/hooks?a=b&c", Trouble: &connect.Trouble{
			Since: time.Date(2029, 1, 2, 3, 4, 5, 123456000, time.UTC), Failures: 3, Code: "http_502",
			Told: time.Date(2029, 1, 2, 3, 5, 5, 123456000, time.UTC), Degraded: true,
		},
		Created: time.Date(2029, 1, 2, 3, 4, 5, 123456000, time.UTC),
		Updated: time.Date(2029, 1, 2, 3, 4, 6, 654321000, time.UTC),
	}
	for n := range reflect.ValueOf(c).NumField() {
		if reflect.TypeOf(c).Field(n).IsExported() && reflect.ValueOf(c).Field(n).IsZero() {
			t.Fatalf("the contract does not cover the field %s", reflect.TypeOf(c).Field(n).Name)
		}
	}
	return c
}

// equalConnections compares connections; metadata as JSON, since a store may
// order its members anew.
func equalConnections(t *testing.T, got, want connect.Connection) {
	t.Helper()
	var a, b any
	if len(got.Metadata) > 0 || len(want.Metadata) > 0 {
		must(t, json.Unmarshal(got.Metadata, &a))
		must(t, json.Unmarshal(want.Metadata, &b))
	}
	equal(t, a, b)
	got.Metadata, want.Metadata = nil, nil
	equal(t, got, want)
}

func wholeConnection(t *testing.T, s stores) {
	want := full(t)
	zone := time.FixedZone("elsewhere", 5*3600)
	given := want
	given.Expires = want.Expires.In(zone).Add(499 * time.Nanosecond) // cut, and brought to UTC
	got := create(t, s[0], given)
	if got.Serial <= 0 {
		t.Fatalf("serial %d", got.Serial)
	}
	want.Serial = got.Serial
	equalConnections(t, got, want)
	for _, s := range s {
		got, err := s.Connection(t.Context(), want.ID)
		must(t, err)
		equalConnections(t, got, want)
		list, err := s.Connections(t.Context(), connect.Query{})
		must(t, err)
		if len(list) != 1 {
			t.Fatalf("%d connections", len(list))
		}
		equalConnections(t, list[0], want)
	}
}

func bareConnection(t *testing.T, s stores) {
	before := time.Now().Add(-time.Second)
	c := connection("a", "b")
	got := create(t, s[0], c)
	if got.Created.Before(before) || got.Created.After(time.Now().Add(time.Second)) || got.Updated.Before(before) {
		t.Errorf("created %v, updated %v: not set to the present", got.Created, got.Updated)
	}
	c.Serial, c.Created, c.Updated = got.Serial, got.Created, got.Updated
	equal(t, got, c) // nil stays nil, and zero times stay zero
	got, err := s[1].Connection(t.Context(), c.ID)
	must(t, err)
	equal(t, got, c)
}

func notFound(t *testing.T, s stores) {
	ctx, id := t.Context(), connect.ID{Integration: "a", Connection: "b"}
	create(t, s[0], connection("a", "other"))
	create(t, s[0], connection("other", "b"))
	_, err := s[0].Connection(ctx, id)
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[0].Update(ctx, id, func(*connect.Connection) error { t.Error("change was called"); return nil })
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[0].Delete(ctx, id, nil)
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[0].Session(ctx, digest())
	expectErr(t, err, connect.ErrNotFound)
	must(t, s[0].DeleteSession(ctx, digest()))
	_, err = s[0].TakeFlow(ctx, digest())
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[0].Flow(ctx, "none")
	expectErr(t, err, connect.ErrNotFound)
	expectErr(t, s[0].FinishFlow(ctx, "none", connect.Outcome{}), connect.ErrNotFound)
	must(t, s[0].Release(ctx, connect.Lease{Name: "none", Holder: "nobody"}))
	list, err := s[0].Connections(ctx, connect.Query{Connections: []string{"none"}})
	if err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
}

func createTaken(t *testing.T, s stores) {
	c := create(t, s[0], connection("a", "b"))
	_, err := s[1].Create(t.Context(), connection("a", "b"))
	expectErr(t, err, connect.ErrExists)
	other := connection("a", "other")
	other.UID = c.UID
	_, err = s[1].Create(t.Context(), other)
	expectErr(t, err, connect.ErrExists)
	got, err := s[1].Connection(t.Context(), c.ID)
	must(t, err)
	equal(t, got, c)
	create(t, s[1], connection("a", "B")) // ids are told apart by case
}

func createRace(t *testing.T, s stores) {
	var (
		mu   sync.Mutex
		uids []string
	)
	s.both(racers, func(_ int, s connect.Store) {
		c, err := s.Create(t.Context(), connection("a", "b"))
		switch {
		case err == nil:
			mu.Lock()
			uids = append(uids, c.UID)
			mu.Unlock()
		case !errors.Is(err, connect.ErrExists):
			t.Errorf("got %v, want ErrExists", err)
		}
	})
	if len(uids) != 1 {
		t.Fatalf("%d connections were created", len(uids))
	}
	c, err := s[0].Connection(t.Context(), connect.ID{Integration: "a", Connection: "b"})
	must(t, err)
	equal(t, c.UID, uids[0])
}

func serials(t *testing.T, s stores) {
	var last int64
	for n := range 6 {
		c := create(t, s[n%2], connection("a", strconv.Itoa(n)))
		if c.Serial <= last {
			t.Fatalf("serial %d after %d", c.Serial, last)
		}
		last = c.Serial
		if n%2 == 1 { // the newest goes, and its serial with it
			_, err := s[0].Delete(t.Context(), c.ID, nil)
			must(t, err)
		}
	}
}

func deleteConnection(t *testing.T, s stores) {
	c, other := create(t, s[0], full(t)), create(t, s[0], connection("a", "b"))
	got, err := s[1].Delete(t.Context(), c.ID, nil)
	must(t, err)
	equalConnections(t, got, c)
	_, err = s[0].Connection(t.Context(), c.ID)
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[0].Delete(t.Context(), c.ID, nil)
	expectErr(t, err, connect.ErrNotFound)
	list, err := s[0].Connections(t.Context(), connect.Query{})
	must(t, err)
	equal(t, list, []connect.Connection{other})
	// Both its ID and its UID are free again.
	create(t, s[0], full(t))
	again := connection("again", "b")
	again.UID = c.UID
	create(t, s[0], again)
}

func update(t *testing.T, s stores) {
	before := time.Now().Add(-time.Second)
	c := create(t, s[0], connection("a", "b"))
	want := full(t)
	got, err := s[1].Update(t.Context(), c.ID, func(edit *connect.Connection) error {
		equal(t, *edit, c)
		*edit = want // ID, UID, Serial and Created of it don't count
		return nil
	})
	must(t, err)
	if got.Updated.Before(before) || got.Updated.After(time.Now().Add(time.Second)) {
		t.Errorf("updated %v: not set to the present", got.Updated)
	}
	want.ID, want.UID, want.Serial, want.Created, want.Updated = c.ID, c.UID, c.Serial, c.Created, got.Updated
	equalConnections(t, got, want)
	got, err = s[0].Connection(t.Context(), c.ID)
	must(t, err)
	equalConnections(t, got, want)

	// An ID that was not changed is not found as if it were.
	expectList(t, s, connect.Query{Search: want.ID.Connection, EndUsers: []string{want.EndUser.ID}}, want.ID.Connection)
	expectList(t, s, connect.Query{Search: full(t).ID.Connection})

	// And back to little.
	got, err = s[0].Update(t.Context(), c.ID, func(edit *connect.Connection) error {
		*edit = c
		return nil
	})
	must(t, err)
	c.Updated = got.Updated
	equal(t, got, c)
}

func updateRace(t *testing.T, s stores) {
	c := create(t, s[0], connection("a", "b"))
	s.both(racers, func(n int, s connect.Store) {
		_, err := s.Update(t.Context(), c.ID, func(c *connect.Connection) error {
			c.Version++
			if c.Tags == nil {
				c.Tags = map[string]string{}
			}
			c.Tags[strconv.Itoa(n)] = "done"
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	got, err := s[0].Connection(t.Context(), c.ID)
	must(t, err)
	if got.Version != racers || len(got.Tags) != racers {
		t.Fatalf("%d increments and %d tags of %d are left", got.Version, len(got.Tags), racers)
	}
}

func updateFails(t *testing.T, s stores) {
	c := create(t, s[0], full(t))
	refused := errors.New("refused")
	_, err := s[0].Update(t.Context(), c.ID, func(c *connect.Connection) error {
		c.Cause = "changed"
		c.Config["subdomain"] = "changed"
		return fmt.Errorf("no: %w", refused)
	})
	expectErr(t, err, refused)
	got, err := s[1].Connection(t.Context(), c.ID)
	must(t, err)
	equalConnections(t, got, c)
	// The store is not left locked.
	_, err = s[1].Update(t.Context(), c.ID, func(*connect.Connection) error { return nil })
	must(t, err)
}

func metadata(t *testing.T, s stores) {
	for _, bad := range []string{`[1]`, `"text"`, `1`, `{`, `{"a":1} x`, `not JSON`} {
		c := connection("a", "bad")
		c.Metadata = json.RawMessage(bad)
		if _, err := s[0].Create(t.Context(), c); err == nil {
			t.Fatalf("%s was kept", bad)
		}
	}
	c := connection("a", "empty")
	c.Metadata = json.RawMessage(`{}`)
	equalConnections(t, create(t, s[0], c), func() connect.Connection {
		got, err := s[1].Connection(t.Context(), c.ID)
		must(t, err)
		return got
	}())
}

func oddIDs(t *testing.T, s stores) {
	kept := map[string]connect.Connection{}
	for _, id := range []string{
		`'`, `"`, `\`, `/`, `a/b`, `../a`, `;--`, `' OR '1'='1`, `%`, `_`, `?`, `$1`, `:name`, `{}`, ` `, ` a `, "a\nb", "a\tb",
		`ü`, "u\u0308", `日本`, `🔑`, `<&>`, "\u2028", "a\x1fb",
	} {
		c := connection("in"+id, id)
		c.EndUser = &connect.EndUser{ID: id}
		c.Tags = map[string]string{id: id}
		kept[id] = create(t, s[0], c)
	}
	// What not all databases can keep has to fail at once or be kept.
	for _, id := range []string{"a\x00b", "a\xffb"} {
		if c, err := s[0].Create(t.Context(), connection("in"+id, id)); err == nil {
			kept[id] = c
		}
	}
	for id, c := range kept {
		got, err := s[1].Connection(t.Context(), c.ID)
		must(t, err)
		equal(t, got, c)
		queries := []connect.Query{{Connections: []string{id}}}
		if c.EndUser != nil {
			queries = append(queries, connect.Query{Integrations: []string{"in" + id}}, connect.Query{EndUsers: []string{id}}, connect.Query{Tags: map[string]string{id: id}})
		}
		for _, q := range queries {
			list, err := s[1].Connections(t.Context(), q)
			must(t, err)
			equal(t, list, []connect.Connection{c})
		}
	}
	for _, c := range kept {
		_, err := s[1].Delete(t.Context(), c.ID, nil)
		must(t, err)
	}
}
