package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/postgres"
)

func init() { caddy.RegisterModule(Postgres{}) }

// Postgres keeps everything but secrets in a PostgreSQL database, which any
// number of nodes can share; secrets too, sealed, if the vault is `sealed`.
// It works through PgBouncer in transaction mode.
type Postgres struct {
	// The connection string: a URL such as
	// `postgres://keycaddy@db.internal/keycaddy?sslmode=verify-full`, or
	// key=value pairs. Use a placeholder such as `{env.DATABASE_URL}` if it has
	// the password in it, or keep the password in `PGPASSWORD` or a passfile.
	// The pool's size is part of it: `pool_max_conns`. Default: 10 connections
	DSN string `json:"dsn,omitempty"`

	// How long one call may take, with all that is tried again. Default: `10s`
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How long to wait for a connection that is free. Default: `5s`
	AcquireTimeout caddy.Duration `json:"acquire_timeout,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Postgres) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "keycaddy.stores.postgres", New: func() caddy.Module { return new(Postgres) }}
}

// Provision fills in the connection string. No error shows it.
func (p *Postgres) Provision(caddy.Context) (err error) {
	if p.DSN == "" {
		return errors.New("the connection string is missing: store postgres {env.DATABASE_URL}")
	}
	p.DSN, err = caddy.NewReplacer().ReplaceOrErr(p.DSN, true, true)
	if err != nil {
		// Caddy's error quotes what is in braces, which may be of a password.
		return errors.New("a placeholder in the connection string is unknown or empty (a password's own { is written %7B)")
	}
	p.DSN = strings.TrimSpace(p.DSN) // a file has a line end
	return nil
}

// Validate makes sure that timeouts aren't negative.
func (p *Postgres) Validate() error {
	if p.Timeout < 0 || p.AcquireTimeout < 0 {
		return errors.New("timeouts can't be negative")
	}
	return nil
}

// OpenStore implements StoreOpener.
func (p *Postgres) OpenStore(ctx context.Context) (connect.Store, error) {
	store, err := postgres.Open(ctx, p.DSN, postgres.Options{
		Timeout: time.Duration(p.Timeout), AcquireTimeout: time.Duration(p.AcquireTimeout),
	})
	if err != nil {
		return nil, err
	}
	err = store.Migrate(ctx)
	switch {
	case err == nil:
		return store, nil
	case errors.Is(err, connect.ErrStoreUnavailable):
		err = fmt.Errorf("%w: %w", errLater, err)
	}
	return nil, errors.Join(err, store.Close())
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store postgres <dsn> {
//	    timeout         <duration>
//	    acquire_timeout <duration>
//	}
//
// Errors about the first line don't quote it, as Caddy's own would: what is too
// much there may be a part of the connection string.
func (p *Postgres) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.NextArg() {
		return d.Err("the connection string is missing: store postgres {env.DATABASE_URL}")
	}
	p.DSN = d.Val()
	if d.NextArg() {
		return d.Err("postgres takes one connection string; put it in quotes if it has spaces")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		var target *caddy.Duration
		switch name {
		case "timeout":
			target = &p.Timeout
		case "acquire_timeout":
			target = &p.AcquireTimeout
		default:
			return d.Errf("unrecognized postgres option %s", name)
		}
		if *target != 0 {
			return d.Errf("%s is given twice", name)
		}
		if !d.NextArg() {
			return d.ArgErr()
		}
		duration, err := caddy.ParseDuration(d.Val())
		if err != nil || duration <= 0 {
			return d.Errf("%s is not a duration such as 10s: %s", name, d.Val())
		}
		*target = caddy.Duration(duration)
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Postgres)(nil)
	_ caddy.Validator       = (*Postgres)(nil)
	_ StoreOpener           = (*Postgres)(nil)
	_ caddyfile.Unmarshaler = (*Postgres)(nil)
)
