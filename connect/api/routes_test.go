package api

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// The document and the routes can't drift: each has all that the other has.
func TestEveryRouteIsInTheDocumentAndTheOtherWayRound(t *testing.T) {
	routes, operations := (&API{}).routes(), document().Operations()
	for _, pattern := range slices.Sorted(maps.Keys(routes)) {
		if operations[pattern] == nil {
			t.Errorf("the document doesn't have %s", pattern)
		}
	}
	ids := map[string]string{}
	for _, pattern := range slices.Sorted(maps.Keys(operations)) {
		op := operations[pattern]
		if routes[pattern] == nil && !strings.Contains(pattern, " /connection/{id}") {
			t.Errorf("there is no %s", pattern)
		}
		if other, ok := ids[op.ID]; ok && operations[other] != op {
			t.Errorf("%s and %s are both called %s", pattern, other, op.ID)
		}
		ids[op.ID] = pattern
		if op.Raw["summary"] == nil || len(op.Raw["tags"].([]any)) != 1 || op.Raw["responses"] == nil {
			t.Errorf("%s needs a summary, a tag and responses", pattern)
		}
	}
	for alias, route := range aliases {
		if operations[alias] != operations[route] {
			t.Errorf("the document has %s as something else than %s", alias, route)
		}
	}
	shown := 0
	for _, s := range document().Sections() {
		shown += len(s.Calls)
	}
	if distinct := len(ids); shown != distinct {
		t.Errorf("the page shows %d calls of %d", shown, distinct)
	}
}
