package simulate

import (
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// Every entry can be connected, called, renewed and removed.
func TestEveryEntry(t *testing.T) {
	cat, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	results, err := Run(t.Context(), cat, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, r := range results {
		for _, f := range r.Failures {
			t.Errorf("%s (%s): %s", r.ID, r.Mode, f)
		}
		if r.Passed() {
			passed++
		}
	}
	t.Logf("%d of %d entries in %v", passed, len(results), time.Since(began).Round(time.Millisecond))
}

// A reason is for an entry that is there.
func TestReasonsAreForEntries(t *testing.T) {
	cat, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for id, reason := range Reasons {
		if _, err := cat.Provider(id); err != nil || len(reason) < 20 {
			t.Errorf("%s (%q): %v", id, reason, err)
		}
	}
}
