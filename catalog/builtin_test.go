package catalog

import (
	"path"
	"strings"
	"testing"
)

func TestShippedEntriesMeetEveryRule(t *testing.T) {
	files, err := builtin.ReadDir("providers")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		file := path.Join("providers", f.Name())
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
			continue
		}
		for _, problem := range Lint(p) {
			if problem.Rule == RuleVerify {
				t.Log(problem)
				continue
			}
			t.Error(problem)
		}
	}
}

func TestLintFindsWhatItPromises(t *testing.T) {
	p, err := Parse("a.yaml", []byte(strings.Replace(minimal, "none", "api_key", 1)+`
cred_fields:
  - {name: api_key, regex: '[a-z]+', example: '123', label: 'Key.', help: no stop}
request: {base_url: 'http://a.com'}
docs: {reference: 'http://a.com'}
`))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, problem := range Lint(p) {
		found[problem.Rule] = true
	}
	for _, rule := range []string{RuleHTTPS, RuleExample, RuleSecret, RuleLabel, RuleVerify} {
		if !found[rule] {
			t.Errorf("rule %s did not fire: %v", rule, Lint(p))
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
