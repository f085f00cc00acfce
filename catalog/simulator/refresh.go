package simulator

import (
	"maps"
	"net/http"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

func (v *Vendor) refreshAddress() []string {
	if r := v.facts.Refresh; r != nil && !r.URL.IsZero() {
		return source(r.URL)
	}
	return source(v.facts.Token.URL)
}

// refreshEndpoint renews tokens, unless that is to repeat the token request.
func (v *Vendor) refreshEndpoint() *endpoint {
	r, t := v.facts.Refresh, v.facts.Token
	method := t.Method
	if r.Method != "" {
		method = r.Method
	}
	e := &endpoint{name: "refresh endpoint", method: method}
	var old *grant
	e.check = func(x *exchange) []string {
		if v.closed {
			return []string{"the user has withdrawn the consent"}
		}
		if r.Mode == catalog.RefreshNone || r.Mode == catalog.RefreshReissue && r.URL.IsZero() {
			return []string{notMeant}
		}
		old = v.newest()
		if old == nil {
			return []string{notMeant}
		}
		x.grant = old
		var best []string
		for i := len(v.grants) - 1; i >= 0; i-- {
			attempt := *x
			attempt.grant = v.grants[i]
			attempt.scope = &scope{made: map[string]string{}, now: x.now}
			attempt.scope.lookup, attempt.scope.assertion = attempt.value, attempt.assertion
			faults := v.renewable(&attempt)
			if best == nil || weight(faults) < weight(best) {
				best, old = faults, v.grants[i]
			}
			if len(faults) == 0 {
				return nil
			}
		}
		return best
	}
	e.respond = func(w http.ResponseWriter, x *exchange) {
		fresh := v.newGrant(old, old.code)
		v.retire(old)
		v.counts.Refreshes++
		if r.StepsToo {
			v.firstAnswer(w, x, fresh)
			return
		}
		v.lastAnswer(w, x, fresh, true)
	}
	e.refuse = v.refuseToken
	return e
}

func (v *Vendor) renewable(x *exchange) []string {
	r := v.facts.Refresh
	var out []string
	switch r.Mode {
	case catalog.RefreshByToken:
		if x.grant.refresh == "" {
			return []string{notMeant}
		}
		if x.grant.spent && v.rotates() {
			out = append(out, "the refresh token was used before")
		}
	case catalog.RefreshExchangesAccess:
		if x.grant.spent {
			out = append(out, "the access token was exchanged before")
		}
	}
	return append(out, x.unmet(v.refreshDemand(x))...)
}

// refreshDemand is what a refresh request has to look like (RFC 6749 section 6).
func (v *Vendor) refreshDemand(x *exchange) *demand {
	r, t := v.facts.Refresh, v.facts.Token
	d := &demand{encoding: t.Body, params: map[string]any{}, fixed: x.fixedQuery(v.refreshAddress(), nil)}
	if r.Body != "" {
		d.encoding = r.Body
	}
	d.headers = sources(t.Headers)
	if len(r.Headers) > 0 {
		d.headers = sources(r.Headers)
		if ct, ok := t.Headers["content-type"]; ok && d.encoding == t.Body {
			if _, declared := d.headers["content-type"]; !declared {
				d.headers["content-type"] = optional{source(ct)}
			}
		}
	}
	own := v.facts.tree("refresh", "params")
	named := false // the refresh token has a name of its own
	for _, value := range own {
		if s, ok := value.(string); ok && strings.Contains(s, "token.refresh_token") {
			named = true
		}
	}
	for _, value := range r.Headers {
		named = named || strings.Contains(value.String(), "token.refresh_token")
	}
	how, names := t.ClientAuth, t.ClientAuthNames
	if r.ClientAuth != "" {
		how = r.ClientAuth
	}
	if len(r.ClientAuthNames) > 0 {
		names = r.ClientAuthNames
	}
	switch {
	case r.Mode == catalog.RefreshByToken && v.facts.Mode != catalog.ModeTwoStep && !named:
		if !r.NoGrantType {
			d.params["grant_type"] = exact("refresh_token")
		}
		d.params["refresh_token"] = "{token.refresh_token}"
		v.identify(d, how, names, "app")
	case r.Mode == catalog.RefreshByToken && v.facts.Mode != catalog.ModeTwoStep:
		if !r.NoGrantType {
			d.params["grant_type"] = optional{exact("refresh_token")}
		}
		v.identify(d, how, names, "app")
	case r.Mode == catalog.RefreshExchangesAccess:
		v.identify(d, how, names, "app")
		if how == "none" {
			delete(d.params, "client_id")
		}
	case v.facts.Mode == catalog.ModeOAuth2Code && how != "none":
		v.identify(d, how, names, "app")
	}
	if own == nil {
		for name, value := range v.facts.tree("token", "params") {
			if _, taken := d.params[name]; !taken && r.Mode == catalog.RefreshByToken {
				d.params[name] = optional{value}
			}
		}
	}
	if v.facts.Mode == catalog.ModeMCPDiscovery {
		d.params["resource"] = optional{"{conn.mcp_server_url}"}
	} else if v.facts.Mode == catalog.ModeMCPOAuth2 {
		if resource := v.facts.at("authorize", "params", "resource"); resource != nil {
			d.params["resource"] = optional{resource}
		}
	}
	maps.Copy(d.params, own)
	return d
}
