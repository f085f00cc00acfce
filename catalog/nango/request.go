package nango

import (
	"fmt"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// request is what is done to each call.
func (e entry) request(out object) error {
	proxy := e.has.object("proxy")
	mode := catalog.Mode(out["auth_scheme"].(string))
	base := proxy.text("base_url")
	if base == "" && mode == catalog.ModeMCPOAuth2 {
		base = origin(e.has.text("token_url"))
	}
	if base == "" && mode == catalog.ModeMCPDiscovery {
		base = "${connectionConfig.mcp_server_url}"
	}
	if base == "" {
		return nil
	}
	r := object{}
	u, err := choice(base)
	if err != nil {
		return fmt.Errorf("proxy.base_url: %w", err)
	}
	r["base_url"] = u
	headers, err := branch(proxy.object("headers"))
	if err != nil {
		return fmt.Errorf("proxy.headers: %w", err)
	}
	headers = lowerKeys(headers)
	query, err := branch(proxy.object("query"))
	if err != nil {
		return fmt.Errorf("proxy.query: %w", err)
	}
	body, err := branch(proxy.object("body"))
	if err != nil {
		return fmt.Errorf("proxy.body: %w", err)
	}
	if placed := fmt.Sprint(headers, query, body, u); headers["authorization"] == nil {
		switch mode {
		case catalog.ModeBasic:
			if !strings.Contains(placed, "cred.") {
				headers["authorization"] = "Basic {base64(cred.username, ':', cred.password)}"
			}
		case catalog.ModeAPIKey, catalog.ModeNone, catalog.ModeOAuth1:
		default:
			if !strings.Contains(placed, "token.") {
				headers["authorization"] = "Bearer {token.access_token}"
			}
		}
	}
	if mode == catalog.ModeMCPDiscovery && headers["accept"] == nil {
		headers["accept"] = "application/json,text/event-stream"
	}
	if agent, _ := headers["user-agent"].(string); strings.Contains(agent, "nango.dev") {
		headers["user-agent"] = "{app.user_agent}"
	} else if list, _ := headers["user-agent"].([]any); len(list) > 0 && strings.Contains(fmt.Sprint(list[len(list)-1]), "nango.dev") {
		list[len(list)-1] = "{app.user_agent}"
	}
	r.set("headers", headers)
	r.set("query", query)
	r.set("body", body)
	r.set("decompress", proxy.flag("decompress"))
	r.set("keep_headers_on_redirect", proxy.flag("forward_headers_on_redirect"))
	out["request"] = r
	return nil
}

// hints are the request that tries a credential, and what callers may know.
func (e entry) hints(out object) error {
	proxy := e.has.object("proxy")
	if has := proxy.object("verification"); has != nil {
		v := object{"paths": []any{}}
		v.set("method", has.text("method"))
		var paths []any
		for _, endpoint := range has.words("endpoints") {
			t, err := template(endpoint)
			if err != nil {
				return fmt.Errorf("proxy.verification.endpoints: %w", err)
			}
			paths = append(paths, t)
		}
		v["paths"] = paths
		headers, err := branch(has.object("headers"))
		if err != nil {
			return fmt.Errorf("proxy.verification.headers: %w", err)
		}
		v.set("headers", lowerKeys(headers))
		if base := has.text("base_url_override"); base != "" {
			u, err := choice(base)
			if err != nil {
				return fmt.Errorf("proxy.verification.base_url_override: %w", err)
			}
			v["base_url"] = u
		}
		switch data := has["data"].(type) {
		case string:
			t, err := template(data)
			if err != nil {
				return fmt.Errorf("proxy.verification.data: %w", err)
			}
			v.set("body_raw", t)
		default:
			body, err := branch(has.object("data"))
			if err != nil {
				return fmt.Errorf("proxy.verification.data: %w", err)
			}
			v.set("body", body)
		}
		out["verify"] = v
	}
	if has := proxy.object("retry"); has != nil {
		r := object{}
		r.set("after_headers", lowered(has, "after"))
		r.set("at_headers", lowered(has, "at"))
		r.set("remaining_header", strings.ToLower(has.text("remaining")))
		r.set("statuses", has.words("error_code"))
		out.set("retry", r)
	}
	return nil
}

// lowered is a list of header names, of one or several.
func lowered(o object, key string) []string {
	list := o.words(key)
	if one, ok := o[key].(string); ok {
		list = []string{one}
	}
	for i := range list {
		list[i] = strings.ToLower(list[i])
	}
	return list
}
