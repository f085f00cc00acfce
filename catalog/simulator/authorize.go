package simulator

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// Visit is the user at the vendor: the browser opens an address that the client
// has sent it to, the user consents, and the browser is sent back. It returns
// the callback's address.
func (v *Vendor) Visit(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	r := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.exchange(r, nil)
	faults, back := v.authorize(x, address)
	if len(faults) > 0 {
		v.fault("authorization page: %s", strings.Join(faults, "; "))
		return nil, errors.New("the vendor's page shows an error: " + strings.Join(faults, "; "))
	}
	v.counts.Authorized++
	return back, nil
}

// authorize checks the query of the authorization page and makes the callback.
func (v *Vendor) authorize(x *exchange, address string) ([]string, *url.URL) {
	a := v.facts.Authorize
	if a == nil {
		return []string{"the vendor has no such page"}, nil
	}
	if v.facts.Mode == catalog.ModeOAuth1 {
		return v.authorize1(x)
	}
	want, err := v.pageAddress(x)
	if err != nil {
		return []string{err.Error()}, nil
	}
	var out []string
	rawQuery := x.url.RawQuery
	if a.FragmentPath != "" { // the page's script reads what follows the #
		path, query, _ := strings.Cut(x.url.EscapedFragment(), "?")
		if strings.Trim(path, "/") != strings.Trim(a.FragmentPath, "/") {
			out = append(out, "the fragment is "+quote(path)+", not "+quote(a.FragmentPath))
		}
		rawQuery = query
	}
	if x.url.Scheme != want.Scheme || !strings.EqualFold(x.url.Host, want.Host) || !samePath(strings.TrimRight(x.url.EscapedPath(), "/"), strings.TrimRight(want.EscapedPath(), "/")) {
		return append(out, fmt.Sprintf("the browser is sent to %s, not %s", x.url.Host+x.url.Path, want.Host+want.Path)), nil
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return append(out, "the query can't be read"), nil
	}
	got := map[string]any{}
	for name, values := range query {
		if len(values) > 1 {
			out = append(out, "the query has "+name+" twice")
		}
		got[name] = values[0]
	}
	for name, values := range want.Query() {
		if slices.Equal(query[name], values) {
			delete(got, name)
		}
	}
	c := &code{value: "co/de+" + random(20) + "=", state: query.Get(v.renamed("state")), challenge: query.Get("code_challenge"), nonce: query.Get("nonce")}
	x.code = c
	params := v.pageParams()
	if slices.Contains(strings.FieldsFunc(v.scopes(), func(r rune) bool { return r == ' ' || r == ',' || r == '+' }), "openid") {
		// An ID token is bound to its flow by a nonce, whatever else the entry
		// may have there (OpenID Connect Core 1.0 section 3.1.2.1).
		if n, _ := got["nonce"].(string); len(n) < 32 {
			out = append(out, "the query has no nonce of the flow's own")
		}
		delete(got, "nonce")
		delete(params, "nonce")
	}
	out = append(out, x.differs("query", params, got, false)...)
	if scope := v.scopes(); a.RawScope && scope != "" && !strings.Contains("&"+rawQuery+"&", "&scope="+scope+"&") {
		out = append(out, "the scope is not as it was written: "+quote(rawQuery))
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, v.back(x, c)
}

func (v *Vendor) pageAddress(x *exchange) (*url.URL, error) {
	if v.facts.Mode == catalog.ModeMCPDiscovery {
		return v.discovered("authorize"), nil
	}
	return x.address(source(v.facts.Authorize.URL), nil)
}

func (v *Vendor) renamed(name string) string {
	a := v.facts.Authorize
	if name == "state" && a.StateParam != "" {
		return a.StateParam
	}
	if s := a.RenameParams[name]; s != "" {
		return s
	}
	return name
}

// pageParams is what the query has to hold, and nothing more.
func (v *Vendor) pageParams() map[string]any {
	a := v.facts.Authorize
	want := map[string]any{}
	set := func(name string, value any) {
		if !slices.Contains(a.OmitParams, name) {
			want[v.renamed(name)] = value
		}
	}
	set("state", given{})
	if v.installs() {
		for name, value := range v.facts.tree("authorize", "params") {
			want[name] = value
		}
		return want
	}
	set("response_type", exact("code"))
	set("client_id", "{app.client_id}")
	set("redirect_uri", exact(v.account.RedirectURI))
	if scope := v.scopes(); scope != "" {
		if a.RawScope {
			scope = strings.ReplaceAll(scope, "+", " ") // as every server reads it
		}
		set("scope", exact(scope))
	} else if !a.OmitEmptyParams {
		set("scope", optional{exact("")})
	}
	if v.pkce() {
		set("code_challenge", given{})
		set("code_challenge_method", exact("S256"))
	}
	if v.facts.Mode == catalog.ModeMCPDiscovery {
		set("resource", "{conn.mcp_server_url}")
	}
	for name, value := range v.facts.tree("authorize", "params") {
		want[v.renamed(name)] = value
	}
	return want
}

// installs tells whether the page is one on which the vendor's app is installed,
// rather than an OAuth one.
func (v *Vendor) installs() bool {
	return v.facts.Mode == catalog.ModeGitHubApp || v.facts.Mode == catalog.ModeGitHubAppOAuth || v.facts.HasFlag("vendor_plugin_install")
}

func (v *Vendor) pkce() bool {
	return v.facts.Authorize != nil && v.facts.Authorize.PKCE || v.facts.Mode == catalog.ModeMCPDiscovery
}

// back makes the callback.
func (v *Vendor) back(x *exchange, c *code) *url.URL {
	a := v.facts.Authorize
	back, err := url.Parse(v.account.RedirectURI)
	if err != nil {
		panic("simulator: redirect URI: " + err.Error()) // ours
	}
	q := url.Values{}
	if c.state != "" {
		q.Set(v.renamedBack("state"), c.state)
	}
	if v.facts.Mode != catalog.ModeGitHubApp && !v.facts.HasFlag("vendor_plugin_install") {
		name := "code"
		if a.CodeParam != "" {
			name = a.CodeParam
		}
		shown := c.value
		if a.CodeIsURLEncoded {
			shown = url.QueryEscape(shown)
		}
		q.Set(name, shown)
		v.codes[c.value] = c
		q.Set("iss", issuerOf(x))
	}
	for field, param := range a.CaptureCallbackParams {
		if v.facts.placeOf("conn."+field) == placeBase {
			// An address, in the domain that the user has gone to.
			v.told[field] = "https://" + x.url.Host
		}
		q.Set(param, v.tell(field))
	}
	back.RawQuery = q.Encode()
	return back
}

// renamedBack is the name of a parameter in the callback: the vendor's own word
// for the state comes back under it only where the entry says so.
func (v *Vendor) renamedBack(name string) string {
	if v.facts.Authorize.StateParam != "" {
		return v.facts.Authorize.StateParam
	}
	return v.renamed(name)
}

// issuerOf is who answers, RFC 9207.
func issuerOf(x *exchange) string {
	if x.v.facts.Mode == catalog.ModeMCPDiscovery {
		return x.v.issuer().String()
	}
	return "https://" + x.url.Host
}
