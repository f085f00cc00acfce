package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestScopesAreParsedWithTheirStars(t *testing.T) {
	for _, test := range []struct {
		names []string
		has   []Scope
		not   []Scope
	}{
		{nil, []Scope{AnyKey}, []Scope{ProxyCall, ConnectionsRead, "environment:nope"}},
		{[]string{"environment:proxy"}, []Scope{ProxyCall}, []Scope{Explain}},
		{[]string{"environment:connections:*"}, []Scope{ConnectionsList, ConnectionsReadCredentials, ConnectionsDelete}, []Scope{ConnectSessionsWrite, ProxyCall, IntegrationsRead}},
		{[]string{"environment:*"}, []Scope{ProxyCall, ConnectionsReadCredentials, KeysCreate}, []Scope{"environment:nope", "environment:*"}},
		{[]string{"environment:proxy", "environment:explain"}, []Scope{ProxyCall, Explain}, []Scope{KeysList}},
	} {
		s, err := ParseScopes(test.names...)
		if err != nil {
			t.Fatal(err)
		}
		for _, scope := range test.has {
			if !s.Has(scope) {
				t.Errorf("%v: has no %q", test.names, scope)
			}
		}
		for _, scope := range test.not {
			if s.Has(scope) {
				t.Errorf("%v: has %q", test.names, scope)
			}
		}
	}
	for _, bad := range []string{"", "*", "environment:", "environment", "environment:connections", "environment:conn*", "environment:connections:*:x", "Environment:proxy", "environment:proxy ", "environment:nope:*"} {
		if _, err := ParseScopes("environment:proxy", bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNewKeysRevealNothingAndMakeNoKeys(t *testing.T) {
	scopes, about := About()
	for _, scope := range scopes {
		sensitive := strings.HasSuffix(string(scope), "_credentials") || strings.Contains(string(scope), ":keys:") || scope == WebhookSigningKeyRotate
		if DefaultScopes.Has(scope) == sensitive {
			t.Errorf("%s: by default %v", scope, DefaultScopes.Has(scope))
		}
		if !AllScopes.Has(scope) || about[scope] == "" {
			t.Errorf("%s: all has it: %v, about %q", scope, AllScopes.Has(scope), about[scope])
		}
	}
	if len(scopes) > 64 || len(slices.Compact(slices.Sorted(slices.Values(scopes)))) != len(scopes) {
		t.Error("too many scopes for a set, or one is there twice")
	}
	_, all := AllScopes.Lacks(DefaultScopes)
	_, none := DefaultScopes.Lacks(Scopes{})
	if first, ok := DefaultScopes.Lacks(AllScopes); all || none || !ok || first != IntegrationsListCredentials {
		t.Errorf("Lacks: %v, %v, %v %v", all, none, first, ok)
	}
}
