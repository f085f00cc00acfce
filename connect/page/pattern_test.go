package page

import (
	"regexp"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
)

func TestBrowserPattern(t *testing.T) {
	for src, want := range map[string]string{
		`^[a-z0-9-]+$`:            `[\u{2d}0-9a-z]+`,
		`[a-f0-9]$`:               `[0-9a-f]`,
		`^(us|eu)$`:               `(?:(?:us|eu))`,
		`^(?:ghp|gho)_\d{2,4}$`:   `gh[o-p]\u{5f}[0-9]{2,4}`,
		`^(ab?)+$`:                `(?:(?:a(?:b)?))+`,
		`(?i)^ab$`:                `[Aa][Bb]`,
		`^a.c$`:                   `a[^\n]c`,
		`^[^@\s]+@x$`:             ``,
		`(?m)^a$`:                 ``,
		`^(https?:\/\/)?[a-z]{3}`: ``,
	} {
		got, ok := browserPattern(src)
		if want == "" {
			if ok && strings.ContainsAny(got, "@/~") {
				t.Errorf("%s: %q has bare punctuation", src, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: %q, want %q", src, got, want)
		}
	}
}

// RE2 takes the patterns as well, once \u{2d} is written \x{2d}: they must say
// what the catalogue's expressions say.
func TestBrowserPatternsOfTheCatalogue(t *testing.T) {
	cat, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, id := range cat.IDs() {
		p, err := cat.Provider(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, fields := range [][]catalog.Field{p.ConnFields, p.CredFields} {
			for i := range fields {
				f := &fields[i]
				if f.Regexp == nil {
					continue
				}
				re, err := regexp.Compile("^(?:" + strings.ReplaceAll(fieldPattern(f), `\u{`, `\x{`) + ")$")
				if err != nil {
					t.Errorf("%s %s: %v", id, f.Name, err)
					continue
				}
				n++
				samples := []string{f.Example, "acme", "a b", "", "ACME-1", "x/y", "1234567890"}
				for _, v := range samples {
					if f.Regexp.Match(v) && !re.MatchString(v) {
						t.Errorf("%s %s: the pattern refuses %q", id, f.Name, v)
					}
					if !f.Regexp.Match(f.Clean(v)) && !f.Secret && re.MatchString(v) {
						t.Errorf("%s %s: the pattern takes %q", id, f.Name, v)
					}
				}
			}
		}
	}
	if n == 0 {
		t.Error("no patterns in the catalogue")
	}
}

func TestTile(t *testing.T) {
	for name, want := range map[string]string{
		"Zendesk": "Z", "Google Drive": "GD", "Jira (API token)": "J", "1Password": "1", "élan vital plus": "ÉV", "": "", "(x)": "", "日本": "日",
	} {
		if got := tileOf(name); got.Initials != want || got.Hue >= hues {
			t.Errorf("tile of %q: %v", name, got)
		}
	}
}

// Every text is there, so that a translation can't leave one out unseen.
func TestFailuresHaveAWayOut(t *testing.T) {
	for code, f := range english.Failures {
		if f.Text == "" || f.By != byVisitor && english.Next[f.By] == "" {
			t.Errorf("%s says nothing", code)
		}
	}
}
