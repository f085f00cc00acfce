package caddymodule

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/page"
)

// Look is how the connect pages look. Without any, they show no name but your
// app's and the provider's.
type Look struct {
	// Added to the title of every page.
	Title string `json:"title,omitempty"`

	// Image files (PNG, SVG, WebP or JPEG, 18 KiB at most): what stands above
	// the page, and what is in the browser's tab.
	Logo string `json:"logo,omitempty"`
	Icon string `json:"icon,omitempty"`

	// `light` or `dark`. Default: as the visitor's browser wants it
	Mode string `json:"mode,omitempty"`

	// Font families that the visitor's device may have. None are loaded.
	Font string `json:"font,omitempty"`

	// The radius of corners in pixels, 0 to 32. Default: 12
	Radius string `json:"radius,omitempty"`

	// Colours as `#rrggbb`, by name: accent, accent-strong, on-accent, ground,
	// card, sunken, hover, ink, soft, faint, edge, good, good-ground, bad,
	// bad-ground, warn, warn-ground. With an accent alone, what goes with it
	// follows.
	Colors map[string]string `json:"colors,omitempty"`

	// The same for dark pages.
	DarkColors map[string]string `json:"dark_colors,omitempty"`

	// Texts to be shown in place of the pages' own, by their names.
	Texts map[string]string `json:"texts,omitempty"`
}

var imageTypes = map[string]string{".png": "png", ".svg": "svg+xml", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}

// load checks a look and reads its images.
func (l *Look) load(repl *caddy.Replacer) (connect.Look, error) {
	if l == nil {
		return connect.Look{}, nil
	}
	out := connect.Look{
		Title: l.Title, Mode: l.Mode, Font: l.Font, Radius: l.Radius,
		Colors: l.Colors, DarkColors: l.DarkColors, Texts: l.Texts,
	}
	for name, image := range map[string]struct {
		file string
		to   *string
	}{"logo": {l.Logo, &out.Logo}, "icon": {l.Icon, &out.Icon}} {
		if image.file == "" {
			continue
		}
		file, err := repl.ReplaceOrErr(image.file, true, true)
		if err != nil {
			return out, fmt.Errorf("look: %s: %w", name, err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return out, fmt.Errorf("look: %s: %w", name, err)
		}
		kind, ok := imageTypes[filepath.Ext(file)]
		if !ok {
			return out, fmt.Errorf("look: %s: %s is no .png, .svg, .webp or .jpg", name, file)
		}
		*image.to = "data:image/" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)
	}
	return out, page.CheckLook(out)
}

// parse reads the block of the option look. Syntax:
//
//	look {
//	    title  <text>
//	    logo   <file>
//	    icon   <file>
//	    mode   light|dark
//	    font   <families>
//	    radius <pixels>
//	    color  <name> <rrggbb> [<rrggbb when dark>]
//	    text   <name> <text>
//	}
func (l *Look) parse(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	plain := map[string]*string{"title": &l.Title, "logo": &l.Logo, "icon": &l.Icon, "mode": &l.Mode, "font": &l.Font, "radius": &l.Radius}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch name := d.Val(); {
		case plain[name] != nil:
			if err := oneArg(d, plain[name]); err != nil {
				return err
			}
		case name == "color":
			args := d.RemainingArgs()
			if len(args) < 2 || len(args) > 3 {
				return d.ArgErr()
			}
			set(&l.Colors, args[0], args[1])
			if len(args) == 3 {
				set(&l.DarkColors, args[0], args[2])
			}
		case name == "text":
			if err := pair(d, &l.Texts); err != nil {
				return err
			}
		default:
			return d.Errf("unrecognized look option %s", name)
		}
	}
	return nil
}

// set keeps a colour. In a Caddyfile its # would begin a comment, and is left out.
func set(m *map[string]string, key, value string) {
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[key] = "#" + strings.TrimPrefix(value, "#")
}
