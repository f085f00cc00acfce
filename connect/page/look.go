package page

import (
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/text/language"

	"github.com/keycaddy/keycaddy/connect"
)

// languages are those that the pages are in, the first for whoever reads none.
var languages = []*messages{&english, &german, &french, &spanish, &japanese, &portuguese, &chinese, &arabic}

var matcher = func() language.Matcher {
	var tags []language.Tag
	for _, m := range languages {
		tags = append(tags, language.MustParse(m.Lang))
	}
	return language.NewMatcher(tags)
}()

// speak picks the language that fits best what is wanted: tags, or lists as in
// Accept-Language.
func speak(wanted ...string) *messages {
	_, i := language.MatchStrings(matcher, wanted...)
	return languages[i]
}

// dressed is the handler in the language and the look of a session and an
// integration, either of which may be nil.
func (h *Handler) dressed(r *http.Request, s *connect.Session, in *connect.Integration) *Handler {
	out := *h
	look := h.connector.Setup.Look
	if in != nil {
		look = in.Look.Over(look)
	}
	wanted := r.Header.Get("Accept-Language")
	if s != nil {
		if s.Look != nil {
			look = s.Look.Over(look)
		}
		if s.Language != "" {
			wanted = s.Language
		}
	}
	out.look = look
	out.text = speak(wanted)
	if len(look.Texts) > 0 {
		text, err := out.text.with(look.Texts)
		if err != nil { // the session's: the operator's were checked at start
			h.logger.Warn("a text is left as it is", zap.Error(err))
		}
		out.text = text
	}
	return &out
}

// CheckLook says what the pages would not take of a look.
func CheckLook(l connect.Look) error {
	if err := l.Check(); err != nil {
		return err
	}
	_, err := english.with(l.Texts)
	return err
}

var verb = regexp.MustCompile(`%\[\d\][sd]`)

// with is m with some texts replaced. What doesn't fit stays as it is.
func (m *messages) with(texts map[string]string) (*messages, error) {
	out := *m
	var err error
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		text := texts[name]
		field := reflect.ValueOf(&out).Elem().FieldByName(name)
		if !field.IsValid() || field.Kind() != reflect.String || name == "Lang" || name == "Dir" {
			err = &connect.LookError{Name: "texts", Reason: fmt.Sprintf("has %q, which is no text of the pages", name)}
			continue
		}
		// A text may say as much as the one in its place, and nothing more.
		known := verb.FindAllString(field.String(), -1)
		for _, v := range verb.FindAllString(text, -1) {
			if !slices.Contains(known, v) {
				err = &connect.LookError{Name: "texts", Reason: fmt.Sprintf("has %s with %s, which isn't known there", name, v)}
				text = ""
			}
		}
		if strings.Contains(verb.ReplaceAllString(text, ""), "%") {
			err = &connect.LookError{Name: "texts", Reason: fmt.Sprintf("has %s with a percent sign", name)}
			text = ""
		}
		if text == "" {
			continue
		}
		field.SetString(text)
	}
	return &out, err
}

// font is what devices have.
const font = `system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif`

// styleOf is the style sheet with a look's variables.
func styleOf(l *connect.Look) template.CSS {
	general := "--font: " + font + "; --radius: 12px;"
	if l.Font != "" {
		general = "--font: " + l.Font + ", " + font + "; --radius: 12px;"
	}
	if l.Radius != "" {
		general += " --radius: " + l.Radius + "px;"
	}
	light, dark := lightColors+variables(l.Colors), darkColors+variables(l.DarkColors)
	if accent := l.Colors["accent"]; accent != "" && l.DarkColors["accent"] == "" {
		// On dark ground the same colour has to be lighter to be seen.
		dark += fmt.Sprintf(" --accent: color-mix(in srgb, %s 55%%, #fff); --accent-strong: color-mix(in srgb, %s 40%%, #fff); --on-accent: #16181d;", accent, accent)
	}
	var head string
	switch l.Mode {
	case "light":
		head = ":root { color-scheme: light; " + general + light + "}"
	case "dark":
		head = ":root { color-scheme: dark; " + general + light + dark + "}"
	default:
		head = ":root { color-scheme: light dark; " + general + light + "}\n@media (prefers-color-scheme: dark) { :root {" + dark + "} }"
	}
	return template.CSS(head + "\n" + styleSheet)
}

// variables are a look's colours, which are checked to be nothing else. With an
// accent alone, what goes with it follows.
func variables(colors map[string]string) string {
	var b strings.Builder
	accent := colors["accent"]
	if accent != "" && colors["on-accent"] == "" {
		fmt.Fprintf(&b, " --on-accent: %s;", inkOn(accent[1:]))
	}
	if accent != "" && colors["accent-strong"] == "" {
		fmt.Fprintf(&b, " --accent-strong: color-mix(in srgb, %s 86%%, var(--ink));", accent)
	}
	for _, name := range slices.Sorted(maps.Keys(colors)) {
		fmt.Fprintf(&b, " --%s: %s;", name, colors[name])
	}
	return b.String()
}
