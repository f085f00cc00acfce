package caddymodule

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/sqlite"
)

func init() { caddy.RegisterModule(SQLite{}) }

// StoreOpener is what modules in the namespace keycaddy.stores implement.
type StoreOpener interface {
	// OpenStore opens the store and brings its schema up to date.
	OpenStore(ctx context.Context) (connect.Store, error)
}

// SQLite keeps everything but secrets in one file. It needs no server, and
// serves one machine.
type SQLite struct {
	// The database's file. Default: `keycaddy/keycaddy.db` in Caddy's data
	// directory
	Path string `json:"path,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (SQLite) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "keycaddy.stores.sqlite", New: func() caddy.Module { return new(SQLite) }}
}

// Provision fills in the path.
func (s *SQLite) Provision(caddy.Context) (err error) {
	s.Path, err = dataPath(s.Path, "keycaddy.db")
	return err
}

// OpenStore implements StoreOpener.
func (s *SQLite) OpenStore(ctx context.Context) (connect.Store, error) {
	store, err := sqlite.Open(s.Path)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	return store, nil
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store sqlite [<path>]
func (s *SQLite) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return optionalPath(d, &s.Path)
}

// dataPath is a path with its placeholders replaced, or the name in keycaddy's
// own folder.
func dataPath(path, name string) (string, error) {
	if path == "" {
		return filepath.Join(caddy.AppDataDir(), "keycaddy", name), nil
	}
	return caddy.NewReplacer().ReplaceOrErr(path, true, true)
}

func optionalPath(d *caddyfile.Dispenser, path *string) error {
	if d.NextArg() {
		*path = d.Val()
	}
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*SQLite)(nil)
	_ StoreOpener           = (*SQLite)(nil)
	_ caddyfile.Unmarshaler = (*SQLite)(nil)
)
