// Package console is the operator's console: what there is, what has happened,
// and what can be done about it, as plain pages over the REST API. It has no way
// of its own to store, vault or connections. Each page makes the API's calls as
// whoever is signed in, so that it shows and does what that key may, checked and
// logged as for any other caller.
//
// It may import connect, connect/api, connect/policy, vault, zap and the standard
// library.
package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

// Console serves the pages below Path.
type Console struct {
	// Path is where the pages are, such as /console.
	Path string
	// API answers the calls.
	API http.Handler
	// Doors lets operators in; nil: whoever gets here has been checked by other
	// means, and API trusts its callers.
	Doors *Doors
	Setup *connect.Setup
	// Proxy makes a call as the caller that the request's context has, by
	// api.As; it answers errors itself.
	Proxy http.HandlerFunc
	// Secure says that the pages are reached by https.
	Secure bool
	Logger *zap.Logger
}

//go:embed templates/*.html console.css console.js
var files embed.FS

// handler answers a request with a page, or with a redirect to one.
type handler func(v *visit) error

// visit is one request of somebody who is signed in.
type visit struct {
	*Console
	w http.ResponseWriter
	r *http.Request
	// who is signed in, "" where others check that.
	who string
}

// Handler returns the console.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	at := func(pattern string, h handler) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+c.Path+path, c.wrap(h))
	}
	at("GET /{$}", overview)
	at("GET /connections", listConnections)
	at("GET /connection", showConnection)
	at("POST /connection", changeConnection)
	at("GET /integrations", listIntegrations)
	at("GET /integrations/new", newIntegration)
	at("POST /integrations/new", createIntegration)
	at("GET /integration", showIntegration)
	at("POST /integration", changeIntegration)
	at("GET /logs", listLogs)
	at("GET /log", showLog)
	at("GET /webhooks", listWebhooks)
	at("POST /webhooks", redeliver)
	at("GET /preview", showPreview)
	at("POST /preview", preview)
	at("GET /try", showTry)
	at("POST /try", try)
	at("GET /keys", listKeys)
	at("POST /keys", changeKeys)
	at("GET /", func(v *visit) error {
		return &Refusal{Status: http.StatusNotFound, Message: "There is no such page."}
	})
	if c.Doors != nil {
		mux.Handle("GET "+c.Path+"/login", http.HandlerFunc(c.showLogin))
		mux.Handle("POST "+c.Path+"/login", http.HandlerFunc(c.login))
		mux.Handle("POST "+c.Path+"/logout", http.HandlerFunc(c.logout))
	}
	mux.Handle("GET "+c.Path, http.RedirectHandler(c.Path+"/", http.StatusSeeOther))
	// Forms of other sites are refused (S20, S25); the cookie isn't sent with them
	// either.
	return c.headers(new(http.CrossOriginProtection).Handler(mux))
}

// headers keeps answers from being stored, framed or guessed at.
func (c *Console) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Robots-Tag", "noindex, nofollow")
		r.Body = http.MaxBytesReader(w, r.Body, 256<<10)
		next.ServeHTTP(w, r)
	})
}

// wrap lets who is signed in to a page, and is where all errors end.
func (c *Console) wrap(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{Console: c, w: w, r: r}
		if c.Doors != nil {
			in, who, err := c.Doors.admit(r)
			if err != nil {
				c.refuse(v, err)
				return
			}
			if in == nil {
				http.Redirect(w, r, c.Path+"/login", http.StatusSeeOther)
				return
			}
			v.r, v.who = in, who
		}
		if err := h(v); err != nil {
			c.refuse(v, err)
		}
	})
}

func (c *Console) refuse(v *visit, err error) {
	var re *Refusal
	if !errors.As(err, &re) {
		if errors.Is(err, context.Canceled) {
			return
		}
		c.Logger.Error("showing a page of the console", zap.String("path", v.r.URL.Path), zap.Error(err))
		re = &Refusal{Status: http.StatusInternalServerError, Message: "This page could not be made. The log says why."}
	}
	status := re.Status
	if rerr := c.render(v, status, "error", "Something is in the way", re); rerr != nil {
		c.Logger.Error("showing an error", zap.Error(rerr))
		http.Error(v.w, re.Message, status)
	}
}

// section is a part of the console, as it is led to.
type section struct{ Path, Section, Title string }

var sections = []section{
	{"", "", "Overview"}, {"connections", "connection", "Connections"}, {"integrations", "integration", "Integrations"}, {"logs", "log", "Logs"},
	{"webhooks", "webhook", "Webhooks"}, {"keys", "key", "API keys"}, {"try", "try", "Try a call"}, {"preview", "preview", "Preview"},
}

// page is what the layout is filled with.
type page struct {
	Path, Title, Section, Who string
	Nav                       []section
	Doors                     bool
	Nonce                     string
	Style                     template.CSS
	Script                    template.JS
	Body                      any
}

func (v *visit) show(name, title string, body any) error {
	return v.render(v, http.StatusOK, name, title, body)
}

// to redirects to another page of the console.
func (v *visit) to(path string) error {
	http.Redirect(v.w, v.r, v.Path+path, http.StatusSeeOther)
	return nil
}

func (c *Console) render(v *visit, status int, name, title string, body any) error {
	css, err := files.ReadFile("console.css")
	if err != nil {
		return err
	}
	js, err := files.ReadFile("console.js")
	if err != nil {
		return err
	}
	section, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(v.r.URL.Path, c.Path), "/"), "/")
	nonce := rand.Text()
	var out bytes.Buffer
	err = pages[name].ExecuteTemplate(&out, "layout.html", page{
		Path: c.Path, Nav: sections, Title: title, Section: strings.TrimSuffix(section, "s"), Who: v.who, Doors: c.Doors != nil,
		Nonce: nonce, Style: template.CSS(css), Script: template.JS(js), Body: body,
	})
	if err != nil {
		return fmt.Errorf("making the page %s: %w", name, err)
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'; connect-src 'self'; img-src 'self' data:; style-src 'nonce-"+nonce+"'; script-src 'nonce-"+nonce+"'")
	v.w.WriteHeader(status)
	_, _ = out.WriteTo(v.w)
	return nil
}

// pages are the templates, each with the layout and the parts that all share.
var pages = func() map[string]*template.Template {
	all := make(map[string]*template.Template)
	for _, name := range []string{
		"login", "error", "overview", "connections", "connection", "integrations", "integration_new", "integration", "logs", "log", "webhooks", "keys", "try", "preview",
	} {
		t := template.New(name).Funcs(functions)
		all[name] = template.Must(t.ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/"+name+".html"))
	}
	return all
}()
