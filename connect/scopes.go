package connect

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// lacking is what a credential's scopes lack of those that were asked for.
func (r *Refresher) lacking(id ID, cred *scheme.Credential) []string {
	in, err := r.setup.Load().Integration(id.Integration)
	if err != nil {
		return nil // nobody can use it
	}
	return scheme.MissingScopes(in.Provider, cred)
}

// noteScopes tells of scopes that a connection lacks and didn't lack before
// (S47).
func (r *Refresher) noteScopes(id ID, before, after []string) {
	var fresh []string
	for _, s := range after {
		if !slices.Contains(before, s) {
			fresh = append(fresh, s)
		}
	}
	if len(fresh) > 0 {
		r.Logger.Warn("the provider has granted less than was asked for; calls that need it will fail",
			connectionFields(id, zap.String("event", "scopes_missing"), zap.Strings("missing_scopes", fresh))...)
	}
}

// MissingScopes are the scopes that a connection was to have and hasn't been
// granted, none if there is no such connection.
func (c *Connector) MissingScopes(ctx context.Context, id ID) []string {
	conn, err := c.Store.Connection(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		c.Logger.Warn("looking which scopes a connection lacks", connectionFields(id, zap.Error(err))...)
	}
	return conn.MissingScopes
}
