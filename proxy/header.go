package proxy

import (
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// The headers that a call is made with. None of them reaches the provider.
const (
	HeaderConnection  = "Connection-Id"
	HeaderIntegration = "Provider-Config-Key"
)

// What a request may have before its body. Providers take far less; whatever is
// larger is meant to keep servers busy (S95).
const (
	maxTarget  = 64 << 10  // bytes of path and query
	maxHeader  = 128 << 10 // bytes of names and values
	maxHeaders = 500       // values
)

// acceptable tells whether a request is one that is proxied at all. The error is
// a *problem.Problem.
func acceptable(r *http.Request) error {
	switch r.Method {
	case http.MethodConnect, http.MethodTrace, "TRACK": // the last two send credentials back (S97)
		return &problem.Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Message: r.Method + " is not proxied.", Action: "fix_request"}
	}
	if len(r.URL.Path)+len(r.URL.RawQuery) > maxTarget {
		return &problem.Problem{Status: http.StatusRequestURITooLong, Code: "uri_too_long", Message: "The path and the query are longer than 64 KiB together.", Action: "fix_request"}
	}
	size, count := 0, 0
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v)
		}
		count += len(values)
	}
	if size > maxHeader || count > maxHeaders {
		return &problem.Problem{Status: http.StatusRequestHeaderFieldsTooLarge, Code: "headers_too_large", Message: "The headers are more than 500, or larger than 128 KiB.", Action: "fix_request"}
	}
	return nil
}

// own tells whether a header, by its canonical name, is not for the provider.
func own(name string) bool {
	name = dashed(name)
	switch name {
	case "Authorization", HeaderConnection, HeaderIntegration, // how the call is made
		"Retries", "Retry-On", headerDecompress, headerBaseURL, headerForward,
		"Nango-Activity-Log-Id", "Nango-Is-Sync", "Nango-Is-Dry-Run", "Nango-Is-Script",
		"Forwarded", "Via", "X-Real-Ip", "Max-Forwards", // who stands in front
		"Proxy", "Http2-Settings", // for a server's variables (CGI), for the next hop
		"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url": // another call than this one
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, proxied)
}

// dashed is the name that servers which hand headers on as variables (CGI and
// its heirs) can't tell from this one.
func dashed(name string) string {
	if strings.IndexByte(name, '_') < 0 {
		return name
	}
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// endToEnd tells whether ReverseProxy would let all of a request's headers pass
// as they are, but for those that are keycaddy's [own].
func endToEnd(h http.Header) bool {
	return h["Connection"] == nil && h["Keep-Alive"] == nil && h["Te"] == nil && h["Trailer"] == nil &&
		h["Transfer-Encoding"] == nil && h["Upgrade"] == nil && h["User-Agent"] != nil
}

// rewrite makes the provider's request of the caller's, but for the headers:
// see carried.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	call := callFrom(pr.In.Context())
	pr.Out.URL, pr.Out.Host = &call.target, call.target.Host
	if call.header != nil {
		pr.Out.Header = call.header // and nobody changes it: see carried
	}
	if len(pr.Out.Trailer) > 0 && pr.Out.Body != nil {
		for name := range pr.Out.Trailer {
			if own(name) {
				delete(pr.Out.Trailer, name)
			}
		}
		pr.Out.Body = &trailing{pr.Out.Body, pr.In.Trailer, pr.Out.Trailer}
	}
}

// carried are the headers of a request that are for the provider, in a map with
// room for the credential in place of what isn't for it. The values are shared:
// whoever has the map may replace them, and never edits them.
func carried(from http.Header) http.Header {
	to := make(http.Header, len(from))
	some := false
	for name, values := range from {
		if !own(name) {
			to[name] = values
		} else if strings.HasPrefix(name, proxied) {
			some = true
		}
	}
	if some {
		prefixed(to, from, false)
	}
	return to
}

// proxied begins the names of headers that a caller wants to be sent without it:
// how Nango's SDKs send all of them.
const proxied = "Nango-Proxy-"

// prefixed adds the headers that a request has with the prefix, in place of what
// it has under the same name without. An Authorization is one of them only if
// the caller's headers go before the credential's.
func prefixed(to, from http.Header, callersFirst bool) {
	for name, values := range from {
		rest, ok := strings.CutPrefix(name, proxied)
		if !ok {
			continue
		}
		if rest = http.CanonicalHeaderKey(rest); rest != "" && (!own(rest) || callersFirst && rest == "Authorization") && !ofMessage(rest) {
			to[rest] = values
		}
	}
}

// OfMessage tells whether a header is about the message on its way, so that no
// configuration sets it.
func OfMessage(name string) bool { return ofMessage(http.CanonicalHeaderKey(name)) }

// ofMessage tells whether a header is about the message on its way, and no
// caller's to set (RFC 9110 section 7.6.1, RFC 9112 section 6).
func ofMessage(name string) bool {
	switch dashed(name) {
	case "Host", "Content-Length", "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect":
		return true
	}
	return false
}

// trailing hands the trailers on that come after a body. The server puts them
// into the map of the caller's request; the provider's has one of its own, with
// the names of those that may pass.
type trailing struct {
	io.ReadCloser
	from, to http.Header
}

func (t *trailing) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range t.to {
			t.to[name] = t.from[name]
		}
	}
	return n, err
}

// unshadow removes what a server might read in place of the credential: the
// same names written with "_" for "-", and trailers (S86).
func unshadow(out *http.Request, auth *connect.Bound) {
	var odd []string
	for name := range out.Header {
		if strings.IndexByte(name, '_') >= 0 {
			odd = append(odd, name)
		}
	}
	if len(odd) == 0 && len(out.Trailer) == 0 {
		return
	}
	names, _ := auth.Names()
	for _, name := range odd {
		if !slices.Contains(names, name) && slices.Contains(names, dashed(name)) {
			delete(out.Header, name)
		}
	}
	for name := range out.Trailer {
		if slices.Contains(names, dashed(name)) {
			delete(out.Trailer, name)
		}
	}
}
