package caddymodule

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/api"
	"github.com/keycaddy/keycaddy/proxy"
)

func init() { caddy.RegisterModule(API{}) }

// API serves the REST API for apps: providers, integrations, connect sessions,
// connections. Calls prove themselves with `Authorization: Bearer <api key>`.
// It answers every path that it is given.
//
// Calls whose address has a connect session's token are left out of access logs.
type API struct {
	app     *App
	logger  *zap.Logger
	handler func() http.Handler
}

// CaddyModule returns the Caddy module information.
func (API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keycaddy_api", New: func() caddy.Module { return new(API) }}
}

// Provision sets up the API.
func (a *API) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	app, err := ctx.App("keycaddy")
	if err != nil {
		return fmt.Errorf("loading keycaddy: %w", err)
	}
	a.app = app.(*App)
	a.handler = sync.OnceValue(func() http.Handler { return a.app.api(a.logger, false) })
	return nil
}

// api is the REST API of the app, which has to have started.
func (a *App) api(logger *zap.Logger, trusted bool) http.Handler {
	return (&api.API{
		Connector: a.run.connector, Callers: a.run.callers, Keys: a.run.keys, APIKeys: a.run.apiKeys(), Aim: proxy.Aim, Trusted: trusted, Logger: logger, RequestID: requestID,
	}).Handler()
}

// ServeHTTP answers a call.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if h, ok := a.app.health(r); ok {
		return h.Write(w)
	}
	if _, err := a.app.wait(r.Context()); err != nil {
		return answer(w, r, a.logger, err)
	}
	if r.URL.Query().Has("connect_session_token") { // as the SDK for browsers has it
		caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	}
	a.handler().ServeHTTP(w, r)
	return nil
}

// health answers who asks for a node's health before it has one to tell.
func (a *App) health(r *http.Request) (h api.Health, ok bool) {
	if a.started() || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return h, false
	}
	switch r.URL.Path {
	case "/health", "/health/ready":
		return api.Starting, true
	case "/health/live":
		return api.Live, true
	}
	return h, false
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	keycaddy_api [<matcher>]
func (a *API) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return bare(d) }

// bare accepts a directive that has neither arguments nor a block.
func bare(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
	_ caddyfile.Unmarshaler       = (*API)(nil)
)
