package caddymodule

import (
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

func init() { caddy.RegisterModule(Sealed{}) }

// VaultOpener is what modules in the namespace keycaddy.vaults implement.
type VaultOpener interface {
	// OpenVault opens the vault. One that keeps its secrets in the store gets
	// the store for it.
	OpenVault(ctx context.Context, store connect.Store) (vault.Vault, error)
}

// Sealed keeps secrets in the store, sealed with a key that is not in the
// store: whoever has one of the two has nothing.
type Sealed struct {
	// The file with the key ring, made on the first start for its owner only.
	// Keep a copy apart from the store's backup: without it every credential
	// is lost. Default: `keycaddy/vault.key` in Caddy's data directory
	KeyFile string `json:"key_file,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Sealed) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "keycaddy.vaults.sealed", New: func() caddy.Module { return new(Sealed) }}
}

// Provision fills in the path.
func (s *Sealed) Provision(caddy.Context) (err error) {
	s.KeyFile, err = dataPath(s.KeyFile, "vault.key")
	return err
}

// blobs is a store that has room for sealed secrets.
type blobs interface {
	sealed.Blobs
	HasBlobs(ctx context.Context) (bool, error)
}

// OpenVault implements VaultOpener.
func (s *Sealed) OpenVault(ctx context.Context, store connect.Store) (vault.Vault, error) {
	room, ok := store.(blobs)
	if !ok {
		return nil, fmt.Errorf("this store has no room for sealed secrets; choose another vault")
	}
	used, err := room.HasBlobs(ctx)
	if err != nil {
		return nil, err
	}
	// A new key where there are sealed secrets could open none of them: the
	// file is missing, and that has to be said.
	keys, err := sealed.OpenKeys(s.KeyFile, !used)
	if err != nil {
		return nil, err
	}
	return sealed.New(room, keys), nil
}

// UnmarshalCaddyfile sets up the vault from Caddyfile tokens. Syntax:
//
//	vault sealed [<key_file>]
func (s *Sealed) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return optionalPath(d, &s.KeyFile)
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Sealed)(nil)
	_ VaultOpener           = (*Sealed)(nil)
	_ caddyfile.Unmarshaler = (*Sealed)(nil)
)
