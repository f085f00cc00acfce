package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/caddymodule/nangodb"
	"github.com/keycaddy/keycaddy/connect/policy"
)

// integrationOf is Nango's integration as the API takes it.
func integrationOf(in *nangodb.Integration, mode string) map[string]any {
	out := map[string]any{"unique_key": in.Key, "provider": in.Provider, "forward_webhooks": in.Forward}
	if in.Display != "" {
		out["display_name"] = in.Display
	}
	credentials := map[string]any{"type": mode}
	switch mode {
	case "OAUTH1", "OAUTH2", "TBA", "MCP_OAUTH2":
		credentials["client_id"], credentials["client_secret"] = in.ClientID, in.Secret
		if in.Scopes != "" {
			credentials["scopes"] = in.Scopes
		}
		if secret := in.Custom["webhookSecret"]; secret != "" {
			credentials["webhook_secret"] = secret
		}
	case "APP":
		credentials["app_id"], credentials["app_link"], credentials["private_key"] = in.ClientID, in.AppLink, decoded(in.Secret)
	case "CUSTOM":
		credentials["client_id"], credentials["client_secret"], credentials["app_link"] = in.ClientID, in.Secret, in.AppLink
		credentials["app_id"], credentials["private_key"] = in.Custom["app_id"], decoded(in.Custom["private_key"])
	default:
		return out
	}
	out["credentials"] = credentials
	return out
}

// decoded is a key that Nango keeps in base64.
func decoded(s string) string {
	if plain, err := base64.StdEncoding.DecodeString(s); err == nil && len(plain) > 0 {
		return string(plain)
	}
	return s
}

// scopesOf are a key's scopes as far as they mean something here; a key without
// any may do everything there.
func scopesOf(scopes []string) []string {
	if len(scopes) == 0 {
		return []string{"environment:*"}
	}
	out := []string{}
	for _, s := range scopes {
		if _, err := policy.ParseScopes(s); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// connectionOf is Nango's connection as the API takes it.
func connectionOf(c *nangodb.Connection) map[string]any {
	out := map[string]any{"provider_config_key": c.Integration, "connection_id": c.Connection, "credentials": credentialsOf(c)}
	config := make(map[string]any)
	for name, raw := range c.Config {
		var v any
		_ = json.Unmarshal(raw, &v) // it was JSON in the database
		switch list, isList := v.([]any); {
		case isList:
			texts := make([]string, 0, len(list))
			for _, one := range list {
				texts = append(texts, fmt.Sprint(one))
			}
			config[name] = strings.Join(texts, ",")
		case v != nil:
			if _, nested := v.(map[string]any); !nested {
				config[name] = v
			}
		}
	}
	if len(config) > 0 {
		out["connection_config"] = config
	}
	if len(c.Metadata) > 0 && string(c.Metadata) != "null" {
		out["metadata"] = c.Metadata
	}
	if len(c.Tags) > 0 {
		out["tags"] = c.Tags
	}
	if c.WebhookURL != "" {
		out["webhook_url_override"] = c.WebhookURL
	}
	if u := c.EndUser; u != nil {
		user := map[string]any{"id": u.ID}
		for name, v := range map[string]string{"email": u.Email, "display_name": u.DisplayName} {
			if v != "" {
				user[name] = v
			}
		}
		if len(u.Tags) > 0 {
			user["tags"] = u.Tags
		}
		out["end_user"] = user
	}
	return out
}

// wanted are the members of credentials that the API takes, by their type.
var wanted = map[string][]string{
	"OAUTH2":    {"access_token", "refresh_token", "expires_at", "config_override"},
	"OAUTH2_CC": {"token", "client_id", "client_secret", "client_certificate", "client_private_key", "expires_at"},
	"OAUTH1":    {"oauth_token", "oauth_token_secret"},
	"API_KEY":   {"apiKey"},
	"BASIC":     {"username", "password"},
	"TBA":       {"token_id", "token_secret", "config_override"},
	"NONE":      {},
}

func credentialsOf(c *nangodb.Connection) map[string]any {
	kind, _ := c.Credentials["type"].(string)
	if kind == "" {
		kind = "NONE"
	}
	out := map[string]any{"type": kind}
	switch kind {
	case "APP", "CUSTOM":
		for _, name := range []string{"app_id", "installation_id"} {
			var v any
			_ = json.Unmarshal(c.Config[name], &v) // none: it says what is missing
			if v != nil {
				out[name] = fmt.Sprint(v)
			}
		}
		return out
	case "BILL":
		out["type"] = "TWO_STEP"
	}
	names, some := wanted[kind]
	for name, v := range c.Credentials {
		text, isText := v.(string)
		switch {
		case name == "type", v == nil, isText && text == "":
		case some && slices.Contains(names, name), !some && isText:
			out[name] = v
		}
	}
	return out
}
