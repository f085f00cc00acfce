package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// validate provisions a configuration in JSON as `caddy validate` does. Caddy's
// data directory is an empty one, and has to be empty afterwards.
func validate(t *testing.T, config string) error {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	var cfg caddy.Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		t.Fatalf("%v: %s", err, config)
	}
	cfg.Admin = &caddy.AdminConfig{Disabled: true}
	cfg.Logging = quiet()
	err := caddy.Validate(&cfg)
	if made := files(t, home); len(made) > 0 {
		t.Errorf("validating has made files: %v", made)
	}
	if n := open(); n != 0 {
		t.Errorf("validating has opened %d runtimes", n)
	}
	return err
}

// quiet keeps Caddy's log for errors.
func quiet() *caddy.Logging {
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "ERROR"}}}}
}

// files are the files in a folder and all below it.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// open is how many runtimes there are.
func open() (n int) {
	runtimes.Range(func(any, any) bool { n++; return true })
	return n
}

// app and site put a Caddyfile together around what a test is about.
func app(options string) string {
	return "{\n\tkeycaddy {\n" + options + "\n\t}\n}\n"
}

func site(directives string) string {
	return "http://127.0.0.1:8080 {\n" + directives + "\n}\n"
}

func TestProvision(t *testing.T) {
	for _, c := range []struct{ name, config, err string }{
		{"nothing is set", app("") + site("keycaddy"), ""},
		{"API key without an option block", site("keycaddy"), ""},
		{"API key", app("api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11"), ""},
		{"API key of another version", app("api_key 3c5b7a4e-1f0d-1c5b-9a57-0d9a3d3f1a11"), "api_key: an API key is a UUID of version 4"},
		{"API key that is a word", app("api_key swordfish"), "api_key: an API key is a UUID of version 4"},
		{"API key with limits", app("api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11 {\n scopes environment:proxy environment:connections:*\n integration a b\n call GET,HEAD /x/**\n call /y\n rate 5/1m\n expires 2030-01-01T00:00:00Z\n}"), ""},
		{"API key with a scope that isn't", app("api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11 {\n scopes proxy\n}"), `api_key: scopes: there is no scope "proxy"`},
		{"API key with a call that can't be", app("api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11 {\n call GET x\n}"), "api_key: calls: "},
		{"API key with a rate that can't be", app("api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11 {\n rate fast\n}"), "api_key: rate: "},
		{"API key that ends some day", app("api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11 {\n expires soon\n}"), "api_key: expires: "},
		{"API keys of one name", app("api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11 {\n name a\n}\n api_key 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a12 {\n name a\n}"), "api_key: there are two of the name"},
		{"API key from the environment", app("api_key {env.NOPE}"), "api_key: evaluated placeholder {env.NOPE} is empty"},
		{"fewer than no connections in memory", app("in_memory -1"), "in_memory: -1 is less than 0"},
		{"public URL", app("public_url https://connect.example.com/"), ""},
		{"public URL with a path", app("public_url https://example.com/connect"), `public_url: "https://example.com/connect" is not an origin`},
		{"public URL with a user", app("public_url https://me@example.com"), "is not an origin"},
		{"public URL with a query", app("public_url https://example.com?a=b"), "is not an origin"},
		{"public URL with a fragment", app("public_url https://example.com#a"), "is not an origin"},
		{"public URL of another scheme", app("public_url ftp://example.com"), "is not an origin"},
		{"public URL without a host", app("public_url https://:443"), "is not an origin"},
		{"public URL without a scheme", app("public_url connect.example.com"), "is not an origin"},
		{"public URL from the environment", app("public_url https://{env.NOPE}"), "public_url: evaluated placeholder {env.NOPE} is empty"},
		{"store path", app("store sqlite {env.NOPE}/keycaddy.db"), "{env.NOPE}"},
		{"vault path", app("vault sealed {env.NOPE}/vault.key"), "{env.NOPE}"},
		{"egress", app("egress {\nallow 10.0.0.0/8 fd00::/8 127.0.0.1\n}"), ""},
		{"egress of a name", app("egress {\nallow intranet.example\n}"), `egress allow: "intranet.example" is neither an address nor a range`},
		{"egress of too long a prefix", app("egress {\nallow 10.0.0.0/33\n}"), `"10.0.0.0/33" is neither`},
		{"egress from the environment", app("egress {\nallow {env.NOPE}\n}"), "egress allow: evaluated placeholder {env.NOPE} is empty"},
		{"integration", app(demoIntegration), ""},
		{"integration of no provider", app("integration nobody"), `integration nobody: provider: `},
		{"integration of an unknown provider", app("integration a {\nprovider nobody\n}"), "integration a: provider: "},
		{"integration without a key", app("integration \"\" {\nprovider keycaddy-demo-key\nfield base_url http://localhost\n}"), "integration"},
		{"integration without a client id", app(strings.Replace(demoIntegration, "client_id id", "", 1)), "client_id"},
		{"integration with an unknown field", app(strings.Replace(demoIntegration, "field base_url", "field base http://localhost\nfield base_url", 1)), "integration demo: "},
		{"integration without a field", app(strings.Replace(demoIntegration, "field base_url http://localhost:8080/demo", "", 1)), "base_url"},
		{"integration with a bad field", app(strings.Replace(demoIntegration, "http://localhost:8080/demo", "ftp://x", 1)), "base_url"},
		{"client id from the environment", app(strings.Replace(demoIntegration, "client_id id", "client_id {env.NOPE}", 1)), "integration demo: client_id: evaluated placeholder {env.NOPE} is empty"},
		{"client secret from the environment", app(strings.Replace(demoIntegration, "client_secret secret", "client_secret {env.NOPE}", 1)), "integration demo: client_secret: evaluated placeholder {env.NOPE} is empty"},
		{"field from the environment", app(strings.Replace(demoIntegration, "http://localhost:8080/demo", "{env.NOPE}", 1)), "integration demo: base_url: evaluated placeholder {env.NOPE} is empty"},
		{"trust", app("return_url https://app.example.com/done\napp_origin https://app.example.com\nproofs app opener\nembedder https://app.example.com\n" + demoIntegration), ""},
		{"trust in nobody", app("proofs none\n" + demoIntegration), `integration demo: proof "none" is none of app, opener, person`},
		{"trust in an app that has no address", app("proofs app\n" + demoIntegration), "integration demo: proof app needs a return_url"},
		{"trust in an opener of nowhere", app("proofs opener\n" + demoIntegration), "integration demo: proof opener needs an app_origin"},
		{"return URL without TLS", app("return_url http://app.example.com/\n" + demoIntegration), "it is not https"},
		{"return URL from the environment", app("return_url {env.NOPE}\n" + demoIntegration), "evaluated placeholder {env.NOPE} is empty"},
		{"app origin with a path", app("app_origin https://app.example.com/\n" + demoIntegration), "it is not an origin"},
		{"embedder of every origin", app("embedder *"), `embedder "*": it has the character '*'`},
		{"look", app("look {\ntitle Acme\nmode light\ncolor accent 112233 445566\ntext Yes Go\n}"), ""},
		{"look of a colour by name", app("look {\ncolor accent red\n}"), "look: colors has accent, which is not written as #rrggbb"},
		{"look with a text that isn't there", app("look {\ntext Nope Go\n}"), `look: texts has "Nope", which is no text of the pages`},
		{"look with a logo that isn't there", app("look {\nlogo /nope.png\n}"), "look: logo: open /nope.png"},
		{"transport", site("keycaddy {\ntransport http {\ndial_timeout 3s\n}\n}"), ""},
		{"passing what isn't held back", site("keycaddy {\npass_headers set-cookie X-Own\n}"), `the header "X-Own" isn't held back`},
		{"too many retries", site("keycaddy {\nretries 11\n}"), "retries: 11 is not between 0 and 10"},
		{"too many calls of a caller at a time", site("keycaddy {\ncaller_concurrency -1\n}"), "caller_concurrency: -1 is not between 0 and 10000"},
		{"circuit that never opens", site("keycaddy {\ncircuit 10001\n}"), "circuit: 10001 is not between 0 and 10000"},
		{"header of the message", site("keycaddy {\nheader_up Host internal\n}"), "header_up: Host is about the message on its way"},
		{"header of the answer's message", site("keycaddy {\nheader_down content-length 5\n}"), "header_down: Content-Length is about the message on its way"},
		{"header by a pattern that is none", site("keycaddy {\nheader_up X-A ( b\n}"), "headers: "},
		{"too many calls at a time", site("keycaddy {\nconcurrency 10001\n}"), "concurrency: 10001 is not between 0 and 10000"},
		{"transport over HTTP/3", site("keycaddy {\ntransport http {\nversions 3\n}\n}"), "version 3 can't be kept from private addresses"},
		{"transport with a resolver", site("keycaddy {\ntransport http {\nresolvers 127.0.0.1\n}\n}"), "resolver can't be used here"},
		{"transport with a changing name", site("keycaddy {\ntransport http {\ntls_server_name {http.request.host}\n}\n}"), "tls_server_name can't have a placeholder"},
		{"transport that doesn't dial", site("keycaddy {\ntransport fastcgi\n}"), "can't be kept from private addresses; use http"},
		{"demo", app(demoIntegration) + site("keycaddy_demo\nkeycaddy"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := adapt("", caddyfileOf(c.config))
			if err != nil {
				t.Fatal(err)
			}
			expect(t, validate(t, string(config)), c.err)
		})
	}
}

func TestProvisionWebhooksAndLogs(t *testing.T) {
	const secret = "\nwebhook_secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for _, c := range []struct{ name, config, err string }{
		{"endpoint", "webhook https://app.example.com/hooks?key=value" + secret, ""},
		{"endpoint with everything", "environment dev\nwebhook https://app.example.com/hooks {\nname app\nevents connection.created connection.needs_reauth\nsecret 0123456789abcdef fedcba9876543210\n}", ""},
		{"endpoint without a secret", "webhook https://app.example.com/hooks?key=canary", "webhook https://app.example.com/hooks: it needs a secret"},
		{"short secret", "webhook_secret 0123456789abcde", "webhook_secret: it has fewer than 16 characters"},
		{"secret that is no base64", "webhook_secret whsec_0123456789abcde", "webhook_secret: after whsec_ it is not base64"},
		{"secret from the environment", "webhook_secret {env.NOPE}", "webhook_secret: evaluated placeholder {env.NOPE} is empty"},
		{"short secret of an endpoint", "webhook https://a.example {\nsecret short\n}", "webhook https://a.example: secret: it has fewer than 16 characters"},
		{"unknown event", "webhook https://a.example {\nevents connection.born\n}" + secret, `webhook https://a.example: there are no events "connection.born"`},
		{"logs", "logs {\nkeep 30d\ncalls 0.5%\n}", ""},
		{"logs of all calls", "logs {\ncalls all\n}", ""},
		{"logs of some calls", "logs {\ncalls some\n}", `logs: calls: "some" is none of none, failed, all`},
		{"logs of too many calls", "logs {\ncalls 101%\n}", `logs: calls: "101%"`},
		{"logs of less than none", "logs {\ncalls -1%\n}", `logs: calls: "-1%"`},
		{"logs of not a number", "logs {\ncalls NaN%\n}", `logs: calls: "NaN%"`},
		{"logs for a moment", "logs {\nkeep 1s\n}", "logs: keep: 1s is less than a minute"},
		{"no address", "webhook app.example.com" + secret, "webhook: the address is not an address"},
		{"password in the address", "webhook https://me:canary@a.example" + secret, "webhook: the address has a user name or password in it"},
		{"fragment in the address", "webhook https://a.example#b" + secret, "webhook: the address has a fragment"},
		{"address from the environment", "webhook {env.NOPE}" + secret, "webhook: evaluated placeholder {env.NOPE} is empty"},
		{"two of one name", "webhook https://a.example?canary=1\nwebhook https://a.example?canary=2" + secret, "webhook https://a.example: there are two of that name"},
		{"two addresses that differ", "webhook https://a.example/1\nwebhook https://a.example/2" + secret, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := adapt("", caddyfileOf(app(c.config)))
			if err != nil {
				t.Fatal(err)
			}
			err = validate(t, string(config))
			expect(t, err, c.err)
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows what may be secret: %v", err)
			}
		})
	}
}

// caddyfileOf indents a Caddyfile as Caddy does, or it would be warned of.
func caddyfileOf(text string) string {
	var out strings.Builder
	depth := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "}" {
			depth--
		}
		if line != "" {
			fmt.Fprintf(&out, "%s%s\n", strings.Repeat("\t", depth), line)
		}
		if strings.HasSuffix(line, "{") {
			depth++
		}
	}
	return out.String()
}

const demoIntegration = `integration demo {
provider keycaddy-demo
client_id id
client_secret secret
field base_url http://localhost:8080/demo
}`

func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error: %v", err)
	case want != "" && err == nil:
		t.Errorf("no error; want %s", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("error %q\ndoes not say %q", err, want)
	}
}

// What can't be written in a Caddyfile can be in JSON.
func TestProvisionJSON(t *testing.T) {
	const key = `"3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11"`
	for _, c := range []struct{ name, app, err string }{
		{"empty", `{}`, ""},
		{"unknown option", `{"public_uri":"x"}`, `unknown field "public_uri"`},
		{"unknown store", `{"store":{"store":"oracle"}}`, "keycaddy.stores.oracle"},
		{"store without a name", `{"store":{}}`, "store"},
		{"unknown option of the store", `{"store":{"store":"sqlite","dsn":"x"}}`, `unknown field "dsn"`},
		{"unknown vault", `{"vault":{"vault":"bank"}}`, "keycaddy.vaults.bank"},
		{"webhook that is null", `{"webhooks":[null]}`, "webhook: it is null"},
		{"one bad key among good ones", `{"api_keys":[{"key":` + key + `},{"key":""}]}`, "api_key: "},
		{"a key that is there twice", `{"api_keys":[{"key":` + key + `},{"key":` + key + `}]}`, "api_key: the key of \"config 2\" is there before"},
		{"integration that is null", `{"integrations":{"keycaddy-demo":null}}`, "integration keycaddy-demo: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, validate(t, `{"apps":{"keycaddy":`+c.app+`}}`), c.err)
		})
	}
}

// An error never says what a secret is.
func TestProvisionErrorsTellNoSecret(t *testing.T) {
	const secret = "swordfish-1f0d-1c5b"
	t.Setenv("KEYCADDY_TEST", secret)
	for _, options := range []string{"api_key " + secret, "api_key {env.KEYCADDY_TEST}"} {
		config, err := adapt("", caddyfileOf(app(options)))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, string(config)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", options, err)
		}
	}
}

func TestProvisionCatalog(t *testing.T) {
	const good = `id: own
display_name: Own
vendor: own
categories: [test]
auth_scheme: api_key
cred_fields:
  - name: api_key
    required: true
    secret: true
request:
  base_url: https://api.example.com
  headers:
    x-api-key: "{cred.api_key}"
docs:
  reference: https://example.com
`
	for _, c := range []struct{ name, file, text, err string }{
		{"good", "own.yaml", good, ""},
		{"folder that is missing", "", "", "no such file or directory"},
		{"folder that is a file", "", "", "is not a folder"},
		{"unknown key", "own.yaml", strings.Replace(good, "vendor: own", "vendor: own\nvendour: own", 1), "own.yaml:4"},
		{"broken YAML", "own.yaml", strings.Replace(good, "[test]", "[test", 1), "own.yaml:"},
		{"another id", "other.yaml", good, "other.yaml:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "catalog")
			switch {
			case c.file != "":
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			case c.err == "is not a folder":
				if err := os.WriteFile(dir, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, validate(t, fmt.Sprintf(`{"apps":{"keycaddy":{"catalog":%q}}}`, dir)), c.err)
		})
	}
}
