package page

import (
	_ "embed"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
)

// logos.txt has the marks of vendors in the catalog, as Simple Icons 16.37 has
// them (CC0 1.0): a name, a colour, a path in a square of 24. Marks with a
// licence of their own, and those of more than 1,400 characters, are left out:
// a vendor without one gets its initials.
//
//go:embed logos.txt
var logoFile string

type mark struct{ colour, path string }

var marks = sync.OnceValue(func() map[string]mark {
	all := make(map[string]mark)
	for line := range strings.Lines(logoFile) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		colour, path, _ := strings.Cut(rest, " ")
		all[name] = mark{colour, path}
	}
	return all
})

// logoOf is the name of a provider's mark, or empty.
func logoOf(p *catalog.Provider) string {
	for _, id := range []string{p.ID, p.AliasOf, p.Vendor} {
		name := strings.ReplaceAll(id, "-", "")
		if _, ok := marks()[name]; ok {
			return name
		}
	}
	return ""
}

// serveLogo serves a mark: white on its colour, or dark where that is light.
func (h *Handler) serveLogo(w http.ResponseWriter, r *http.Request) {
	m, ok := marks()[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, logoPath), ".svg")]
	if !ok {
		h.fail(w, r, http.StatusNotFound, h.text.NotFound)
		return
	}
	head := w.Header()
	head.Set("Content-Type", "image/svg+xml")
	head.Set("Cache-Control", "public, max-age=604800")
	head.Set("Content-Security-Policy", "default-src 'none'")
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><path fill="#%s" d="M0 0h48v48H0z"/><path fill="%s" d="%s" transform="translate(12 12)"/></svg>`,
		m.colour, inkOn(m.colour), m.path)
	if err != nil {
		h.logger.Debug("the visitor has gone", zap.Error(err))
	}
}

// inkOn is white or nearly black, whichever can be seen better on a colour.
func inkOn(colour string) string {
	if luminance(colour) > .5 {
		return "#16181d"
	}
	return "#fff"
}

// luminance is how bright a colour in six hex digits is, from 0 to 1.
func luminance(colour string) float64 {
	n, err := strconv.ParseUint(colour, 16, 32)
	if err != nil {
		return 0
	}
	return (.2126*float64(n>>16&255) + .7152*float64(n>>8&255) + .0722*float64(n&255)) / 255
}
