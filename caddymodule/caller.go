package caddymodule

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect/identity"
	"github.com/keycaddy/keycaddy/connect/policy"
)

// Caller lets callers in that have no API key: by tokens that somebody else
// issues to them, or by a client certificate. Give one of these two.
type Caller struct {
	// Tokens that are sent as `Authorization: Bearer <token>`.
	JWT *JWT `json:"jwt,omitempty"`

	// Certificates of the TLS connection. The site has to ask for them, with
	// `client_auth` of its `tls` directive; keycaddy has to end TLS itself.
	Certificate *Certificate `json:"certificate,omitempty"`

	// What they may do. Default: as with API keys.
	Scopes []string `json:"scopes,omitempty"`

	// Which connections and calls they are good for.
	policy.Limits
}

// JWT says whose tokens are good, and what their claims mean. Tokens have to be
// signed with a public key (RSA, ECDSA or Ed25519), to name the audience, and to
// have an end.
type JWT struct {
	// What `iss` of a token has to be, character by character.
	Issuer string `json:"issuer,omitempty"`

	// What `aud` of a token has to be, or to contain.
	Audience string `json:"audience,omitempty"`

	// Where the issuer's keys are (a JWKS). They are read again each hour, and
	// when a token is signed with one that isn't known, at most every 10 seconds.
	JWKSURL string `json:"jwks_url,omitempty"`

	// A file with the keys instead.
	JWKSFile string `json:"jwks_file,omitempty"`

	// The claims that limit a token to an end user's connections, to connections,
	// or to integrations; a text, or a list. A token without is refused.
	EndUser      string `json:"end_user,omitempty"`
	Connections  string `json:"connections,omitempty"`
	Integrations string `json:"integrations,omitempty"`
}

// Certificate says which client certificates are good.
type Certificate struct {
	// Files with the certificates (PEM) of the authorities that issue them.
	CA []string `json:"ca,omitempty"`

	// The names that may call: DNS names, e-mail addresses and URIs (as SPIFFE
	// has them) of the certificate's subject alternative names. Default: all
	// that the authorities have issued for clients.
	Names []string `json:"names,omitempty"`
}

// makeCallers makes ready how callers without API keys prove themselves. Client
// fetches the keys of issuers, until ctx ends.
func (a *App) makeCallers(ctx context.Context, client *http.Client, repl *caddy.Replacer) error {
	issuers := make(map[string]string)
	for name, c := range a.Callers {
		scopes := policy.DefaultScopes
		var err error
		if len(c.Scopes) > 0 {
			scopes, err = policy.ParseScopes(c.Scopes...)
		}
		if err == nil {
			_, err = c.Limits.Compile()
		}
		switch {
		case err != nil:
		case (c.JWT == nil) == (c.Certificate == nil):
			err = fmt.Errorf("it needs either jwt or certificate")
		case c.JWT != nil:
			if other, ok := issuers[c.JWT.Issuer]; ok {
				err = fmt.Errorf("issuer: that of %s; one issuer has one caller", other)
				break
			}
			issuers[c.JWT.Issuer] = name
			t := &identity.Tokens{Name: name, Client: client, Context: ctx, Scopes: scopes, Limits: c.Limits}
			err = c.JWT.make(t, repl)
			a.tokens = append(a.tokens, t)
		default:
			k := &identity.Certificates{Name: name, Scopes: scopes, Limits: c.Limits, Names: c.Certificate.Names}
			k.Roots, err = c.Certificate.roots(repl)
			a.certificates = append(a.certificates, k)
		}
		if err != nil {
			return fmt.Errorf("caller %s: %w", name, err)
		}
	}
	return nil
}

func (j *JWT) make(t *identity.Tokens, repl *caddy.Replacer) error {
	for _, one := range []struct {
		name, from string
		into       *string
		needed     bool
	}{
		{"issuer", j.Issuer, &t.Issuer, true}, {"audience", j.Audience, &t.Audience, true}, {"jwks_url", j.JWKSURL, &t.KeysURL, j.JWKSFile == ""},
		{"end_user", j.EndUser, &t.EndUser, false}, {"connections", j.Connections, &t.Connections, false}, {"integrations", j.Integrations, &t.Integrations, false},
	} {
		value, err := repl.ReplaceOrErr(one.from, true, true)
		if err != nil {
			return fmt.Errorf("jwt %s: %w", one.name, err)
		}
		if value == "" && one.needed {
			return fmt.Errorf("jwt: %s is missing", one.name)
		}
		*one.into = value
	}
	if j.JWKSFile != "" {
		if j.JWKSURL != "" {
			return fmt.Errorf("jwt: jwks_url and jwks_file are two places for the same")
		}
		data, err := os.ReadFile(repl.ReplaceAll(j.JWKSFile, ""))
		if err != nil {
			return fmt.Errorf("jwt jwks_file: %w", err)
		}
		t.Keys = data
		return t.Check()
	}
	u, err := url.Parse(t.KeysURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("jwt: jwks_url is no address such as https://login.example.com/.well-known/jwks.json")
	}
	return nil
}

func (c *Certificate) roots(repl *caddy.Replacer) (*x509.CertPool, error) {
	if len(c.CA) == 0 {
		return nil, fmt.Errorf("certificate: ca is missing")
	}
	pool := x509.NewCertPool()
	for _, file := range c.CA {
		data, err := os.ReadFile(repl.ReplaceAll(file, ""))
		if err != nil {
			return nil, fmt.Errorf("certificate ca: %w", err)
		}
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("certificate ca: %s has no certificate in PEM", file)
		}
	}
	return pool, nil
}

// parseCaller reads "caller <name> { … }".
func (a *App) parseCaller(d *caddyfile.Dispenser) error {
	var name string
	if err := oneArg(d, &name); err != nil {
		return err
	}
	if _, ok := a.Callers[name]; ok {
		return d.Errf("there are two callers %s", name)
	}
	c := new(Caller)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "jwt":
			c.JWT = new(JWT)
			err = c.JWT.parse(d)
		case "certificate":
			c.Certificate = new(Certificate)
			err = c.Certificate.parse(d)
		case "scopes":
			err = several(d, &c.Scopes)
		default:
			err = parseLimit(d, &c.Limits, "caller")
		}
		if err != nil {
			return err
		}
	}
	if a.Callers == nil {
		a.Callers = make(map[string]*Caller)
	}
	a.Callers[name] = c
	return nil
}

func (j *JWT) parse(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		into := map[string]*string{
			"issuer": &j.Issuer, "audience": &j.Audience, "jwks_url": &j.JWKSURL, "jwks_file": &j.JWKSFile,
			"end_user": &j.EndUser, "connections": &j.Connections, "integrations": &j.Integrations,
		}[d.Val()]
		if into == nil {
			return d.Errf("unrecognized jwt option %s", d.Val())
		}
		if err := oneArg(d, into); err != nil {
			return err
		}
	}
	return nil
}

func (c *Certificate) parse(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		into := map[string]*[]string{"ca": &c.CA, "names": &c.Names}[d.Val()]
		if into == nil {
			return d.Errf("unrecognized certificate option %s", d.Val())
		}
		if err := several(d, into); err != nil {
			return err
		}
	}
	return nil
}

// parseLimit reads an option that limits who calls.
func parseLimit(d *caddyfile.Dispenser, l *policy.Limits, of string) error {
	switch d.Val() {
	case "rate":
		return oneArg(d, &l.Rate)
	case "tag":
		return pair(d, &l.Tags)
	case "call":
		args := d.RemainingArgs()
		if len(args) == 0 || len(args) > 2 {
			return d.ArgErr()
		}
		l.Calls = append(l.Calls, strings.Join(args, " "))
		return nil
	case "integration":
		return several(d, &l.Integrations)
	case "connection":
		return several(d, &l.Connections)
	case "end_user":
		return several(d, &l.EndUsers)
	}
	return d.Errf("unrecognized %s option %s", of, d.Val())
}

// several adds all arguments, of which there has to be one at least.
func several(d *caddyfile.Dispenser, into *[]string) error {
	values := d.RemainingArgs()
	if len(values) == 0 {
		return d.ArgErr()
	}
	*into = append(*into, values...)
	return nil
}
