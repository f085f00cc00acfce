package e2e

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The conformance test of HTTP/2 (RFC 9113, RFC 7541) finds nothing in what the
// proxy answers that it doesn't find in a bare Caddy: the protocol is the
// server's, and what the proxy does with a request leaves it whole (S84).
func TestS84HTTP2IsAsCaddyHasIt(t *testing.T) {
	t.Parallel()
	port, bare, dir := freePort(t), freePort(t), t.TempDir()
	config := strings.Replace(caddyfile(dir, port, "", "keycaddy"), "{\n", "{\n\tservers {\n\t\tprotocols h1 h2 h2c\n\t}\n", 1) +
		fmt.Sprintf("http://127.0.0.1:%d {\n\tbind 127.0.0.1\n\trespond ok\n}\n", bare)
	startCaddy(t, dir, port, config)
	program := filepath.Join(dir, "h2spec")
	build := exec.Command("go", "build", "-o", program, "github.com/summerwind/h2spec/cmd/h2spec")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building h2spec: %v\n%s", err, out)
	}
	failures := func(port int, path string) map[string]bool {
		t.Helper()
		report := filepath.Join(dir, fmt.Sprint("report", port, len(path), ".xml"))
		// It reports failures by its status, too.
		out, _ := exec.Command(program, "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-P", path, "-o", "3", "-j", report).CombinedOutput()
		data, err := os.ReadFile(report)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var suites struct {
			Suites []struct {
				Cases []struct {
					Package string    `xml:"package,attr"`
					Name    string    `xml:"classname,attr"`
					Failure *struct{} `xml:"failure"`
					Error   *struct{} `xml:"error"`
				} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		if err := xml.Unmarshal(data, &suites); err != nil {
			t.Fatal(err)
		}
		failed, all := make(map[string]bool), 0
		for _, s := range suites.Suites {
			for _, c := range s.Cases {
				all++
				if c.Failure != nil || c.Error != nil {
					failed[c.Package+" "+c.Name] = true
				}
			}
		}
		t.Logf("%s: %d of %d failed: %v", path, len(failed), all, failed)
		if all < 100 {
			t.Fatalf("only %d cases\n%s", all, out)
		}
		return failed
	}
	known := failures(bare, "/")
	unknown := func(path string) map[string]bool {
		found := failures(port, path)
		maps.DeleteFunc(found, func(name string, _ bool) bool { return known[name] })
		return found
	}
	for _, path := range []string{"/proxy/x", "/connect/"} {
		found := unknown(path)
		// Some cases end in one of two ways, by who is faster.
		for again := 0; again < 3 && len(found) > 0; again++ {
			now := unknown(path)
			maps.DeleteFunc(found, func(name string, _ bool) bool { return !now[name] })
		}
		for name := range found {
			t.Errorf("%s: %s", path, name)
		}
	}
}
