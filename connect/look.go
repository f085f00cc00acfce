package connect

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Look is how the pages look. What is empty is as it would be without: the
// session's look lies over the integration's, and that over the general one.
type Look struct {
	// Title is added to every page's own.
	Title string `json:"title,omitempty"`
	// Logo stands above the page, Icon in the browser's tab: images as data
	// addresses (PNG, SVG, WebP, JPEG), of 24 KiB at most.
	Logo string `json:"logo,omitempty"`
	Icon string `json:"icon,omitempty"`
	// Mode is light or dark; empty: as the browser wants it.
	Mode string `json:"mode,omitempty"`
	// Font is a list of font families that the visitor's device may have.
	Font string `json:"font,omitempty"`
	// Radius of the corners, in pixels: 0 to 32, as a number.
	Radius string `json:"radius,omitempty"`
	// Colors are CSS variables, by their names in LookColors, as #rrggbb;
	// DarkColors are for dark pages.
	Colors     map[string]string `json:"colors,omitempty"`
	DarkColors map[string]string `json:"dark_colors,omitempty"`
	// Texts replaces texts of the pages, by name, in all languages.
	Texts map[string]string `json:"texts,omitempty"`
}

// LookColors are the colours that a look may set: accent is that of buttons and
// links, on-accent what is written on it; ground is behind the card; ink and
// soft are text, faint and edge are lines.
var LookColors = []string{
	"accent", "accent-strong", "on-accent", "ground", "card", "sunken", "hover", "ink", "soft", "faint", "edge",
	"good", "good-ground", "bad", "bad-ground", "warn", "warn-ground",
}

// maxImage bounds a look's image as a data address.
const maxImage = 24 << 10

var (
	colorForm = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	fontForm  = regexp.MustCompile(`^[A-Za-z0-9 ,"'-]{1,200}$`)
	imageForm = regexp.MustCompile(`^data:image/(png|svg\+xml|webp|jpeg);base64,[A-Za-z0-9+/]+={0,2}$`)
)

// LookError is a look that can't be used.
type LookError struct {
	// Name is that of the part, as in JSON.
	Name   string
	Reason string
}

func (e *LookError) Error() string { return "look: " + e.Name + " " + e.Reason }

// Check refuses whatever would be more than a look: nothing in it can become
// markup, an address elsewhere, or a rule of style of its own (S24).
func (l *Look) Check() error {
	bad := func(name, reason string) error { return &LookError{name, reason} }
	if len(l.Title) > 100 {
		return bad("title", "is longer than 100 bytes")
	}
	for name, image := range map[string]string{"logo": l.Logo, "icon": l.Icon} {
		if image != "" && (len(image) > maxImage || !imageForm.MatchString(image)) {
			return bad(name, "is no data:image/… address in base64 of at most 24 KiB")
		}
	}
	if l.Mode != "" && l.Mode != "light" && l.Mode != "dark" {
		return bad("mode", "is neither light nor dark")
	}
	if l.Font != "" && (!fontForm.MatchString(l.Font) || strings.Count(l.Font, `"`)%2 != 0 || strings.Count(l.Font, "'")%2 != 0) {
		return bad("font", "is no list of font families")
	}
	if n, err := strconv.Atoi(l.Radius); l.Radius != "" && (err != nil || n < 0 || n > 32) {
		return bad("radius", "is no number from 0 to 32")
	}
	for part, colors := range map[string]map[string]string{"colors": l.Colors, "dark_colors": l.DarkColors} {
		for name, c := range colors {
			if !slices.Contains(LookColors, name) {
				return bad(part, fmt.Sprintf("has %q, which is none of %s", name, strings.Join(LookColors, ", ")))
			}
			if !colorForm.MatchString(c) {
				return bad(part, fmt.Sprintf("has %s, which is not written as #rrggbb", name))
			}
		}
	}
	for name, text := range l.Texts {
		if len(text) > 500 || len(name) > 40 {
			return bad("texts", fmt.Sprintf("has %.40q, which is longer than 500 bytes", name))
		}
	}
	return nil
}

// Over is l over another look.
func (l Look) Over(base Look) Look {
	out := base
	for _, p := range []struct {
		to   *string
		from string
	}{{&out.Title, l.Title}, {&out.Logo, l.Logo}, {&out.Icon, l.Icon}, {&out.Mode, l.Mode}, {&out.Font, l.Font}, {&out.Radius, l.Radius}} {
		if p.from != "" {
			*p.to = p.from
		}
	}
	over := func(base, own map[string]string) map[string]string {
		if len(own) == 0 {
			return base
		}
		out := maps.Clone(base)
		if out == nil {
			out = make(map[string]string)
		}
		maps.Copy(out, own)
		return out
	}
	out.Colors, out.DarkColors, out.Texts = over(base.Colors, l.Colors), over(base.DarkColors, l.DarkColors), over(base.Texts, l.Texts)
	return out
}
