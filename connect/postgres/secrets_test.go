package postgres

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// TestS53DumpHoldsNothingToUse dumps the database, as a thief would have it.
func TestS53DumpHoldsNothingToUse(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	name := c.databaseName(t)
	s := openTest(t, c.dsn(name))
	migrate(t, s)
	ctx := t.Context()
	var (
		token, state, browser = rand.Text(), rand.Text(), rand.Text()
		verifier              = rand.Text() + rand.Text() // PKCE; it is never given to the store
		key                   = rand.Text()
		credential            = rand.Text()
	)
	session := connect.Session{Token: connect.DigestOf(token), EndUser: &connect.EndUser{ID: "u1"}, Expires: time.Now().Add(time.Hour)}
	flow := connect.Flow{ID: "f1", State: connect.DigestOf(state), Browser: connect.DigestOf(browser), Session: session.Token,
		RedirectURL: "https://connect.example.com/oauth/callback", Expires: session.Expires}
	_, sealing := sealedTest(t, s).Write(ctx, "connections/github/a", []byte(credential), 0)
	_, leasing := s.Lease(ctx, "refresh/a", "node", time.Hour)
	if err := errors.Join(s.PutSession(ctx, session), s.PutFlow(ctx, flow), sealing, leasing,
		s.PutAPIKey(ctx, connect.APIKey{Name: "first", Key: connect.DigestOf(key)})); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(c.bin, "pg_dump"), "-h", "127.0.0.1", "-p", c.port, "-U", role, name)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	dump, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// That it is the dump is seen by what does belong into it.
	for _, d := range []connect.Digest{session.Token, flow.State, flow.Browser, connect.DigestOf(key)} {
		if !strings.Contains(string(dump), hex.EncodeToString(d[:])) {
			t.Error("the dump has no digest")
		}
	}
	for what, secret := range map[string]string{
		"session's token": token, "state": state, "browser's key": browser, "verifier": verifier, "API key": key, "credential": credential,
	} {
		for _, form := range []string{
			secret, hex.EncodeToString([]byte(secret)),
			base64.RawStdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
		} {
			if strings.Contains(strings.ToLower(string(dump)), strings.ToLower(form)) {
				t.Errorf("the dump holds the %s", what)
			}
		}
	}
}

func TestErrorsNeverShowThePassword(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	const canary = "canary-secret"
	bad := func(old, new string) string { return strings.Replace(c.dsn("postgres"), old, new, 1) }
	for name, dsn := range map[string]string{
		"a slash in the password":   "postgres://u:" + canary + "/x@127.0.0.1:1/db",
		"an at sign and a slash":    "postgres://u:x@" + canary + "/@h:p/db",
		"a percent sign":            "postgres://u:" + canary + "%zz@127.0.0.1:1/db",
		"a bad port":                "postgres://u:" + canary + "@127.0.0.1:port/db",
		"bad pairs":                 "host=127.0.0.1 port=x password=" + canary,
		"bad quotes":                "host=127.0.0.1 password='" + canary,
		"a bad pool setting":        "postgres://u:" + canary + "@127.0.0.1:1/db?pool_max_conns=many",
		"a bad mode":                "postgres://u:" + canary + "@127.0.0.1:1/db?default_query_exec_mode=fast",
		"no server":                 "postgres://u:" + canary + "@127.0.0.1:1/db?sslmode=disable",
		"a wrong password":          bad(password, canary),
		"a wrong role":              bad(role+":"+password, "nobody:"+canary),
		"an unknown database":       bad("/postgres?", "/none?"),
		"an unknown setting":        c.dsn("postgres") + "&nothing=" + "x",
		"a server that has no TLS":  bad("sslmode=disable", "sslmode=require"),
		"a server without a schema": c.database(t),
		"not a connection string":   canary,
	} {
		s, err := Open(t.Context(), dsn, Options{Timeout: 2 * time.Second})
		if err == nil {
			_, err = s.HasBlobs(t.Context())
			s.Close()
		}
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		for _, secret := range []string{canary, password} {
			if leaks(err, secret) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// leaks tells whether err, or anything wrapped in it, shows the secret.
func leaks(err error, secret string) bool {
	if err == nil {
		return false
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return leaks(e.Unwrap(), secret)
	case interface{ Unwrap() []error }:
		for _, e := range e.Unwrap() {
			if leaks(e, secret) {
				return true
			}
		}
	}
	return false
}

func TestErrorsNeverShowValues(t *testing.T) {
	t.Parallel()
	s, dsn := migrated(t)
	const canary = "canary-value"
	do(t, dsn, `ALTER TABLE keycaddy.api_keys ADD CHECK (name <> '`+canary+`')`)
	err := s.PutAPIKey(t.Context(), connect.APIKey{Name: canary})
	if err == nil || leaks(err, canary) || !strings.Contains(err.Error(), "23514") {
		t.Errorf("got %v", err)
	}
}

func TestOpenDoesNotConnect(t *testing.T) {
	t.Parallel()
	s := openTest(t, "postgres://u:p@127.0.0.1:1/db")
	if n := s.pool.Stat().NewConnsCount(); n != 0 {
		t.Errorf("%d connections", n)
	}
	for _, dsn := range []string{"", " "} {
		if _, err := Open(t.Context(), dsn, Options{}); err == nil {
			t.Errorf("%q was accepted", dsn)
		}
	}
	if _, err := Open(t.Context(), "postgres://u@h/db", Options{Timeout: -1}); err == nil {
		t.Error("a negative timeout was accepted")
	}
}

func TestSettingsOfTheConnectionStringWin(t *testing.T) {
	t.Parallel()
	plain, err := parse("postgres://u@h/db")
	if err != nil {
		t.Fatal(err)
	}
	if plain.MaxConns != defaultMaxConns || plain.ConnConfig.ConnectTimeout != defaultConnectTimeout ||
		plain.ConnConfig.DefaultQueryExecMode.String() != "exec" || plain.ConnConfig.RuntimeParams["application_name"] != "keycaddy" {
		t.Errorf("%d, %v, %v, %v", plain.MaxConns, plain.ConnConfig.ConnectTimeout, plain.ConnConfig.DefaultQueryExecMode, plain.ConnConfig.RuntimeParams)
	}
	given, err := parse("postgres://u@h/db?pool_max_conns=3&connect_timeout=7&default_query_exec_mode=cache_statement&application_name=x&DateStyle=German")
	if err != nil {
		t.Fatal(err)
	}
	if given.MaxConns != 3 || given.ConnConfig.ConnectTimeout != 7*time.Second ||
		given.ConnConfig.DefaultQueryExecMode.String() != "cache statement" || given.ConnConfig.RuntimeParams["application_name"] != "x" {
		t.Errorf("%d, %v, %v, %v", given.MaxConns, given.ConnConfig.ConnectTimeout, given.ConnConfig.DefaultQueryExecMode, given.ConnConfig.RuntimeParams)
	}
	if p := given.ConnConfig.RuntimeParams; p["DateStyle"] != "" || p["datestyle"] != "ISO, MDY" {
		t.Errorf("%v", p)
	}
}
