package scheme

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// each is what has to be made for each request: templates that depend on the
// request or on chance, and what goes into its body.
type each struct {
	headers map[string]catalog.Value
	owned   map[string]bool
	query   catalog.Params
	body    catalog.Params
	// late says that a template needs the request's body, so that all of them
	// are filled when it is there: they may refer to each other's moment.
	late bool
	env  func(lookup) *catalog.Env
}

// perRequest returns the binding's each, making it first if need be.
func (b *Binding) perRequest(by base, g Grant) *each {
	if b.each == nil {
		b.each = &each{headers: map[string]catalog.Value{}, owned: map[string]bool{}, env: func(extra lookup) *catalog.Env {
			return by.env(g, extra)
		}}
	}
	return b.each
}

func (e *each) header(name string, v catalog.Value, owned bool) {
	e.headers[name], e.owned[name] = v, owned
	e.late = e.late || slices.ContainsFunc(v.Refs(), func(r catalog.Ref) bool {
		return r.Namespace == "req" && (r.Path == "body" || r.Path == "canonical_params")
	})
}

// put fills the templates for a request and puts them on it.
func (e *each) put(r *http.Request, body *held) error {
	env := e.env(requestValues(r, body))
	if len(e.query) > 0 {
		values, err := e.query.FormPresent(env)
		if err != nil {
			return err
		}
		parts := []string{}
		if r.URL.RawQuery != "" {
			parts = append(parts, r.URL.RawQuery)
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			parts = append(parts, url.QueryEscape(name)+"="+url.QueryEscape(values.Get(name)))
		}
		r.URL.RawQuery = strings.Join(parts, "&")
	}
	for name, v := range e.headers {
		if _, set := r.Header[name]; set && !e.owned[name] {
			continue
		}
		value, err := v.FillHeader(name, env)
		if body.missed() {
			return body.err()
		}
		if errors.Is(err, catalog.ErrMissing) {
			continue
		}
		if err != nil {
			return err
		}
		r.Header[name] = []string{value}
	}
	return nil
}

// held is a request's body as far as it is at hand: whole, or streaming by.
type held struct {
	bytes  []byte
	whole  bool
	needed bool // a body that isn't at hand was asked for
}

func (h *held) get() []byte {
	if h == nil {
		return nil
	}
	h.needed = h.needed || !h.whole
	return h.bytes
}

func (h *held) missed() bool { return h != nil && h.needed }

func (h *held) err() error {
	return &BodyError{TooLarge: true, Reason: "the provider wants requests signed over their whole body, and this one is too large to be held, or its length isn't told"}
}

// BodyError is a request that can't be given its credential because of its body.
type BodyError struct {
	// TooLarge says that the body isn't held; else it is of the wrong kind.
	TooLarge bool
	Reason   string
}

func (e *BodyError) Error() string { return e.Reason }

// Sign makes the signatures of a request that is otherwise ready to be sent,
// and puts what belongs there into its body: last of all, and again for every
// attempt. Body is the request's whole body if it is held. Errors: *BodyError,
// and what the templates lack.
func (b *Binding) Sign(r *http.Request, body []byte, whole bool) error {
	if b.each == nil && b.signer == nil {
		return nil
	}
	h := &held{bytes: body, whole: whole}
	if b.each != nil {
		if err := b.each.inject(r, h); err != nil {
			return err
		}
		if b.each.late {
			if err := b.each.put(r, h); err != nil {
				return err
			}
		}
	}
	if b.signer != nil {
		return b.signer.sign(r, h)
	}
	return nil
}

// A signer puts a signature on a request, over what is really sent.
type signer interface {
	sign(r *http.Request, body *held) error
	// names are the headers that it sets.
	names() []string
}

// apply is Inject and Sign, for requests of keycaddy's own.
func (b *Binding) apply(r *http.Request, body []byte) error {
	if err := b.Inject(r); err != nil {
		return err
	}
	return b.Sign(r, body, true)
}

// inject merges the entry's values into a body in JSON or a form. What the
// caller sent in their place is gone (S86).
func (e *each) inject(r *http.Request, h *held) error {
	if len(e.body) == 0 {
		return nil
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return nil
	}
	if !h.whole {
		return &BodyError{TooLarge: true, Reason: "the provider wants the credential inside the body, and this one is too large to be held, or its length isn't told"}
	}
	env := e.env(requestValues(r, h))
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var out []byte
	switch {
	case kind == "application/x-www-form-urlencoded":
		if slices.ContainsFunc(e.body, func(p catalog.Pair) bool { return p.Value.Pairs() != nil }) {
			return &BodyError{Reason: "the provider wants the credential inside a body in JSON, not in a form"}
		}
		add, err := e.body.FormPresent(env)
		if err != nil {
			return err
		}
		form, err := url.ParseQuery(string(h.bytes))
		if err != nil {
			return &BodyError{Reason: "the body is not a form"}
		}
		maps.Copy(form, add)
		out = []byte(form.Encode())
	case kind == "" || kind == "application/json" || strings.HasSuffix(kind, "+json"):
		add, err := e.body.FillPresent(env)
		if err != nil {
			return err
		}
		doc := map[string]any{}
		if len(bytes.TrimSpace(h.bytes)) > 0 {
			dec := json.NewDecoder(bytes.NewReader(h.bytes))
			dec.UseNumber()
			if err := dec.Decode(&doc); err != nil || doc == nil {
				return &BodyError{Reason: "the body is not a JSON object, which the provider wants the credential in"}
			}
		}
		merge(doc, add)
		if out, err = json.Marshal(doc); err != nil {
			return fmt.Errorf("writing the body: %w", err)
		}
		if kind == "" {
			r.Header["Content-Type"] = []string{"application/json"}
		}
	default:
		return &BodyError{Reason: "the provider wants the credential inside a body in JSON or a form, not in " + clean(kind)}
	}
	h.bytes = out
	r.ContentLength = int64(len(out))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out)), nil }
	r.Body = io.NopCloser(bytes.NewReader(out))
	delete(r.Header, "Content-Length")
	return nil
}

// merge puts add into doc, map by map.
func merge(doc, add map[string]any) {
	for name, v := range add {
		inner, isMap := v.(map[string]any)
		if theirs, ok := doc[name].(map[string]any); ok && isMap {
			merge(theirs, inner)
			continue
		}
		doc[name] = v
	}
}

// requestValues gives templates the request they are part of (req.*).
func requestValues(r *http.Request, body *held) lookup {
	return func(ns, path string) (string, bool) {
		if ns != "req" {
			return "", false
		}
		switch path {
		case "method":
			return r.Method, true
		case "host":
			return r.URL.Host, true
		case "path":
			return r.URL.EscapedPath(), true
		case "endpoint":
			return r.URL.RequestURI(), true
		case "body":
			return string(body.get()), true
		case "canonical_params":
			return canonicalParams(r, body), true
		}
		return "", false
	}
}

// canonicalParams are a request's parameters, sorted by key and encoded as RFC
// 3986 says: those of the body for POST, PUT and PATCH, else of the query.
func canonicalParams(r *http.Request, body *held) string {
	values, err := url.ParseQuery(r.URL.RawQuery)
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		values, err = bodyParams(r, body.get())
	}
	if err != nil {
		return ""
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		list := slices.Clone(values[name])
		slices.Sort(list)
		for _, v := range list {
			pairs = append(pairs, percentEncode(name)+"="+percentEncode(v))
		}
	}
	return strings.Join(pairs, "&")
}

// bodyParams are those of a form, or the members of a JSON object that have a
// single value.
func bodyParams(r *http.Request, body []byte) (url.Values, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" {
		return url.ParseQuery(string(body))
	}
	doc, err := parseDocument(body, asJSON)
	if err != nil {
		return nil, err
	}
	members, _ := doc.root.(map[string]any)
	values := make(url.Values, len(members))
	for name, v := range members {
		if text, ok := scalarText(v); ok {
			values.Set(name, text)
		}
	}
	return values, nil
}

// percentEncode encodes all but the unreserved characters (RFC 3986 section
// 2.3), in upper case.
func percentEncode(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
