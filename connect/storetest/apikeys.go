package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
)

func apiKey(name string) connect.APIKey {
	return connect.APIKey{Name: name, Key: digest(), Scopes: policy.DefaultScopes, Created: time.Date(2030, 1, 2, 3, 4, 5, 678901000, time.UTC)}
}

func keysByName(t *testing.T, s connect.Store) (map[string]connect.APIKey, int64) {
	t.Helper()
	keys, version, err := s.APIKeys(t.Context())
	must(t, err)
	found := map[string]connect.APIKey{}
	for _, k := range keys {
		found[k.Name] = k
	}
	return found, version
}

func apiKeys(t *testing.T, s stores) {
	a, b := apiKey("a 'key'"), apiKey("b")
	b.Created = b.Created.Add(time.Hour)
	b.Former, b.FormerUntil, b.Expires = digest(), b.Created.Add(time.Minute), b.Created.Add(time.Hour)
	b.Scopes = policy.AllScopes
	b.Limits = policy.Limits{
		Integrations: []string{"x"}, Connections: []string{"ü"}, EndUsers: []string{"u<>&"}, Tags: map[string]string{"k": "v"},
		Calls: []string{"GET /a/*"}, Rate: "5/1m",
	}
	for _, k := range []connect.APIKey{a, b} {
		must(t, s[0].PutAPIKey(t.Context(), k))
	}
	for _, k := range []connect.APIKey{
		{Name: "b", Key: digest()}, {Name: "c", Key: b.Key}, b, {Name: "c", Key: b.Former},
		{Name: "c", Key: digest(), Former: b.Former}, {Name: "c", Key: digest(), Former: a.Key},
	} {
		expectErr(t, s[1].PutAPIKey(t.Context(), k), connect.ErrExists)
	}
	found, _ := keysByName(t, s[1])
	equal(t, found, map[string]connect.APIKey{a.Name: a, b.Name: b})
}

func apiKeyChanges(t *testing.T, s stores) {
	ctx := t.Context()
	a, b := apiKey("a"), apiKey("b")
	last, err := s[0].APIKeysVersion(ctx)
	must(t, err)
	changed := func(what string, want bool) {
		t.Helper()
		version, err := s[1].APIKeysVersion(ctx)
		must(t, err)
		if (version != last) != want {
			t.Errorf("%s: the version went from %d to %d", what, last, version)
		}
		last = version
	}
	must(t, s[0].PutAPIKey(ctx, a))
	changed("adding one", true)
	must(t, s[0].PutAPIKey(ctx, b))
	changed("adding another", true)
	expectErr(t, s[0].PutAPIKey(ctx, b), connect.ErrExists)
	changed("adding none", false)

	secret, until := digest(), time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	got, err := s[0].UpdateAPIKey(ctx, "a", func(k *connect.APIKey) error {
		k.Former, k.FormerUntil, k.Key = k.Key, until, secret
		k.Scopes, k.Limits.Rate, k.Expires = policy.AllScopes, "1/1s", until
		k.Name, k.Created, k.Used = "other", until, until // which stay
		return nil
	})
	must(t, err)
	want := a
	want.Former, want.FormerUntil, want.Key = a.Key, until, secret
	want.Scopes, want.Limits.Rate, want.Expires = policy.AllScopes, "1/1s", until
	equal(t, got, want)
	changed("changing one", true)
	found, version := keysByName(t, s[1])
	equal(t, found, map[string]connect.APIKey{"a": want, "b": b})
	if version != last {
		t.Errorf("the list is of version %d, want %d", version, last)
	}

	refusal := errors.New("no")
	_, err = s[0].UpdateAPIKey(ctx, "a", func(k *connect.APIKey) error { k.Expires = time.Time{}; return refusal })
	expectErr(t, err, refusal)
	for _, taken := range []connect.Digest{want.Key, want.Former} {
		_, err = s[0].UpdateAPIKey(ctx, "b", func(k *connect.APIKey) error { k.Key = taken; return nil })
		expectErr(t, err, connect.ErrExists)
	}
	_, err = s[0].UpdateAPIKey(ctx, "c", func(*connect.APIKey) error { return nil })
	expectErr(t, err, connect.ErrNotFound)
	expectErr(t, s[0].DeleteAPIKey(ctx, "c"), connect.ErrNotFound)
	changed("changing nothing", false)

	s.both(racers, func(n int, s connect.Store) {
		if _, err := s.UpdateAPIKey(ctx, "b", func(k *connect.APIKey) error {
			k.Limits.Connections = append(k.Limits.Connections, fmt.Sprint(n))
			return nil
		}); err != nil {
			t.Errorf("UpdateAPIKey: %v", err)
		}
	})
	found, _ = keysByName(t, s[0])
	if n := len(found["b"].Limits.Connections); n != racers {
		t.Errorf("of %d changes %d are left", racers, n)
	}
	changed("changing by many", true)

	must(t, s[0].DeleteAPIKey(ctx, "a"))
	changed("removing one", true)
	expectErr(t, s[1].DeleteAPIKey(ctx, "a"), connect.ErrNotFound)
	must(t, s[1].PutAPIKey(ctx, a)) // its name and digest are free again
	changed("adding it again", true)
}

func apiKeyUse(t *testing.T, s stores) {
	ctx := t.Context()
	a := apiKey("a")
	a.Used = a.Created // isn't kept
	must(t, s[0].PutAPIKey(ctx, a))
	must(t, s[0].PutAPIKey(ctx, apiKey("b")))
	version, err := s[0].APIKeysVersion(ctx)
	must(t, err)
	at := time.Date(2032, 1, 1, 0, 0, 0, 5000, time.UTC)
	must(t, s[0].NoteAPIKeyUse(ctx, map[string]time.Time{"a": at, "gone": at}))
	must(t, s[1].NoteAPIKeyUse(ctx, map[string]time.Time{"a": at.Add(-time.Hour)}))
	must(t, s[1].NoteAPIKeyUse(ctx, nil))
	found, after := keysByName(t, s[1])
	if !found["a"].Used.Equal(at) || !found["b"].Used.IsZero() || after != version {
		t.Errorf("used %v and %v, version %d, was %d", found["a"].Used, found["b"].Used, after, version)
	}
}
