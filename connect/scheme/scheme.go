// Package scheme knows how providers are convinced: one file for each way in
// which a provider lets callers prove who they are. A scheme is whole in its
// file: what it asks the end user, how it gets a credential, renews it, and
// puts it on a request.
//
// A new scheme is a new file here and a line in For. It may import catalog,
// the standard library and the libraries of its trade (golang.org/x/oauth2, CBOR).
// It knows nothing of stores, vaults, sessions or pages.
package scheme

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// App is what the operator has registered with the provider.
type App struct {
	ClientID     string
	ClientSecret Secret
	// Scopes are asked for unless the session has its own; empty: the entry's
	// default.
	Scopes []string
	// AuthorizationParams are added to the authorization URL.
	AuthorizationParams map[string]string
	// Fields are the operator's values for the entry's app_fields.
	Fields map[string]string
	// RedirectURL is where providers send browsers back to.
	RedirectURL string
}

// Format keeps the client's secret out of print.
func (a App) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "app "+a.ClientID) }

// A Scheme is one way a provider lets callers prove who they are, set up for
// one integration. It is a Prompter or a Redirector, and may be a Renewer and
// a Revoker.
type Scheme interface {
	// Fields are what the end user is asked for.
	Fields() []*catalog.Field
	// Bind makes a grant ready for use: once for each version of a credential,
	// so that a request costs next to nothing.
	Bind(g Grant) (*Binding, error)
	// Derive asks the provider what else there is to know of a new grant's
	// account: its id, or where its data is. Errors: *TokenError, *LookupError.
	Derive(ctx context.Context, g Grant) (Grant, error)
	// Account finds out whose account a grant is for. A zero one says that there
	// is no way to. Errors: *TokenError, *LookupError, *IDTokenError.
	Account(ctx context.Context, g Grant) (Account, error)
	// Verify asks the provider whether it takes the grant. It returns 0 if so,
	// and else the status of the refusal; the error says why the provider
	// could not be asked.
	Verify(ctx context.Context, g Grant) (refused int, err error)
	// TokenHost is the host that tokens for the grant are asked of, or "". What
	// is sent there is paced for all connections together.
	TokenHost(g Grant) string
}

// A Prompter gets its credential from what the end user enters.
type Prompter interface {
	// Accept makes a grant of the answers. Errors: FieldErrors, and
	// a *TokenError where the provider is asked for a token.
	Accept(ctx context.Context, answers map[string]string) (Grant, error)
}

// An Importer takes a credential that was had elsewhere. All schemes are.
type Importer interface {
	// Import checks the answers to the entry's fields, as if they had been
	// entered, and makes a grant of them without asking anybody. What tokens
	// there are has to be added to it. Errors: FieldErrors.
	Import(answers map[string]string) (Grant, error)
}

// A Redirector gets its credential by sending the end user to the provider.
type Redirector interface {
	// Prepare checks the answers that are needed before the redirect and makes
	// a grant of them that has no token yet. Errors: FieldErrors.
	Prepare(answers map[string]string) (Grant, error)
	// AuthURL is where the browser is sent.
	AuthURL(f Flow) (string, error)
	// Check tells whether a callback brings something that can be redeemed. It
	// asks nobody. Errors: *CallbackError.
	Check(f Flow, callback url.Values) error
	// Exchange redeems a callback that has passed Check. Errors:
	// *CallbackError, *TokenError.
	Exchange(ctx context.Context, f Flow, callback url.Values) (Grant, error)
}

// A Departer is a Redirector that has to ask the provider something before the
// user is sent there.
type Departer interface {
	Redirector
	// Depart returns what has to be in Flow.Kept for all that follows. It may
	// be secret. Errors: *TokenError, *DiscoveryError.
	Depart(ctx context.Context, f Flow) (Secret, error)
}

// A Renewer can replace a credential that has ended.
type Renewer interface {
	// Renew returns the new grant. Errors: *TokenError, ErrNotRenewable.
	Renew(ctx context.Context, g Grant) (Grant, error)
}

// Flow is what both legs of a redirect have to agree on.
type Flow struct {
	State       string
	Verifier    Secret // PKCE code verifier, RFC 7636 section 4.1
	Nonce       string // of an ID token, OpenID Connect Core 1.0 section 2
	RedirectURL string
	Config      map[string]string
	// Fields are the secrets that were asked for before the redirect.
	Fields map[string]Secret
	// Kept is what Depart has returned, if the scheme is a Departer.
	Kept   Secret
	Scopes []string          // instead of the integration's
	Params map[string]string // added to the authorization URL
}

// grant has what is known before there is a token.
func (f *Flow) grant() Grant {
	return Grant{Config: f.Config, Credential: Credential{Fields: f.Fields}}
}

// Format keeps the verifier out of print.
func (Flow) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// CallbackError is a callback that brought no code.
type CallbackError struct {
	// Code is the provider's (RFC 6749 section 4.1.2.1), reduced to the
	// characters that such codes have, or missing_code, duplicate_parameter,
	// iss_mismatch, nonce_mismatch.
	Code string
	// Description is the provider's text, cleaned and cut; untrusted.
	Description string
}

func (e *CallbackError) Error() string {
	if e.Description == "" {
		return "authorization failed: " + e.Code
	}
	return "authorization failed: " + e.Code + ": " + e.Description
}

// For returns the scheme of a provider's entry for an operator's client. The
// client sends the scheme's own requests. Errors: *UnsupportedError, or what
// the operator has left out.
func For(p *catalog.Provider, app App, client *http.Client) (Scheme, error) {
	if err := checkApp(p, app); err != nil {
		return nil, err
	}
	b := base{provider: p, app: app, client: client}
	switch p.Mode {
	case catalog.ModeOAuth2Code:
		return newOAuth2(b)
	case catalog.ModeClientCredentials:
		return newClientCredentials(b)
	case catalog.ModeTwoStep:
		return newTwoStep(b)
	case catalog.ModeJWTBearer:
		return newSelfSigned(b)
	case catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery:
		return newMCP(b)
	case catalog.ModeOAuth1:
		return newOAuth1(b)
	case catalog.ModeOAuth1TBA:
		return newOAuth1TBA(b)
	case catalog.ModeAWSSigV4:
		return newAWSSigV4(b)
	case catalog.ModeWSSE:
		return newWSSE(b)
	case catalog.ModeGitHubApp:
		return newInstall(b)
	case catalog.ModeGitHubAppOAuth:
		return newGitHubAppOAuth(b)
	case catalog.ModeAPIKey:
		if p.HasFlag("placement_from_app_fields") {
			return newPlaced(b)
		}
		return apiKey{b}, nil
	case catalog.ModeBasic:
		if p.Authorize != nil {
			return newInstall(b)
		}
		return basic{b}, nil
	case catalog.ModeNone:
		return none{b}, nil
	}
	return nil, &UnsupportedError{Provider: p.ID, Feature: "auth_scheme " + string(p.Mode)}
}

func checkApp(p *catalog.Provider, app App) error {
	known := make(map[string]bool, len(p.AppFields))
	for i := range p.AppFields {
		f := &p.AppFields[i]
		known[f.Name] = true
		if !visible(f, p.AppFields, app.Fields) {
			continue
		}
		if err := f.Check(app.Fields[f.Name]); err != nil {
			return fmt.Errorf("%s of provider %s: %w", f.Name, p.ID, err)
		}
	}
	for name := range app.Fields {
		if !known[name] {
			return fmt.Errorf("provider %s has no field %q for the operator", p.ID, name)
		}
	}
	return nil
}

// visible tells whether a field is asked for, given the answers to the others.
func visible(f *catalog.Field, among []catalog.Field, answers map[string]string) bool {
	w := f.VisibleWhen
	if w == nil {
		return true
	}
	for i := range among {
		other := &among[i]
		if other.Name != w.Field {
			continue
		}
		v := answers[other.Name]
		if v == "" {
			v = other.Default
		}
		rest := slices.Concat(among[:i], among[i+1:])
		return v == w.Equals && visible(other, rest, answers) // one that isn't shown has no answer
	}
	return false
}

// base is what all schemes share: the entry's templates, filled.
type base struct {
	provider *catalog.Provider
	app      App
	client   *http.Client
}

// Format keeps the client's secret out of whatever prints a scheme.
func (b base) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "scheme of "+b.provider.ID) }

// Fields returns the entry's fields that an end user is asked for.
func (b base) Fields() []*catalog.Field {
	return append(asked(b.provider.ConnFields), asked(b.provider.CredFields)...)
}

func asked(fields []catalog.Field) []*catalog.Field {
	var out []*catalog.Field
	for i := range fields {
		if fields[i].Asked() {
			out = append(out, &fields[i])
		}
	}
	return out
}

// answers checks what was entered for the fields and adds their defaults.
// What wasn't asked for is left out.
func (b base) answers(fields []catalog.Field, in map[string]string, bad FieldErrors) map[string]string {
	out := make(map[string]string, len(fields))
	for i := range fields {
		f := &fields[i]
		v := in[f.Name]
		if !f.Asked() {
			v = ""
		}
		if !visible(f, fields, in) {
			continue
		}
		// (A key in PEM ends with a line break by itself.)
		if !f.Secret || f.Format == "pem_or_base64" || strings.HasPrefix(strings.TrimSpace(v), "-----BEGIN ") {
			v = strings.TrimSpace(v)
		} else if v != strings.TrimSpace(v) {
			bad[f.Name] = "has a space or a line break at its beginning or end; remove it"
			continue
		}
		if v == "" {
			v = f.Default
		}
		if v != "" || f.Asked() {
			if err := f.Check(v); err != nil {
				bad[f.Name] = err.Error()
				continue
			}
		}
		if v != "" || (f.Hidden && f.Secret) {
			out[f.Name] = v
		}
	}
	return out
}

// accept makes a grant of the entry's own fields.
func (b base) accept(in map[string]string) (Grant, error) {
	bad := FieldErrors{}
	g := Grant{Config: b.answers(b.provider.ConnFields, in, bad)}
	g.Fields = make(map[string]Secret)
	for k, v := range b.answers(b.provider.CredFields, in, bad) {
		g.Fields[k] = Secret(v)
	}
	if len(bad) == 0 {
		b.fits(g, bad)
	}
	if len(bad) > 0 {
		return Grant{}, bad
	}
	cert, err := b.certificate(g)
	if err != nil {
		return Grant{}, err
	}
	if cert != nil && expired(cert) {
		return Grant{}, FieldErrors{certificateField: "has expired"}
	}
	return g, nil
}

// Import implements Importer.
func (b base) Import(answers map[string]string) (Grant, error) { return b.accept(answers) }

// fits checks that the entry's addresses and headers can be made of the
// answers, so that what would lead elsewhere or break a request is neither sent
// nor stored (S26, S27).
func (b base) fits(g Grant, bad FieldErrors) {
	env := b.env(g, nil)
	blame := func(refs []catalog.Ref, err error) {
		var unsafe *catalog.UnsafeError
		if !errors.As(err, &unsafe) {
			return // a value that isn't known yet, such as a token
		}
		culprit := ""
		for _, r := range refs {
			f, ok := b.provider.Field(r.Namespace, r.Path)
			if !ok || r.Namespace == "app" || !f.Asked() {
				continue
			}
			if named := strings.Contains(unsafe.Where, r.String()); culprit == "" || named {
				culprit = r.Path
			}
		}
		if culprit != "" {
			bad[culprit] = unsafe.Reason
		}
	}
	for _, u := range b.addresses() {
		_, err := u.Fill(env)
		blame(u.Refs(), err)
	}
	if b.provider.Request != nil {
		for name, v := range b.provider.Request.Headers {
			_, err := v.FillHeader(name, env)
			blame(v.Refs(), err)
		}
	}
}

// addresses are the URLs that the entry makes of connection fields.
func (b base) addresses() []catalog.URL {
	var out []catalog.URL
	p := b.provider
	if p.Request != nil {
		out = append(out, p.Request.BaseURL)
	}
	if p.Authorize != nil {
		out = append(out, p.Authorize.URL)
	}
	if p.Token != nil {
		out = append(out, p.Token.URL)
	}
	if p.Refresh != nil {
		out = append(out, p.Refresh.URL)
	}
	if p.Verify != nil {
		out = append(out, p.Verify.BaseURL)
	}
	return out
}

// env is what the entry's templates are filled from. Extra, if not nil, is
// asked first.
func (b base) env(g Grant, extra lookup) *catalog.Env {
	return &catalog.Env{Lookup: func(ns, path string) (string, bool) {
		if extra != nil {
			if v, ok := extra(ns, path); ok {
				return v, true
			}
		}
		switch ns {
		case "conn":
			if v, ok := g.Config[path]; ok {
				return v, true
			}
			return b.operators(path)
		case "cred":
			v, ok := g.Fields[path]
			return v.Reveal(), ok
		case "token":
			return g.token(path)
		case "app":
			return b.appValue(path)
		case "resp":
			return responseValue([]byte(g.Raw.Reveal()), path)
		}
		return "", false
	}}
}

// token returns token.*.
func (g *Grant) token(path string) (string, bool) {
	var s Secret
	switch path {
	case "access_token":
		s = g.AccessToken
	case "refresh_token":
		s = g.RefreshToken
	case "cookies":
		s = g.Cookies
	}
	return s.Reveal(), s != ""
}

// appValue returns app.*.
func (b base) appValue(path string) (string, bool) {
	if v, ok := b.app.Fields[path]; ok {
		return v, true
	}
	switch path {
	case "client_id":
		return b.app.ClientID, b.app.ClientID != ""
	case "client_secret":
		return b.app.ClientSecret.Reveal(), b.app.ClientSecret != ""
	case "user_agent":
		return userAgent, true
	}
	return "", false
}

// operators returns a connection's field that the operator has set for all
// connections, under the same name or without the app_ before it.
func (b base) operators(name string) (string, bool) {
	if f, ok := b.provider.Field("conn", name); !ok || f.Source != "operator" {
		return "", false
	}
	if v, ok := b.app.Fields[name]; ok {
		return v, true
	}
	v, ok := b.app.Fields[strings.TrimPrefix(name, "app_")]
	return v, ok
}
