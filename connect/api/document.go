package api

import (
	_ "embed"
	"html/template"
	"net/http"

	"github.com/keycaddy/keycaddy/connect/api/openapi"
)

// getDocument serves the OpenAPI document. It needs no key: it says no more than
// the documentation does.
func (a *API) getDocument(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Origin", "*")
	_, err := w.Write(document().JSON)
	return err
}

//go:embed document.html
var documentPage string

var documentTemplate = template.Must(template.New("document").Parse(documentPage))

// getDocumentation shows the document as a page without scripts, that asks
// nobody for anything.
func (a *API) getDocumentation(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	return documentTemplate.Execute(w, struct {
		Title, Description string
		Sections           []openapi.Section
	}{document().Title(), document().Description(), document().Sections()})
}
