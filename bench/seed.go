package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

// connectionID is the id of the nth connection; all are of one length.
func connectionID(n int) string { return fmt.Sprintf("c%07d", n) }

// seed makes the store and the vault that keycaddy starts with: so many
// connections with a key each, and one for the upstream with TLS.
func seed(ctx context.Context, dir string, connections int) error {
	store, err := sqlite.Open(filepath.Join(dir, "keycaddy.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	keys, err := sealed.OpenKeys(filepath.Join(dir, "vault.key"), true)
	if err != nil {
		return err
	}
	secrets := sealed.New(store, keys)
	uid := 0
	add := func(integration string, n int) error {
		uid++
		c := connect.Connection{
			ID:  connect.ID{Integration: integration, Connection: connectionID(n)},
			UID: fmt.Sprintf("%032x", uid), Provider: integration, Status: connect.StatusActive, Version: 1,
		}
		cred := scheme.Credential{Version: 1, Fields: map[string]scheme.Secret{"key": scheme.Secret(fmt.Sprintf("upstream-%040x", n))}}
		value, err := cred.Encode()
		if err != nil {
			return err
		}
		if _, err = secrets.Write(ctx, c.VaultName(), value, 0); err != nil {
			return err
		}
		_, err = store.Create(ctx, c)
		return err
	}
	for n := range connections {
		if err := add("plain", n); err != nil {
			return err
		}
	}
	return add("h2", 0)
}
