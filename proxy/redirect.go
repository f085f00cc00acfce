package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// redirected makes the address that an answer sends its caller to one of
// keycaddy's, if it is one that the same connection reaches: the caller goes
// there through keycaddy again, where all is checked as for the first call. Any
// other address stays as it is, and gets no credential (S93).
func (p *Proxy) redirected(call *Call, res *http.Response) {
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return
	}
	to, err := res.Request.URL.Parse(res.Header.Get("Location"))
	if err != nil {
		return
	}
	rest, ok := under(call.base, to)
	if !ok {
		return
	}
	if _, err := p.Paths.Canonical(rest); err != nil {
		return
	}
	here := p.Prefix + "/" + strings.TrimLeft(rest, "/")
	if query := withoutCredential(to.RawQuery, call); query != "" {
		here += "?" + query
	}
	if to.Fragment != "" {
		here += "#" + to.EscapedFragment()
	}
	res.Header.Set("Location", here)
}

// withoutCredential takes those parameters out of a query that are put on again.
func withoutCredential(rawQuery string, call *Call) string {
	_, names := call.Auth.Names()
	if rawQuery == "" || len(names) == 0 {
		return rawQuery
	}
	pairs := slices.DeleteFunc(strings.Split(rawQuery, "&"), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		return err == nil && slices.Contains(names, plain)
	})
	return strings.Join(pairs, "&")
}
