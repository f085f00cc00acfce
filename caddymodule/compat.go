package caddymodule

import (
	"fmt"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/proxy"
)

// Compat turns on what Nango's proxy does and keycaddy's doesn't by itself.
type Compat struct {
	// The addresses that a call may name with the header `Base-Url-Override`,
	// and whatever is below them, by the integration's key. The connection's
	// credential goes there: name only addresses of the same provider.
	BaseURLOverride map[string][]string `json:"base_url_override,omitempty"`

	// Fill in `${connectionConfig.x}`, `${metadata.x}`, `${accessToken}`,
	// `${apiKey}` and `${credentials.x}` where a call's path or query has them.
	// What is in an address is logged by many servers.
	EndpointTemplates bool `json:"endpoint_templates,omitempty"`

	// Let calls replace the credential's own headers, with
	// `Nango-Proxy-Authorization` and its like.
	CallerHeaders bool `json:"caller_headers,omitempty"`
}

func (c *Compat) make(repl *caddy.Replacer) (proxy.Compat, error) {
	out := proxy.Compat{EndpointTemplates: c.EndpointTemplates, CallerHeaders: c.CallerHeaders}
	for integration, list := range c.BaseURLOverride {
		for _, raw := range list {
			text, err := repl.ReplaceOrErr(raw, true, true)
			if err != nil {
				return out, fmt.Errorf("compat base_url_override: %w", err)
			}
			u, err := proxy.ParseBaseURL(text)
			if err != nil {
				return out, fmt.Errorf("compat base_url_override: %w", err)
			}
			if out.BaseURLs == nil {
				out.BaseURLs = make(map[string][]*url.URL)
			}
			out.BaseURLs[integration] = append(out.BaseURLs[integration], u)
		}
	}
	return out, nil
}

// parse reads one compat option.
func (c *Compat) parse(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	switch name := d.Val(); name {
	case "base_url_override":
		args := d.RemainingArgs()
		if len(args) < 2 {
			return d.ArgErr()
		}
		if c.BaseURLOverride == nil {
			c.BaseURLOverride = make(map[string][]string)
		}
		c.BaseURLOverride[args[0]] = append(c.BaseURLOverride[args[0]], args[1:]...)
		return nil
	case "endpoint_templates":
		return single(d, &c.EndpointTemplates)
	case "caller_headers":
		return single(d, &c.CallerHeaders)
	default:
		return d.Errf("unrecognized compat %s", name)
	}
}
