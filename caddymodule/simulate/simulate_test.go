package simulate

import (
	"slices"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// perScheme is how many entries of a scheme are run; 0: all.
var perScheme int

// some returns the entries to run: with a limit, those of each scheme that are
// spread over the alphabet.
func some(t *testing.T, cat *catalog.Catalog) []string {
	t.Helper()
	byMode := map[catalog.Mode][]string{}
	for _, id := range cat.IDs() {
		p, err := cat.Provider(id)
		if err != nil {
			t.Fatal(err)
		}
		byMode[p.Mode] = append(byMode[p.Mode], id)
	}
	var out []string
	for _, ids := range byMode {
		step := 1
		if perScheme > 0 {
			step = max(1, len(ids)/perScheme)
		}
		for i := 0; i < len(ids); i += step {
			out = append(out, ids[i])
		}
	}
	slices.Sort(out)
	return out
}

// Every entry can be connected, called, renewed and removed.
func TestEveryEntry(t *testing.T) {
	cat, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	results, err := Run(t.Context(), cat, t.TempDir(), some(t, cat)...)
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
