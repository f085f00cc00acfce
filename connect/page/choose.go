package page

import (
	"net/http"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
)

// findFrom is how many integrations are too many to look through.
const findFrom = 8

// choice is an integration as it is offered.
type choice struct {
	Key, Name, Domain, Link string
	Words                   string // what a search finds it by, in lower case
	Categories              []string
	Tile                    tile
	Hidden                  bool // by the search
}

type chooseView struct {
	App        string // empty: it has no name
	Who        *who
	Steps      []step
	Choices    []choice
	Find       bool
	Token      string
	Search     string
	Category   string
	Categories []category
	None       bool
}

// category is one that several integrations are in.
type category struct{ ID, Name string }

// serveChoose lets the visitor choose. The search is a form, which a script does
// without asking again.
func (h *Handler) serveChoose(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	token := q.Get("session_token")
	if token == "" && h.framed {
		h.render(w, http.StatusOK, "embed", page{Title: h.text.ChooseTitle})
		return
	}
	v, err := h.connector.Visit(r.Context(), token)
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	h = h.dressed(r, &v.Session, nil)
	switch len(v.Integrations) {
	case 0:
		h.fail(w, r, http.StatusNotFound, h.text.NothingToChoose)
		return
	case 1:
		seeOther(w, formLink(v.Integrations[0].Key, token))
		return
	}
	view := chooseView{
		App: h.connector.Setup.AppName, Who: whoOf(&v.Session), Steps: h.steps(stepChoose, true), Find: len(v.Integrations) >= findFrom, Token: token,
		Search: strings.TrimSpace(q.Get("q")), Category: q.Get("category"), None: true,
	}
	found := make(map[string]int)
	for _, in := range v.Integrations {
		c := choiceOf(in, token)
		c.Hidden = view.Find && !c.matches(view.Search, view.Category)
		view.None = view.None && c.Hidden
		for _, id := range c.Categories {
			found[id]++
		}
		view.Choices = append(view.Choices, c)
	}
	for id, n := range found {
		if n < len(v.Integrations) {
			view.Categories = append(view.Categories, category{id, categoryName(id)})
		}
	}
	slices.SortFunc(view.Categories, func(a, b category) int { return strings.Compare(a.Name, b.Name) })
	h.render(w, http.StatusOK, "choose", page{Title: h.text.ChooseTitle, Wide: len(view.Choices) > 4, Data: view})
}

func choiceOf(in *connect.Integration, token string) choice {
	p := in.Provider
	return choice{
		Key: in.Key, Name: in.DisplayName, Domain: p.VendorDomain, Link: formLink(in.Key, token), Tile: tileFor(in), Categories: p.Categories,
		Words: strings.ToLower(strings.Join([]string{in.DisplayName, p.VendorDomain, p.Vendor, in.Key}, " ")),
	}
}

func (c *choice) matches(search, category string) bool {
	for word := range strings.FieldsSeq(strings.ToLower(search)) {
		if !strings.Contains(c.Words, word) {
			return false
		}
	}
	return category == "" || slices.Contains(c.Categories, category)
}

// categoryName is a category's id in words: they are names of the trade, and
// much the same in all languages.
func categoryName(id string) string {
	name := strings.ReplaceAll(id, "-", " ")
	if len(name) <= 3 {
		return strings.ToUpper(name)
	}
	return strings.ToUpper(name[:1]) + name[1:]
}
