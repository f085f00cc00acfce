package caddymodule

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterDirective("keycaddy", parseKeycaddy)
	httpcaddyfile.RegisterDirective("keycaddy_proxy", parseProxy)
	httpcaddyfile.RegisterDirective("keycaddy_demo", parseDemo)
	httpcaddyfile.RegisterDirective("keycaddy_console", parseConsole)
	httpcaddyfile.RegisterHandlerDirective("keycaddy_connect", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		c := new(Connect)
		return c, c.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterHandlerDirective("keycaddy_api", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		a := new(API)
		return a, a.UnmarshalCaddyfile(h.Dispenser)
	})
	for _, name := range []string{"keycaddy_demo", "keycaddy_console", "keycaddy_proxy", "keycaddy_connect", "keycaddy_api", "keycaddy"} {
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "reverse_proxy")
	}
}

// proxyPath is where the proxy is on a site of its own, as SDKs expect it.
const proxyPath = "/proxy"

// parseKeycaddy is the pages, the API and the proxy at their standard paths. It
// answers every path of the site. Its block is that of keycaddy_proxy. Syntax:
//
//	keycaddy {
//	    ...
//	}
func parseKeycaddy(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	p := &Proxy{StripPrefix: proxyPath}
	if err := p.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	// Not in a subroute, which would cost every call a little.
	return slices.Concat(
		h.NewRoute(under(h, proxyPath), p),
		h.NewRoute(nil, new(Connect)),
		h.NewRoute(nil, new(API)),
	), nil
}

// parseProxy is the proxy alone. A path such as /proxy/* is the matcher, and
// what comes before the star isn't the provider's. Syntax: see
// Proxy.UnmarshalCaddyfile.
func parseProxy(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	prefix, matcher, err := below(h)
	if err != nil {
		return nil, err
	}
	p := &Proxy{StripPrefix: prefix}
	if err := p.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, p), nil
}

// parseDemo is the demo provider. Syntax:
//
//	keycaddy_demo [<path>/*]
func parseDemo(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	prefix, matcher, err := below(h)
	if err != nil {
		return nil, err
	}
	if prefix == "" {
		if matcher != nil {
			return nil, h.Err("keycaddy_demo takes a path such as /demo/* and no other matcher")
		}
		prefix = "/demo"
		matcher = under(h, prefix)
	}
	if err := bare(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, &Demo{Path: prefix}), nil
}

// below reads a directive's matcher. If it is a path that ends in /*, what
// comes before that is the prefix, and the matcher matches the prefix too. The
// dispenser is left at the directive's name, the matcher taken out.
func below(h httpcaddyfile.Helper) (prefix string, matcher caddy.ModuleMap, err error) {
	h.Next()
	if h.NextArg() {
		if path, ok := strings.CutSuffix(h.Val(), "/*"); ok && strings.HasPrefix(path, "/") {
			prefix = path
		}
		h.Prev()
	}
	if matcher, err = h.ExtractMatcherSet(); err != nil {
		return "", nil, err
	}
	if prefix != "" {
		matcher = under(h, prefix)
	}
	return prefix, matcher, nil
}

// under matches a path and all below it.
func under(h httpcaddyfile.Helper, prefix string) caddy.ModuleMap {
	return caddy.ModuleMap{"path": h.JSON(caddyhttp.MatchPath{prefix, prefix + "/*"})}
}
