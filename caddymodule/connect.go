package caddymodule

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/page"
)

func init() { caddy.RegisterModule(Connect{}) }

// Connect serves the pages on which users connect their accounts, and the
// address that providers send them back to: `/connect/*` and `/oauth/callback`.
// All other paths, and the API's calls among these, go to the next handler.
//
// Requests for the pages are left out of access logs, since their addresses
// carry tokens; what happens on them is in keycaddy's own log.
type Connect struct {
	app    *App
	logger *zap.Logger
	pages  func() *page.Handler
}

// CaddyModule returns the Caddy module information.
func (Connect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keycaddy_connect", New: func() caddy.Module { return new(Connect) }}
}

// Provision sets up the pages.
func (c *Connect) Provision(ctx caddy.Context) error {
	c.logger = ctx.Logger()
	app, err := ctx.App("keycaddy")
	if err != nil {
		return fmt.Errorf("loading keycaddy: %w", err)
	}
	c.app = app.(*App)
	c.pages = sync.OnceValue(func() *page.Handler { return page.New(c.app.run.connector, c.logger) })
	return nil
}

// ServeHTTP shows a page.
func (c *Connect) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if _, ok := c.app.health(r); ok { // the API answers that, also before there are pages
		return next.ServeHTTP(w, r)
	}
	if _, err := c.app.wait(r.Context()); err != nil {
		return answer(w, r, c.logger, err)
	}
	if pages := c.pages(); pages.Handles(r) {
		// The addresses carry session tokens and authorization codes, which no
		// access log may have. What happens is in keycaddy's own log.
		caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
		pages.ServeHTTP(w, r)
		return nil
	}
	return next.ServeHTTP(w, r)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	keycaddy_connect [<matcher>]
func (c *Connect) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return bare(d) }

// Interface guards
var (
	_ caddy.Provisioner           = (*Connect)(nil)
	_ caddyhttp.MiddlewareHandler = (*Connect)(nil)
	_ caddyfile.Unmarshaler       = (*Connect)(nil)
)
