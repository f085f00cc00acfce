package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"
)

// URL is a template that yields a URL, or several alternatives. It is a security
// boundary: credentials go where it points. What a reference may add depends on
// where it stands.
//
//   - In the host (https://{conn.subdomain}.zendesk.com): letters, digits,
//     hyphens, and dots between them. The value must also pass the rules of the
//     field it names, if they are a regex, an enum or a format. IP addresses are
//     refused, in every spelling, and so is anything but ASCII: names in other
//     scripts are written in their xn-- form.
//   - As the port (https://{conn.subdomain}.example.com:{conn.port}): a number.
//   - As the whole host (https://{conn.domain}/x): the same, and a port or a path
//     prefix where the regex, the enum or the example of the field shows one.
//     A scheme that is https:// is taken off such a value.
//   - In the path: it is percent-encoded, and can't add a segment. A value that
//     is or has a "." or ".." segment is refused.
//   - In the query: it is query-escaped.
//   - At the beginning ({conn.instance_url}/x): an absolute http or https URL
//     without user info and fragment; a query only where nothing follows. An IP
//     address is taken from app.* only, which the operator sets.
//
// A URL whose scheme is http is passed on: callers refuse it unless the operator
// allows the address. The filled URL is parsed again and its host compared to
// what was put together.
type URL struct{ alts []urlTemplate }

// urlTemplate is one alternative, cut into the parts of a URL.
type urlTemplate struct {
	src    template
	scheme string // empty for relative URLs and those that begin with a reference
	base   *expr  // the reference that holds the absolute URL
	host   template
	port   template // with the colon; empty where there is none
	path   template
	query  template
}

// ParseURL makes a URL template from its source, several for alternatives. It
// must be absolute. Fields are not known, so their rules are not applied.
func ParseURL(alternatives ...string) (URL, error) {
	var u URL
	for _, src := range alternatives {
		t, err := parseTemplate(src)
		if err != nil {
			return URL{}, err
		}
		c, err := compileURL(t, false)
		if err != nil {
			return URL{}, err
		}
		u.alts = append(u.alts, c)
	}
	return u, nil
}

// Fill returns the URL. As with [Value.Fill], only a missing value makes it try
// the next alternative. A relative URL is an error; see Under.
func (u URL) Fill(e *Env) (*url.URL, error) { return u.Under(nil, e) }

// Under is Fill for a URL that may be relative: it is joined to base with exactly
// one slash, and the queries are put together. An absolute one ignores base.
func (u URL) Under(base *url.URL, e *Env) (*url.URL, error) {
	err := errors.New("no URL")
	for i := range u.alts {
		var out *url.URL
		if out, err = u.alts[i].fill(base, e); !errors.Is(err, ErrMissing) {
			return out, err
		}
	}
	return nil, err
}

// Relative reports whether the URL needs a base.
func (u URL) Relative() bool {
	return len(u.alts) > 0 && u.alts[0].scheme == "" && u.alts[0].base == nil
}

// Literal reports whether the URL has no references: it points to the same place
// for every connection.
func (u URL) Literal() bool { return len(u.Refs()) == 0 }

// Hosts returns the references that decide alone to which host the URL goes:
// those that stand for a whole URL, or for a whole host name.
func (u URL) Hosts() []Ref {
	var out []template
	for i := range u.alts {
		switch t := &u.alts[i]; {
		case t.base != nil:
			out = append(out, template{{expr: t.base}})
		case len(t.host) == 1 && t.host[0].expr != nil:
			out = append(out, t.host)
		}
	}
	return refs(out)
}

// IsZero reports whether the key was not written at all.
func (u URL) IsZero() bool { return len(u.alts) == 0 }

// PerRequest is [Value.PerRequest].
func (u URL) PerRequest() bool { return perRequest(u.sources()) }

// Refs is [Value.Refs].
func (u URL) Refs() []Ref { return refs(u.sources()) }

// String is [Value.String].
func (u URL) String() string { return Value{u.sources()}.String() }

func (u URL) sources() []template {
	out := make([]template, len(u.alts))
	for i := range u.alts {
		out[i] = u.alts[i].src
	}
	return out
}

func (u *URL) decode(d *decoder, n *yaml.Node, at place) {
	for _, h := range d.templates(n, at) {
		c, err := compileURL(h.parts, at.tag.Get("url") == "relative")
		if err != nil {
			d.fail(h.node, "%s: %v", at.path, err)
			continue
		}
		u.alts = append(u.alts, c)
	}
}

func compileURL(src template, relative bool) (urlTemplate, error) {
	t := urlTemplate{src: src}
	rest := src
	switch {
	case len(src) == 0:
		return t, errors.New("the URL is empty")
	case src[0].expr != nil:
		t.base, rest = src[0].expr, src[1:]
		if len(rest) > 0 && (rest[0].expr != nil || !strings.HasPrefix(rest[0].text, "/") && !strings.HasPrefix(rest[0].text, "?")) {
			return t, fmt.Errorf("{%s} is a whole URL here, so / or ? must follow it; did you mean https://{%s}...?", t.base, t.base)
		}
	case strings.HasPrefix(src[0].text, "https://"):
		t.scheme = "https"
	case strings.HasPrefix(src[0].text, "http://"):
		t.scheme = "http"
	case strings.Contains(src[0].text, "://"):
		return t, errors.New("the URL must begin with https://")
	case !relative:
		return t, errors.New("the URL must begin with https:// or with a reference to a whole URL")
	case strings.HasPrefix(src[0].text, "//"):
		return t, errors.New("a relative URL begins with one slash")
	}
	for _, p := range rest {
		if err := checkLiteral(p.text); err != nil {
			return t, err
		}
	}
	if t.scheme != "" {
		rest = src[1:]
		if after := src[0].text[len(t.scheme)+3:]; after != "" {
			rest = append(template{{text: after}}, rest...)
		}
		t.host, rest = cut(rest, "/?")
		if err := t.compileHost(); err != nil {
			return t, err
		}
	}
	t.path, t.query = cut(rest, "?")
	if len(t.query) > 0 {
		t.query[0].text = t.query[0].text[1:] // the question mark
	}
	return t, t.try()
}

// cut splits a template before the first of the characters in a literal.
func cut(t template, at string) (before, after template) {
	for i, p := range t {
		if j := strings.IndexAny(p.text, at); p.expr == nil && j >= 0 {
			before = append(before, t[:i]...)
			if j > 0 {
				before = append(before, part{text: p.text[:j]})
			}
			after = append(template{{text: p.text[j:]}}, t[i+1:]...)
			return before, after
		}
	}
	return t, nil
}

func checkLiteral(s string) error {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}", c) >= 0 {
			return fmt.Errorf("the character %q can't stand in a URL; percent-encode it", s[i])
		}
	}
	if strings.Contains(s, "#") {
		return errors.New("a URL here has no fragment; percent-encode the # as %23")
	}
	return nil
}

// compileHost takes the port off and checks the literal parts of the host.
func (t *urlTemplate) compileHost() error {
	t.host, t.port = cut(t.host, ":")
	if len(t.port) > 2 || len(t.port) == 2 && t.port[0].text != ":" {
		return errors.New("the port must be a number or one reference")
	}
	if len(t.port) == 1 {
		if err := checkPort(t.port[0].text); err != nil {
			return err
		}
	}
	if len(t.host) == 0 {
		return errors.New("the URL has no host")
	}
	for _, p := range t.host {
		if strings.Contains(p.text, "@") {
			return errors.New("a URL here has no user name and password; use a header")
		}
		if i := strings.IndexFunc(p.text, notHostRune); i >= 0 {
			return fmt.Errorf("the character %q can't stand in a host name", p.text[i])
		}
	}
	if t.host.literal() && t.scheme == "https" {
		return checkHost(t.host.String())
	}
	return nil // http is for loopback addresses in tests; Lint refuses the others
}

// try fills the template with harmless values, so that faults of its literal
// parts show when the file is read.
func (t *urlTemplate) try() error {
	sample := *t
	text := "https://example.com/"
	if len(t.src) > 1 || t.base == nil {
		text = "https://example.com"
	}
	if t.base != nil {
		sample.base = &expr{text: text}
	}
	for _, part := range []*template{&sample.host, &sample.port, &sample.path, &sample.query} {
		c := append(template(nil), *part...)
		for i := range c {
			if c[i].expr != nil {
				c[i].expr = &expr{text: "a"}
				if part == &sample.port {
					c[i].expr = &expr{text: "443"}
				}
			}
		}
		*part = c
	}
	_, err := sample.fill(&url.URL{Scheme: "https", Host: "example.com"}, nil)
	return err
}

func (t template) literal() bool {
	for _, p := range t {
		if p.expr != nil {
			return false
		}
	}
	return true
}

func (t *urlTemplate) fill(base *url.URL, e *Env) (*url.URL, error) {
	path, err := t.path.fillEach(e, func(x *expr, v string) (string, error) {
		return url.PathEscape(v), checkSegments(x, v)
	})
	if err != nil {
		return nil, err
	}
	query, err := t.query.fillEach(e, func(_ *expr, v string) (string, error) {
		return url.QueryEscape(v), nil
	})
	if err != nil {
		return nil, err
	}
	var out *url.URL
	switch {
	case t.base != nil:
		out, err = t.fillBase(e, len(t.src) == 1)
	case t.scheme != "":
		out, err = t.fillHost(e)
	case base == nil:
		err = errors.New("the URL is relative and there is no base for it")
	default:
		c := *base
		out = &c
		// A relative path joins with one slash whether or not it has one.
		if path != "" {
			path = "/" + strings.TrimPrefix(path, "/")
		}
	}
	if err != nil {
		return nil, err
	}
	return out, extend(out, path, query)
}

// fillEach fills a template, each hole through f.
func (t template) fillEach(e *Env, f func(*expr, string) (string, error)) (string, error) {
	if len(t) == 0 {
		return "", nil
	}
	var b strings.Builder
	for i := range t {
		s, err := t[i].fill(e)
		if err == nil && t[i].expr != nil {
			s, err = f(t[i].expr, s)
		}
		if err != nil {
			return "", err
		}
		if b.Len()+len(s) > maxOutput {
			return "", errTooLong
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// extend puts an escaped path and query behind those of u, and makes sure that
// the path has no dot segment, however it came about.
func extend(u *url.URL, path, query string) error {
	full := u.EscapedPath()
	if path != "" {
		full = strings.TrimRight(full, "/") + path
	}
	for s := range strings.SplitSeq(full, "/") {
		if plain, err := url.PathUnescape(s); err != nil || plain == "." || plain == ".." {
			return &UnsafeError{cmp.Or(u.Host, "url"), "the path must not have a \".\" or \"..\" segment"}
		}
	}
	plain, err := url.PathUnescape(full)
	if err != nil {
		return &UnsafeError{cmp.Or(u.Host, "url"), "the path has a bad percent-encoding"}
	}
	if u.Path, u.RawPath = plain, ""; u.EscapedPath() != full {
		u.RawPath = full
	}
	if query != "" && u.RawQuery != "" {
		query = u.RawQuery + "&" + query
	}
	u.RawQuery = cmp.Or(query, u.RawQuery)
	return nil
}

// checkSegments looks at the value before encoding: servers that decode %2F
// would otherwise see the dots.
func checkSegments(x *expr, v string) error {
	for s := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == '/' || r == '\\' }) {
		if s == "." || s == ".." {
			return &UnsafeError{x.String(), "it must not have a \".\" or \"..\" segment"}
		}
	}
	for i := range len(v) {
		if v[i] < ' ' || v[i] == 0x7f {
			return &UnsafeError{x.String(), "it has a line break or another control character"}
		}
	}
	return nil
}
