package catalog

import (
	"io/fs"
	"path"
	"strings"
	"testing"
)

func TestShippedEntriesMeetEveryRule(t *testing.T) {
	files := map[string]string{} // id to file
	err := fs.WalkDir(builtin, "providers", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		id := strings.TrimSuffix(d.Name(), ".yaml")
		if first := files[id]; first != "" {
			t.Errorf("%s and %s have the same id", first, file)
		}
		files[id] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 1160 {
		t.Errorf("%d entries", len(files))
	}
	for id, file := range files {
		bucket := id[:1]
		if bucket <= "9" {
			bucket = "0-9"
		}
		if want := path.Join("providers", bucket, id+".yaml"); file != want {
			t.Errorf("%s belongs to %s", file, want)
		}
		shippedEntry(t, file)
	}
}

func shippedEntry(t *testing.T, file string) {
	data, err := builtin.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "\t") || !strings.HasSuffix(string(data), "\n") || strings.Contains(string(data), "alias_of") {
		t.Errorf("%s: tabs, a missing last line break or alias_of", file)
	}
	p, err := Parse(file, data)
	if err != nil {
		t.Error(err)
		return
	}
	for _, problem := range Lint(p) {
		if !problem.Advice() {
			t.Error(problem)
		}
	}
}

func TestShippedModesCoverTheOnesSupported(t *testing.T) {
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Mode]int{}
	for _, id := range c.IDs() {
		p, err := c.Provider(id)
		if err != nil {
			t.Fatal(err)
		}
		seen[p.Mode]++
	}
	for _, m := range []Mode{ModeOAuth2Code, ModeClientCredentials, ModeAPIKey, ModeBasic, ModeNone} {
		if seen[m] == 0 {
			t.Errorf("no entry of mode %s", m)
		}
	}
}

// The catalog makes the program larger by its files and an index of them.
func TestTheCatalogIsSmall(t *testing.T) {
	size := 0
	err := fs.WalkDir(builtin, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += int(info.Size()) + len(file) + 64
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if size > 2<<20 {
		t.Errorf("%d KiB; the limit is 2 MiB", size>>10)
	}
}
