package catalog

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Scopes says how scopes are written, which are asked for when the operator
// names none, and by what other names the vendor tells that they were granted.
type Scopes struct {
	Separator string   `yaml:"separator" enum:", +" default:" "`
	Default   []string `yaml:"default"`
	From      string   `yaml:"from"` // a connection field that holds them: conn.oauth_scopes

	// GrantedBy are the scopes that one is granted by besides itself: names that
	// the vendor tells it by, or wider scopes that have it in them. One * on both
	// sides stands for the same text: read_*: [write_*].
	GrantedBy map[string][]string `yaml:"granted_by"`

	// Untold are the scopes that the vendor doesn't list when it grants them.
	Untold []string `yaml:"untold"`
}

// Join writes scopes the way the vendor wants them. A nil receiver uses a space.
func (s *Scopes) Join(scopes []string) string {
	if s == nil {
		return strings.Join(scopes, " ")
	}
	return strings.Join(scopes, s.Separator)
}

// Split reads a list of scopes, separated as the vendor does it, by spaces, or
// by commas. The receiver may be nil.
func (s *Scopes) Split(list string) []string {
	return strings.FieldsFunc(list, func(c rune) bool {
		return c == ' ' || c == ',' || s != nil && s.Separator == string(c)
	})
}

// Missing are the required scopes that the granted ones don't have in them, in
// order. Upper and lower case are alike: no vendor has two scopes that differ in
// nothing else, and some answer in the case of their documentation. The receiver
// may be nil.
func (s *Scopes) Missing(required, granted []string) []string {
	var out []string
	for _, scope := range required {
		if !s.has(granted, scope) && !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out
}

func (s *Scopes) has(granted []string, scope string) bool {
	equal := func(want string) bool {
		return slices.ContainsFunc(granted, func(g string) bool { return strings.EqualFold(g, want) })
	}
	if equal(scope) || s != nil && slices.Contains(s.Untold, scope) {
		return true
	}
	if s == nil {
		return false
	}
	for pattern, others := range s.GrantedBy {
		if hole, ok := matchHole(pattern, scope); ok && slices.ContainsFunc(others, func(o string) bool { return equal(strings.Replace(o, "*", hole, 1)) }) {
			return true
		}
	}
	return false
}

// matchHole tells whether a scope fits a pattern with at most one *, and what
// the * stands for.
func matchHole(pattern, scope string) (hole string, ok bool) {
	before, after, any := strings.Cut(pattern, "*")
	if !any {
		return "", pattern == scope
	}
	if len(scope) <= len(before)+len(after) || !strings.HasPrefix(scope, before) || !strings.HasSuffix(scope, after) {
		return "", false
	}
	return scope[len(before) : len(scope)-len(after)], true
}

// scopes checks the patterns of the block.
func (d *decoder) scopes(n *yaml.Node, s *Scopes) {
	for pattern, others := range s.GrantedBy {
		for _, o := range append([]string{pattern}, others...) {
			if strings.Count(o, "*") > 1 || strings.Contains(o, "*") && !strings.Contains(pattern, "*") {
				d.fail(n, "scopes: granted_by %q: %q: at most one * in each, and one on the right only if there is one on the left", pattern, o)
			}
		}
	}
}
