package hashicorp

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/vault"
)

func TestS115ProbeSaysWhatToMend(t *testing.T) {
	s := startServer(t)
	s.do(t, "POST", "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
	s.do(t, "POST", "transit/keys/rsa", map[string]string{"type": "rsa-2048"})
	all, proxy := documented(t)
	full := s.policy(t, "full", all)
	noUpdate := s.policy(t, "no-update", strings.Replace(all, `"create", "read", "update"`, `"create", "read"`, 1))
	noCreate := s.policy(t, "no-create", strings.Replace(all, `"create", "read", "update"`, `"read", "update"`, 1))
	noRead := s.policy(t, "no-read", strings.Replace(all, `"create", "read", "update"`, `"create", "update"`, 1))
	noDelete := s.policy(t, "no-delete", strings.Replace(all, `"delete"`, `"list"`, 1))
	noDecrypt := s.policy(t, "no-decrypt", strings.Replace(all, "transit/decrypt", "transit/other", 1))
	noEncrypt := s.policy(t, "no-encrypt", strings.Replace(all, "transit/encrypt", "transit/other", 1))
	readNoDecrypt := s.policy(t, "read-no-decrypt", strings.Replace(proxy, "transit/decrypt", "transit/other", 1))
	nothing := s.newToken(t, map[string]any{"policies": []string{"default"}})

	for name, test := range map[string]struct {
		token  string
		change func(*Config)
		want   []string // none: it succeeds
	}{
		"all well":                     {full, nil, nil},
		"all well with Transit":        {full, func(c *Config) { c.TransitKey = "keycaddy" }, nil},
		"reading only":                 {full, func(c *Config) { c.ReadOnly = true }, nil},
		"KV of version 1":              {s.token, func(c *Config) { c.Mount = "old" }, []string{"old/", "no KV engine of version 2", "vault kv enable-versioning old"}},
		"KV of version 1, reading":     {s.token, func(c *Config) { c.Mount, c.ReadOnly = "old", true }, []string{"no KV engine of version 2"}},
		"mount missing, root":          {s.token, func(c *Config) { c.Mount = "nowhere" }, []string{"no secrets engine is mounted at nowhere/"}},
		"mount missing, least policy":  {full, func(c *Config) { c.Mount = "nowhere" }, []string{"no secrets engine is mounted at nowhere/", "docs/vault.md"}},
		"not a KV engine":              {s.token, func(c *Config) { c.Mount = "transit" }, []string{"transit/", "not kv"}},
		"no permission at all":         {nothing, nil, []string{`policies of keycaddy's token grant nothing`, `"secret/data/keycaddy/*"`}},
		"another prefix":               {full, func(c *Config) { c.Prefix = "prod/keycaddy" }, []string{`"create" on "secret/data/prod/keycaddy/probe/*"`}},
		"no create":                    {noCreate, nil, []string{`"create" on "secret/data/keycaddy/probe/*"`}},
		"no update":                    {noUpdate, nil, []string{`"update" on "secret/data/keycaddy/probe/*"`}},
		"no read":                      {noRead, nil, []string{`"read" on "secret/data/keycaddy/probe/*"`}},
		"no read, reading":             {noRead, func(c *Config) { c.ReadOnly = true }, []string{`"read" on "secret/data/keycaddy/probe/*"`}},
		"no delete":                    {noDelete, nil, []string{`"delete" on "secret/metadata/keycaddy/probe/*"`}},
		"no encrypt":                   {noEncrypt, func(c *Config) { c.TransitKey = "keycaddy" }, []string{`"update" on "transit/encrypt/keycaddy"`}},
		"no decrypt":                   {noDecrypt, func(c *Config) { c.TransitKey = "keycaddy" }, []string{`"update" on "transit/decrypt/keycaddy"`}},
		"no decrypt, reading":          {readNoDecrypt, func(c *Config) { c.TransitKey, c.ReadOnly = "keycaddy", true }, []string{`"update" on "transit/decrypt/keycaddy"`}},
		"Transit key missing, reading": {s.token, func(c *Config) { c.TransitKey, c.ReadOnly = "missing", true }, []string{"Transit key missing at transit/", "vault write -f transit/keys/missing"}},
		"Transit mount missing":        {s.token, func(c *Config) { c.TransitKey, c.TransitMount = "keycaddy", "elsewhere" }, []string{"nothing is mounted there"}},
		"Transit key of no AEAD":       {s.token, func(c *Config) { c.TransitKey = "rsa" }, []string{"Transit key rsa", "aes256-gcm96"}},
		"token unknown":                {"hvs.wrong", nil, []string{"token login failed", "unknown, expired or revoked"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.config()
			c.Login = Token{Value: Secret(test.token)}
			if test.change != nil {
				test.change(&c)
			}
			expectProbe(t, c, test.want...)
		})
	}
	for _, name := range []string{"keycaddy", "prod/keycaddy"} {
		status, got := s.try(t, "LIST", "secret/metadata/"+name+"/probe", nil)
		if status == http.StatusOK && len(got["data"].(map[string]any)["keys"].([]any)) > 1 { // that of "no delete"
			t.Errorf("probes have left entries: %v", got)
		}
	}
}

func TestS112ProbeSaysWhatTheServerIsUpTo(t *testing.T) {
	s := &server{}
	s.run(t)
	c := s.config()
	c.Login, c.Timeout = Token{Value: "hvs.any"}, 2*time.Second
	expectProbe(t, c, "not initialised", "vault operator init")
	s.initialize(t)
	s.setUp(t)
	c = s.config()
	c.Timeout = 2 * time.Second
	expectProbe(t, c)
	s.do(t, "PUT", "sys/seal", nil)
	expectProbe(t, c, "sealed", "vault operator unseal")
	s.stop()
	expectProbe(t, c, "can't be reached", "connection refused")
	c.Address = "http://localhost:1"
	expectProbe(t, c, "can't be reached")
}

func TestS112ProbeOfAServerThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts by the kernel's backlog, and never answers
	began := time.Now()
	expectProbe(t, Config{Address: "http://" + l.Addr().String(), Login: Token{Value: "hvs.any"}, Timeout: 300 * time.Millisecond}, "no answer within 300ms")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

// Vault's free edition has no namespaces and passes over the header; in the
// paid one a wrong namespace looks as if nothing were mounted.
func TestS115ProbeInTheWrongNamespace(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	f.do(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") != "team-a" {
			return false
		}
		r.URL.Path = strings.Replace(r.URL.Path, "/secret", "/team-a/secret", 1) // what Vault makes of it
		return false
	})
	c := s.config()
	c.Address, c.Namespace = f.URL, "team-a"
	expectProbe(t, c, "namespace team-a", "no secrets engine is mounted at secret/", "is the namespace the right one?")
	c.Namespace = ""
	expectProbe(t, c)
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	good := Config{Address: "https://vault.internal:8200", Login: Token{Value: "hvs.any"}}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string // empty: it succeeds
	}{
		"good":                     {func(*Config) {}, ""},
		"plain http":               {func(c *Config) { c.Address = "http://vault.internal:8200" }, "is not https"},
		"plain http, allowed":      {func(c *Config) { c.Address, c.AllowHTTP = "http://vault.internal:8200", true }, ""},
		"plain http on loopback":   {func(c *Config) { c.Address = "http://127.0.0.1:8200" }, ""},
		"plain http on loopback 6": {func(c *Config) { c.Address = "http://[::1]:8200/" }, ""},
		"no address":               {func(c *Config) { c.Address = "" }, "not an origin"},
		"no scheme":                {func(c *Config) { c.Address = "vault.internal:8200" }, "not an origin"},
		"path":                     {func(c *Config) { c.Address += "/v1" }, "not an origin"},
		"password":                 {func(c *Config) { c.Address = "https://a:b@vault.internal" }, "not an origin"},
		"scheme":                   {func(c *Config) { c.Address = "ftp://vault.internal" }, "neither https nor http"},
		"mount":                    {func(c *Config) { c.Mount = "a/../b" }, "mount"},
		"prefix":                   {func(c *Config) { c.Prefix = "a b" }, "prefix"},
		"transit key":              {func(c *Config) { c.TransitKey = "../keys" }, "transit key"},
		"timeout":                  {func(c *Config) { c.Timeout = -1 }, "negative"},
		"no login":                 {func(c *Config) { c.Login = nil }, "no login"},
		"no token":                 {func(c *Config) { c.Login = Token{} }, "either a token or a file"},
		"two tokens":               {func(c *Config) { c.Login = Token{Value: "a", File: "b"} }, "either a token or a file"},
		"no role id":               {func(c *Config) { c.Login = AppRole{SecretID: "a"} }, "role_id is missing"},
		"two secret ids":           {func(c *Config) { c.Login = AppRole{RoleID: "a", SecretID: "a", SecretIDFile: "b"} }, "either a secret_id or a secret_id_file"},
		"no role":                  {func(c *Config) { c.Login = Kubernetes{} }, "role is missing"},
		"no CA file":               {func(c *Config) { c.CAFile = "/nonexistent" }, "reading CA file"},
		"CA file of nothing":       {func(c *Config) { c.CAFile = "probe_test.go" }, "no certificate"},
	} {
		c := good
		test.change(&c)
		_, err := New(c)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// expectProbe probes, and expects an error with all of want, or none.
func expectProbe(t *testing.T, c Config, want ...string) {
	t.Helper()
	err := open(t, c).Probe(t.Context())
	if len(want) == 0 {
		if err != nil {
			t.Errorf("Probe: %v", err)
		}
		return
	}
	if !errors.Is(err, vault.ErrUnavailable) {
		t.Fatalf("Probe: got %v, want ErrUnavailable", err)
	}
	for _, part := range append(want, c.Address) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("Probe: %q does not say %q", err, part)
		}
	}
}
