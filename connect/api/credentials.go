package api

import (
	"encoding/json"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// credentialsJSON reveals a credential to the app that it belongs to.
func credentialsJSON(p *catalog.Provider, c *scheme.Credential, withRefreshToken bool) map[string]any {
	if p.Mode == catalog.ModeNone {
		return map[string]any{}
	}
	out := map[string]any{"type": authModes[p.Mode]}
	if !c.Expires.IsZero() {
		out["expires_at"] = stamp(c.Expires)
	}
	if c.Raw != "" {
		raw := map[string]any{}
		// What was stored is JSON that had been parsed before.
		dec := json.NewDecoder(strings.NewReader(c.Raw.Reveal()))
		dec.UseNumber()
		_ = dec.Decode(&raw)
		if !withRefreshToken {
			dropRefreshTokens(raw, c)
		}
		out["raw"] = raw
	}
	if len(c.Extra) > 0 { // further tokens, by name
		tokens := make(map[string]any, len(c.Extra))
		for name, t := range c.Extra {
			one := map[string]any{"access_token": t.AccessToken.Reveal()}
			if !t.Expires.IsZero() {
				one["expires_at"] = stamp(t.Expires)
			}
			tokens[name] = one
		}
		out["tokens"] = tokens
	}
	switch p.Mode {
	case catalog.ModeOAuth1:
		out["oauth_token"], out["oauth_token_secret"] = c.AccessToken.Reveal(), c.Fields["oauth_token_secret"].Reveal()
	case catalog.ModeOAuth2Code, catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery, catalog.ModeGitHubApp, catalog.ModeGitHubAppOAuth:
		out["access_token"] = c.AccessToken.Reveal()
		if o := c.Client; o != nil && p.Mode == catalog.ModeOAuth2Code { // the app has brought it along
			out["config_override"] = map[string]any{"client_id": o.ID, "client_secret": o.Secret.Reveal()}
		}
		if withRefreshToken && c.RefreshToken != "" {
			out["refresh_token"] = c.RefreshToken.Reveal()
		}
	case catalog.ModeClientCredentials, catalog.ModeTwoStep, catalog.ModeJWTBearer:
		out["token"] = c.AccessToken.Reveal()
		fallthrough
	default:
		for name, v := range c.Fields {
			if name == "api_key" {
				name = "apiKey"
			}
			out[name] = v.Reveal()
		}
	}
	return out
}

// dropRefreshTokens takes refresh tokens out, by what they are called and by
// what they are: some providers have a name of their own for it.
func dropRefreshTokens(v any, c *scheme.Credential) {
	switch v := v.(type) {
	case map[string]any:
		for name, child := range v {
			if name == "refresh_token" || name == "refreshToken" || isRefreshToken(child, c) {
				delete(v, name)
				continue
			}
			dropRefreshTokens(child, c)
		}
	case []any:
		for _, child := range v {
			dropRefreshTokens(child, c)
		}
	}
}

func isRefreshToken(v any, c *scheme.Credential) bool {
	s, ok := v.(string)
	return ok && s != "" && (s == c.RefreshToken.Reveal() || s == c.Previous.Reveal())
}
