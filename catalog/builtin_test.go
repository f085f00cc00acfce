package catalog

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// undocumented are the entries for which no page of the vendor about the API is
// known. A link that was found takes the entry off the list.
var undocumented = []string{
	"agiloft", "agiloft-cc", "appstle-subscriptions", "avanan", "clay", "connectsecure",
	"datto-rmm", "dope-security", "ecu360", "ecu360-production", "ergo", "finta",
	"greenfield-meditech", "highq", "inteliquent", "jiminny", "liveswitch", "loom-scim",
	"mip-cloud", "mip-on-premise", "nooks", "nooks-api-key", "oomnitza", "paycom", "perdoo",
	"researchdesk", "sage-member", "salescaptain", "scavio", "scrollstash-mcp", "sentinelone",
	"skio", "statista", "streamline-ai", "trafft", "transporeon-oauth2-cc", "valley",
	"vantage-apparel",
}

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
	if len(files) < 1010 {
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
		shippedEntry(t, id, file)
	}
}

func shippedEntry(t *testing.T, id, file string) {
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
	bare := false
	for _, problem := range Lint(p) {
		switch {
		case problem.Rule == RuleVerify: // advice
		case problem.Rule == RuleDocs && slices.Contains(undocumented, id):
			bare = true
		default:
			t.Error(problem)
		}
	}
	if !bare && slices.Contains(undocumented, id) {
		t.Errorf("%s has documentation; take it off the list", id)
	}
	for _, fields := range [][]Field{p.AppFields, p.ConnFields, p.CredFields} {
		for _, f := range fields {
			if f.Regexp == nil || f.Example == "" {
				continue
			}
			// Stars hide the characters of a masked example.
			if !strings.Contains(f.Example, "*") && !f.Regexp.Match(f.Example) {
				t.Errorf("%s %s: %q does not match %s", id, f.Name, f.Example, f.Regexp)
			}
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
