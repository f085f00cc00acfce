package simulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// endpoints are the vendor's addresses as far as they can be known: many are
// made of what the client has been told before.
func (v *Vendor) endpoints(x *exchange) []*endpoint {
	var out []*endpoint
	add := func(e *endpoint, alternatives []string, base *url.URL) {
		u, err := x.address(alternatives, base)
		if err != nil {
			return // made of what isn't known yet: nobody can ask for it
		}
		e.url = u
		out = append(out, e)
	}
	f := v.facts
	base, baseErr := x.base()
	if t := f.Token; t != nil {
		switch f.Mode {
		case catalog.ModeOAuth1:
			add(v.accessToken1(), source(t.URL), nil)
		default:
			add(v.tokenEndpoint(), source(t.URL), nil)
		}
		for i := range f.TokenSteps {
			add(v.stepEndpoint(i), source(f.TokenSteps[i].URL), nil)
		}
		add(v.refreshEndpoint(), v.refreshAddress(), nil)
		for name := range f.TokenAlt {
			add(v.altEndpoint(name), source(f.TokenAlt[name].URL), nil)
		}
	}
	if f.Authorize != nil && !f.Authorize.RequestTokenURL.IsZero() {
		add(v.requestToken1(), source(f.Authorize.RequestTokenURL), nil)
	}
	if f.Registration != nil && !f.Registration.URL.IsZero() {
		add(v.registrationEndpoint(), source(f.Registration.URL), nil)
	}
	if f.Introspect != nil {
		add(v.introspectEndpoint(), source(f.Introspect.URL), nil)
	}
	if f.Revoke != nil { // the token may be a part of the address
		x.grant = v.newest()
		add(v.revokeEndpoint(), source(f.Revoke.URL), base)
		x.grant = nil
	}
	out = append(out, v.discoveryEndpoints(x)...)
	if e := v.assumeRole(x); e != nil {
		out = append(out, e)
	}
	for i := range f.Derive {
		if d := &f.Derive[i]; d.Request != nil && (baseErr == nil || !d.Request.URL.Relative()) {
			add(v.lookupEndpoint(i), source(d.Request.URL), base)
		}
	}
	if f.Account != nil && f.Account.Request != nil && (baseErr == nil || !f.Account.Request.URL.Relative()) {
		add(v.accountEndpoint(), source(f.Account.Request.URL), base)
	}
	if f.Verify != nil {
		root := base
		if !f.Verify.BaseURL.IsZero() {
			if u, err := x.address(source(f.Verify.BaseURL), nil); err == nil {
				root = u
			}
		}
		for i := range f.Verify.Paths {
			add(v.verifyEndpoint(i), source(f.Verify.Paths[i]), root)
		}
	}
	if baseErr == nil {
		e := v.apiEndpoint()
		e.url = base
		out = append(out, e)
	}
	return out
}

// fixedQuery is the query that stands in an address itself.
func (x *exchange) fixedQuery(alternatives []string, base *url.URL) url.Values {
	u, err := x.address(alternatives, base)
	if err != nil {
		return nil
	}
	return u.Query()
}

func (v *Vendor) tokenEndpoint() *endpoint {
	t := v.facts.Token
	return &endpoint{
		name: "token endpoint", method: t.Method,
		check: func(x *exchange) []string {
			if v.closed {
				return []string{"the user has withdrawn the consent"}
			}
			d, faults := v.tokenDemand(x)
			return slices.Concat(faults, x.certificateUnmet(), x.unmet(d))
		},
		respond: func(w http.ResponseWriter, x *exchange) {
			if x.code != nil {
				x.code.used = true
			}
			v.counts.Tokens++
			v.firstAnswer(w, x, v.newGrant(nil, x.code))
		},
		refuse: v.refuseToken,
	}
}

// refuseToken answers a token request that would have been right in better
// times, which is nobody's fault.
func (v *Vendor) refuseToken(w http.ResponseWriter, x *exchange, faults []string) bool {
	switch {
	case v.closed && slices.ContainsFunc(faults, func(s string) bool { return strings.Contains(s, "withdrawn") }):
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": "simulated: consent withdrawn"})
		return true
	case v.reused(x):
		v.fault("the refresh token was used twice")
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return true
	}
	return false
}

// certificateUnmet checks the client's certificate, where the vendor wants one
// in the handshake (RFC 8705).
func (x *exchange) certificateUnmet() []string {
	if t := x.v.facts.Token; t == nil || !t.MTLS {
		return nil
	}
	if x.r.TLS == nil || len(x.r.TLS.PeerCertificates) == 0 || !bytes.Equal(x.r.TLS.PeerCertificates[0].Raw, certificate()) {
		return []string{"the client has not shown the account's certificate"}
	}
	return nil
}

const outOfOrder = "it is out of order"

// tokenDemand is what the first token request has to look like.
func (v *Vendor) tokenDemand(x *exchange) (*demand, []string) {
	t := v.facts.Token
	d := &demand{encoding: t.Body, params: map[string]any{}, headers: sources(t.Headers), fixed: x.fixedQuery(source(t.URL), nil)}
	switch v.facts.Mode {
	case catalog.ModeOAuth2Code, catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery:
		faults := v.codeDemand(x, d)
		return d, faults
	case catalog.ModeGitHubAppOAuth:
		faults := v.codeDemand(x, d)
		return d, faults
	case catalog.ModeClientCredentials:
		if !t.NoGrantType {
			d.params["grant_type"] = exact("client_credentials")
		}
		if s := v.scopes(); s != "" {
			d.params["scope"] = exact(s)
		}
		v.identify(d, t.ClientAuth, t.ClientAuthNames, "cred")
	default:
		v.identify(d, t.ClientAuth, t.ClientAuthNames, "cred")
	}
	maps.Copy(d.params, v.facts.tree("token", "params"))
	return d, nil
}

// codeDemand is the request that redeems a code (RFC 6749 section 4.1.3), with
// the entry's deviations.
func (v *Vendor) codeDemand(x *exchange, d *demand) []string {
	t := v.facts.Token
	var faults []string
	if !t.NoGrantType {
		d.params["grant_type"] = exact("authorization_code")
	}
	name := "code"
	if t.CodeName != "" {
		name = t.CodeName
	}
	x.code = v.codeIn(x)
	if x.code == nil {
		faults = append(faults, "there is no code that the vendor has given")
		x.code = &code{used: true}
	} else if x.code.used && !t.NoCode {
		faults = append(faults, "the code was used before")
	}
	if !t.NoCode {
		d.params[name] = exact(x.code.value)
	}
	switch {
	case t.RedirectURIInQuery:
		d.query = map[string]any{"redirect_uri": exact(v.account.RedirectURI)}
		d.params["redirect_uri"] = optional{exact(v.account.RedirectURI)}
	case !t.NoRedirectURI && !t.NoCode:
		d.params["redirect_uri"] = exact(v.account.RedirectURI)
	}
	if v.pkce() && !t.NoCode {
		verifier := x.param("code_verifier")
		sum := sha256.Sum256([]byte(verifier))
		if base64.RawURLEncoding.EncodeToString(sum[:]) != x.code.challenge {
			faults = append(faults, "the code verifier does not belong to the code challenge (RFC 7636 section 4.6)")
		}
		if len(verifier) < 43 || len(verifier) > 128 {
			faults = append(faults, fmt.Sprintf("the code verifier has %d characters (RFC 7636 section 4.1)", len(verifier)))
		}
		d.params["code_verifier"] = free{}
	}
	if t.SendsScope {
		d.params["scope"] = exact(v.scopes())
	}
	if v.facts.Mode == catalog.ModeMCPDiscovery {
		d.params["resource"] = "{conn.mcp_server_url}"
	} else if _, ok := v.facts.tree("authorize", "params")["resource"]; ok && v.facts.Mode == catalog.ModeMCPOAuth2 {
		d.params["resource"] = optional{v.facts.at("authorize", "params", "resource")}
	}
	v.identify(d, t.ClientAuth, t.ClientAuthNames, "app")
	if t.ExtraClientIDInBody {
		d.params["client_id"] = "{app.client_id}"
	}
	maps.Copy(d.params, v.facts.tree("token", "params"))
	return faults
}

// codeIn finds the code that a request redeems, wherever it stands.
func (v *Vendor) codeIn(x *exchange) *code {
	for _, c := range v.codes {
		if v.facts.Token.NoCode || x.param("code") == c.value || x.param(v.facts.Token.CodeName) == c.value {
			return c
		}
	}
	return nil
}

// param reads a parameter from a body of any encoding, or from the query.
func (x *exchange) param(name string) string {
	if s := x.url.Query().Get(name); s != "" || name == "" {
		return s
	}
	if values, err := url.ParseQuery(string(x.body)); err == nil && values.Get(name) != "" {
		return values.Get(name)
	}
	var m map[string]any
	if json := decodeJSON(x.body, &m); json == nil {
		if s, ok := m[name].(string); ok {
			return s
		}
	}
	return ""
}

// identify demands that the client identifies itself, with the values of a
// namespace: the operator's for codes, the user's for client credentials.
func (v *Vendor) identify(d *demand, how string, names map[string]string, namespace string) {
	if namespace == "cred" {
		if _, ok := v.facts.Field("cred", "client_id"); !ok {
			namespace = "app"
		}
	}
	id, secret := "{"+namespace+".client_id}", "{"+namespace+".client_secret}"
	name := func(standard string) string {
		if s := names[standard]; s != "" {
			return s
		}
		return standard
	}
	if v.client != nil {
		how = v.client.method(how)
	}
	t := v.facts.Token
	switch how {
	case "post":
		d.params[name("client_id")] = id
		d.params[name("client_secret")] = secret
	case "basic":
		d.basic, d.user, d.password = true, id, secret
		if !t.BasicUser.IsZero() {
			d.user = source(t.BasicUser)
		}
		if v.facts.at("token", "basic_password") != nil {
			d.password = exact(v.facts.at("token", "basic_password").(string))
			if s := t.BasicPassword.String(); s != "" {
				d.password = source(t.BasicPassword)
			}
		}
	case "private_key_jwt":
		d.params["client_assertion_type"] = exact("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		d.params["client_assertion"] = "{" + assertionRef + "}"
		d.params["client_id"] = optional{id}
	case "none":
		switch {
		case v.facts.Mode == catalog.ModeMCPOAuth2 || v.facts.Mode == catalog.ModeMCPDiscovery:
			d.params[name("client_id")] = id // a public client, RFC 6749 section 4.1.3
		case v.facts.Mode == catalog.ModeOAuth2Code:
			d.params[name("client_id")] = optional{id}
		}
	}
	if t.NoClientID {
		delete(d.params, name("client_id"))
	}
}

func (v *Vendor) stepEndpoint(i int) *endpoint {
	s := &v.facts.TokenSteps[i]
	return &endpoint{
		name: fmt.Sprintf("token request %d", i+2), method: s.Method,
		check: func(x *exchange) []string {
			if v.pending == nil {
				return []string{"the requests before have not been made"}
			}
			raw := v.facts.item("token_steps", i)
			if v.otherwise && s.Optional {
				return []string{outOfOrder}
			}
			return x.unmet(&demand{
				encoding: s.Body, params: treeIn(raw, "params"), query: treeIn(raw, "query"),
				headers: sources(s.Headers), fixed: x.fixedQuery(source(s.URL), nil),
			})
		},
		respond: func(w http.ResponseWriter, x *exchange) { v.nextAnswer(w, x, i+2) },
		refuse: func(w http.ResponseWriter, x *exchange, faults []string) bool {
			if slices.Equal(faults, []string{outOfOrder}) {
				answer(w, http.StatusServiceUnavailable, map[string]any{"error": "simulated: " + outOfOrder})
				return true
			}
			return v.refuseToken(w, x, faults)
		},
	}
}
