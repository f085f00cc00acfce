package catalog

import (
	"strings"
	"testing"
)

func TestEveryEntryTellsWhereEachValueIsFound(t *testing.T) {
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range c.IDs() {
		p, err := c.Provider(id)
		if err != nil {
			t.Fatal(err)
		}
		g := p.Guide()
		if len(g.Steps) == 0 {
			t.Errorf("%s: no steps", id)
		}
		if len(g.Links) == 0 && p.Mode != ModeNone && !strings.Contains(strings.Join(p.Categories, " "), "private") {
			t.Errorf("%s: no page of the vendor", id)
		}
		asked := 0
		for _, fields := range [][]Field{p.ConnFields, p.CredFields} {
			for i := range fields {
				if fields[i].Asked() {
					asked++
				}
			}
		}
		if len(g.Fields) != asked {
			t.Errorf("%s: %d fields are asked for, %d explained", id, asked, len(g.Fields))
		}
		setup := p.SetupGuide()
		if p.registers() && len(setup.Steps) == 0 {
			t.Errorf("%s: nobody is told how to register an app", id)
		}
		for _, s := range append(g.Steps, setup.Steps...) {
			if !strings.HasSuffix(s, ".") || strings.Contains(s, "%!") {
				t.Errorf("%s: step %q", id, s)
			}
		}
		for _, f := range append(g.Fields, setup.Fields...) {
			if f.Title == "" || !strings.HasSuffix(f.Where, ".") || strings.Contains(f.Text(), "%!") {
				t.Errorf("%s: %+v", id, f)
			}
		}
	}
}

func TestGuidesAreMadeOfTheEntry(t *testing.T) {
	p, err := Parse("acme.yaml", []byte(sound))
	if err != nil {
		t.Fatal(err)
	}
	g := p.Guide()
	subdomain, key := g.Fields[0], g.Fields[1]
	if subdomain.Where != "As it is called in your Acme account." || subdomain.Example != "hooli" {
		t.Errorf("%+v", subdomain)
	}
	if key.Text() != "Made under Settings, API keys. It begins with ak_ and has 23 characters." || key.URL != "https://acme.example/docs" {
		t.Errorf("%+v", key)
	}
	if got := strings.Join(g.Steps, " "); got != "Sign in to Acme. Find or make there: Subdomain and API key. Copy each value whole, and enter it here." {
		t.Error(got)
	}
	if len(p.SetupGuide().Links) != 0 {
		t.Error("there is nothing to set up:", p.SetupGuide())
	}
	p, err = Parse("acme.yaml", []byte(soundOAuth+"guide: [Ask your administrator first.]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if g := p.Guide(); len(g.Steps) != 1 || g.Steps[0] != "Ask your administrator first." || len(g.Fields) != 0 {
		t.Errorf("%+v", g)
	}
	if s := p.SetupGuide(); len(s.Steps) != 3 || !strings.Contains(s.Steps[1], "/oauth/callback") {
		t.Errorf("%+v", s)
	}
}

func TestShapesAreReadFromExampleAndRegex(t *testing.T) {
	for _, c := range []struct{ regex, example, want string }{
		{"^sk-[a-z]{4}$", "", "It begins with sk- and has 7 characters."},
		{"^sk-[a-z]+$", "", "It begins with sk-."},
		{"^[a-f0-9]{32}$", "0a**", "It begins with 0a and has 32 characters."},
		{"^[a-f0-9]{8}(-[a-f0-9]{4}){3}-[a-f0-9]{12}$", "", "It has 36 characters."},
		{"^(a|bcde)$", "", ""},
		{"^.*$", "acme", ""},
		{"(?i)^sk-.+$", "", ""},
		{"", "", ""},
	} {
		yaml := minimal + "conn_fields:\n  - name: f\n"
		if c.regex != "" {
			yaml += "    regex: '" + c.regex + "'\n"
		}
		if c.example != "" {
			yaml += "    example: '" + c.example + "'\n"
		}
		p, err := Parse("a.yaml", []byte(yaml))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.ConnFields[0].Shape(); got != c.want {
			t.Errorf("%s, %s: %q", c.regex, c.example, got)
		}
	}
}
