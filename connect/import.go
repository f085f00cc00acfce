package connect

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// Import is a connection that was made elsewhere.
type Import struct {
	Integration string
	// Connection is the id that it gets; empty: a UUID. One that exists gets the
	// new credential and all else that is here.
	Connection string
	// Answers are what the end user would have entered, by the names of the
	// entry's fields. They are checked as if that had been here.
	Answers map[string]string
	// Config holds further plain values, that no field of the entry is for.
	Config map[string]string
	// Credential has the tokens. Nobody is asked whether they work: a token that
	// has ended is renewed on its first use. Without an access token, in a scheme
	// that makes its own, one is asked for at once.
	Credential scheme.Credential
	EndUser    *EndUser
	Tags       map[string]string
	Metadata   json.RawMessage
	WebhookURL string
	// Unverified stores what is imported without asking the provider whether it
	// works, where calls can be made without asking for anything.
	Unverified bool
}

// Import stores a connection that was made elsewhere, as if it had been made
// here. Where there is no token, the provider is asked whether it accepts what is
// imported, or nothing is stored.
//
// Errors: *UnknownIntegrationError, scheme.FieldErrors, *VerifyError,
// *scheme.TokenError, *scheme.LookupError, ErrMetadataTooLarge.
func (c *Connector) Import(ctx context.Context, from Import) (Connection, scheme.Credential, error) {
	if len(from.Metadata) > MaxMetadata {
		return Connection{}, scheme.Credential{}, ErrMetadataTooLarge
	}
	in, err := c.Setup.Integration(from.Integration)
	if err != nil {
		return Connection{}, scheme.Credential{}, err
	}
	if err := c.Refresher.Available(ctx); err != nil {
		return Connection{}, scheme.Credential{}, fmt.Errorf("asking the vault before anything is imported: %w", err)
	}
	g, err := c.imported(ctx, in, &from)
	if err != nil {
		return Connection{}, scheme.Credential{}, refusedLogin(err)
	}
	// Whoever imports says whose account it is.
	s := Session{Connection: from.Connection, EndUser: from.EndUser, Tags: from.Tags, WebhookURL: from.WebhookURL, AllowAccountChange: true}
	conn, err := c.put(ctx, &s, in, g, &from)
	if err != nil {
		return Connection{}, scheme.Credential{}, err
	}
	c.Logger.Info("connection imported", connectionFields(conn.ID, zap.Bool("token", g.AccessToken != ""))...)
	return conn, g.Credential, nil
}

// imported makes a grant of what is imported, with which calls can be made.
func (c *Connector) imported(ctx context.Context, in *Integration, from *Import) (scheme.Grant, error) {
	g, err := in.Scheme.(scheme.Importer).Import(from.Answers)
	if err != nil {
		return scheme.Grant{}, err
	}
	fields := g.Fields
	g.Credential = from.Credential
	g.Fields = maps.Clone(from.Credential.Fields)
	if g.Fields == nil {
		g.Fields = make(map[string]scheme.Secret, len(fields))
	}
	maps.Copy(g.Fields, fields)
	g.Issued = time.Now()
	config := maps.Clone(from.Config)
	if config == nil {
		config = make(map[string]string, len(g.Config))
	}
	maps.Copy(config, g.Config)
	g.Config = config
	r, renews := in.Scheme.(scheme.Renewer)
	prompter, prompts := in.Scheme.(scheme.Prompter)
	switch {
	case g.AccessToken != "":
		if _, err := in.Scheme.Bind(g); err == nil {
			return g, nil
		}
		return c.complete(ctx, in, g) // what is missing may be had from the provider
	case prompts:
		if g, err = prompter.Accept(ctx, from.Answers); err != nil {
			return scheme.Grant{}, err
		}
		maps.Copy(config, g.Config)
		g.Config = config
	case renews:
		if g, err = r.Renew(ctx, g); err != nil {
			return scheme.Grant{}, err
		}
	}
	if from.Unverified {
		if _, err := in.Scheme.Bind(g); err == nil {
			return g, nil
		}
	}
	if g, err = c.complete(ctx, in, g); err != nil {
		return scheme.Grant{}, err
	}
	if refused, err := in.Scheme.Verify(ctx, g); refused != 0 || err != nil {
		return scheme.Grant{}, &VerifyError{Status: refused, Cause: err}
	}
	return g, nil
}
