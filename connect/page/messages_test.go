package page

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/language"

	"github.com/keycaddy/keycaddy/connect"
)

// texts are all texts of a language, by name.
func texts(v reflect.Value, at string, out map[string]string) map[string]string {
	switch v.Kind() {
	case reflect.String:
		out[at] = v.String()
	case reflect.Struct:
		for i := range v.NumField() {
			texts(v.Field(i), at+"."+v.Type().Field(i).Name, out)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			name := key.String()
			if key.Kind() != reflect.String {
				name = [...]string{"byVisitor", "byTime", "byApp", "byOperator"}[key.Int()]
			}
			texts(v.MapIndex(key), at+"."+name, out)
		}
	}
	return out
}

// Every language has every text, and says in it what the English one says: the
// same names and numbers.
func TestNoLanguageMissesAMessage(t *testing.T) {
	want := texts(reflect.ValueOf(english), "", map[string]string{})
	seen := map[string]bool{}
	for _, m := range languages {
		if tag, err := language.Parse(m.Lang); err != nil || tag.String() != m.Lang || seen[m.Lang] {
			t.Errorf("language %q: %v", m.Lang, err)
		}
		seen[m.Lang] = true
		got := texts(reflect.ValueOf(*m), "", map[string]string{})
		for name, text := range got {
			if _, ok := want[name]; !ok {
				t.Errorf("%s: %s is not in English", m.Lang, name)
			}
			verbs, english := verb.FindAllString(text, -1), verb.FindAllString(want[name], -1)
			slices.Sort(verbs)
			slices.Sort(english)
			if !slices.Equal(slices.Compact(verbs), slices.Compact(english)) || strings.Contains(verb.ReplaceAllString(text, ""), "%") {
				t.Errorf("%s: %s says %v, in English %v", m.Lang, name, verbs, english)
			}
			if m.Lang != "en" && strings.Contains(name, "Title") && text == want[name] && len(text) > 12 {
				t.Errorf("%s: %s is the English text", m.Lang, name)
			}
		}
		for name, text := range want {
			if strings.TrimSpace(text) != "" && strings.TrimSpace(got[name]) == "" {
				t.Errorf("%s: %s is missing", m.Lang, name)
			}
		}
		for code, f := range m.Failures {
			if f.By != english.Failures[code].By {
				t.Errorf("%s: %s is helped by another", m.Lang, code)
			}
		}
	}
	for _, lang := range []string{"en", "de", "fr", "es", "ja", "pt", "zh-Hans", "ar"} {
		if !seen[lang] {
			t.Errorf("there are no pages in %s", lang)
		}
	}
}

func TestLanguageThatFits(t *testing.T) {
	for wanted, want := range map[string]string{
		"": "en", "de": "de", "de-CH, en;q=0.8": "de", "nl, fr-CA;q=0.7, en;q=0.1": "fr", "pt-BR": "pt", "zh-CN": "zh-Hans", "zh": "zh-Hans", "ar-EG": "ar",
		"xx": "en", "*": "en", "de;q=0, es": "es", "\x00;;;": "en", strings.Repeat("de,", 2000): "de", "tlh": "en", "ja-JP": "ja",
	} {
		if got := speak(wanted).Lang; got != want {
			t.Errorf("%.40q: %s, want %s", wanted, got, want)
		}
	}
}

func TestS24TextsOfALookSayNothingMore(t *testing.T) {
	for name, text := range map[string]string{
		"Nothing": "x", "Lang": "de", "Dir": "rtl", "Yes": "%[1]s", "FormTitle": "%s", "ConfirmLead": "%[2]s", "No": "100 %", "Failures": "x", "LinkExpired": "x",
	} {
		if err := CheckLook(connect.Look{Texts: map[string]string{name: text}}); err == nil {
			t.Errorf("%s is set to %q", name, text)
		}
	}
	m, err := english.with(map[string]string{"FormTitle": "Link %[1]s", "Yes": "Go on", "ConfirmLead": "Agreed."})
	if err != nil || m.formTitle("GitHub", false) != "Link GitHub" || m.Yes != "Go on" || plain(m.ConfirmLead, "GitHub") != "Agreed." || english.Yes == "Go on" {
		t.Errorf("%v, %+v", err, m.FormTitle)
	}
}
