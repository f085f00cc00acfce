package caddymodule

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"caddy": caddycmd.Main})
}

// The command line, as an operator uses it: testdata/script. The scripts have
// a home of their own, a free port in $PORT, the example in $EXAMPLE, and more
// commands:
//
//	ready           waits until the Caddy at $PORT answers
//	mode PERM FILE  fails unless the file has the permissions
//	enter KEY FILE  enters an API key at the connect link in the file
func TestScripts(t *testing.T) {
	example, err := filepath.Abs("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_DATA_HOME", filepath.Join(env.WorkDir, "data"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("DATA", filepath.Join(env.WorkDir, "data", "caddy", "keycaddy"))
			env.Setenv("PORT", freePort(t))
			env.Setenv("EXAMPLE", example)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ready": ready, "mode": mode, "enter": enter,
		},
	})
}

// freePort is a port of loopback that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func ready(ts *testscript.TestScript, neg bool, _ []string) {
	if neg {
		ts.Fatalf("unsupported: ! ready")
	}
	url := "http://127.0.0.1:" + ts.Getenv("PORT") + "/health"
	var err error
	for range 300 {
		var res *http.Response
		if res, err = http.Get(url); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("status %d", res.StatusCode)
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("caddy does not answer: %v", err)
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode PERM FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != "0"+strings.TrimPrefix(args[0], "0") {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

var csrf = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)

func enter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: enter KEY FILE")
	}
	jar, err := cookiejar.New(nil)
	ts.Check(err)
	client := &http.Client{Jar: jar}
	res, err := client.Get(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	form := res.Request.URL // where the link has led to
	page, err := io.ReadAll(res.Body)
	res.Body.Close()
	ts.Check(err)
	found := csrf.FindSubmatch(page)
	if found == nil {
		ts.Fatalf("no form at %s: %s", form.Path, page)
	}
	res, err = client.PostForm(form.String(), url.Values{
		"session_token": {form.Query().Get("session_token")}, "csrf": {string(found[1])}, "field.api_key": {args[0]},
	})
	ts.Check(err)
	page, err = io.ReadAll(res.Body)
	res.Body.Close()
	ts.Check(err)
	if res.StatusCode != http.StatusOK || res.Request.URL.Path != "/connect/done" {
		ts.Fatalf("not connected: %s %s", res.Status, page)
	}
}
