package caddymodule

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/api"
	"github.com/keycaddy/keycaddy/connect/console"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

func init() { caddy.RegisterModule(Console{}) }

// Console serves pages for operators: connections and what has happened to them,
// integrations, logs, webhooks, API keys, and a panel to try calls with. Operators
// sign in with an API key and see and do what that key may.
//
// Requests for it are left out of access logs.
type Console struct {
	// The path that the pages are below. Default: `/console`
	Path string `json:"path,omitempty"`

	// Let everybody in who gets here, with all rights: something in front of it,
	// such as `basic_auth` or `forward_auth`, has checked who that is.
	NoLogin bool `json:"no_login,omitempty"`

	app     *App
	logger  *zap.Logger
	proxy   Proxy
	handler func() http.Handler
}

// CaddyModule returns the Caddy module information.
func (Console) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keycaddy_console", New: func() caddy.Module { return new(Console) }}
}

// Provision sets up the console.
func (c *Console) Provision(ctx caddy.Context) error {
	c.logger = ctx.Logger()
	app, err := ctx.App("keycaddy")
	if err != nil {
		return fmt.Errorf("loading keycaddy: %w", err)
	}
	c.app = app.(*App)
	if c.Path == "" {
		c.Path = "/console"
	}
	if err := c.proxy.Provision(ctx); err != nil {
		return err
	}
	c.handler = sync.OnceValue(c.make)
	return nil
}

// make makes the pages, once keycaddy has started.
func (c *Console) make() http.Handler {
	run := c.app.run
	pages := &console.Console{
		Path: c.Path, API: c.app.api(c.logger, c.NoLogin), Setup: run.setup, Proxy: c.call,
		Secure: run.setup.PublicURL.Scheme == "https", Logger: c.logger,
	}
	if !c.NoLogin {
		pages.Doors = &console.Doors{Keys: run.keys, Vault: run.runtime.vault}
	}
	return pages.Handler()
}

// as is the caller who has signed in.
type as struct{ *connect.Caller }

func (a as) Who(*http.Request, time.Time) (*connect.Caller, error) { return a.Caller, nil }

// call makes a call as who has signed in.
func (c *Console) call(w http.ResponseWriter, r *http.Request) {
	run, caller := c.app.run, api.Caller(r)
	if caller == nil {
		caller = connect.NewCaller("console", policy.AllScopes, policy.Limits{})
	}
	call, err := c.proxy.proxy.Resolve(r, as{caller}, run.setup, run.refresher)
	if err == nil {
		err = c.proxy.carry(w, r, call)
	}
	if err != nil {
		problem.Of(err).Write(w, requestID(r))
	}
}

// ServeHTTP shows a page.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if _, err := c.app.wait(r.Context()); err != nil {
		return answer(w, r, c.logger, err)
	}
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	c.handler().ServeHTTP(w, r)
	return nil
}

// parseConsole is the console. Syntax:
//
//	keycaddy_console [<path>/*] {
//	    no_login
//	}
func parseConsole(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	prefix, matcher, err := below(h)
	if err != nil {
		return nil, err
	}
	if prefix == "" {
		if matcher != nil {
			return nil, h.Err("keycaddy_console takes a path such as /console/* and no other matcher")
		}
		prefix = "/console"
		matcher = under(h, prefix)
	}
	c := &Console{Path: prefix}
	if err := c.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, c), nil
}

// UnmarshalCaddyfile reads the directive's block; see parseConsole.
func (c *Console) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if d.Val() != "no_login" {
			return d.Errf("unrecognized keycaddy_console option %s", d.Val())
		}
		if err := single(d, &c.NoLogin); err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Console)(nil)
	_ caddyhttp.MiddlewareHandler = (*Console)(nil)
	_ caddyfile.Unmarshaler       = (*Console)(nil)
)
