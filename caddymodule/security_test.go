package caddymodule

import (
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// attacks is how many attacks and faults have a number.
const attacks = 128

var attack = regexp.MustCompile(`S(\d{1,3})(?:\D|$)`)

// Each attack and fault with a number is in a test (its name, what it says when it fails, a comment), or
// docs/security.md says why there is no test.
func TestS1ToS128AreTestedOrExplained(t *testing.T) {
	known := map[int]bool{}
	note := func(text string) {
		for i := 0; i < len(text); {
			m := attack.FindStringSubmatchIndex(text[i:])
			if m == nil {
				return
			}
			n, err := strconv.Atoi(text[i+m[2] : i+m[3]])
			if err != nil {
				t.Fatal(err)
			}
			known[n] = true
			i += m[3] // S58S60: the next may follow at once
		}
	}
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || path == ".cache"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go") && path != "docs/security.md" && !strings.HasPrefix(path, "connect/storetest/") && !strings.HasPrefix(path, "vault/vaulttest/"):
			return nil
		case path == "caddymodule/security_test.go":
			return nil
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		note(string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= attacks; n++ {
		if !known[n] {
			t.Errorf("S%d is in no test, and docs/security.md doesn't say why", n)
		}
	}
}
