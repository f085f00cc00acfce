package simulator

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// client is one that has registered itself, RFC 7591.
type client struct{ id, secret, how string }

// method is how the client identifies itself: as it has registered to.
func (c *client) method(entry string) string {
	switch c.how {
	case "none":
		return "none"
	case "client_secret_post":
		return "post"
	case "client_secret_basic":
		return "basic"
	}
	return entry
}

func (v *Vendor) registrationEndpoint() *endpoint {
	return &endpoint{
		name: "client registration", method: http.MethodPost,
		check: func(x *exchange) []string {
			var m map[string]any
			if mediaType(x.r.Header.Get("Content-Type")) != "application/json" || decodeJSON(x.body, &m) != nil {
				return []string{"the body is no JSON object (RFC 7591 section 3.1)"}
			}
			var out []string
			if list, _ := m["redirect_uris"].([]any); len(list) != 1 || list[0] != v.account.RedirectURI {
				out = append(out, fmt.Sprintf("redirect_uris is %v", m["redirect_uris"]))
			}
			if name, _ := m["client_name"].(string); name == "" {
				out = append(out, "client_name is missing")
			}
			for name, want := range v.facts.Registration.Params {
				if fmt.Sprint(m[name]) != fmt.Sprint(want) {
					out = append(out, fmt.Sprintf("%s is %v, not %v", name, m[name], want))
				}
			}
			if how, _ := m["token_endpoint_auth_method"].(string); v.clientAuth() == "none" && how != "" && how != "none" {
				out = append(out, "the client registers to identify itself by "+how+", which the vendor doesn't take")
			}
			return out
		},
		respond: func(w http.ResponseWriter, x *exchange) {
			var m map[string]any
			_ = decodeJSON(x.body, &m) // checked above
			c := &client{id: "dyn-" + random(16)}
			c.how, _ = m["token_endpoint_auth_method"].(string)
			if c.how == "" && v.clientAuth() == "none" {
				c.how = "none"
			}
			m["client_id"] = c.id
			if c.how != "none" {
				c.secret = "dynsecret-" + random(20)
				m["client_secret"], m["client_secret_expires_at"] = c.secret, 0
			}
			v.client = c
			answer(w, http.StatusCreated, m)
		},
	}
}

func (v *Vendor) clientAuth() string {
	if v.facts.Token == nil || v.facts.Mode == catalog.ModeMCPDiscovery {
		return "none"
	}
	return v.facts.Token.ClientAuth
}

// issuer is the authorization server of an MCP server. It has a path, so that
// its metadata are not where a guess would look (RFC 8414 section 3.1).
func (v *Vendor) issuer() *url.URL {
	if v.known["issuer"] == "" {
		v.known["issuer"] = "https://auth" + random(6) + ".vendor.example/tenant1"
	}
	u, err := url.Parse(v.known["issuer"])
	return must(u, err)
}

// discovered is an address of the authorization server.
func (v *Vendor) discovered(name string) *url.URL { return v.issuer().JoinPath(name) }

// discoveryEndpoints are those that an MCP client finds by itself: RFC 9728,
// RFC 8414, RFC 7591.
func (v *Vendor) discoveryEndpoints(x *exchange) []*endpoint {
	if v.facts.Mode != catalog.ModeMCPDiscovery {
		return nil
	}
	server, err := x.address([]string{"{conn.mcp_server_url}"}, nil)
	if err != nil {
		return nil
	}
	issuer := v.issuer()
	wellKnown := func(of *url.URL, name string) *url.URL {
		return &url.URL{Scheme: "https", Host: of.Host, Path: "/.well-known/" + name + strings.TrimRight(of.Path, "/")}
	}
	anyone := func(*exchange) []string { return nil }
	document := func(name string, at *url.URL, doc map[string]any) *endpoint {
		return &endpoint{name: name, method: http.MethodGet, url: at, check: anyone, respond: func(w http.ResponseWriter, _ *exchange) { answer(w, http.StatusOK, doc) }}
	}
	resource := wellKnown(server, "oauth-protected-resource")
	out := []*endpoint{
		document("protected resource metadata", resource, map[string]any{
			"resource": server.String(), "authorization_servers": []string{issuer.String()}, "scopes_supported": []string{"mcp"},
		}),
		document("authorization server metadata", wellKnown(issuer, "oauth-authorization-server"), map[string]any{
			"issuer": issuer.String(), "authorization_endpoint": issuer.JoinPath("authorize").String(),
			"token_endpoint": issuer.JoinPath("token").String(), "registration_endpoint": issuer.JoinPath("register").String(),
			"response_types_supported": []string{"code"}, "grant_types_supported": []string{"authorization_code", "refresh_token"},
			"code_challenge_methods_supported": []string{"S256"}, "token_endpoint_auth_methods_supported": []string{"none"},
			"authorization_response_iss_parameter_supported": true,
		}),
	}
	register := v.registrationEndpoint()
	register.url = issuer.JoinPath("register")
	probe := &endpoint{
		name: "a call without a token", url: server, prefix: true,
		check: func(x *exchange) []string {
			if x.r.Header.Get("Authorization") != "" {
				return []string{notMeant}
			}
			return nil
		},
		respond: func(w http.ResponseWriter, _ *exchange) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_request", resource_metadata="`+resource.String()+`"`)
			answer(w, http.StatusUnauthorized, map[string]any{"error": "simulated"})
		},
	}
	token, refresh := v.tokenEndpoint(), v.refreshEndpoint()
	token.url, refresh.url = issuer.JoinPath("token"), issuer.JoinPath("token")
	return append(out, register, token, refresh, probe)
}
