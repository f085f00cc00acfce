package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func changes(t *testing.T, s stores) {
	ask := func(since time.Time) ([]connect.Change, time.Time) {
		t.Helper()
		found, present, err := s[1].Changes(t.Context(), since)
		if err != nil {
			t.Fatal(err)
		}
		return found, present
	}
	kept := create(t, s[0], connection("a", "kept"))
	gone := create(t, s[0], connection("a", "gone"))
	none, before := ask(time.Time{})
	if len(none) != 0 || before.IsZero() {
		t.Errorf("at first: %v, %v", none, before)
	}
	time.Sleep(2 * time.Millisecond)
	if found, _ := ask(before); len(found) != 0 {
		t.Errorf("nothing was changed, but %v", found)
	}
	changed, err := s[0].Update(t.Context(), kept.ID, func(c *connect.Connection) error {
		c.Version, c.Status = 7, connect.StatusNeedsReauth
		return nil
	})
	must(t, err)
	if _, err := s[0].Delete(t.Context(), gone.ID, nil); err != nil {
		t.Fatal(err)
	}
	want := []connect.Change{
		{ID: kept.ID, UID: kept.UID, Version: 7, Status: connect.StatusNeedsReauth, Updated: changed.Updated},
		{ID: gone.ID, UID: gone.UID, Removed: true},
	}
	found, present := ask(before)
	if len(found) != 2 || !slices.Contains(found, want[0]) || !slices.Contains(found, want[1]) {
		t.Errorf("got %v, want %v", found, want)
	}
	if err := s[0].Sweep(t.Context(), present); err != nil {
		t.Fatal(err)
	}
	if found, _ := ask(before); len(found) != 2 {
		t.Errorf("after a sweep: %v", found)
	}
	time.Sleep(2 * time.Millisecond)
	if found, _ := ask(present.Add(time.Second)); len(found) != 0 {
		t.Errorf("later: %v", found)
	}
}
