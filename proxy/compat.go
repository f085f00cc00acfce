package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// Compat turns on what Nango's proxy does and keycaddy's doesn't, since it is a
// hazard. The zero value turns nothing on.
type Compat struct {
	// BaseURLs are the addresses that a call may name with Base-Url-Override,
	// and whatever is below them, by the integration's key. The connection's
	// credential is sent there.
	BaseURLs map[string][]*url.URL
	// EndpointTemplates fills in ${connectionConfig.x}, ${metadata.x},
	// ${accessToken}, ${apiKey} and ${credentials.x} where a call's path or query
	// has them. Providers and whoever stands between log what is in addresses.
	EndpointTemplates bool
	// CallerHeaders lets a call replace the credential's own headers, with
	// Nango-Proxy-Authorization and its like.
	CallerHeaders bool
}

// ParseBaseURL reads one of BaseURLs: http or https, without user, query and
// fragment, and with a path that is as it is sent.
func ParseBaseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(raw, "?#") {
		return nil, fmt.Errorf("%q is not an address such as https://api.example.com/v2", raw)
	}
	path := strings.Trim(u.EscapedPath(), "/")
	if canonical, err := (Paths{}).Canonical(path); err != nil || canonical != path {
		return nil, fmt.Errorf("%q: the path could be read in two ways", raw)
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// base is where a call goes: the connection's own address, or the one that the
// call names and the integration lets it. Errors: *problem.Problem,
// *policy.CallError.
func (c *Compat) base(h http.Header, call *Call) (*url.URL, error) {
	override := first(h, headerBaseURL)
	if override == "" { // as SDKs send it for none
		return call.Auth.Base, nil
	}
	allowed := c.BaseURLs[call.ID.Integration]
	if len(allowed) == 0 {
		return nil, &problem.Problem{Status: http.StatusBadRequest, Code: "base_url_override_disabled", Message: "The header Base-Url-Override is not accepted: a connection's credential goes to its provider only.", Action: "fix_request"}
	}
	u, err := ParseBaseURL(override)
	if err != nil {
		return nil, problem.Invalid("headers", problem.Field{Code: "invalid_union", Message: "The header " + headerBaseURL + " is not an address", Path: []string{"base-url-override"}})
	}
	for _, a := range allowed {
		if _, ok := under(a, u); ok {
			if limits := call.Caller.Rules.Limits(); len(limits.Calls) > 0 {
				return nil, &policy.CallError{Reason: "it is limited to some calls of the provider's own address, and names another"}
			}
			return u, nil
		}
	}
	return nil, &problem.Problem{Status: http.StatusBadRequest, Code: "base_url_override_not_allowed", Message: "The address in the header Base-Url-Override is none that the integration's calls may go to.", Action: "fix_request"}
}

// under returns what of a URL's path, as escaped, is below a base; not ok: it
// isn't below it.
func under(base, u *url.URL) (rest string, ok bool) {
	if u.Scheme != base.Scheme || !strings.EqualFold(u.Host, base.Host) || u.User != nil {
		return "", false
	}
	rest, ok = strings.CutPrefix(u.EscapedPath(), strings.TrimRight(base.EscapedPath(), "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}

// relative takes the base off a path that is a whole URL, as SDKs let callers
// write their endpoints.
func relative(base *url.URL, path string) string {
	rest := strings.TrimLeft(path, "/")
	if !strings.HasPrefix(rest, "http") {
		return path
	}
	u, err := url.Parse(rest)
	if err != nil {
		return path
	}
	if below, ok := under(base, u); ok {
		return below
	}
	return path
}

// A placeholder as Nango writes it, in plain or percent-encoded.
var placeholder = regexp.MustCompile(`(?i)(?:\$|%24)(?:\{|%7b)([a-z0-9_.-]{1,100})(?:\}|%7d)`)

// fill puts values into the placeholders of a path or query, each escaped so
// that it stays what it is: one segment, one value. Errors: *problem.Problem, or
// what keeps the connection's values from being read.
func fill(text string, auth *connect.Bound, escape func(string) string) (string, error) {
	var (
		missing string
		failed  error
	)
	out := placeholder.ReplaceAllStringFunc(text, func(match string) string {
		name := placeholder.FindStringSubmatch(match)[1]
		v, ok, err := lookUp(name, auth)
		failed = errors.Join(failed, err)
		if !ok && missing == "" {
			missing = name
		}
		return escape(v)
	})
	if failed != nil {
		return "", failed
	}
	if missing != "" {
		return "", problem.Invalid("endpoint", problem.Field{Code: "custom", Message: "The connection has no value for ${" + missing + "}", Path: []string{"path"}})
	}
	return out, nil
}

func lookUp(name string, auth *connect.Bound) (_ string, ok bool, _ error) {
	switch group, field, _ := strings.Cut(name, "."); {
	case group == "connectionConfig" || group == "connection_config":
		c, err := auth.Connection()
		v, ok := c.Config[field]
		if !ok {
			v, ok = c.Config[catalog.SnakeName(field)]
		}
		return v, ok, err
	case group == "metadata":
		c, err := auth.Connection()
		v, ok := c.MetadataText(field)
		return v, ok, err
	case group == "credentials":
		name = field
	}
	secret, ok, err := auth.Secret(catalog.SnakeName(name))
	return secret.Reveal(), ok, err
}
