package scheme

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

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
	// Certificate is what the provider wants to see of the client when a
	// connection to it is made; nil: nothing.
	Certificate *tls.Certificate

	provider *catalog.Provider
	headers  []header // may be those of other connections too, see Share
	// The headers' values. The first is held here, since most entries have but
	// one, there may be a million bindings, and each allocation counts.
	first [1]string
	rest  []string

	query  []param
	parts  []string // secrets that what is injected is made of, see Secrets
	each   *each    // what has to be made for each request; usually nil
	signer signer   // signs each request; usually nil
}

// Format keeps the credential out of whatever prints a Binding.
func (Binding) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

type header struct {
	name string // canonical
	// owned headers carry the credential: whatever the caller sent under the
	// name gives way. The others are defaults that the caller may set.
	owned bool
	// secret headers are those of the owned ones that hold a secret.
	secret bool
}

type param struct{ name, escaped string }

// ErrNoUpstream says that the provider's entry has no API to call.
var ErrNoUpstream = errors.New("provider has no API to call")

// Bind fills the entry's templates from a grant.
func (b base) Bind(g Grant) (*Binding, error) {
	req := b.provider.Request
	if req == nil {
		return nil, ErrNoUpstream
	}
	base, err := req.BaseURL.Fill(b.env(g, nil))
	if err != nil {
		return nil, fmt.Errorf("base URL of provider %s: %w", b.provider.ID, err)
	}
	out, err := b.bind(g)
	if err != nil {
		return nil, err
	}
	out.Base = base
	return out, nil
}

// bind is Bind for requests whose address is known otherwise.
func (b base) bind(g Grant) (*Binding, error) {
	req := b.provider.Request
	if req == nil {
		return nil, ErrNoUpstream
	}
	env := b.env(g, nil)
	out := &Binding{provider: b.provider}
	for name, v := range req.Headers {
		secret := CarriesCredential(v.Refs())
		owned := secret || strings.EqualFold(name, "user-agent")
		if v.PerRequest() {
			out.perRequest(b, g).header(http.CanonicalHeaderKey(name), v, owned)
			continue
		}
		value, err := v.FillHeader(name, env)
		if errors.Is(err, catalog.ErrMissing) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("provider %s: %w", b.provider.ID, err)
		}
		if len(out.headers) == 0 {
			out.first[0] = value
		} else {
			out.rest = append(out.rest, value)
		}
		out.headers = append(out.headers, header{http.CanonicalHeaderKey(name), owned, secret})
	}
	query := req.Query
	if query.PerRequest() {
		out.perRequest(b, g).query = query
		for _, p := range query { // named now, so that the caller's give way
			out.query = append(out.query, param{name: p.Name})
		}
		query = nil
	}
	values, err := query.FormPresent(env)
	if err != nil {
		return nil, fmt.Errorf("query of provider %s: %w", b.provider.ID, err)
	}
	for name := range values {
		out.query = append(out.query, param{name, url.QueryEscape(name) + "=" + url.QueryEscape(values.Get(name))})
	}
	out.parts = b.parts(g, out)
	slices.SortFunc(out.query, func(a, b param) int { return strings.Compare(a.name, b.name) })
	if len(req.Body) > 0 {
		out.perRequest(b, g).body = req.Body
	}
	if out.Certificate, err = b.certificate(g); err != nil {
		return nil, err
	}
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

// Margin is how long before its end the provider wants the credential renewed;
// 0: it doesn't say.
func (b *Binding) Margin() time.Duration {
	if b.provider.TokenResponse == nil {
		return 0
	}
	return time.Duration(b.provider.TokenResponse.RefreshMarginS) * time.Second
}

// value is the i-th header's. It is shared by all requests: never appended to,
// never changed.
func (b *Binding) value(i int) []string {
	if i == 0 {
		return b.first[:]
	}
	return b.rest[i-1 : i : i]
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
		r.Header[h.name] = b.value(i)
	}
	if len(b.query) > 0 {
		r.URL.RawQuery = b.addQuery(r.URL.RawQuery)
	}
	if b.each == nil || b.each.late {
		return nil
	}
	return b.each.put(r, nil)
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
		if p.escaped != "" {
			kept = append(kept, p.escaped)
		}
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
	if b.signer != nil {
		headers = append(headers, b.signer.names()...)
	}
	slices.Sort(headers)
	for _, p := range b.query {
		query = append(query, p.name)
	}
	return headers, query
}
