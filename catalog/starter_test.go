package catalog

import (
	"strings"
	"testing"
)

func TestStartersAreSound(t *testing.T) {
	for _, m := range StarterModes {
		data, err := Starter("acme-crm", m)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse("acme-crm.yaml", data)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.Mode != m || strings.Contains(string(data), "ACME") {
			t.Errorf("%s: %s", m, data)
		}
		for _, problem := range Lint(p) {
			t.Error(m, problem)
		}
	}
	for id, m := range map[string]Mode{"Acme": ModeAPIKey, "../acme": ModeAPIKey, "": ModeBasic, "acme": ModeWSSE} {
		if data, err := Starter(id, m); err == nil {
			t.Errorf("%s, %s: %s", id, m, data)
		}
	}
}

func TestSearchWantsAllWords(t *testing.T) {
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.Search("GITHUB", "api_key")
	if err != nil || len(found) != 1 || found[0].ID != "github-pat" {
		t.Errorf("%v, %v", found, err)
	}
	if found, err := c.Search("github", "no-such-word"); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}
