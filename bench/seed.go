package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

const keyFile = "vault.key"

// connectionID is the id of the nth connection; all are of one length.
func connectionID(n int) string { return fmt.Sprintf("c%07d", n) }

// seed puts the store and the vault that keycaddy starts with into dir. If kept
// isn't empty, they are taken from that folder, and made there first if it has
// none: a million takes minutes, and on a slow disk half an hour.
func seed(ctx context.Context, dir, kept string, connections int) error {
	if kept == "" {
		log.Printf("making %d connections", connections)
		return makeSeed(ctx, dir, connections)
	}
	whole := filepath.Join(kept, "whole")
	if _, err := os.Stat(whole); errors.Is(err, fs.ErrNotExist) {
		log.Printf("making %d connections in %s", connections, kept)
		if err := os.MkdirAll(kept, 0o700); err != nil {
			return err
		}
		if err := makeSeed(ctx, kept, connections); err != nil {
			return err
		}
		if err := os.WriteFile(whole, nil, 0o600); err != nil {
			return err
		}
	}
	return errors.Join(os.CopyFS(dir, os.DirFS(kept)), os.Chmod(filepath.Join(dir, keyFile), 0o600))
}

// makeSeed makes so many connections with a key each, and one of each other kind.
func makeSeed(ctx context.Context, dir string, connections int) error {
	store, err := sqlite.Open(filepath.Join(dir, "keycaddy.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	keys, err := sealed.OpenKeys(filepath.Join(dir, keyFile), true)
	if err != nil {
		return err
	}
	secrets := sealed.New(store, keys)
	uid := 0
	add := func(integration string, n int, cred scheme.Credential) error {
		uid++
		cred.Version = 1
		c := connect.Connection{
			ID:  connect.ID{Integration: integration, Connection: connectionID(n)},
			UID: fmt.Sprintf("%032x", uid), Provider: integration, Status: connect.StatusActive, Version: 1,
		}
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
	key := func(n int) scheme.Credential {
		return scheme.Credential{Fields: map[string]scheme.Secret{"key": scheme.Secret(fmt.Sprintf("upstream-%040x", n))}}
	}
	for n := range connections {
		if err := add("key", n, key(n)); err != nil {
			return err
		}
	}
	now := time.Now()
	return errors.Join(
		add("tls", 0, key(0)),
		add("h2", 0, key(0)),
		add("oauth", 0, scheme.Credential{AccessToken: scheme.Secret(fmt.Sprintf("upstream-%040x", 0)), RefreshToken: "unused", Issued: now, Expires: now.AddDate(1, 0, 0)}),
		add("sigv4", 0, scheme.Credential{Fields: map[string]scheme.Secret{"id": "UPSTREAM", "key": "secret"}}),
	)
}
