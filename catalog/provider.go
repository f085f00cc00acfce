package catalog

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// Mode is the way a provider lets callers prove who they are. In YAML it is the
// key auth_scheme.
type Mode string

// All modes an entry may have.
const (
	ModeOAuth2Code        Mode = "oauth2_code"
	ModeClientCredentials Mode = "oauth2_client_credentials"
	ModeAPIKey            Mode = "api_key"
	ModeBasic             Mode = "basic"
	ModeNone              Mode = "none"
	ModeTwoStep           Mode = "two_step"
	ModeJWTBearer         Mode = "jwt_bearer"
	ModeAWSSigV4          Mode = "aws_sigv4"
	ModeOAuth1            Mode = "oauth1"
	ModeOAuth1TBA         Mode = "oauth1_tba"
	ModeMCPOAuth2         Mode = "mcp_oauth2"
	ModeMCPDiscovery      Mode = "mcp_oauth2_discovery"
	ModeWSSE              Mode = "wsse"
	ModeGitHubApp         Mode = "github_app"
	ModeGitHubAppOAuth    Mode = "github_app_oauth"
)

// Provider is one entry of the catalogue. It is read-only after [Parse] and safe
// for any number of goroutines. Blocks that the file does not have are nil.
type Provider struct {
	ID           string   `yaml:"id,required"`
	DisplayName  string   `yaml:"display_name,required"`
	AliasOf      string   `yaml:"alias_of"` // for the record; the entry is complete without it
	Vendor       string   `yaml:"vendor,required"`
	VendorDomain string   `yaml:"vendor_domain"`
	Categories   []string `yaml:"categories,required"`
	Popular      bool     `yaml:"popular"`
	Mode         Mode     `yaml:"auth_scheme,required" enum:"oauth2_code oauth2_client_credentials api_key basic none two_step jwt_bearer aws_sigv4 oauth1 oauth1_tba mcp_oauth2 mcp_oauth2_discovery wsse github_app github_app_oauth"`

	Authorize     *Authorize          `yaml:"authorize"`
	Token         *Token              `yaml:"token"`
	TokenSteps    []TokenStep         `yaml:"token_steps"`
	TokenAlt      map[string]TokenAlt `yaml:"token_alt"`
	Refresh       *Refresh            `yaml:"refresh"` // never nil when Token is not nil
	TokenResponse *TokenResponse      `yaml:"token_response"`
	Revoke        *Call               `yaml:"revoke"`
	Introspect    *Introspect         `yaml:"introspect"`
	Registration  *Registration       `yaml:"registration"`
	Signed        *Signed             `yaml:"signed"`
	SignRequest   *SignRequest        `yaml:"sign_request"`
	Scopes        *Scopes             `yaml:"scopes"`

	AppFields  []Field `yaml:"app_fields"`
	ConnFields []Field `yaml:"conn_fields"`
	CredFields []Field `yaml:"cred_fields"`

	Request  *Request  `yaml:"request"`
	Verify   *Verify   `yaml:"verify"`
	Retry    *Retry    `yaml:"retry"`
	Paginate *Paginate `yaml:"paginate"`
	Derive   []Derive  `yaml:"derive"`
	Account  *Account  `yaml:"account"`
	Docs     Docs      `yaml:"docs"`
	Flags    []string  `yaml:"flags"`

	UserSteps  []string `yaml:"guide"` // our own: what who connects does at the vendor; see Guide
	SetupSteps []string `yaml:"setup"` // our own: what the operator does there; see SetupGuide

	file string
	data []byte
	raw  func() map[string]any
}

// Docs are links to the vendor's own documentation.
type Docs struct {
	Host       string `yaml:"host"`
	Reference  string `yaml:"reference"`
	Auth       string `yaml:"auth"`
	Scopes     string `yaml:"scopes"`
	RateLimits string `yaml:"rate_limits"`
	Console    string `yaml:"console"` // where a key or an OAuth app is made
}

// Page returns the page that says most about the API, empty if none is known.
func (d Docs) Page() string {
	host := ""
	if d.Host != "" {
		host = "https://" + d.Host + "/"
	}
	return cmp.Or(d.Reference, d.Auth, host, d.Scopes, d.RateLimits, d.Console)
}

// Source returns the entry's file as it was written. It must not be changed.
func (p *Provider) Source() []byte { return p.data }

// Raw returns the entry as plain data, as it was written, for callers that show
// it: strings, bools, int, float64, []any and map[string]any. Defaults are not
// filled in. Each call returns a copy of its own.
func (p *Provider) Raw() map[string]any {
	if p.raw == nil {
		return nil
	}
	return clone(p.raw()).(map[string]any)
}

// Field returns the field that a reference such as conn.subdomain names.
func (p *Provider) Field(namespace, name string) (*Field, bool) {
	var fields []Field
	switch namespace {
	case "app":
		fields = p.AppFields
	case "conn":
		fields = p.ConnFields
	case "cred":
		fields = p.CredFields
	}
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i], true
		}
	}
	return nil, false
}

// HasFlag reports whether the entry is marked as one of the odd cases.
func (p *Provider) HasFlag(flag string) bool { return slices.Contains(p.Flags, flag) }

// keepRaw makes Raw decode the file once, on first use: most entries are never
// shown.
func (p *Provider) keepRaw() {
	p.raw = sync.OnceValue(func() map[string]any {
		m, _ := plainDocument(p.data).(map[string]any)
		return m
	})
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := maps.Clone(v)
		for k := range c {
			c[k] = clone(c[k])
		}
		return c
	case []any:
		c := slices.Clone(v)
		for i := range c {
			c[i] = clone(c[i])
		}
		return c
	}
	return v
}
