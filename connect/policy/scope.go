package policy

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Scope names an operation that an API key may be good for. The names are
// Nango's, where it has the operation.
type Scope string

// The scopes. Those that reveal a secret are apart from those that don't.
const (
	// AnyKey is what an operation needs that every key is good for.
	AnyKey Scope = ""

	IntegrationsList            Scope = "environment:integrations:list"
	IntegrationsListCredentials Scope = "environment:integrations:list_credentials"
	IntegrationsRead            Scope = "environment:integrations:read"
	IntegrationsReadCredentials Scope = "environment:integrations:read_credentials"
	IntegrationsCreate          Scope = "environment:integrations:create"
	IntegrationsUpdate          Scope = "environment:integrations:update"
	IntegrationsDelete          Scope = "environment:integrations:delete"

	ConnectionsList            Scope = "environment:connections:list"
	ConnectionsListCredentials Scope = "environment:connections:list_credentials"
	ConnectionsRead            Scope = "environment:connections:read"
	ConnectionsReadCredentials Scope = "environment:connections:read_credentials"
	ConnectionsCreate          Scope = "environment:connections:create"
	ConnectionsUpdate          Scope = "environment:connections:update"
	ConnectionsDelete          Scope = "environment:connections:delete"

	ConnectSessionsWrite    Scope = "environment:connect_sessions:write"
	ProxyCall               Scope = "environment:proxy"
	WebhookSigningKeyRotate Scope = "environment:webhook_signing_key:rotate"

	// Those that Nango doesn't have.
	Explain           Scope = "environment:explain"
	KeysList          Scope = "environment:keys:list"
	KeysCreate        Scope = "environment:keys:create"
	KeysUpdate        Scope = "environment:keys:update"
	KeysDelete        Scope = "environment:keys:delete"
	LogsRead          Scope = "environment:logs:read"
	WebhooksRead      Scope = "environment:webhooks:read"
	WebhooksRedeliver Scope = "environment:webhooks:redeliver"
)

type row struct {
	scope     Scope
	byDefault bool
	about     string
}

// table has every scope: which ones a key gets that is made without saying, and
// what each is for. Secrets, and keys themselves, are not for every key.
var table = []row{
	{IntegrationsList, true, "list integrations"},
	{IntegrationsListCredentials, false, "list integrations with their client secrets"},
	{IntegrationsRead, true, "read an integration"},
	{IntegrationsReadCredentials, false, "read an integration's client secret"},
	{IntegrationsCreate, true, "create integrations"},
	{IntegrationsUpdate, true, "change integrations"},
	{IntegrationsDelete, true, "delete integrations"},
	{ConnectionsList, true, "list connections"},
	{ConnectionsListCredentials, false, "list connections with their credentials"},
	{ConnectionsRead, true, "read a connection, without its credential"},
	{ConnectionsReadCredentials, false, "read a connection's credential"},
	{ConnectionsCreate, true, "import connections"},
	{ConnectionsUpdate, true, "change, refresh, disable and enable connections"},
	{ConnectionsDelete, true, "delete connections"},
	{ConnectSessionsWrite, true, "open and confirm connect sessions"},
	{ProxyCall, true, "call providers through the proxy"},
	{WebhookSigningKeyRotate, false, "replace the key that webhooks are signed with"},
	{Explain, true, "ask what a call would get"},
	{KeysList, false, "list API keys"},
	{KeysCreate, false, "make API keys"},
	{KeysUpdate, false, "change and rotate API keys"},
	{KeysDelete, false, "revoke API keys"},
	{LogsRead, true, "read logs"},
	{WebhooksRead, true, "list webhook deliveries"},
	{WebhooksRedeliver, true, "deliver webhooks again"},
}

// Scopes is a set of scopes. The zero value has none.
type Scopes struct {
	bits  uint64
	names string // as they were given, with spaces between
}

// AllScopes is every scope there is, and will be.
var AllScopes = mustParse("environment:*")

// DefaultScopes are those of a key that is made without saying which: all but
// those that reveal credentials, and those that make and change keys.
var DefaultScopes = func() Scopes {
	var names []string
	for _, row := range table {
		if row.byDefault {
			names = append(names, string(row.scope))
		}
	}
	return mustParse(names...)
}()

// ParseScopes makes a set of names. A last part of "*" stands for all that
// begin alike: `environment:connections:*`, `environment:*`. The error names
// the first one that is unknown.
func ParseScopes(names ...string) (Scopes, error) {
	var s Scopes
	for _, name := range names {
		prefix, all := strings.CutSuffix(name, "*")
		all = all && strings.HasSuffix(prefix, ":")
		found := false
		for i, row := range table {
			if string(row.scope) == name || all && strings.HasPrefix(string(row.scope), prefix) {
				s.bits |= 1 << i
				found = true
			}
		}
		if !found {
			return Scopes{}, fmt.Errorf("there is no scope %q", name)
		}
	}
	names = slices.Clone(names)
	slices.Sort(names)
	s.names = strings.Join(slices.Compact(names), " ")
	return s, nil
}

func mustParse(names ...string) Scopes {
	s, err := ParseScopes(names...)
	if err != nil {
		panic(err) // the table is wrong
	}
	return s
}

// Has tells whether the set has a scope.
func (s Scopes) Has(scope Scope) bool {
	if scope == AnyKey {
		return true
	}
	i := slices.IndexFunc(table, func(r row) bool { return r.scope == scope })
	return i >= 0 && s.bits&(1<<i) != 0
}

// Lacks returns the first scope that another set has and this one has not.
func (s Scopes) Lacks(other Scopes) (scope Scope, lacks bool) {
	missing := other.bits &^ s.bits
	if missing == 0 {
		return "", false
	}
	return table[bits.TrailingZeros64(missing)].scope, true
}

// MarshalText writes the set's names with spaces between.
func (s Scopes) MarshalText() ([]byte, error) { return []byte(s.names), nil }

// UnmarshalText reads a set as it was kept. What isn't known (any more) is kept
// and good for nothing.
func (s *Scopes) UnmarshalText(text []byte) error {
	*s = Scopes{names: string(text)}
	for name := range strings.FieldsSeq(s.names) {
		if one, err := ParseScopes(name); err == nil {
			s.bits |= one.bits
		}
	}
	return nil
}

// Names are the names that the set was made of, sorted.
func (s Scopes) Names() []string { return strings.Fields(s.names) }

// About says what each scope is for, in the order of the documentation.
func About() (scopes []Scope, about map[Scope]string) {
	about = make(map[Scope]string, len(table))
	for _, row := range table {
		scopes = append(scopes, row.scope)
		about[row.scope] = row.about
	}
	return scopes, about
}

// ScopeError is a call that its key has no scope for.
type ScopeError struct{ Required Scope }

func (e *ScopeError) Error() string { return "the API key has no scope " + string(e.Required) }
