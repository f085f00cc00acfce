package caddymodule

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/api"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/webhook"
)

// Webhook is one endpoint of your backend's that is told what happens to
// connections.
type Webhook struct {
	// Where events are posted: https, or http towards an address that egress
	// allows. No redirects are followed.
	URL string `json:"url"`

	// What the endpoint is called in logs, in the store, and by the commands.
	// Default: the URL without its query
	Name string `json:"name,omitempty"`

	// The kinds of events that it gets: connection.created,
	// connection.overridden, connection.deleted, connection.connect_failed,
	// connection.needs_reauth, connection.refresh_failed, connection.degraded,
	// connection.recovered. Default: all
	Events []string `json:"events,omitempty"`

	// What its requests are signed with, in the place of webhook_secrets.
	Secrets []string `json:"secrets,omitempty"`
}

// DefaultEnvironment is the environment that webhooks tell if nothing is said.
const DefaultEnvironment = "prod"

// minSecret is the fewest characters that a webhook secret may have.
const minSecret = 16

// makeWebhooks checks what is said of webhooks.
func (a *App) makeWebhooks(repl *caddy.Replacer) (*webhook.Config, error) {
	c := &webhook.Config{
		Client: egress.NewClient(a.policy, webhook.DefaultTimeout), Environment: DefaultEnvironment,
		AuthMode: func(provider string) string {
			p, err := a.setup.Catalog.Provider(provider)
			if err != nil {
				return "" // taken out of the catalog since
			}
			return api.AuthMode(p.Mode)
		},
	}
	var err error
	if a.Environment != "" {
		if c.Environment, err = repl.ReplaceOrErr(a.Environment, true, true); err != nil {
			return nil, fmt.Errorf("environment: %w", err)
		}
	}
	if c.Secrets, err = webhookSecrets(a.WebhookSecrets, repl); err != nil {
		return nil, fmt.Errorf("webhook_secret: %w", err)
	}
	for _, w := range a.Webhooks {
		if w == nil {
			return nil, fmt.Errorf("webhook: it is null")
		}
		e, err := w.make(c.Secrets, repl)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(c.Endpoints, func(o webhook.Endpoint) bool { return o.Name == e.Name }) {
			return nil, fmt.Errorf("webhook %s: there are two of that name; give one another with name", e.Name)
		}
		c.Endpoints = append(c.Endpoints, e)
	}
	return c, nil
}

// make checks an endpoint. Errors name it without what may be secret in its
// address.
func (w *Webhook) make(secrets []scheme.Secret, repl *caddy.Replacer) (webhook.Endpoint, error) {
	var e webhook.Endpoint
	var err error
	if e.URL, err = repl.ReplaceOrErr(w.URL, true, true); err != nil {
		return e, fmt.Errorf("webhook: %w", err)
	}
	if err := connect.CheckWebhookURL(e.URL); err != nil {
		return e, fmt.Errorf("webhook: the address %w", err)
	}
	if e.Name, err = repl.ReplaceOrErr(w.Name, true, true); err != nil {
		return e, fmt.Errorf("webhook: name: %w", err)
	}
	if e.Name == "" {
		u, _ := url.Parse(e.URL) // it was checked
		u.RawQuery = ""
		e.Name = u.String()
	}
	for _, kind := range w.Events {
		k := connect.EventKind(kind)
		if !slices.Contains(connect.EventKinds, k) {
			return e, fmt.Errorf("webhook %s: there are no events %q", e.Name, kind)
		}
		e.Events = append(e.Events, k)
	}
	if e.Secrets, err = webhookSecrets(w.Secrets, repl); err != nil {
		return e, fmt.Errorf("webhook %s: secret: %w", e.Name, err)
	}
	if e.Secrets == nil {
		e.Secrets = secrets
	}
	if e.Secrets == nil {
		return e, fmt.Errorf("webhook %s: it needs a secret to be signed with: webhook_secret {env.KEYCADDY_WEBHOOK_SECRET}", e.Name)
	}
	return e, nil
}

func webhookSecrets(raw []string, repl *caddy.Replacer) (secrets []scheme.Secret, _ error) {
	for _, r := range raw {
		s, err := repl.ReplaceOrErr(r, true, true)
		if err != nil {
			return nil, err
		}
		if len(s) < minSecret {
			return nil, fmt.Errorf("it has fewer than %d characters", minSecret)
		}
		if encoded, ok := strings.CutPrefix(s, "whsec_"); ok {
			if _, err := base64.StdEncoding.DecodeString(encoded); err != nil {
				return nil, fmt.Errorf("after whsec_ it is not base64")
			}
		}
		secrets = append(secrets, scheme.Secret(s))
	}
	return secrets, nil
}

// parseWebhook reads an endpoint. Syntax:
//
//	webhook <url> {
//	    name   <name>
//	    events <kind>...
//	    secret <secret> [<older secret>]
//	}
func (a *App) parseWebhook(d *caddyfile.Dispenser) error {
	w := new(Webhook)
	if err := oneArg(d, &w.URL); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "name":
			if err := oneArg(d, &w.Name); err != nil {
				return err
			}
		case "events":
			if err := someArgs(d, &w.Events); err != nil {
				return err
			}
		case "secret":
			if err := someArgs(d, &w.Secrets); err != nil {
				return err
			}
		default:
			return d.Errf("unrecognized webhook option %s", d.Val())
		}
	}
	a.Webhooks = append(a.Webhooks, w)
	return nil
}

// someArgs appends one argument or more.
func someArgs(d *caddyfile.Dispenser, to *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*to = append(*to, args...)
	return nil
}
