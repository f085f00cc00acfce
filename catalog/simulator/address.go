package simulator

import (
	"fmt"
	"net/url"
	"strings"
)

// address fills a URL template: raw in the host and as a whole URL, encoded in
// path and query. One that is relative goes below base.
func (x *exchange) address(alternatives []string, base *url.URL) (*url.URL, error) {
	if len(alternatives) == 0 {
		return nil, errAbsent
	}
	t, err := x.choose(alternatives)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, n := range t {
		s, err := x.eval(n, false)
		if err != nil {
			return nil, err
		}
		so := b.String()
		_, afterScheme, absolute := strings.Cut(so, "://")
		switch {
		case n.ref == "" && n.call == "": // a literal
		case i == 0: // the whole URL
		case absolute && !strings.ContainsAny(afterScheme, "/?"):
			s = strings.TrimRight(strings.TrimPrefix(s, "https://"), "/")
		case strings.Contains(so, "?"):
			s = url.QueryEscape(s)
		default:
			s = url.PathEscape(s)
		}
		b.WriteString(s)
	}
	filled := b.String()
	if !strings.Contains(filled, "://") {
		if base == nil {
			return nil, fmt.Errorf("the address %q is relative to nothing", filled)
		}
		path, query, _ := strings.Cut(filled, "?")
		whole := base.Scheme + "://" + base.Host + strings.TrimRight(base.EscapedPath(), "/") + "/" + strings.TrimLeft(path, "/")
		if query != "" {
			whole += "?" + query
		}
		filled = whole
	}
	u, err := url.Parse(filled)
	if err != nil {
		return nil, err
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// base is where the API is.
func (x *exchange) base() (*url.URL, error) {
	if x.v.facts.Request == nil {
		return nil, errAbsent
	}
	return x.address(source(x.v.facts.Request.BaseURL), nil)
}
