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

// control has the headers that are meant for keycaddy, whether it acts on them
// or not, those that would tell the provider who stands in front, and those by
// which some servers take a call for another one. See also own.
var control = map[string]bool{
	"Authorization": true, HeaderConnection: true, HeaderIntegration: true,
	"Retries": true, "Retry-On": true, "Decompress": true, "Base-Url-Override": true, "Forward-Headers-On-Redirect": true,
	"Nango-Activity-Log-Id": true, "Nango-Is-Sync": true, "Nango-Is-Dry-Run": true, "Nango-Is-Script": true,
	"Forwarded": true, "Via": true, "X-Real-Ip": true,
	"X-Http-Method-Override": true, "X-Http-Method": true, "X-Method-Override": true, "X-Original-Url": true, "X-Rewrite-Url": true,
}

// own tells whether a header, by its canonical name, is not for the provider.
func own(name string) bool {
	name = dashed(name)
	return control[name] || strings.HasPrefix(name, "X-Forwarded-")
}

// dashed is the name that servers which hand headers on as variables (CGI and
// its heirs) can't tell from this one.
func dashed(name string) string {
	if strings.IndexByte(name, '_') < 0 {
		return name
	}
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// rewrite makes the provider's request of the caller's.
func rewrite(pr *httputil.ProxyRequest) {
	call := callFrom(pr.In.Context())
	pr.Out.URL, pr.Out.Host = call.target, call.target.Host
	for name := range pr.Out.Header {
		if own(name) {
			delete(pr.Out.Header, name)
		}
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
