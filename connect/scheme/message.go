package scheme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// lookup gives templates values beside those of the grant, and is asked first.
type lookup func(namespace, path string) (string, bool)

// also asks a first and b for what a doesn't know. Either may be nil.
func also(a, b lookup) lookup {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	return func(ns, path string) (string, bool) {
		if v, ok := a(ns, path); ok {
			return v, true
		}
		return b(ns, path)
	}
}

// message is a request of keycaddy's own, as an entry describes it.
type message struct {
	method  string
	url     *url.URL
	body    string     // form, json, query, xml, none; empty: form
	form    url.Values // parameters of the standard, which params override
	params  catalog.Params
	query   catalog.Params
	tree    catalog.Params // a body in JSON that leaves out what doesn't resolve
	headers catalog.Headers
	// authorization is the standard's header, if it has one.
	authorization string
}

// build makes the request. The headers are filled last, since they may have
// a digest of the body in them.
func (m *message) build(ctx context.Context, b base, g Grant, extra lookup) (*http.Request, error) {
	var target *http.Request // for req.*, once it is there
	body := &held{whole: true}
	env := b.env(g, also(func(ns, path string) (string, bool) {
		if target == nil {
			return "", false
		}
		return requestValues(target, body)(ns, path)
	}, extra))
	u := *m.url
	payload, kind, err := m.payload(&u, env)
	if err != nil {
		return nil, err
	}
	body.bytes = payload
	target, err = http.NewRequestWithContext(ctx, m.method, u.String(), bytes.NewReader(payload))
	if err != nil {
		return nil, errors.New("the address of the request is unusable") // err may quote it
	}
	h := target.Header
	h.Set("Accept", "application/json")
	h.Set("User-Agent", userAgent)
	if kind != "" {
		h.Set("Content-Type", kind)
	}
	if m.authorization != "" {
		h.Set("Authorization", m.authorization)
	}
	headers, err := m.headers.Fill(env)
	if err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	for name, value := range headers {
		h.Set(name, value)
	}
	return target, nil
}

// userAgent is what keycaddy's own requests say of themselves.
const userAgent = "keycaddy"

// payload writes the parameters, into the URL's query or a body.
func (m *message) payload(u *url.URL, env *catalog.Env) (body []byte, kind string, err error) {
	if len(m.query) > 0 {
		values, err := m.query.Form(env)
		if err != nil {
			return nil, "", fmt.Errorf("query: %w", err)
		}
		addTo(u, values)
	}
	switch {
	case len(m.tree) > 0:
		doc, err := m.tree.FillPresent(env)
		if err != nil {
			return nil, "", fmt.Errorf("body: %w", err)
		}
		body, err = json.Marshal(doc)
		return body, "application/json", err
	case m.body == "none":
		return nil, "", nil
	case m.body == "xml":
		body, err := encodeXML(m.params, env)
		if err != nil {
			return nil, "", fmt.Errorf("parameters: %w", err)
		}
		return body, "application/xml", nil
	case m.body == "json":
		doc := make(map[string]any, len(m.form)+len(m.params))
		for name := range m.form {
			doc[name] = m.form.Get(name)
		}
		typed, err := m.params.Fill(env) // with their types
		if err != nil {
			return nil, "", fmt.Errorf("parameters: %w", err)
		}
		maps.Copy(doc, typed)
		body, err = json.Marshal(doc)
		return body, "application/json", err
	}
	values, err := m.params.Form(env)
	if err != nil {
		return nil, "", fmt.Errorf("parameters: %w", err)
	}
	for name := range m.form {
		if !values.Has(name) {
			values[name] = m.form[name]
		}
	}
	if m.body == "query" {
		addTo(u, values)
		return nil, "", nil
	}
	if m.method == http.MethodGet {
		return nil, "", nil
	}
	return []byte(values.Encode()), "application/x-www-form-urlencoded", nil
}

func addTo(u *url.URL, values url.Values) {
	q := u.Query()
	for name := range values {
		q.Set(name, values.Get(name))
	}
	u.RawQuery = q.Encode()
}

// payloadOf returns the body of a request of build's, which stays to be sent.
func payloadOf(r *http.Request) ([]byte, error) {
	if r.GetBody == nil {
		return nil, nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, fmt.Errorf("reading a request: %w", err)
	}
	return io.ReadAll(body)
}

// fetch sends a request and reads the answer. Whatever isn't a success with
// something readable in it is a *TokenError.
func (b base) fetch(req *http.Request, g Grant, whole bool) (document, error) {
	return b.read(req, g, whole, asJSON)
}

// fetchForm is fetch for answers that are forms, whatever they are called.
func (b base) fetchForm(req *http.Request, g Grant) (document, error) {
	return b.read(req, g, false, asForm)
}

func (b base) read(req *http.Request, g Grant, whole bool, usual syntax) (document, error) {
	client, err := b.clientFor(g)
	if err != nil {
		return document{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return document{}, unreachable(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return document{}, unreachable(err)
	}
	if len(body) > maxAnswer {
		return document{}, &TokenError{Class: Transient, Code: "too_large", Status: res.StatusCode, Description: "the provider's answer is larger than 1 MiB"}
	}
	as := max(syntaxOf(res.Header.Get("Content-Type")), usual)
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return document{}, failure(res, body, as)
	}
	doc, err := parseDocument(body, as)
	if whole {
		doc, err = textDocument(body)
	}
	if err != nil {
		return document{}, err
	}
	doc.cookies = cookiesOf(res)
	return doc, nil
}

// failure reads an answer that isn't a success.
func failure(res *http.Response, body []byte, as syntax) error {
	te := &TokenError{
		Class: Transient, Code: "http_" + strconv.Itoa(res.StatusCode), Status: res.StatusCode,
		RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now()),
	}
	if res.StatusCode >= 300 && res.StatusCode <= 399 {
		te.Code, te.Description = "redirect", "the token endpoint answered with a redirect, which is never followed with credentials"
		return te
	}
	if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout {
		return te
	}
	if doc, err := parseDocument(body, as); err == nil {
		var refused *TokenError
		if errors.As(refusal(doc, res.StatusCode), &refused) {
			refused.RetryAfter = te.RetryAfter
			return refused
		}
	}
	return te
}

// secrets are what must not come back in the text of an error: what the grant
// and the app hold, and what else was sent.
func (b base) secrets(g Grant, more ...string) []string {
	const least = 6 // what is shorter is no secret, and may be part of any word
	var out []string
	note := func(s string) {
		if len(s) >= least {
			out = append(out, s)
		}
	}
	for _, s := range more {
		note(s)
	}
	for name, v := range g.Fields {
		if f, ok := b.provider.Field("cred", name); !ok || f.Secret {
			note(v.Reveal())
		}
	}
	for i := range b.provider.AppFields {
		if f := &b.provider.AppFields[i]; f.Secret {
			note(b.app.Fields[f.Name])
		}
	}
	for i := range b.provider.ConnFields {
		if f := &b.provider.ConnFields[i]; f.Secret {
			note(g.Config[f.Name])
		}
	}
	for _, s := range []Secret{b.app.ClientSecret, g.AccessToken, g.RefreshToken, g.Cookies, g.Assertion} {
		note(s.Reveal())
	}
	for _, t := range g.Extra {
		note(t.AccessToken.Reveal())
		note(t.RefreshToken.Reveal())
	}
	return out
}

// scrubbed takes secrets out of a *TokenError: some providers quote what they
// were sent (S52). Any other error comes back as it is.
func scrubbed(err error, secrets []string) error {
	var te *TokenError
	if errors.As(err, &te) {
		for _, v := range secrets {
			for _, form := range []string{v, url.QueryEscape(v)} {
				te.Code = strings.ReplaceAll(te.Code, form, redacted)
				te.Description = strings.ReplaceAll(te.Description, form, redacted)
			}
		}
	}
	return err
}
