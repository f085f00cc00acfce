package simulator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// Account is what a vendor and its customer have agreed on beforehand: the app
// that the operator has registered, and the values that one of its users has
// and types in.
type Account struct {
	App         map[string]string // client_id, client_secret, and the operator's fields
	Conn, Cred  map[string]string // what the user types
	Scopes      []string          // what the operator asks for
	RedirectURI string
}

// Fill says how much of a form the user of an account fills in.
type Fill int

const (
	// Everything that is asked for.
	Everything Fill = iota
	// Required values only.
	Required
)

// NewAccount makes up an account. The error names a field that no value could
// be made for: an expression that nothing matches, or an example, a format and
// a place in an address that contradict each other.
func NewAccount(p *catalog.Provider, redirectURI string, fill Fill) (*Account, error) {
	f := factsOf(p)
	a := &Account{App: map[string]string{}, RedirectURI: redirectURI}
	var err error
	if f.registered() {
		a.App["client_id"], a.App["client_secret"] = "client-"+random(16), "client-secret-"+random(24)
		if t := f.Token; t != nil && t.ClientAuth == "none" && !f.refers("app.client_secret") {
			delete(a.App, "client_secret") // a public client has none
		}
		if k := f.keyFor("app.client_secret"); k != "" {
			a.App["client_secret"] = k
		}
	}
	if err := f.answer("app", p.AppFields, fill, a.App); err != nil {
		return nil, err
	}
	a.Conn, a.Cred = map[string]string{}, map[string]string{}
	if err = f.answer("conn", p.ConnFields, fill, a.Conn); err == nil {
		err = f.answer("cred", p.CredFields, fill, a.Cred)
	}
	if err != nil {
		return nil, err
	}
	if f.asksScopes() && (p.Scopes == nil || len(p.Scopes.Default) == 0) {
		a.Scopes = []string{"read.all", "write:some"}
	}
	if f.asksScopes() {
		a.Scopes = withOpenID(p, a.Scopes)
	}
	return a, nil
}

// registered tells whether the operator has to register an app with the vendor.
func (f *facts) registered() bool {
	switch f.Mode {
	case catalog.ModeOAuth2Code, catalog.ModeOAuth1, catalog.ModeOAuth1TBA, catalog.ModeGitHubAppOAuth:
		return true
	case catalog.ModeMCPOAuth2:
		return f.Registration == nil || f.Registration.Mode == "manual"
	}
	return f.refers("app.client_id") || f.refers("app.client_secret")
}

// asksScopes tells whether the operator's scopes go anywhere: not where the
// entry has fixed ones, or takes them from a field.
func (f *facts) asksScopes() bool {
	for _, params := range []map[string]any{f.tree("authorize", "params"), f.tree("token", "params")} {
		if _, fixed := params["scope"]; fixed {
			return false
		}
	}
	if f.Scopes != nil && f.Scopes.From != "" {
		return false
	}
	switch f.Mode {
	case catalog.ModeOAuth2Code, catalog.ModeClientCredentials, catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery:
		return true
	}
	return f.refers("flow.scope")
}

func (f *facts) answer(namespace string, fields []catalog.Field, fill Fill, into map[string]string) error {
	for i := range fields {
		field := &fields[i]
		ref := namespace + "." + field.Name
		needed := field.Required || field.HasDefault() && field.Hidden
		switch {
		case into[field.Name] != "":
			continue
		case field.VisibleWhen != nil && into[field.VisibleWhen.Field] != field.VisibleWhen.Equals:
			continue
		case namespace == "app" && field.VisibleWhen == nil && !needed && !field.HasDefault() && fill == Required:
			continue
		case namespace != "app" && !field.Asked() && !field.Hidden:
			continue
		case namespace != "app" && !field.Required && fill == Required && !field.Hidden:
			continue
		}
		v, err := f.valueFor(field, ref)
		if err != nil {
			return fmt.Errorf("%s: %w", f.ID, err)
		}
		if v != "" || field.HasDefault() {
			into[field.Name] = v
		}
	}
	return nil
}

// Answers is what the user types into the form.
func (a *Account) Answers(p *catalog.Provider) map[string]string {
	out := map[string]string{}
	take := func(fields []catalog.Field, from map[string]string) {
		for i := range fields {
			if v, ok := from[fields[i].Name]; ok && fields[i].Asked() {
				out[fields[i].Name] = v
			}
		}
	}
	take(p.ConnFields, a.Conn)
	take(p.CredFields, a.Cred)
	return out
}

// Mistyped is Answers with one secret that isn't the account's, though it looks
// like it; changed tells whether there is such a secret that the vendor is shown
// when the account is connected.
func (a *Account) Mistyped(p *catalog.Provider) (answers map[string]string, changed bool, err error) {
	f := factsOf(p)
	answers = a.Answers(p)
	other, err := NewAccount(p, a.RedirectURI, Everything)
	if err != nil {
		return nil, false, err
	}
	for i := range p.CredFields {
		field := &p.CredFields[i]
		right, typed := answers[field.Name]
		v := other.Cred[field.Name]
		if strings.HasPrefix(right, "-----BEGIN PRIVATE KEY") && f.keyFor("cred."+field.Name) != "" {
			v = otherKey(right)
		}
		if !field.Secret || !typed || v == right || v == "" {
			continue
		}
		if f.shown(field.Name) {
			answers[field.Name] = v
			return answers, true, nil
		}
	}
	return answers, false, nil
}

// shown tells whether the vendor is shown a credential field when an account is
// connected: in a token request, or where the credential is tried.
func (f *facts) shown(name string) bool {
	if f.Mode == catalog.ModeClientCredentials && name == "client_secret" {
		return true
	}
	blocks := []string{"token", "token_steps", "signed"}
	if f.Verify != nil {
		blocks = append(blocks, "request", "verify", "sign_request")
	}
	return slices.ContainsFunc(blocks, func(block string) bool { return slices.Contains(refsOf(f.raw[block], "cred"), name) })
}
