package simulator

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// exchange is one request and what is known while it is looked at.
type exchange struct {
	*scope
	v     *Vendor
	r     *http.Request
	url   *url.URL
	body  []byte
	grant *grant // whose tokens token.* means
	code  *code  // the attempt that flow.* means
}

func (v *Vendor) exchange(r *http.Request, body []byte) *exchange {
	x := &exchange{v: v, r: r, body: body}
	if r != nil {
		x.url = r.URL
	}
	x.scope = &scope{lookup: x.value, made: map[string]string{}, now: time.Now().UTC()}
	x.scope.assertion = x.assertion
	return x
}

// value is what vendor and client both know by a name.
func (x *exchange) value(ref string) (string, bool) {
	namespace, name, _ := strings.Cut(ref, ".")
	v := x.v
	withDefault := func(values map[string]string) (string, bool) {
		if s, ok := values[name]; ok && s != "" {
			return s, true
		}
		if f, ok := v.facts.Field(namespace, name); ok && f.HasDefault() {
			return f.Default, true
		}
		s, ok := values[name]
		return s, ok
	}
	switch namespace {
	case "app":
		if v.client != nil {
			switch name {
			case "client_id":
				return v.client.id, true
			case "client_secret":
				return v.client.secret, v.client.secret != ""
			}
		}
		return withDefault(v.account.App)
	case "conn":
		if s, ok := v.told[name]; ok {
			return s, true
		}
		if f, ok := v.facts.Field("conn", name); ok && f.Source == "operator" {
			return v.account.App[name], v.account.App[name] != ""
		}
		return withDefault(v.account.Conn)
	case "cred":
		if s := v.facts.Signed; s != nil && s.Split != nil {
			if i := slices.Index(s.Split.Into, name); i >= 0 {
				parts := strings.SplitN(v.account.Cred[s.Split.Field], s.Split.On, len(s.Split.Into))
				if i < len(parts) {
					return parts[i], true
				}
			}
		}
		return withDefault(v.account.Cred)
	case "token":
		if x.grant == nil {
			return "", false
		}
		switch name {
		case "access_token":
			return x.grant.access, x.grant.access != ""
		case "refresh_token":
			return x.grant.refresh, x.grant.refresh != ""
		case "cookies":
			return x.grant.cookies, x.grant.cookies != ""
		}
		s, ok := x.grant.extra[name]
		return s, ok
	case "flow":
		return x.flow(name)
	case "req":
		return x.ofRequest(name)
	}
	s, ok := v.known[ref]
	return s, ok
}

func (x *exchange) flow(name string) (string, bool) {
	c := x.code
	if c == nil && x.grant != nil {
		c = x.grant.code
	}
	switch name {
	case "redirect_uri":
		return x.v.account.RedirectURI, true
	case "token_url":
		u, err := x.address(source(x.v.facts.Token.URL), nil)
		if err != nil {
			return "", false
		}
		return u.String(), true
	case "scope":
		s := x.v.scopes()
		return s, s != ""
	case "state":
		if c != nil {
			return c.state, true
		}
	}
	return "", false
}

func (x *exchange) ofRequest(name string) (string, bool) {
	switch name {
	case "method":
		return x.r.Method, true
	case "host":
		return x.url.Host, true
	case "path":
		return x.url.EscapedPath(), true
	case "endpoint":
		return x.url.RequestURI(), true
	case "body":
		return string(x.body), true
	case "canonical_params":
		raw := x.url.RawQuery
		if slices.Contains([]string{"POST", "PUT", "PATCH"}, x.r.Method) {
			raw = x.bodyParams()
		}
		return canonicalParams(raw), true
	}
	return "", false
}

// bodyParams are the parameters of a form; other bodies have none.
func (x *exchange) bodyParams() string {
	if mediaType(x.r.Header.Get("Content-Type")) == mediaTypes["form"] {
		return string(x.body)
	}
	return ""
}

// canonicalParams sorts parameters and encodes them as RFC 3986 says.
func canonicalParams(raw string) string {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return ""
	}
	var out []string
	for k, list := range values {
		for _, s := range list {
			out = append(out, percent(k)+"="+percent(s))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "&")
}

// percent encodes all but the unreserved characters of RFC 3986 section 2.3.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
