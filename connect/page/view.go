package page

import (
	"bytes"
	"crypto/rand"
	"embed"
	"hash/fnv"
	"html/template"
	"net/http"
	"strings"
	"unicode"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

//go:embed templates light.css dark.css style.css script.js peers.js connect.js connect.d.ts
var files embed.FS

var (
	styleSheet  = mustRead("style.css")
	lightColors = mustRead("light.css")
	darkColors  = mustRead("dark.css")
	script      = template.JS(mustRead("script.js") + "\n" + mustRead("peers.js"))
)

// pages holds each page with the frame around it.
var pages = func() map[string]*template.Template {
	m := make(map[string]*template.Template)
	for _, name := range []string{"choose", "form", "confirm", "done", "notice", "embed"} {
		m[name] = template.Must(template.New(name).Funcs(template.FuncMap{"pair": pairOf, "printf": plain}).ParseFS(files, "templates/frame.html", "templates/icons.html", "templates/"+name+".html"))
	}
	return m
}()

// pair is two values for a template that takes one.
type pair struct{ First, Second any }

func pairOf(a, b any) pair { return pair{a, b} }

func mustRead(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return strings.TrimSpace(string(b))
}

// page is what the frame shows.
type page struct {
	Title string
	Wide  bool
	Data  any

	formAction string // empty: this site only
}

// render writes a whole page or, should its template fail, none of it.
func (h *Handler) render(w http.ResponseWriter, status int, name string, p page) {
	if h.look.Title != "" {
		p.Title += " · " + h.look.Title
	}
	nonce := rand.Text()
	var b bytes.Buffer
	err := pages[name].ExecuteTemplate(&b, "frame", struct {
		page
		M      *messages
		Name   string
		Nonce  string
		Style  template.CSS
		Script template.JS
		Brand  string
		Logo   template.URL
		Icon   template.URL

		Embedders string
	}{p, h.text, name, nonce, styleOf(&h.look), script, h.brand(), template.URL(h.look.Logo), template.URL(h.icon()), strings.Join(h.connector.Setup.Embedders, " ")})
	if err != nil {
		h.logger.Error("filling a page", zap.String("page", name), zap.Error(err))
		http.Error(w, h.text.Broken.Title, http.StatusInternalServerError)
		return
	}
	if p.formAction == "" {
		p.formAction = "'self'"
	}
	w.Header().Set("Content-Security-Policy", h.policy(nonce, p.formAction))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := b.WriteTo(w); err != nil {
		h.logger.Debug("the visitor has gone", zap.Error(err))
	}
}

// brand is what the logo stands for.
func (h *Handler) brand() string {
	if h.look.Title != "" {
		return h.look.Title
	}
	return h.connector.Setup.AppName
}

// icon is that of the browser's tab.
func (h *Handler) icon() string {
	if h.look.Icon != "" {
		return h.look.Icon
	}
	accent := h.look.Colors["accent"]
	if accent == "" {
		accent = "#3f51c9"
	}
	return "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Crect width='24' height='24' rx='6' fill='%23" + accent[1:] +
		"'/%3E%3Cpath d='M8 12h8M12 8v8' stroke='%23fff' stroke-width='2.5' stroke-linecap='round'/%3E%3C/svg%3E"
}

// tile stands for a vendor: its mark, or its initials on a colour made of its
// name.
type tile struct {
	Logo     string
	Initials string
	Hue      uint32
}

const hues = 12 // classes in style.css

func tileFor(in *connect.Integration) tile {
	t := tileOf(in.DisplayName)
	if name := logoOf(in.Provider); name != "" {
		t.Logo = logoPath + name + ".svg"
	}
	return t
}

func tileOf(name string) tile {
	short, _, _ := strings.Cut(name, "(")
	words := strings.FieldsFunc(short, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	var initials []rune
	for _, w := range words {
		if len(initials) < 2 {
			initials = append(initials, unicode.ToUpper([]rune(w)[0]))
		}
	}
	hash := fnv.New32a()
	hash.Write([]byte(strings.ToLower(name)))
	return tile{Initials: string(initials), Hue: hash.Sum32() % hues}
}

// who is the end user whose account is connected, as the app has named them. It
// lets somebody who was sent a stranger's link see that it isn't theirs (S1).
type who struct{ Name, More string }

func whoOf(s *connect.Session) *who {
	var parts []string
	if u := s.EndUser; u != nil {
		parts = append(parts, u.DisplayName, u.Email)
	} else {
		parts = append(parts, s.Tags["end_user_display_name"], s.Tags["end_user_email"])
	}
	if s.Organization != nil {
		parts = append(parts, s.Organization.DisplayName)
	}
	var known []string
	for _, p := range parts {
		if p = strings.TrimSpace(p); p != "" {
			known = append(known, p)
		}
	}
	if len(known) == 0 {
		if id := s.UserID(); id != "" {
			return &who{Name: id}
		}
		return nil
	}
	return &who{Name: known[0], More: strings.Join(known[1:], " · ")}
}

// step is one stop on the visitor's way.
type step struct {
	Label         string
	Done, Current bool
}

const (
	stepChoose = iota
	stepConnect
	stepDone
)

// steps shows how far the visitor has come. There is nothing to choose where
// only one integration is offered.
func (h *Handler) steps(current int, several bool) []step {
	var out []step
	for i, label := range []string{h.text.StepChoose, h.text.StepConnect, h.text.StepDone} {
		if i == stepChoose && !several {
			continue
		}
		out = append(out, step{Label: label, Done: i < current || current == stepDone, Current: i == current})
	}
	return out
}
