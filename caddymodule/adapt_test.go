package caddymodule

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "write what Caddyfiles adapt to into testdata/adapt, to be read before it is kept")

// adaptSeparator parts a Caddyfile from what it adapts to.
const adaptSeparator = "----------\n"

// adapt makes JSON of a Caddyfile.
func adapt(file, text string) ([]byte, error) {
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": file})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		return nil, fmt.Errorf("%s", w)
	}
	return out, nil
}

// Each file in testdata/adapt is a Caddyfile and, below a line of dashes, the
// JSON that it adapts to, or a part of the error if it is a bad one.
func TestCaddyfilesAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, want, _ := strings.Cut(string(data), adaptSeparator)
			got, err := adapt("Caddyfile", text)
			if strings.HasPrefix(filepath.Base(file), "bad_") {
				if err == nil {
					t.Fatalf("no error; want %s\ngot %s", want, indent(t, got))
				}
				if want = strings.TrimSpace(want); want == "" || !strings.Contains(err.Error(), want) {
					t.Errorf("error %q\ndoes not say %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(text+adaptSeparator+indent(t, got)), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := diffJSON(t, []byte(want), got); diff != "" {
				t.Errorf("adapts to something else:\n%s\nall of it:\n%s", diff, indent(t, got))
			}
		})
	}
}

// The file that a new operator starts with adapts, in Caddy's own formatting,
// to a configuration that can be provisioned.
func TestExampleAdapts(t *testing.T) {
	data, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	got, err := adapt("Caddyfile.example", string(data)) // unformatted files are warned of
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, string(got)); err != nil {
		t.Error(err)
	}
}

func indent(t *testing.T, data []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "\t"); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return out.String() + "\n"
}

// diffJSON lists where two values differ, whatever the order of their keys.
func diffJSON(t *testing.T, want, got []byte) string {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(want, &a); err != nil {
		t.Fatalf("the expected JSON: %v", err)
	}
	if err := json.Unmarshal(got, &b); err != nil {
		t.Fatal(err)
	}
	var out []string
	differ("", a, b, &out)
	return strings.Join(out, "\n")
}

func differ(where string, want, got any, out *[]string) {
	switch w := want.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			for key := range w {
				if _, ok := g[key]; !ok {
					*out = append(*out, fmt.Sprintf("%s/%s: missing", where, key))
					continue
				}
				differ(where+"/"+key, w[key], g[key], out)
			}
			for key := range g {
				if _, ok := w[key]; !ok {
					*out = append(*out, fmt.Sprintf("%s/%s: not expected: %v", where, key, g[key]))
				}
			}
			return
		}
	case []any:
		if g, ok := got.([]any); ok && len(g) == len(w) {
			for i := range w {
				differ(fmt.Sprintf("%s/%d", where, i), w[i], g[i], out)
			}
			return
		}
	}
	if !reflect.DeepEqual(want, got) {
		*out = append(*out, fmt.Sprintf("%s: want %v, got %v", where, want, got))
	}
}
