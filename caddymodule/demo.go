package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
)

func init() { caddy.RegisterModule(Demo{}) }

// Demo is a small provider to try keycaddy with: an OAuth 2 server with access
// tokens that live for seconds and refresh tokens that work once, an API behind
// it, and an API with a key. It keeps everything in memory and is not for
// production; it runs only where a configuration names it.
type Demo struct {
	// The part of the path that the demo is below. Default: `/demo`
	Path string `json:"path,omitempty"`

	handler *demoHandler
	key     string
}

// demoHandler is a demo provider that outlives reloads, as a real one would.
type demoHandler struct {
	*demo.Provider
	base string
}

// Destruct ends the provider's open streams.
func (d *demoHandler) Destruct() error { d.Close(); return nil }

var demos = caddy.NewUsagePool()

// CaddyModule returns the Caddy module information.
func (Demo) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keycaddy_demo", New: func() caddy.Module { return new(Demo) }}
}

// Provision starts the demo provider.
func (d *Demo) Provision(ctx caddy.Context) error {
	app, err := ctx.App("keycaddy")
	if err != nil {
		return fmt.Errorf("loading keycaddy: %w", err)
	}
	if d.Path == "" {
		d.Path = "/demo"
	}
	setup := app.(*App).setup
	base := setup.PublicURL.JoinPath(d.Path).String()
	value, _, err := demos.LoadOrNew(base, func() (caddy.Destructor, error) {
		return &demoHandler{demo.New(demo.Options{BaseURL: base}), base}, nil
	})
	if err != nil {
		return err
	}
	d.key, d.handler = base, value.(*demoHandler)
	app.(*App).demo = d.handler
	return nil
}

// Cleanup lets go of the demo provider.
func (d *Demo) Cleanup() error {
	if d.key == "" {
		return nil
	}
	_, err := demos.Delete(d.key)
	return err
}

// ServeHTTP lets the demo provider answer.
func (d *Demo) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	http.StripPrefix(d.Path, d.handler).ServeHTTP(w, r)
	return nil
}

// demoProvider is the catalog entry that the printed commands are for; there is
// another one, with a key, that begins with its name.
const demoProvider = "keycaddy-demo"

// demoIntegrations are the keys of the integrations of the demo provider.
func (a *App) demoIntegrations() []string {
	var keys []string
	for _, in := range a.setup.Integrations() {
		if strings.HasPrefix(in.Provider.ID, demoProvider) {
			keys = append(keys, in.Key)
		}
	}
	return keys
}

// demoIntegration is the integration that the printed commands are for; empty:
// there is none.
func (a *App) demoIntegration() string {
	for _, in := range a.setup.Integrations() {
		if a.demo != nil && in.Provider.ID == demoProvider {
			return in.Key
		}
	}
	return ""
}

// greet prints, to the terminal and not to the log, what a new operator needs:
// the first API key, which can't be had again, and, once and not at reloads,
// the way to try the demo.
func (a *App) greet(ctx context.Context) error {
	var out strings.Builder
	if key := a.run.firstKey; key != "" {
		fmt.Fprintf(&out, "Your first API key. It is shown this once; keep it where your app finds it:\n\n    %s\n\n", key)
	}
	if name := a.demoIntegration(); name != "" && !a.run.runtime.greeted.Load() {
		token, _, err := a.run.connector.Open(ctx, connect.Session{
			EndUser:    &connect.EndUser{ID: "demo-user", DisplayName: "Demo user"},
			Allowed:    []string{name},
			Connection: "demo",
		})
		if err != nil {
			return fmt.Errorf("opening a session for the demo: %w", err)
		}
		fmt.Fprintf(&out, "Try it with the bundled demo provider.\n\n"+
			"1. Connect an account. Open\n\n    %s\n\n"+
			"2. Call its API. Paste\n\n    curl -H 'Authorization: Bearer %s' \\\n         -H 'Provider-Config-Key: %s' -H 'Connection-Id: demo' \\\n         %s\n\n"+
			"The demo's tokens live for seconds: paste it again later, and keycaddy will have renewed them.\n",
			a.setup.ConnectLink(token), a.run.runtime.demoKey, name, a.setup.PublicURL.JoinPath("/proxy/me"))
	}
	if out.Len() == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(os.Stdout, "\n%s\n", out.String()); err != nil {
		return err
	}
	a.run.runtime.greeted.Store(a.demoIntegration() != "")
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Demo)(nil)
	_ caddy.CleanerUpper          = (*Demo)(nil)
	_ caddyhttp.MiddlewareHandler = (*Demo)(nil)
)
