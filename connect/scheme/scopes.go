package scheme

import (
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// MissingScopes are the scopes that were asked for and not granted, as far as
// the provider has told (RFC 6749 section 3.3). Calls that need them will fail;
// all others work.
//
// Two of them ask for something else than the use of an API, and not all
// providers list them: openid for an ID token, and offline_access for a refresh
// token, which is there or isn't (OpenID Connect Core 1.0 sections 3.1.2.1 and
// 11).
func MissingScopes(p *catalog.Provider, c *Credential) []string {
	missing := p.Scopes.Missing(c.Requested, c.Scopes)
	return slices.DeleteFunc(missing, func(s string) bool {
		return s == "openid" || s == "offline_access" && c.RefreshToken != ""
	})
}

// asking notes which scopes a grant is asked for: none that anyone chooses where
// the entry has them fixed, or the vendor isn't told any.
func (b base) asking(g Grant, own []string) Grant {
	g.Requested = nil
	if a := b.provider.Authorize; a != nil {
		if _, fixed := a.Params.Get("scope"); fixed || slices.Contains(a.OmitParams, "scope") {
			return g
		}
	}
	if t := b.provider.Token; t != nil {
		if _, fixed := t.Params.Get("scope"); fixed {
			return g
		}
	}
	g.Requested = b.provider.Scopes.Split(b.scopes(own, g.Config))
	return g
}

// granted are the scopes that an answer tells, nil if it doesn't (or says that
// there are none, which some do for want of any): as one text, or as a list.
func (r *reader) granted(root string) []string {
	path := "scope"
	if root != "" {
		path = root + "." + path
	}
	switch v := r.last().at(path).(type) {
	case string:
		if scopes := r.provider.Scopes.Split(v); len(scopes) > 0 {
			return scopes
		}
	case []any:
		var scopes []string
		for _, one := range v {
			if s, ok := scalarText(one); ok && strings.TrimSpace(s) != "" {
				scopes = append(scopes, s)
			}
		}
		return scopes
	}
	return nil
}
