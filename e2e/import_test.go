package e2e

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	servers "github.com/keycaddy/keycaddy/caddymodule/torture"
	"github.com/keycaddy/keycaddy/connect/demo"
)

var imported = flag.Int("imported", 600, "how many connections TestANango… brings over")

// nangoTables are as much of Nango's schema as matters, as its migrations have
// left it.
const nangoTables = `
CREATE SCHEMA nango;
SET search_path = nango;
CREATE TABLE _nango_environments (id serial PRIMARY KEY, name text NOT NULL, uuid uuid, deleted boolean NOT NULL DEFAULT false);
CREATE TABLE _nango_configs (id serial PRIMARY KEY, unique_key text, provider text, oauth_client_id text, oauth_client_secret text, oauth_client_secret_iv text, oauth_client_secret_tag text,
	oauth_scopes text, app_link text, custom jsonb, display_name text, forward_webhooks boolean DEFAULT true, missing_fields text[], shared_credentials_id integer, environment_id integer NOT NULL, deleted boolean NOT NULL DEFAULT false);
CREATE TABLE end_users (id serial PRIMARY KEY, end_user_id text NOT NULL, email text, display_name text, organization_id text, organization_display_name text, tags jsonb);
CREATE TABLE _nango_connections (id serial PRIMARY KEY, connection_id text NOT NULL, provider_config_key text, config_id integer, environment_id integer NOT NULL, end_user_id integer, tags jsonb NOT NULL DEFAULT '{}',
	connection_config jsonb DEFAULT '{}', metadata jsonb, credentials json NOT NULL, credentials_iv text, credentials_tag text, webhook_url_override text, refresh_exhausted boolean DEFAULT false, last_refresh_failure timestamptz, deleted boolean NOT NULL DEFAULT false);
CREATE TABLE customer_keys (id serial PRIMARY KEY, account_id integer NOT NULL, key_type varchar(50) NOT NULL, display_name varchar(255) NOT NULL, scopes text[], secret varchar(255) NOT NULL, iv varchar(255) NOT NULL DEFAULT '', tag varchar(255) NOT NULL DEFAULT '', hashed varchar(255) NOT NULL, deleted_at timestamptz);
CREATE TABLE customer_keys_relations (customer_key_id integer NOT NULL, entity_type varchar(50) NOT NULL, entity_id integer NOT NULL);
INSERT INTO _nango_environments (name) VALUES ('dev'), ('prod');
`

// nangoDB is the database of a Nango that was stopped.
type nangoDB struct {
	t    *testing.T
	dsn  string
	db   *pgx.Conn
	aead cipher.AEAD
	key  string
}

func startNangoDB(t *testing.T) *nangoDB {
	t.Helper()
	parent, err := os.MkdirTemp("", "kc-nango-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil { // the server runs as somebody else
		t.Fatal(err)
	}
	dsn, stop, err := servers.StartPostgres(filepath.Join(parent, "data"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	n := &nangoDB{t: t, dsn: dsn}
	if n.db, err = pgx.Connect(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.db.Close(context.Background()) })
	secret := make([]byte, 32)
	rand.Read(secret)
	n.key = base64.StdEncoding.EncodeToString(secret)
	block, err := aes.NewCipher(secret)
	if err == nil {
		n.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.exec(nangoTables)
	return n
}

func (n *nangoDB) exec(statement string, args ...any) {
	n.t.Helper()
	if _, err := n.db.Exec(n.t.Context(), statement, args...); err != nil {
		n.t.Fatal(err)
	}
}

// seal encrypts as Nango does.
func (n *nangoDB) seal(plain string) (text, iv, tag string) {
	nonce := make([]byte, 12)
	rand.Read(nonce)
	sealed := n.aead.Seal(nil, nonce, []byte(plain), nil)
	at := len(sealed) - 16
	b := base64.StdEncoding.EncodeToString
	return b(sealed[:at]), b(nonce), b(sealed[at:])
}

func (n *nangoDB) integration(key, provider, secret string) (id int) {
	n.t.Helper()
	text, iv, tag := n.seal(secret)
	err := n.db.QueryRow(n.t.Context(), `INSERT INTO _nango_configs (unique_key, provider, oauth_client_id, oauth_client_secret, oauth_client_secret_iv, oauth_client_secret_tag, environment_id)
		VALUES ($1, $2, $3, $4, $5, $6, 2) RETURNING id`, key, provider, demo.DefaultClientID, text, iv, tag).Scan(&id)
	if err != nil {
		n.t.Fatal(err)
	}
	return id
}

// connections adds many of them.
func (n *nangoDB) connections(count, config int, id, credentials func(i int) string) {
	n.t.Helper()
	_, err := n.db.CopyFrom(n.t.Context(), pgx.Identifier{"nango", "_nango_connections"},
		[]string{"connection_id", "config_id", "environment_id", "end_user_id", "tags", "metadata", "credentials", "credentials_iv", "credentials_tag"},
		pgx.CopyFromSlice(count, func(i int) ([]any, error) {
			text, iv, tag := n.seal(credentials(i))
			return []any{id(i), config, 2, 1, map[string]string{"team": "a"}, map[string]int{"n": i}, map[string]string{"encrypted_credentials": text}, iv, tag}, nil
		}))
	if err != nil {
		n.t.Fatal(err)
	}
}

// left is what Nango's database still has of a connection.
func (n *nangoDB) left(id string) (credentials string, exhausted bool) {
	n.t.Helper()
	var sealed struct {
		Text string `json:"encrypted_credentials"`
	}
	var iv, tag string
	err := n.db.QueryRow(n.t.Context(), `SELECT credentials, credentials_iv, credentials_tag, refresh_exhausted FROM _nango_connections WHERE connection_id = $1`, id).Scan(&sealed, &iv, &tag, &exhausted)
	if err != nil {
		n.t.Fatal(err)
	}
	var parts [3][]byte
	for i, s := range []string{sealed.Text, iv, tag} {
		if parts[i], err = base64.StdEncoding.DecodeString(s); err != nil {
			n.t.Fatal(err)
		}
	}
	plain, err := n.aead.Open(nil, parts[1], append(parts[0], parts[2]...), nil)
	if err != nil {
		n.t.Fatalf("%s: %v", id, err)
	}
	return string(plain), exhausted
}

// A Nango that was stopped hands over to keycaddy: everything that can be brought
// over is, once, also if the command is killed on the way; and no refresh token is
// in two places afterwards.
func TestANangoIsBroughtOverAndCanRenewNothingAfterwards(t *testing.T) {
	n := startNangoDB(t)
	dir, port, folder := t.TempDir(), freePort(t), t.TempDir()
	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}, APIKeys: []string{"demo_right1234"}})
	if err := os.WriteFile(filepath.Join(folder, "own-basic.yaml"), fmt.Appendf(nil, basicProvider, d.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	c := startCaddy(t, dir, port, caddyfile(dir, port, "catalog "+folder+"\n"+demoIntegration(d, "demo")+
		"integration demo-key {\nprovider keycaddy-demo-key\nfield base_url "+d.URL+"\n}\n", "keycaddy"))

	const appKey = "5e0f6a52-1c7d-4b1e-9d3a-2f4b6c8d0e1f"
	n.exec(`INSERT INTO end_users (end_user_id, email, display_name) VALUES ('ada', 'ada@example.com', 'Ada')`)
	text, iv, tag := n.seal(appKey)
	n.exec(`INSERT INTO customer_keys (account_id, key_type, display_name, scopes, secret, iv, tag, hashed) VALUES (1, 'api', 'prod/default', '{environment:proxy}', $1, $2, $3, 'h')`, text, iv, tag)
	n.exec(`INSERT INTO customer_keys_relations VALUES (1, 'environment', 2)`)
	n.integration("hub", "github", "canary-client-secret")
	oauth, key, basic, open := n.integration("demo", "keycaddy-demo", "x"), n.integration("demo-key", "keycaddy-demo-key", ""), n.integration("basic", "own-basic", ""), n.integration("open", "unauthenticated", "")
	unknown := n.integration("mine", "our-own-thing", "x")
	many := *imported / 4
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	id := func(kind string) func(int) string { return func(i int) string { return fmt.Sprint(kind, "-", i) } }
	n.connections(many, oauth, id("o"), func(i int) string {
		return fmt.Sprintf(`{"type":"OAUTH2","access_token":"at%d","refresh_token":"canary-rt-%d","expires_at":%q,"raw":{"access_token":"at%d","refresh_token":"canary-rt-%d"}}`, i, i, later, i, i)
	})
	n.connections(many, key, id("k"), func(int) string { return `{"type":"API_KEY","apiKey":"demo_right1234"}` })
	n.connections(many, basic, id("b"), func(i int) string { return fmt.Sprintf(`{"type":"BASIC","username":"u%d","password":"p"}`, i) })
	n.connections(many, open, id("n"), func(int) string { return `{}` })
	n.connections(1, unknown, id("x"), func(int) string { return `{"type":"API_KEY","apiKey":"x"}` })
	n.connections(1, key, id("wrong"), func(int) string { return `{"type":"API_KEY","apiKey":"not right"}` })
	n.connections(1, key, id("gone"), func(int) string { return `{"type":"API_KEY","apiKey":"demo_right1234"}` })
	n.exec(`UPDATE _nango_connections SET deleted = true WHERE connection_id = 'gone-0'`)
	n.connections(1, key, id("broken"), func(int) string { return `{"type":"API_KEY","apiKey":"demo_right1234"}` })
	n.exec(`UPDATE _nango_connections SET credentials_tag = 'AAAAAAAAAAAAAAAAAAAAAA==' WHERE connection_id = 'broken-0'`)

	run := func(ctx context.Context, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, caddyBinary, append([]string{"keycaddy", "import", "nango", "--address", "unix/" + filepath.Join(dir, "admin.sock")}, args...)...)
		cmd.Env = append(os.Environ(), "NANGO_DATABASE_URL="+n.dsn, "NANGO_ENCRYPTION_KEY="+n.key)
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "canary") {
			t.Errorf("a secret is printed: %s", out)
		}
		return string(out), err
	}
	says := func(out string, err error, fails bool, want ...string) {
		t.Helper()
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("it doesn't say %q: %v\n%s", text, err, out)
			}
		}
		if (err != nil) != fails {
			t.Errorf("%v\n%s", err, out)
		}
	}
	out, err := run(t.Context(), "--environment", "staging")
	says(out, err, true, `there is no environment "staging"; there are dev, prod`)
	total := 4 * many
	out, err = run(t.Context(), "--dry-run", "--api-keys") // beside Nango
	says(out, err, true, fmt.Sprintf("connections: %s would be brought over, 0 here before, 2 not", comma(total+1)), "x-0: its integration isn't here", "broken-0: it can't be decrypted", "mine: the catalog has no provider our-own-thing", "API keys: 1 would be")
	if credentials, exhausted := n.left("o-1"); exhausted || !strings.Contains(credentials, "canary-rt-1") {
		t.Error("a dry run has changed something")
	}
	out, err = run(t.Context())
	says(out, err, true, "others are connected to the database", "stop Nango")

	if err := n.db.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	killed, cancel := context.WithTimeout(t.Context(), time.Second+time.Duration(*imported)*500*time.Microsecond)
	defer cancel()
	first, err := run(killed, "--api-keys")
	t.Logf("killed (%v) after: %s", err, first)
	report := filepath.Join(folder, "report.json")
	began := time.Now()
	out, err = run(t.Context(), "--api-keys", "--report", report)
	t.Logf("%v: %s", time.Since(began).Round(time.Millisecond), out)
	says(out, err, true, "3 not", "demo-key/wrong-0: invalid_body: credentials.api_key: ")
	var written struct {
		Connections struct {
			Brought, Before int
			Failed          []struct{ Name string }
		}
	}
	data, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(data, &written)
	}
	if got := written.Connections; err != nil || got.Brought+got.Before != total || len(got.Failed) != 3 {
		t.Errorf("the report has %+v, %v", got, err)
	}
	out, err = run(t.Context())
	says(out, err, true, fmt.Sprintf("0 brought over, %s here before", comma(total)))

	if n.db, err = pgx.Connect(t.Context(), n.dsn); err != nil {
		t.Fatal(err)
	}
	n.exec(`SET search_path = nango`)
	for i := range many {
		if credentials, exhausted := n.left(fmt.Sprint("o-", i)); !exhausted || strings.Contains(credentials, "canary-rt") || !strings.Contains(credentials, fmt.Sprintf(`"at%d"`, i)) {
			t.Fatalf("o-%d: %v %s", i, exhausted, credentials)
		}
	}
	if credentials, exhausted := n.left("wrong-0"); exhausted || !strings.Contains(credentials, "not right") {
		t.Errorf("what was not brought over was changed: %s", credentials)
	}
	var one struct {
		EndUser     struct{ ID string } `json:"end_user"`
		Metadata    struct{ N int }
		Tags        map[string]string
		Credentials struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		}
	}
	if status := c.call("GET", "/connections/o-7?provider_config_key=demo&refresh_token=true", nil, &one); status != 200 ||
		one.Credentials.Access != "at7" || one.Credentials.Refresh != "canary-rt-7" || one.EndUser.ID != "ada" || one.Metadata.N != 7 || one.Tags["team"] != "a" {
		t.Errorf("got %d %+v", status, one)
	}
	req := c.request(t.Context(), "GET", "/whoami", "demo-key", "k-3", nil)
	req.Header.Set("Authorization", "Bearer "+appKey) // the app's own, as it was
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != 200 {
		t.Errorf("a call with what was brought over: %d", res.StatusCode)
	}
}

func comma(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
