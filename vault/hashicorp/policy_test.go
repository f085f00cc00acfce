package hashicorp

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/vault"
)

// documented returns the policies in docs/vault.md: of nodes that do everything,
// and of nodes that only proxy.
func documented(t *testing.T) (all, proxy string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/vault.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, block := range strings.Split(string(page), "```hcl\n")[1:] {
		policy, _, _ := strings.Cut(block, "```")
		found = append(found, policy)
	}
	if len(found) != 2 {
		t.Fatalf("docs/vault.md has %d policies, want 2", len(found))
	}
	return found[0], found[1]
}

// try is one thing that a role may do or not.
type try struct {
	what, method, path string
	body               any
}

func TestS114DocumentedPoliciesAreEnoughAndNoMore(t *testing.T) {
	s := startServer(t)
	all, proxy := documented(t)
	c := s.config()
	c.TransitKey = "keycaddy"

	c.Login = Token{Value: Secret(s.policy(t, "keycaddy", all))}
	writer := open(t, c)
	if err := writer.Probe(t.Context()); err != nil {
		t.Errorf("probe of a node that does everything: %v", err)
	}
	mustWrite(t, writer, "connections/github/a", "one", 0)
	mustWrite(t, writer, "connections/github/a", "two", 1)
	expectValue(t, writer, "connections/github/a", "two", 2)
	mustWrite(t, writer, "connections/github/b", "one", 0)
	if err := writer.Delete(t.Context(), "connections/github/b"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	s.do(t, "POST", "transit/keys/keycaddy/rotate", nil)
	if done, err := writer.Rewrap(t.Context(), "connections/github/a"); !done || err != nil {
		t.Errorf("Rewrap: %v, %v", done, err)
	}

	c.Login, c.ReadOnly = Token{Value: Secret(s.policy(t, "keycaddy-proxy", proxy))}, true
	reader := open(t, c)
	if err := reader.Probe(t.Context()); err != nil {
		t.Errorf("probe of a node that only proxies: %v", err)
	}
	expectValue(t, reader, "connections/github/a", "two", 3)
	c.ReadOnly = false // as if somebody had turned it off
	forced := open(t, c)
	if _, err := forced.Write(t.Context(), "connections/github/a", []byte("x"), 3); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("a node that only proxies can write: %v", err)
	}
	if err := forced.Delete(t.Context(), "connections/github/a"); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("a node that only proxies can delete: %v", err)
	}

	value := map[string]any{"data": map[string]string{"value": "eA=="}}
	s.do(t, "POST", "secret/data/elsewhere/x", value)
	neither := []try{
		{"read other applications' secrets", "GET", "secret/data/elsewhere/x", nil},
		{"write other applications' secrets", "POST", "secret/data/elsewhere/x", value},
		{"write what begins like the prefix", "POST", "secret/data/keycaddy2", value},
		{"list connections", "LIST", "secret/metadata/keycaddy/", nil},
		{"list integrations", "LIST", "secret/metadata/keycaddy/connections", nil},
		{"read metadata", "GET", "secret/metadata/keycaddy/connections/github/a", nil},
		{"change metadata", "POST", "secret/metadata/keycaddy/connections/github/a", map[string]int{"max_versions": 1}},
		{"delete a version", "POST", "secret/delete/keycaddy/connections/github/a", map[string]any{"versions": []int{1}}},
		{"delete the newest version", "DELETE", "secret/data/keycaddy/connections/github/a", nil},
		{"undelete a version", "POST", "secret/undelete/keycaddy/connections/github/a", map[string]any{"versions": []int{1}}},
		{"destroy a version", "PUT", "secret/destroy/keycaddy/connections/github/a", map[string]any{"versions": []int{1}}},
		{"patch", "PATCH", "secret/data/keycaddy/connections/github/a", value},
		{"configure the engine", "POST", "secret/config", map[string]int{"max_versions": 1}},
		{"read the Transit key", "GET", "transit/keys/keycaddy", nil},
		{"rotate the Transit key", "POST", "transit/keys/keycaddy/rotate", nil},
		{"export the Transit key", "GET", "transit/export/encryption-key/keycaddy", nil},
		{"make a Transit key", "POST", "transit/encrypt/other", map[string]string{"plaintext": "eA=="}},
		{"delete metadata elsewhere", "DELETE", "secret/metadata/elsewhere/x", nil},
		{"make tokens", "POST", "auth/token/create", map[string]any{}},
		{"issue secret ids", "POST", "auth/approle/role/keycaddy/secret-id", nil},
		{"seal Vault", "PUT", "sys/seal", nil},
		{"read policies", "GET", "sys/policies/acl/keycaddy", nil},
		{"list mounts", "GET", "sys/mounts", nil},
	}
	onlyAll := []try{
		{"encrypt", "POST", "transit/encrypt/keycaddy", map[string]string{"plaintext": "eA=="}},
		{"create", "POST", "secret/data/keycaddy/connections/github/new", value},
		{"update", "POST", "secret/data/keycaddy/connections/github/new", value},
		{"remove", "DELETE", "secret/metadata/keycaddy/connections/github/new", nil},
	}
	for role, tries := range map[string][]try{"keycaddy": neither, "keycaddy-proxy": append(neither, onlyAll...)} {
		token := s.newToken(t, map[string]any{"policies": []string{role}})
		for _, try := range tries {
			if status, got := s.as(t, token, try.method, try.path, try.body); status != 403 {
				t.Errorf("%s may %s: %d %v", role, try.what, status, got)
			}
		}
	}
	token := s.newToken(t, map[string]any{"policies": []string{"keycaddy"}})
	for _, try := range onlyAll {
		if status, got := s.as(t, token, try.method, try.path, try.body); status >= 300 {
			t.Errorf("keycaddy may not %s: %d %v", try.what, status, got)
		}
	}
}

func TestS114RefusedPathConcernsItselfOnly(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	login := s.policy(t, "github", `
path "secret/data/keycaddy/connections/github/*" { capabilities = ["create", "read", "update"] }
path "secret/data/keycaddy/connections/jira/*" { capabilities = ["read"] }
`)
	c := s.config()
	c.Address, c.Login = f.URL, Token{Value: Secret(login)}
	v := open(t, c)
	mustWrite(t, v, "connections/github/0f8fad5b", "one", 0)
	for range 20 { // more than would trip a breaker or start log-ins
		var refused *PermissionError
		_, err := v.Read(t.Context(), "connections/slack/7c9e6679")
		if !errors.Is(err, vault.ErrUnavailable) || !errors.As(err, &refused) {
			t.Fatalf("got %v, want a PermissionError", err)
		}
		if refused.Path != "secret/data/keycaddy/connections/slack/*" || refused.Capability != "read" {
			t.Fatalf("refused %q on %q", refused.Capability, refused.Path)
		}
		if strings.Contains(err.Error(), "7c9e6679") {
			t.Fatalf("the error names the connection: %v", err)
		}
		_, err = v.Write(t.Context(), "connections/jira/x", []byte("x"), 0)
		if !errors.As(err, &refused) || refused.Capability != "create" {
			t.Fatalf("got %v, want a PermissionError for create", err)
		}
		expectValue(t, v, "connections/github/0f8fad5b", "one", 1)
	}
	if err := v.Delete(t.Context(), "connections/github/0f8fad5b"); err == nil || !strings.Contains(err.Error(), `"delete" on "secret/metadata/keycaddy/connections/github/*"`) {
		t.Errorf("Delete: %v", err)
	}
	if n := f.calls("GET auth/token/lookup-self"); n > 2 {
		t.Errorf("%d looks at the token for a path that is refused", n)
	}
	// Mended by the operator, without a restart.
	s.policy(t, "github", `path "secret/data/keycaddy/*" { capabilities = ["create", "read", "update"] }`)
	mustWrite(t, v, "connections/slack/7c9e6679", "one", 0)
}
