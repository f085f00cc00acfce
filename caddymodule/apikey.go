package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
)

// APIKey is a key of the configuration. It holds as long as the configuration
// does, and can't be changed by command or by API.
type APIKey struct {
	// What the key is called in logs and by `explain`. Default: `config 1`,
	// `config 2` and so on.
	Name string `json:"name,omitempty"`

	// The key itself: a UUID of version 4, best given as a placeholder such as
	// `{env.KEYCADDY_API_KEY}`.
	Key string `json:"key,omitempty"`

	// What the key may do, such as `environment:proxy`, or all of a kind, such
	// as `environment:connections:*`. Default: all but reading credentials and
	// client secrets, and making and changing keys.
	Scopes []string `json:"scopes,omitempty"`

	// Which connections and calls the key is good for. What is out of its reach
	// isn't there to it; one that is limited to some calls gets no credentials.
	policy.Limits

	// When the key ends, as in `2027-01-31T12:00:00Z`. Default: never
	Expires string `json:"expires,omitempty"`
}

// provisionKeys makes the keys of a configuration ready.
func provisionKeys(from []APIKey, repl *caddy.Replacer) ([]connect.APIKey, error) {
	var (
		keys   []connect.APIKey
		names  = make(map[string]bool)
		before = make(map[connect.Digest]bool)
	)
	for i, raw := range from {
		k, err := raw.make(repl)
		if err != nil {
			return nil, fmt.Errorf("api_key: %w", err)
		}
		if k.Name == "" {
			k.Name = fmt.Sprintf("config %d", i+1)
		}
		if names[k.Name] {
			return nil, fmt.Errorf("api_key: there are two of the name %q", k.Name)
		}
		if before[k.Key] {
			return nil, fmt.Errorf("api_key: the key of %q is there before", k.Name)
		}
		names[k.Name], before[k.Key] = true, true
		keys = append(keys, k)
	}
	return keys, nil
}

func (k *APIKey) make(repl *caddy.Replacer) (connect.APIKey, error) {
	out := connect.APIKey{Name: k.Name, Scopes: policy.DefaultScopes, Limits: k.Limits}
	secret, err := repl.ReplaceOrErr(k.Key, true, true)
	if err != nil {
		return out, err
	}
	if !connect.IsAPIKey(secret) {
		return out, fmt.Errorf("an API key is a UUID of version 4, as the SDKs demand (make one with `cat /proc/sys/kernel/random/uuid`)")
	}
	out.Key = connect.DigestOf(secret)
	if len(k.Scopes) > 0 {
		if out.Scopes, err = policy.ParseScopes(k.Scopes...); err != nil {
			return out, fmt.Errorf("scopes: %w", err)
		}
	}
	if k.Expires != "" {
		if out.Expires, err = time.Parse(time.RFC3339, k.Expires); err != nil {
			return out, fmt.Errorf("expires: %q is not a time such as 2027-01-31T12:00:00Z", k.Expires)
		}
	}
	_, err = k.Limits.Compile()
	return out, err
}

// parseAPIKey reads "api_key <uuid>..." or one with a block.
func (a *App) parseAPIKey(d *caddyfile.Dispenser) error {
	secrets := d.RemainingArgs()
	if len(secrets) == 0 {
		return d.ArgErr()
	}
	keys := make([]APIKey, len(secrets))
	for i, s := range secrets {
		keys[i].Key = s
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if len(keys) > 1 {
			return d.Err("a block is for one api_key")
		}
		if err := keys[0].parseOption(d); err != nil {
			return err
		}
	}
	a.APIKeys = append(a.APIKeys, keys...)
	return nil
}

func (k *APIKey) parseOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "name":
		return oneArg(d, &k.Name)
	case "expires":
		return oneArg(d, &k.Expires)
	case "scopes":
		return several(d, &k.Scopes)
	default:
		return parseLimit(d, &k.Limits, "api_key")
	}
}
