package caddymodule

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const root = "github.com/keycaddy/keycaddy/"

// arrows are what each package may import beside the standard library: one of
// its own from the root on, all others with all of their packages. None may
// import what isn't here.
var arrows = map[string][]string{
	"catalog":             {"go.yaml.in/yaml/v3"},
	"catalog/nango":       {"./catalog", "go.yaml.in/yaml/v3"},
	"catalog/simulator":   {"./catalog", "github.com/beevik/etree", "github.com/golang-jwt/jwt/v5", "github.com/russellhaering/goxmldsig"},
	"vault":               {},
	"vault/sealed":        {"./vault", "github.com/tink-crypto/tink-go/v2"},
	"vault/hashicorp":     {"./vault", "github.com/hashicorp/vault/api", "go.uber.org/zap"},
	"vault/vaulttest":     {"./vault"},
	"connect/egress":      {},
	"connect/demo":        {},
	"connect/spool":       {"github.com/gofrs/flock"},
	"connect/policy":      {},
	"connect/scheme":      {"./catalog", "./connect/egress", "golang.org/x/oauth2", "github.com/fxamacker/cbor/v2", "github.com/go-jose/go-jose/v4", "github.com/aws/aws-sdk-go-v2"},
	"connect":             {"./catalog", "./vault", "./connect/policy", "./connect/scheme", "./connect/spool", "github.com/fxamacker/cbor/v2", "go.uber.org/zap", "github.com/google/uuid", "github.com/puzpuzpuz/xsync/v4"},
	"connect/identity":    {"./connect", "./connect/policy", "github.com/MicahParks/keyfunc/v3", "github.com/golang-jwt/jwt/v5", "golang.org/x/time"},
	"connect/problem":     {"./vault", "./connect", "./connect/egress", "./connect/policy", "./connect/scheme"},
	"connect/sqlite":      {"./vault", "./connect", "modernc.org/sqlite"},
	"connect/postgres":    {"./vault", "./connect", "github.com/jackc/pgx/v5"},
	"connect/webhook":     {"./connect", "./connect/scheme", "go.uber.org/zap"},
	"connect/storetest":   {"./connect", "./connect/policy"},
	"connect/page":        {"./catalog", "./connect", "./connect/problem", "./connect/scheme", "github.com/coder/websocket", "github.com/google/uuid", "go.uber.org/zap", "golang.org/x/text/language"},
	"connect/api/openapi": {"./connect/problem", "github.com/santhosh-tekuri/jsonschema/v6", "go.yaml.in/yaml/v3"},
	"connect/api":         {"./catalog", "./connect", "./connect/api/openapi", "./connect/policy", "./connect/problem", "./connect/scheme", "github.com/google/uuid", "go.uber.org/zap", "golang.org/x/text/language"},
	"connect/console":     {"./vault", "./connect", "./connect/api", "./connect/policy", "go.uber.org/zap"},
	"proxy":               {"./catalog", "./connect", "./connect/egress", "./connect/policy", "./connect/problem", "./connect/scheme", "./proxy/redact", "go.uber.org/zap"},
	"proxy/redact":        {},
	"caddymodule": {
		"./caddymodule/nangodb", "./caddymodule/simulate", "./caddymodule/torture", "./catalog", "./catalog/nango", "./vault", "./vault/hashicorp", "./vault/sealed", "./connect", "./connect/api", "./connect/console", "./connect/demo", "./connect/egress", "./connect/identity",
		"./connect/page", "./connect/policy", "./connect/postgres", "./connect/problem", "./connect/scheme", "./connect/spool", "./connect/sqlite", "./connect/webhook", "./proxy",
		"github.com/caddyserver/caddy/v2", "github.com/dustin/go-humanize", "github.com/google/uuid", "github.com/prometheus/client_golang", "github.com/spf13/cobra", "go.opentelemetry.io/otel", "go.uber.org/zap", "golang.org/x/sync",
	},
	"caddymodule/nangodb": {"github.com/jackc/pgx/v5"},
	"caddymodule/simulate": {
		"./catalog", "./catalog/simulator", "./vault", "./vault/sealed", "./connect", "./connect/policy", "./connect/scheme", "./connect/sqlite", "./proxy",
		"github.com/google/uuid", "go.uber.org/zap", "golang.org/x/sync",
	},
	"caddymodule/torture": {
		"./vault", "./vault/hashicorp", "./vault/sealed", "./connect", "./connect/demo", "./connect/postgres", "./connect/scheme", "./connect/sqlite",
	},
	"caddymodule/caddy": {"./caddymodule", "github.com/caddyserver/caddy/v2"},
	"bench":             {"./connect", "./connect/scheme", "./connect/sqlite", "./vault/sealed"},
	"e2e":               {}, // tests only
}

// only are dependencies that just one package, and the command that is built of
// all, may have even by way of others.
var only = map[string][]string{
	"github.com/caddyserver/caddy/v2":   {"caddymodule", "caddymodule/caddy"},
	"modernc.org/sqlite":                {"connect/sqlite", "caddymodule/simulate", "caddymodule/torture", "caddymodule", "caddymodule/caddy", "bench"},
	"github.com/jackc/pgx/v5":           {"connect/postgres", "caddymodule/nangodb", "caddymodule/torture", "caddymodule", "caddymodule/caddy"},
	"github.com/tink-crypto/tink-go/v2": {"vault/sealed", "caddymodule/simulate", "caddymodule/torture", "caddymodule", "caddymodule/caddy", "bench"},
	"github.com/hashicorp/vault/api":    {"vault/hashicorp", "caddymodule/torture", "caddymodule", "caddymodule/caddy"},
}

// within tells whether an import is of a module, or of one of our packages.
func within(path string, allowed []string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		if own, ok := strings.CutPrefix(a, "./"); ok {
			return path == root+own
		}
		return path == a || strings.HasPrefix(path, a+"/")
	})
}

// standard tells whether an import is of the standard library.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// Who may import whom is what keeps this an onion: see the package comments.
func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,Deps", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("%v: %s", err, failed.Stderr)
		}
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Doc string
			Imports, Deps   []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, root)
		seen[name] = true
		if p.Doc == "" {
			t.Errorf("%s has no package comment", name)
		}
		allowed, ok := arrows[name]
		if !ok {
			t.Errorf("%s is not in the table of who may import whom", name)
			continue
		}
		for _, path := range p.Imports {
			if !standard(path) && !within(path, allowed) {
				t.Errorf("%s imports %s, which it may not", name, path)
			}
		}
		for dependency, packages := range only {
			if !slices.Contains(packages, name) && slices.ContainsFunc(p.Deps, func(d string) bool { return within(d, []string{dependency}) }) {
				t.Errorf("%s depends on %s, by way of others", name, dependency)
			}
		}
	}
	for name := range arrows {
		if !seen[name] {
			t.Errorf("%s is in the table, but there is no such package", name)
		}
	}
}
