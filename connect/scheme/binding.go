package scheme

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// Binding is one version of a credential, compiled: where calls go, and what
// is put on them.
type Binding struct {
	// Base is where the provider's API is, as this connection reaches it.
	// It isn't to be changed.
	Base *url.URL
	// Renewable tells whether the credential can be renewed without its user.
	Renewable bool

	expired []int // statuses besides 401 that say so
	headers []header
	query   []param
	each    *each // what has to be made for each request; usually nil
}

// Format keeps the credential out of whatever prints a Binding.
func (Binding) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

type header struct {
	name  string   // canonical
	value []string // shared by all requests: never appended to, never changed
	// owned headers carry the credential: whatever the caller sent under the
	// name gives way. The others are defaults that the caller may set.
	owned bool
}

type param struct{ name, escaped string }

// each holds templates that depend on the request or on chance.
type each struct {
	headers map[string]catalog.Value
	owned   map[string]bool
	env     func(*http.Request) *catalog.Env
}

// ErrNoUpstream says that the provider's entry has no API to call.
var ErrNoUpstream = errors.New("provider has no API to call")

// Bind fills the entry's templates from a grant.
func (b base) Bind(g Grant) (*Binding, error) {
	req := b.provider.Request
	if req == nil {
		return nil, ErrNoUpstream
	}
	if len(req.Body) > 0 || req.Query.PerRequest() {
		return nil, &UnsupportedError{Provider: b.provider.ID, Feature: "a credential inside the body, or a query made for each request"}
	}
	env := b.env(g, nil)
	base, err := req.BaseURL.Fill(env)
	if err != nil {
		return nil, fmt.Errorf("base URL of provider %s: %w", b.provider.ID, err)
	}
	out := &Binding{Base: base, expired: req.ExpiredStatuses}
	for name, v := range req.Headers {
		owned := CarriesCredential(v.Refs()) || strings.EqualFold(name, "user-agent")
		if v.PerRequest() {
			if out.each == nil {
				out.each = &each{headers: map[string]catalog.Value{}, owned: map[string]bool{}, env: func(r *http.Request) *catalog.Env {
					return b.env(g, requestValues(r, nil))
				}}
			}
			out.each.headers[http.CanonicalHeaderKey(name)] = v
			out.each.owned[http.CanonicalHeaderKey(name)] = owned
			continue
		}
		value, err := v.FillHeader(name, env)
		if errors.Is(err, catalog.ErrMissing) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("provider %s: %w", b.provider.ID, err)
		}
		out.headers = append(out.headers, header{http.CanonicalHeaderKey(name), []string{value}, owned})
	}
	query, err := req.Query.FormPresent(env)
	if err != nil {
		return nil, fmt.Errorf("query of provider %s: %w", b.provider.ID, err)
	}
	for name := range query {
		out.query = append(out.query, param{name, url.QueryEscape(name) + "=" + url.QueryEscape(query.Get(name))})
	}
	slices.SortFunc(out.query, func(a, b param) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// CarriesCredential tells whether a template with these references holds a
// secret once it is filled.
func CarriesCredential(refs []catalog.Ref) bool {
	return slices.ContainsFunc(refs, func(r catalog.Ref) bool {
		return r.Namespace == "cred" || r.Namespace == "token" || r.Namespace == "resp" || r.Namespace == "signed" ||
			r.Namespace == "app" && r.Path == "client_secret"
	})
}

// Inject puts the credential on a request. It sets headers and query
// parameters, and never where the request goes. What the caller sent in their
// place is gone (S86).
func (b *Binding) Inject(r *http.Request) error {
	for i := range b.headers {
		h := &b.headers[i]
		if !h.owned {
			if _, set := r.Header[h.name]; set || h.name == "Content-Type" && r.ContentLength == 0 {
				continue
			}
		}
		r.Header[h.name] = h.value
	}
	if len(b.query) > 0 {
		r.URL.RawQuery = b.addQuery(r.URL.RawQuery)
	}
	if b.each == nil {
		return nil
	}
	env := b.each.env(r)
	for name, v := range b.each.headers {
		if _, set := r.Header[name]; set && !b.each.owned[name] {
			continue
		}
		value, err := v.FillHeader(name, env)
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

// addQuery adds the credential's parameters to a raw query, whose own ones of
// the same names are taken out, also where they hide behind a semicolon, which
// some servers take for an ampersand. All others keep their very bytes.
func (b *Binding) addQuery(raw string) string {
	var kept []string
	for part := range strings.SplitSeq(raw, "&") {
		owned := false
		for piece := range strings.SplitSeq(part, ";") {
			owned = owned || b.owns(piece)
		}
		if part != "" && !owned {
			kept = append(kept, part)
		}
	}
	for _, p := range b.query {
		kept = append(kept, p.escaped)
	}
	return strings.Join(kept, "&")
}

// owns tells whether a piece of a query has the name of one of the credential's
// parameters, or one that can't be read.
func (b *Binding) owns(piece string) bool {
	key, _, _ := strings.Cut(piece, "=")
	name, err := url.QueryUnescape(key)
	return err != nil || slices.ContainsFunc(b.query, func(p param) bool { return p.name == name })
}

// requestValues gives templates the request they are part of (req.*).
func requestValues(r *http.Request, body []byte) lookup {
	return func(ns, path string) (string, bool) {
		if ns != "req" {
			return "", false
		}
		return requestValue(r, body, path)
	}
}

func requestValue(r *http.Request, body []byte, path string) (string, bool) {
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
		return string(body), true
	case "canonical_params":
		return canonicalParams(r, body), true
	}
	return "", false
}

// canonicalParams are a request's parameters, sorted by key and encoded as RFC
// 3986 says: those of the body for POST, PUT and PATCH, else of the query.
func canonicalParams(r *http.Request, body []byte) string {
	raw := r.URL.RawQuery
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		raw = string(body)
	}
	values, err := url.ParseQuery(raw)
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

// percentEncode encodes all but the unreserved characters (RFC 3986 section
// 2.3), in upper case.
func percentEncode(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// Expired tells whether an answer says that the credential has ended: a 401, or
// what the provider's entry takes for one. A 401 that asks for a wider scope is
// none of these: a new token would have the same scope (RFC 6750 section 3.1).
func (b *Binding) Expired(res *http.Response) bool {
	if res.StatusCode != http.StatusUnauthorized {
		return slices.Contains(b.expired, res.StatusCode)
	}
	for _, challenge := range res.Header["Www-Authenticate"] {
		if strings.Contains(challenge, "insufficient_scope") {
			return false
		}
	}
	return true
}

// Names lists the headers and query parameters that are put on a request.
func (b *Binding) Names() (headers, query []string) {
	for _, h := range b.headers {
		headers = append(headers, h.name)
	}
	if b.each != nil {
		for name := range b.each.headers {
			headers = append(headers, name)
		}
	}
	slices.Sort(headers)
	for _, p := range b.query {
		query = append(query, p.name)
	}
	return headers, query
}
