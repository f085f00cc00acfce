package proxy

import (
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
)

// The headers that a call is made with. None of them reaches the provider.
const (
	HeaderConnection  = "Connection-Id"
	HeaderIntegration = "Provider-Config-Key"
)

// own tells whether a header, by its canonical name, is not for the provider.
func own(name string) bool {
	name = dashed(name)
	switch name {
	case "Authorization", HeaderConnection, HeaderIntegration, // how the call is made
		"Retries", "Retry-On", "Decompress", "Base-Url-Override", "Forward-Headers-On-Redirect",
		"Nango-Activity-Log-Id", "Nango-Is-Sync", "Nango-Is-Dry-Run", "Nango-Is-Script",
		"Forwarded", "Via", "X-Real-Ip", // who stands in front
		"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url": // another call than this one
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// dashed is the name that servers which hand headers on as variables (CGI and
// its heirs) can't tell from this one.
func dashed(name string) string {
	if strings.IndexByte(name, '_') < 0 {
		return name
	}
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// rewrite makes the provider's request of the caller's, but for the headers:
// see carried.
func rewrite(pr *httputil.ProxyRequest) {
	call := callFrom(pr.In.Context())
	pr.Out.URL, pr.Out.Host = &call.target, call.target.Host
	if len(pr.Out.Trailer) > 0 && pr.Out.Body != nil {
		for name := range pr.Out.Trailer {
			if own(name) {
				delete(pr.Out.Trailer, name)
			}
		}
		pr.Out.Body = &trailing{pr.Out.Body, pr.In.Trailer, pr.Out.Trailer}
	}
}

// carried are the headers of a request that are for the provider, in a map that
// has room for the credential. The values are shared: whoever has the map may
// replace them, and never edits them.
func carried(from http.Header) http.Header {
	to := make(http.Header, len(from)+2)
	for name, values := range from {
		if !own(name) {
			to[name] = values
		}
	}
	return to
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
