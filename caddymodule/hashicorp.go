package caddymodule

import (
	"context"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/hashicorp"
)

func init() { caddy.RegisterModule(HashiCorp{}) }

// HashiCorp keeps secrets in a HashiCorp Vault: in a KV secrets engine of
// version 2, on request sealed with a key of the Transit engine as well. Any
// number of nodes may share it. `docs/vault.md` has the policies that Vault
// needs.
//
// At start an entry is written, read and removed again, so that a mistake is
// found then. Values may be placeholders, such as `{env.VAULT_TOKEN}`.
type HashiCorp struct {
	// Where Vault is, such as `https://vault.internal:8200`.
	Address string `json:"address,omitempty"`

	// The path of the KV engine. Default: `secret`
	Mount string `json:"mount,omitempty"`

	// What the names of all entries begin with. Default: `keycaddy`
	Prefix string `json:"prefix,omitempty"`

	// The namespace, in editions of Vault that have them.
	Namespace string `json:"namespace,omitempty"`

	// How to log in.
	Auth HashiCorpAuth `json:"auth,omitzero"`

	// Seals every value with a key of the Transit engine, so that whoever can
	// read the KV engine alone has nothing. It can't be turned on where values
	// were written without.
	Transit HashiCorpTransit `json:"transit,omitzero"`

	// The file with the certificates (PEM) that Vault's is issued by. Default:
	// the system's
	CAFile string `json:"ca_file,omitempty"`

	// The name that Vault's certificate has to have. Default: the address's host
	ServerName string `json:"server_name,omitempty"`

	// How long one call may take, with all its attempts. Default: `10s`
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// For nodes that only proxy: nothing is written, and less permissions are
	// needed. Such a node can't store refreshed tokens and depends on others
	// to do it.
	ReadOnly bool `json:"read_only,omitempty"`

	// Speak plain http with an address that isn't loopback. Whoever is on the
	// way can read the secrets.
	AllowHTTP bool `json:"allow_http,omitempty"`

	vault *hashicorp.Vault
}

// HashiCorpAuth is a way to log in to Vault. Files are read again at each login.
type HashiCorpAuth struct {
	// One of `token`, `approle` and `kubernetes`.
	Method string `json:"method,omitempty"`

	// For `token`: the token, best a periodic one, as a placeholder.
	Token string `json:"token,omitempty"`

	// For `token`: a file with the token, instead.
	File string `json:"file,omitempty"`

	// For `approle`: the role's id.
	RoleID string `json:"role_id,omitempty"`

	// For `approle`: the secret id, as a placeholder.
	SecretID string `json:"secret_id,omitempty"`

	// For `approle`: a file with the secret id, instead.
	SecretIDFile string `json:"secret_id_file,omitempty"`

	// For `kubernetes`: the name of the role.
	Role string `json:"role,omitempty"`

	// For `kubernetes`: the file with the service account's token. Default:
	// where Kubernetes puts it
	TokenFile string `json:"token_file,omitempty"`

	// For `approle` and `kubernetes`: the path of the auth method. Default: the
	// method's name
	Mount string `json:"mount,omitempty"`
}

// HashiCorpTransit names a key of the Transit engine.
type HashiCorpTransit struct {
	// The key's name; it has to be of a type such as `aes256-gcm96`.
	Key string `json:"key,omitempty"`

	// The path of the Transit engine. Default: `transit`
	Mount string `json:"mount,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (HashiCorp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "keycaddy.vaults.hashicorp", New: func() caddy.Module { return new(HashiCorp) }}
}

// Provision checks the configuration. It doesn't connect to Vault.
func (h *HashiCorp) Provision(ctx caddy.Context) error {
	r := &replacing{repl: caddy.NewReplacer()}
	c := hashicorp.Config{
		Address:      r.value("address", h.Address),
		AllowHTTP:    h.AllowHTTP,
		Mount:        r.value("mount", h.Mount),
		Prefix:       r.value("prefix", h.Prefix),
		Namespace:    r.value("namespace", h.Namespace),
		TransitKey:   r.value("transit", h.Transit.Key),
		TransitMount: r.value("transit mount", h.Transit.Mount),
		CAFile:       r.value("ca_file", h.CAFile),
		ServerName:   r.value("server_name", h.ServerName),
		Timeout:      time.Duration(h.Timeout),
		ReadOnly:     h.ReadOnly,
		Logger:       ctx.Logger(),
	}
	c.Login = h.Auth.login(r)
	if r.err != nil {
		return r.err
	}
	if h.Transit.Key == "" && h.Transit.Mount != "" {
		return fmt.Errorf("transit: the key's name is missing")
	}
	if c.Login == nil {
		return fmt.Errorf("auth: give `auth token`, `auth approle` or `auth kubernetes`, not %q", h.Auth.Method)
	}
	var err error
	h.vault, err = hashicorp.New(c)
	return err
}

func (a *HashiCorpAuth) login(r *replacing) hashicorp.Login {
	switch a.Method {
	case "token":
		return hashicorp.Token{
			Value: hashicorp.Secret(r.value("auth token", a.Token)),
			File:  r.value("auth token file", a.File),
		}
	case "approle":
		return hashicorp.AppRole{
			RoleID:       r.value("auth approle role_id", a.RoleID),
			SecretID:     hashicorp.Secret(r.value("auth approle secret_id", a.SecretID)),
			SecretIDFile: r.value("auth approle secret_id_file", a.SecretIDFile),
			Mount:        r.value("auth approle mount", a.Mount),
		}
	case "kubernetes":
		return hashicorp.Kubernetes{
			Role:      r.value("auth kubernetes role", a.Role),
			TokenFile: r.value("auth kubernetes token_file", a.TokenFile),
			Mount:     r.value("auth kubernetes mount", a.Mount),
		}
	}
	return nil
}

// replacing replaces placeholders and keeps the first error.
type replacing struct {
	repl *caddy.Replacer
	err  error
}

func (r *replacing) value(option, raw string) string {
	value, err := r.repl.ReplaceOrErr(raw, true, true)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", option, err)
	}
	return value
}

// OpenVault implements VaultOpener: it logs in and finds out whether Vault can
// do what will be asked of it.
func (h *HashiCorp) OpenVault(ctx context.Context, _ connect.Store) (vault.Vault, error) {
	err := h.vault.Probe(ctx)
	switch {
	case err == nil:
		return h.vault, nil
	case hashicorp.Outage(err):
		return nil, fmt.Errorf("%w: %w", errLater, err)
	}
	h.vault.Close()
	return nil, err
}

// UnmarshalCaddyfile sets up the vault from Caddyfile tokens. Syntax:
//
//	vault hashicorp <address> {
//	    mount     <path>
//	    prefix    <path>
//	    namespace <path>
//	    auth token <token> | auth token {
//	        file <path>
//	    }
//	    auth approle {
//	        role_id        <id>
//	        secret_id      <id>
//	        secret_id_file <path>
//	        mount          <path>
//	    }
//	    auth kubernetes {
//	        role       <name>
//	        token_file <path>
//	        mount      <path>
//	    }
//	    transit <key> {
//	        mount <path>
//	    }
//	    ca_file     <path>
//	    server_name <name>
//	    timeout     <duration>
//	    read_only
//	    allow_http
//	}
func (h *HashiCorp) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := oneArg(d, &h.Address); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := h.parseOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (h *HashiCorp) parseOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "mount":
		return oneArg(d, &h.Mount)
	case "prefix":
		return oneArg(d, &h.Prefix)
	case "namespace":
		return oneArg(d, &h.Namespace)
	case "auth":
		return h.Auth.parse(d)
	case "transit":
		if err := oneArg(d, &h.Transit.Key); err != nil {
			return err
		}
		return parseBlock(d, "transit", map[string]*string{"mount": &h.Transit.Mount})
	case "ca_file":
		return oneArg(d, &h.CAFile)
	case "server_name":
		return oneArg(d, &h.ServerName)
	case "timeout":
		var text string
		if h.Timeout != 0 {
			return d.Err("timeout is given twice")
		}
		if err := oneArg(d, &text); err != nil {
			return err
		}
		timeout, err := caddy.ParseDuration(text)
		if err != nil || timeout <= 0 {
			return d.Errf("timeout %s is no duration such as 10s", text)
		}
		h.Timeout = caddy.Duration(timeout)
		return nil
	case "read_only":
		return turnOn(d, &h.ReadOnly)
	case "allow_http":
		return turnOn(d, &h.AllowHTTP)
	}
	return d.Errf("unrecognized vault option %s", d.Val())
}

func (a *HashiCorpAuth) parse(d *caddyfile.Dispenser) error {
	if a.Method != "" {
		return d.Err("auth is given twice")
	}
	if !d.NextArg() {
		return d.ArgErr()
	}
	a.Method = d.Val()
	options := map[string]*string{}
	switch a.Method {
	case "token":
		if d.NextArg() {
			a.Token = d.Val()
		}
		options["file"] = &a.File
	case "approle":
		options["role_id"], options["secret_id"], options["secret_id_file"], options["mount"] = &a.RoleID, &a.SecretID, &a.SecretIDFile, &a.Mount
	case "kubernetes":
		options["role"], options["token_file"], options["mount"] = &a.Role, &a.TokenFile, &a.Mount
	default:
		return d.Errf("unrecognized auth method %s; there are token, approle and kubernetes", a.Method)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return parseBlock(d, "auth "+a.Method, options)
}

// parseBlock reads a block of options that have one value each.
func parseBlock(d *caddyfile.Dispenser, of string, options map[string]*string) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		into, ok := options[d.Val()]
		if !ok {
			return d.Errf("unrecognized %s option %s", of, d.Val())
		}
		if err := oneArg(d, into); err != nil {
			return err
		}
	}
	return nil
}

// turnOn reads an option that has no value.
func turnOn(d *caddyfile.Dispenser, into *bool) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	*into = true
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*HashiCorp)(nil)
	_ VaultOpener           = (*HashiCorp)(nil)
	_ caddyfile.Unmarshaler = (*HashiCorp)(nil)
)
