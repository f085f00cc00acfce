package scheme_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"regexp/syntax"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// Entries of the built-in catalog that no scheme is for yet, and why.
var notYet = map[string]string{
	"sentry-oauth": "its vendor starts the installation and brings no state back",
}

// Every built-in entry has a scheme, with a form that a person can fill in. What
// the schemes then do is shown against the simulated vendors.
func TestEveryBuiltInEntryHasAScheme(t *testing.T) {
	t.Parallel()
	c, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	key := privateKey(t)
	modes := map[catalog.Mode]int{}
	for _, id := range c.IDs() {
		p, err := c.Provider(id)
		if err != nil {
			t.Fatal(err)
		}
		modes[p.Mode]++
		app := scheme.App{ClientID: "made-up-client", ClientSecret: "made-up-secret", Fields: map[string]string{}}
		for i := range p.AppFields {
			f := &p.AppFields[i]
			app.Fields[f.Name] = madeUp(f)
			if f.Name == "private_key" {
				app.Fields[f.Name] = key
			}
		}
		s, err := scheme.For(p, app, http.DefaultClient)
		var unsupported *scheme.UnsupportedError
		if notYet[id] != "" {
			if !errors.As(err, &unsupported) || unsupported.Provider != id || unsupported.Feature == "" {
				t.Errorf("%s: %v", id, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		_, prompts := s.(scheme.Prompter)
		_, redirects := s.(scheme.Redirector)
		if prompts == redirects {
			t.Errorf("%s: is a prompter (%v) and a redirector (%v)", id, prompts, redirects)
		}
		seen := map[string]bool{}
		for _, f := range s.Fields() {
			if f == nil || f.Name == "" || f.Title() == "" || seen[f.Name] {
				t.Errorf("%s: field %v", id, f)
				continue
			}
			seen[f.Name] = true
		}
	}
	t.Log(modes)
}

func privateKey(t *testing.T) string {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// madeUp is a value that a field takes: its example or default, or something
// of the form that it asks for.
func madeUp(f *catalog.Field) string {
	candidates := append([]string{f.Default, f.Example}, f.Enum...)
	if f.Regexp != nil {
		if tree, err := syntax.Parse(f.Regexp.String(), syntax.Perl); err == nil {
			candidates = append(candidates, shortest(tree))
		}
	}
	candidates = append(candidates, map[string]string{
		"hostname": "made-up.example.com", "uri": "https://made-up.example.com", "email": "made-up@example.com",
		"uuid": "5ab87915-2deb-429c-a1e2-8b0495900f45", "pem_or_base64": "AAAA",
	}[f.Format], "made-up", "made-up.example.com")
	for _, v := range candidates {
		if v != "" && !strings.Contains(v, "*") && f.Check(v) == nil {
			return v
		}
	}
	return "" // refused where it is needed
}

// shortest is a text that an expression matches, about the shortest.
func shortest(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		for _, c := range "a0A-" {
			for i := 0; i < len(re.Rune); i += 2 {
				if re.Rune[i] <= c && c <= re.Rune[i+1] {
					return string(c)
				}
			}
		}
		return string(re.Rune[0])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "a"
	case syntax.OpCapture, syntax.OpPlus, syntax.OpAlternate:
		return shortest(re.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(shortest(re.Sub[0]), re.Min)
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			b.WriteString(shortest(sub))
		}
		return b.String()
	}
	return ""
}
