package connect

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

const (
	// SessionTTL is how long a connect link works.
	SessionTTL = 30 * time.Minute
	// FlowTTL is how long a visitor may stay at the provider.
	FlowTTL = 10 * time.Minute
	// SessionPrefix begins every session token, as apps expect it.
	SessionPrefix = "nango_connect_session_"
)

var (
	// ErrSessionExpired says that a connect link is not valid, or not any more.
	ErrSessionExpired = errors.New("connect: session is unknown or has expired")
	// ErrNotAllowed says that a session isn't for the integration.
	ErrNotAllowed = errors.New("connect: session doesn't allow the integration")
	// ErrFlowExpired says that a callback's state is unknown, was used before,
	// or is too old.
	ErrFlowExpired = errors.New("connect: authorization attempt is unknown, was finished, or has expired")
	// ErrOtherBrowser says that a callback came from a browser that the flow
	// was not started in.
	ErrOtherBrowser = errors.New("connect: authorization attempt was started in another browser")
	// ErrConnectionGone says that the connection to be connected again has
	// been removed.
	ErrConnectionGone = errors.New("connect: connection to reconnect does not exist")
)

// VerifyError says that the provider has refused what the user entered.
type VerifyError struct {
	// Status is the provider's HTTP status; 0 if it could not be asked.
	Status int
	// Cause is what kept it from being asked.
	Cause error
}

func (e *VerifyError) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("the provider could not be asked: %v", e.Cause)
	}
	return fmt.Sprintf("the provider has refused the credential (status %d)", e.Status)
}

func (e *VerifyError) Unwrap() error { return e.Cause }

// Connector makes and removes connections. What it stores, it stores in this
// order: the secret, then the row that names it. A crash in between leaves a
// secret that nothing leads to, never a connection without one.
type Connector struct {
	Setup     *Setup
	Refresher *Refresher
	Store     Store
	Vault     vault.Vault
	Logger    *zap.Logger
}

// Visit is a valid session, as the pages show it.
type Visit struct {
	Session
	// Integrations are those that the visitor may choose from, by name.
	Integrations []*Integration
}

// Step is what the visitor does next: go to the provider, or nothing more.
type Step struct {
	// Redirect is the provider's address; empty when the connection is made.
	Redirect string
	// Flow names the flow, whose cookie must have the value Binding.
	Flow    string
	Binding string
	// Connection is set when Redirect is empty.
	Connection Connection
}

// Open opens a session and returns its token, which only its holder gets to
// know: the store keeps the digest. The session's Token, Created and Expires
// are set here.
func (c *Connector) Open(ctx context.Context, s Session) (token string, _ Session, err error) {
	for _, key := range s.Allowed {
		if _, err := c.Setup.Integration(key); err != nil {
			return "", Session{}, err
		}
	}
	if s.Reconnect {
		if len(s.Allowed) != 1 {
			return "", Session{}, ErrConnectionGone
		}
		if _, err := c.Store.Connection(ctx, ID{s.Allowed[0], s.Connection}); err != nil {
			return "", Session{}, fmt.Errorf("%w: %w", ErrConnectionGone, err)
		}
	}
	token = SessionPrefix + randomHex(32)
	s.Token, s.Created = DigestOf(token), time.Now().UTC().Truncate(time.Millisecond)
	s.Expires = s.Created.Add(SessionTTL)
	if err := c.Store.PutSession(ctx, s); err != nil {
		return "", Session{}, fmt.Errorf("storing session: %w", err)
	}
	return token, s, nil
}

// Close ends a session.
func (c *Connector) Close(ctx context.Context, token string) error {
	return c.Store.DeleteSession(ctx, DigestOf(token))
}

// Visit returns the session with the token, or ErrSessionExpired.
func (c *Connector) Visit(ctx context.Context, token string) (*Visit, error) {
	s, err := c.Store.Session(ctx, DigestOf(token))
	if errors.Is(err, ErrNotFound) {
		return nil, ErrSessionExpired
	}
	if err != nil {
		return nil, fmt.Errorf("reading session: %w", err)
	}
	v := &Visit{Session: s}
	for _, in := range c.Setup.Integrations() {
		if s.Allows(in.Key) {
			v.Integrations = append(v.Integrations, in)
		}
	}
	return v, nil
}

// Integration returns an integration that the visitor may connect.
func (v *Visit) Integration(key string) (*Integration, error) {
	for _, in := range v.Integrations {
		if in.Key == key {
			return in, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNotAllowed, key)
}

// Fields are what the visitor is asked for: the integration's fields, less
// those that the app has set.
func (v *Visit) Fields(in *Integration) []*catalog.Field {
	preset := v.Defaults[in.Key].Config
	var out []*catalog.Field
	for _, f := range in.Scheme.Fields() {
		if _, ok := preset[f.Name]; !ok {
			out = append(out, f)
		}
	}
	return out
}

// Submit takes the visitor's answers. An OAuth integration leads to the
// provider; with all others the connection is made here, after the provider
// has accepted the credential, or nothing is stored.
//
// Errors: ErrSessionExpired, ErrNotAllowed, scheme.FieldErrors, *VerifyError,
// *scheme.TokenError, ErrConnectionGone.
func (c *Connector) Submit(ctx context.Context, token, integration string, answers map[string]string) (Step, error) {
	v, err := c.Visit(ctx, token)
	if err != nil {
		return Step{}, err
	}
	in, err := v.Integration(integration)
	if err != nil {
		return Step{}, err
	}
	answers = maps.Clone(answers)
	if answers == nil {
		answers = make(map[string]string)
	}
	maps.Copy(answers, v.Defaults[in.Key].Config)
	if r, ok := in.Scheme.(scheme.Redirector); ok {
		return c.depart(ctx, v, in, r, answers)
	}
	g, err := in.Scheme.(scheme.Prompter).Accept(ctx, answers)
	if err != nil {
		return Step{}, refusedLogin(err)
	}
	if g, err = c.complete(ctx, in, g); err != nil {
		return Step{}, refusedLogin(err)
	}
	if refused, err := in.Scheme.Verify(ctx, g); refused != 0 || err != nil {
		err := &VerifyError{Status: refused, Cause: err}
		c.Logger.Info("credential refused while connecting", zap.String("integration", in.Key), zap.Error(err))
		return Step{}, err
	}
	conn, err := c.save(ctx, &v.Session, in, g)
	return Step{Connection: conn}, err
}

// depart sends the visitor to the provider.
func (c *Connector) depart(ctx context.Context, v *Visit, in *Integration, r scheme.Redirector, answers map[string]string) (Step, error) {
	config, err := r.Prepare(answers)
	if err != nil {
		return Step{}, err
	}
	state, binding := randomHex(32), randomHex(32)
	f := Flow{
		ID:          randomHex(16),
		State:       DigestOf(state),
		Browser:     DigestOf(binding),
		Session:     v.Token,
		Integration: in.Key,
		Config:      config,
		RedirectURL: c.Setup.CallbackURL(),
		Expires:     time.Now().Add(FlowTTL),
	}
	defaults := v.Defaults[in.Key]
	if d, ok := r.(scheme.Departer); ok {
		if err := f.depart(ctx, d, state, binding, defaults); err != nil {
			return Step{}, err
		}
	}
	to, err := r.AuthURL(schemeFlow(&f, state, binding, defaults))
	if err != nil {
		return Step{}, err
	}
	if err := c.Store.PutFlow(ctx, f); err != nil {
		return Step{}, fmt.Errorf("storing authorization attempt: %w", err)
	}
	c.Logger.Info("authorization started", zap.String("integration", in.Key), zap.String("flow", f.ID))
	return Step{Redirect: to, Flow: f.ID, Binding: binding}, nil
}

// schemeFlow is what the scheme sees of a flow. The PKCE verifier is made of
// the two secrets that only the browser has both of (43 characters, as RFC 7636
// section 4.1 asks for): it rests nowhere, and a callback from another browser
// could not even make it.
func schemeFlow(f *Flow, state, binding string, d SessionDefaults) scheme.Flow {
	mac := hmac.New(sha256.New, []byte(binding))
	mac.Write([]byte("pkce verifier\x00" + state))
	kept, config := f.kept(state, binding)
	return scheme.Flow{
		State:       state,
		Verifier:    scheme.Secret(base64.RawURLEncoding.EncodeToString(mac.Sum(nil))),
		RedirectURL: f.RedirectURL,
		Config:      config,
		Kept:        kept,
		Scopes:      d.Scopes,
		Params:      d.AuthorizationParams,
	}
}

// Arrival is a callback that belongs to a flow.
type Arrival struct {
	Flow       Flow
	Connection Connection // set if the flow succeeded
}

// Finish ends the flow that a callback belongs to. The state works once,
// whatever comes of it; binding returns the value of the flow's cookie. How
// the flow has ended is also kept for Flow.
//
// Errors: ErrFlowExpired (with no Arrival), ErrOtherBrowser,
// *scheme.CallbackError, *scheme.TokenError, ErrSessionExpired,
// ErrNotAllowed, ErrConnectionGone.
func (c *Connector) Finish(ctx context.Context, callback url.Values, binding func(flow string) string) (Arrival, error) {
	state := c.Setup.stateOf(callback)
	if state == "" {
		return Arrival{}, ErrFlowExpired
	}
	f, err := c.Store.TakeFlow(ctx, DigestOf(state))
	if errors.Is(err, ErrNotFound) {
		return Arrival{}, ErrFlowExpired
	}
	if err != nil {
		return Arrival{}, fmt.Errorf("reading authorization attempt: %w", err)
	}
	a := Arrival{Flow: f}
	a.Connection, err = c.arrive(ctx, &f, state, binding(f.ID), callback)
	outcome := outcomeOf(a.Connection, err)
	a.Flow.Outcome = &outcome
	fields := []zap.Field{zap.String("integration", f.Integration), zap.String("flow", f.ID)}
	if err != nil {
		c.Logger.Warn("authorization failed", append(fields, zap.Error(err))...)
	} else {
		c.Logger.Info("authorization finished", append(fields, zap.String("connection", a.Connection.ID.Connection))...)
	}
	if ferr := c.Store.FinishFlow(context.WithoutCancel(ctx), f.ID, outcome); ferr != nil {
		c.Logger.Error("recording how an authorization ended", append(fields, zap.Error(ferr))...)
	}
	return a, err
}

func (c *Connector) arrive(ctx context.Context, f *Flow, state, binding string, callback url.Values) (Connection, error) {
	if got := DigestOf(binding); subtle.ConstantTimeCompare(got[:], f.Browser[:]) != 1 {
		return Connection{}, ErrOtherBrowser
	}
	s, err := c.Store.Session(ctx, f.Session)
	if errors.Is(err, ErrNotFound) {
		return Connection{}, ErrSessionExpired
	}
	if err != nil {
		return Connection{}, fmt.Errorf("reading session: %w", err)
	}
	in, err := c.Setup.Integration(f.Integration)
	if err != nil {
		return Connection{}, err
	}
	r, ok := in.Scheme.(scheme.Redirector)
	if !ok || !s.Allows(in.Key) {
		return Connection{}, ErrNotAllowed
	}
	g, err := r.Exchange(ctx, schemeFlow(f, state, binding, s.Defaults[in.Key]), callback)
	if err != nil {
		return Connection{}, err
	}
	// From here on the code is spent: a visitor who goes away must not undo it.
	return c.save(context.WithoutCancel(ctx), &s, in, g)
}

func outcomeOf(conn Connection, err error) Outcome {
	if err == nil {
		return Outcome{Connection: conn.ID.Connection}
	}
	var callback *scheme.CallbackError
	var token *scheme.TokenError
	var lookup *scheme.LookupError
	switch {
	case errors.As(err, &lookup):
		return Outcome{Code: "lookup_failed", Detail: lookup.Error()}
	case errors.As(err, &callback):
		return Outcome{Code: callback.Code, Detail: callback.Description}
	case errors.As(err, &token):
		return Outcome{Code: token.Code, Detail: token.Description}
	case errors.Is(err, ErrOtherBrowser):
		return Outcome{Code: "other_browser"}
	case errors.Is(err, ErrSessionExpired):
		return Outcome{Code: "session_expired"}
	case errors.Is(err, ErrConnectionGone):
		return Outcome{Code: "connection_gone"}
	}
	return Outcome{Code: "server_error"}
}

// Flow returns an authorization attempt, or ErrFlowExpired.
func (c *Connector) Flow(ctx context.Context, id string) (Flow, error) {
	f, err := c.Store.Flow(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Flow{}, ErrFlowExpired
	}
	return f, err
}
