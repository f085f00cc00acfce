package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func integrations(t *testing.T, s stores) {
	ctx := t.Context()
	revision := func() int64 {
		t.Helper()
		a, err := s[0].IntegrationsRevision(ctx)
		must(t, err)
		b, err := s[1].IntegrationsRevision(ctx)
		must(t, err)
		if a != b {
			t.Fatalf("revision is %d here and %d there", a, b)
		}
		return a
	}
	last := revision()
	rises := func(what string) {
		t.Helper()
		if now := revision(); now <= last {
			t.Errorf("%s: the revision was %d and is %d", what, last, now)
		} else {
			last = now
		}
	}
	want := connect.StoredIntegration{
		UID: newUID(), Key: "gh-ünï", Provider: "github", DisplayName: "Git & <Hub>", ForwardWebhooks: true, Sealed: true, Removing: true,
		Created: time.Date(2029, 1, 2, 3, 4, 5, 123456000, time.UTC), Updated: time.Date(2029, 1, 2, 3, 4, 6, 654321000, time.UTC),
	}
	got, err := s[0].PutIntegration(ctx, want)
	must(t, err)
	equal(t, got, want)
	rises("adding")
	all, at, err := s[1].StoredIntegrations(ctx)
	must(t, err)
	equal(t, all, []connect.StoredIntegration{want})
	if at != last {
		t.Errorf("the list is of revision %d, want %d", at, last)
	}
	for _, taken := range []connect.StoredIntegration{{UID: newUID(), Key: want.Key, Provider: "p"}, {UID: want.UID, Key: "other", Provider: "p"}} {
		_, err = s[1].PutIntegration(ctx, taken)
		expectErr(t, err, connect.ErrExists)
	}
	bare, err := s[1].PutIntegration(ctx, connect.StoredIntegration{UID: newUID(), Key: "a", Provider: "p"})
	must(t, err)
	if bare.Created.IsZero() || !bare.Updated.Equal(bare.Created) {
		t.Errorf("times of a new integration: %v, %v", bare.Created, bare.Updated)
	}
	rises("adding another")

	changed, err := s[1].UpdateIntegration(ctx, want.Key, func(i *connect.StoredIntegration) error {
		*i = connect.StoredIntegration{UID: newUID(), Key: "renamed", Provider: "gitlab", Created: time.Unix(1, 0)}
		return nil
	})
	must(t, err)
	if changed.UID != want.UID || !changed.Created.Equal(want.Created) || changed.Updated.Equal(want.Updated) || changed.Sealed || changed.Key != "renamed" || changed.Provider != "gitlab" {
		t.Errorf("changed: %+v", changed)
	}
	rises("changing")
	_, err = s[0].UpdateIntegration(ctx, want.Key, func(*connect.StoredIntegration) error { return nil })
	expectErr(t, err, connect.ErrNotFound)
	_, err = s[0].UpdateIntegration(ctx, "renamed", func(i *connect.StoredIntegration) error { i.Key = "a"; return nil })
	expectErr(t, err, connect.ErrExists)
	no := errors.New("no")
	if _, err = s[0].UpdateIntegration(ctx, "a", func(i *connect.StoredIntegration) error { i.Key = "b"; return no }); err != no {
		t.Errorf("refused: %v", err)
	}
	all, _, err = s[0].StoredIntegrations(ctx)
	must(t, err)
	equal(t, all, []connect.StoredIntegration{bare, changed})

	for range 2 { // removing it again is no error
		must(t, s[0].DeleteIntegration(ctx, want.UID))
	}
	rises("removing")
	all, _, err = s[1].StoredIntegrations(ctx)
	must(t, err)
	equal(t, all, []connect.StoredIntegration{bare})
}

func renameInUse(t *testing.T, s stores) {
	ctx := t.Context()
	_, err := s[0].PutIntegration(ctx, connect.StoredIntegration{UID: newUID(), Key: "old", Provider: "p"})
	must(t, err)
	c := create(t, s[1], connection("old", "c"))
	rename := func(i *connect.StoredIntegration) error { i.Key = "new"; return nil }
	_, err = s[0].UpdateIntegration(ctx, "old", rename)
	expectErr(t, err, connect.ErrInUse)
	_, err = s[0].UpdateIntegration(ctx, "old", func(i *connect.StoredIntegration) error { i.DisplayName = "x"; return nil })
	must(t, err)
	_, err = s[0].Delete(ctx, c.ID, nil)
	must(t, err)
	_, err = s[0].UpdateIntegration(ctx, "old", rename)
	must(t, err)
}

func updateAll(t *testing.T, s stores) {
	ctx := t.Context()
	var ids []connect.ID
	for _, id := range []string{"c", "a", "b"} {
		ids = append(ids, create(t, s[0], connection("g", id)).ID)
	}
	set := func(metadata string) func(*connect.Connection) error {
		return func(c *connect.Connection) error { c.Metadata = json.RawMessage(metadata); return nil }
	}
	done, err := s[1].UpdateAll(ctx, ids, set(`{"a":1}`))
	must(t, err)
	for n, id := range ids {
		if done[n].ID != id || string(done[n].Metadata) == "" {
			t.Errorf("number %d is %s with %s", n, done[n].ID, done[n].Metadata)
		}
	}
	unchanged := func(what string) {
		t.Helper()
		for _, id := range ids {
			c, err := s[0].Connection(ctx, id)
			must(t, err)
			var m map[string]int
			must(t, json.Unmarshal(c.Metadata, &m))
			equal(t, fmt.Sprint(what, m), fmt.Sprint(what, map[string]int{"a": 1}))
		}
	}
	gone := connect.ID{Integration: "g", Connection: "gone"}
	_, err = s[0].UpdateAll(ctx, append(ids[:2:2], gone, ids[2]), set(`{"a":2}`))
	var missing *connect.MissingError
	if !errors.As(err, &missing) || missing.ID != gone || !errors.Is(err, connect.ErrNotFound) {
		t.Errorf("one is gone: %v", err)
	}
	unchanged("one is gone")
	no, calls := errors.New("no"), 0
	_, err = s[0].UpdateAll(ctx, ids, func(c *connect.Connection) error {
		c.Metadata = json.RawMessage(`{"a":3}`)
		if calls++; calls == 3 {
			return no
		}
		return nil
	})
	if err != no {
		t.Errorf("refused: %v", err)
	}
	unchanged("one was refused")
	if none, err := s[0].UpdateAll(ctx, nil, set(`{}`)); err != nil || len(none) != 0 {
		t.Errorf("none: %v, %v", none, err)
	}
}
