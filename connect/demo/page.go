package demo

import (
	"bytes"
	"crypto/rand"
	"embed"
	"html/template"
	"net/http"
)

//go:embed templates
var templates embed.FS

// pages holds each page with the frame around it.
var pages = func() map[string]*template.Template {
	m := map[string]*template.Template{}
	for _, name := range []string{"index", "authorize", "error"} {
		m[name] = template.Must(template.ParseFS(templates, "templates/frame.html", "templates/"+name+".html"))
	}
	return m
}()

// serveIndex tells what this is.
func (p *Provider) serveIndex(w http.ResponseWriter, r *http.Request) {
	p.servePage(w, http.StatusOK, "index", struct {
		Options
		Accounts []Account
	}{p.options, Accounts()})
}

// servePage writes a page that needs no script and can't be framed.
//
// There is no form-action in its policy: browsers hold the redirects that
// follow a form against it, and where the client sends the visitor on from its
// redirect URI isn't known here. The referrer stays on this origin; with
// no-referrer the form would arrive with "Origin: null", which says nothing.
func (p *Provider) servePage(w http.ResponseWriter, status int, name string, data any) {
	nonce := rand.Text()
	var b bytes.Buffer
	if err := pages[name].Execute(&b, struct {
		Nonce string
		Data  any
	}{nonce, data}); err != nil {
		panic(err) // a fault of the template, which the tests would find
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+nonce+"'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}
