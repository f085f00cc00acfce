package connect

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
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
	// ErrOtherCallback says that a callback came to another address than the
	// flow's: the answer is for another integration.
	ErrOtherCallback = errors.New("connect: callback is for another integration")
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
	// Journal, if not nil, keeps every attempt step by step.
	Journal *Journal
}

// Visit is a valid session, as the pages show it.
type Visit struct {
	Session
	// Integrations are those that the visitor may choose from, by name.
	Integrations []*Integration
}

// Step is what the visitor does next: go to the provider, prove who is there,
// or nothing more.
type Step struct {
	// Redirect is the provider's address, if that is next.
	Redirect string
	// Flow names the flow, whose cookie must have the value Binding.
	Flow    string
	Binding string
	// Waiting is set if what was entered waits for a proof.
	Waiting *Waiting
	// Connection is set when there is nothing more to do.
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
		conn, err := c.Store.Connection(ctx, ID{s.Allowed[0], s.Connection})
		if err != nil {
			return "", Session{}, fmt.Errorf("%w: %w", ErrConnectionGone, err)
		}
		if s.UserID() == "" { // it stays whose it is, who has to be there
			s.EndUser = conn.EndUser
		}
	}
	if err := c.checkReturnURL(&s); err != nil {
		return "", Session{}, err
	}
	token = SessionPrefix + randomHex(32)
	s.Token, s.Created = DigestOf(token), time.Now().UTC().Truncate(time.Millisecond)
	s.Expires = s.Created.Add(SessionTTL)
	if err := c.Store.PutSession(ctx, s); err != nil {
		return "", Session{}, fmt.Errorf("storing session: %w", err)
	}
	return token, s, nil
}

// checkReturnURL refuses an address that one of the session's integrations
// doesn't list, or couldn't bring its ticket to.
func (c *Connector) checkReturnURL(s *Session) error {
	if s.ReturnURL == "" {
		return nil
	}
	for _, in := range c.Setup.Integrations() {
		if s.Allows(in.Key) && !slices.Contains(in.Trust.ReturnURLs, s.ReturnURL) {
			return fmt.Errorf("%w: integration %q", ErrReturnURL, in.Key)
		}
	}
	return nil
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
// provider. With all others the provider is asked whether it accepts the
// credential, or nothing is stored; the connection is then made here, if the
// person is proof enough of who is there (whoever calls has told her whose
// connection it will be), or waits for Confirm.
//
// Errors: ErrSessionExpired, ErrNotAllowed, scheme.FieldErrors, *VerifyError,
// *scheme.TokenError, ErrConnectionGone, ErrOtherAccount, ErrAccountUnknown.
func (c *Connector) Submit(ctx context.Context, token, integration string, answers map[string]string) (Step, error) {
	return c.Start(ctx, token, integration, answers, Opener{})
}

func (c *Connector) submit(ctx context.Context, v *Visit, in *Integration, answers map[string]string, by Opener) (Step, error) {
	answers = maps.Clone(answers)
	if answers == nil {
		answers = make(map[string]string)
	}
	// What the provider grants could not be kept: better no consent than one
	// that is wasted (S112).
	if err := c.Refresher.Available(ctx); err != nil {
		return Step{}, fmt.Errorf("asking the vault before anyone is sent to the provider: %w", err)
	}
	maps.Copy(answers, v.Defaults[in.Key].Config)
	if r, ok := in.Scheme.(scheme.Redirector); ok {
		return c.depart(ctx, v, in, r, answers, by)
	}
	g, err := in.Scheme.(scheme.Prompter).Accept(ctx, answers)
	if err != nil {
		return Step{}, refusedLogin(err)
	}
	if g, err = c.complete(ctx, in, v.preset(in, g)); err != nil {
		return Step{}, refusedLogin(err)
	}
	if refused, err := in.Scheme.Verify(ctx, g); refused != 0 || err != nil {
		err := &VerifyError{Status: refused, Cause: err}
		c.Logger.Info("credential refused while connecting", zap.String("integration", in.Key), zap.Error(err))
		return Step{}, err
	}
	c.step(ctx, "verified", "")
	if by.Origin == "" && !in.Trust.Accepts(ByPerson) || in.Trust.ReturnURL(&v.Session) != "" {
		return c.holdForm(ctx, v, in, g)
	}
	conn, err := c.save(ctx, &v.Session, in, g)
	if err == nil {
		c.note(ctx, v.Token, Result{Status: Connected, Integration: in.Key, Connection: conn.ID.Connection})
	}
	return Step{Connection: conn}, err
}

// depart sends the visitor to the provider.
func (c *Connector) depart(ctx context.Context, v *Visit, in *Integration, r scheme.Redirector, answers map[string]string, by Opener) (Step, error) {
	entered, err := r.Prepare(answers)
	if err != nil {
		return Step{}, err
	}
	state, binding := randomHex(32), randomHex(32)
	f := Flow{
		ID:          attemptOf(ctx).id,
		State:       DigestOf(state),
		Browser:     DigestOf(binding),
		Session:     v.Token,
		Integration: in.Key,
		Config:      entered.Config,
		RedirectURL: c.Setup.CallbackURL(in),
		Opener:      by.Origin,
		Expires:     time.Now().Add(FlowTTL),
	}
	if by.Waiter != "" {
		f.Waiter = DigestOf(by.Waiter)
	}
	flow, err := f.depart(ctx, r, state, binding, entered.Fields, v.Defaults[in.Key])
	if err != nil {
		return Step{}, err
	}
	to, err := r.AuthURL(flow)
	if err != nil {
		return Step{}, err
	}
	if err := c.Store.PutFlow(ctx, f); err != nil {
		return Step{}, fmt.Errorf("storing authorization attempt: %w", err)
	}
	c.note(ctx, f.Session, Result{Status: Pending, Integration: in.Key})
	c.step(ctx, "redirected", "to "+hostOf(to))
	c.Logger.Info("authorization started", zap.String("integration", in.Key), zap.String("flow", f.ID))
	return Step{Redirect: to, Flow: f.ID, Binding: binding}, nil
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// derive makes a value, for one purpose, of the two secrets that only the
// browser has both of. It rests nowhere, and a callback from another browser
// could not even make it.
func derive(purpose, state, binding string) []byte {
	mac := hmac.New(sha256.New, []byte(binding))
	mac.Write([]byte(purpose + "\x00" + state))
	return mac.Sum(nil)
}

// schemeFlow is what the scheme sees of a flow. The PKCE verifier has the 43
// characters that RFC 7636 section 4.1 asks for.
func schemeFlow(f *Flow, state, binding string, d SessionDefaults) scheme.Flow {
	kept, config := f.kept(state, binding)
	var fields map[string]scheme.Secret
	if len(kept.Fields) > 0 {
		fields = make(map[string]scheme.Secret, len(kept.Fields))
		for name, v := range kept.Fields {
			fields[name] = scheme.Secret(v)
		}
	}
	return scheme.Flow{
		State:       state,
		Verifier:    scheme.Secret(base64.RawURLEncoding.EncodeToString(derive("pkce verifier", state, binding))),
		Nonce:       base64.RawURLEncoding.EncodeToString(derive("nonce", state, binding)),
		RedirectURL: f.RedirectURL,
		Config:      config,
		Fields:      fields,
		Kept:        scheme.Secret(kept.Scheme),
		Scopes:      d.Scopes,
		Params:      d.AuthorizationParams,
	}
}

// Arrival is a callback, or a proof, that belongs to a flow.
type Arrival struct {
	Flow Flow
	// Waiting is set if a code has come and is not redeemed yet.
	Waiting    *Waiting
	Connection Connection // set if the flow succeeded
}

// Arrive takes a callback that came to an address. The state works once,
// whatever comes of it; binding returns the value of the flow's cookie. A code that has come is sealed and
// waits for Confirm; nothing is asked of the provider. How the flow has ended,
// if it has, is also kept for Flow.
//
// Errors: ErrFlowExpired (with no Arrival), ErrOtherBrowser, ErrOtherCallback,
// *scheme.CallbackError, *scheme.TokenError, ErrSessionExpired,
// ErrNotAllowed, ErrConnectionGone.
func (c *Connector) Arrive(ctx context.Context, at string, callback url.Values, binding func(flow string) string) (Arrival, error) {
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
	ctx = resume(ctx, &f)
	c.step(ctx, "callback", "")
	key := binding(f.ID)
	if err := f.arrived(at, key); err != nil {
		return c.finish(ctx, f, Connection{}, err)
	}
	w, err := c.arrive(ctx, &f, state, key, callback)
	if err != nil {
		return c.finish(ctx, f, Connection{}, err)
	}
	return Arrival{Flow: f, Waiting: w}, nil
}

// arrived tells whether a callback has come to the flow's own address, from the
// flow's own browser. An answer that was given to another integration comes to
// another address, where these have one each (S7, S12).
func (f *Flow) arrived(at, binding string) error {
	switch {
	case !equal(DigestOf(binding), f.Browser):
		return ErrOtherBrowser
	case at != f.RedirectURL:
		return ErrOtherCallback
	}
	return nil
}

func (c *Connector) arrive(ctx context.Context, f *Flow, state, binding string, callback url.Values) (*Waiting, error) {
	s, in, err := c.party(ctx, f)
	if err != nil {
		return nil, err
	}
	r, ok := in.Scheme.(scheme.Redirector)
	if !ok {
		return nil, ErrNotAllowed
	}
	if err := r.Check(schemeFlow(f, state, binding, s.Defaults[in.Key]), callback); err != nil {
		return nil, err
	}
	return c.hold(ctx, f, &s, in, holdKey(state, binding), held{State: state, Binding: binding, Callback: callback})
}

// party returns whose flow it is and what for, as both are now.
func (c *Connector) party(ctx context.Context, f *Flow) (Session, *Integration, error) {
	s, err := c.Store.Session(ctx, f.Session)
	if errors.Is(err, ErrNotFound) {
		return Session{}, nil, ErrSessionExpired
	}
	if err != nil {
		return Session{}, nil, fmt.Errorf("reading session: %w", err)
	}
	in, err := c.Setup.Integration(f.Integration)
	if err != nil {
		return Session{}, nil, err
	}
	if !s.Allows(in.Key) {
		return Session{}, nil, ErrNotAllowed
	}
	return s, in, nil
}

// finish records how a flow has ended.
func (c *Connector) finish(ctx context.Context, f Flow, conn Connection, err error) (Arrival, error) {
	outcome := outcomeOf(conn, err)
	c.ended(ctx, conn, err)
	f.Outcome, f.Hold = &outcome, nil
	switch {
	case errors.Is(err, ErrUserMismatch):
		c.Logger.Warn("the person at the browser is not the session's user; what was brought is thrown away", append(f.fields(), zap.String("event", "link_user_mismatch"))...)
	case err != nil:
		c.Logger.Warn("authorization failed", append(f.fields(), zap.Error(err))...)
	default:
		c.Logger.Info("authorization finished", append(f.fields(), zap.String("connection", conn.ID.Connection))...)
	}
	var events []Event
	if err != nil {
		events = append(events, c.failed(context.WithoutCancel(ctx), &f, &outcome, err))
	}
	if ferr := c.Store.FinishFlow(context.WithoutCancel(ctx), f.ID, outcome, events...); ferr != nil {
		c.Logger.Error("recording how an authorization ended", append(f.fields(), zap.Error(ferr))...)
	}
	r := Result{Status: Connected, Integration: f.Integration, Connection: outcome.Connection}
	if outcome.Code != "" {
		r = Result{Status: Failed, Integration: f.Integration, Code: outcome.Code}
	}
	c.note(context.WithoutCancel(ctx), f.Session, r)
	return Arrival{Flow: f, Connection: conn}, err
}

// failed is the event of a flow that has failed.
func (c *Connector) failed(ctx context.Context, f *Flow, o *Outcome, cause error) Event {
	var callback *scheme.CallbackError
	e := newEvent(EventConnectFailed)
	e.Integration, e.Connection = f.Integration, f.ID
	e.Error = &EventError{Type: o.Code, Detail: o.Detail, Callback: errors.As(cause, &callback)}
	if in, err := c.Setup.Integration(f.Integration); err == nil {
		e.Provider = in.Provider.ID
	}
	s, err := c.Store.Session(ctx, f.Session)
	if err != nil { // it has ended, and nobody knows any more whose attempt it was
		return e
	}
	e.Tags, e.EndUser, e.WebhookURL, e.Reconnect = s.Tags, s.endUser(), s.WebhookURL, s.Reconnect
	if s.Connection != "" {
		e.Connection = s.Connection
	}
	return e
}

// note keeps how a session's attempt stands, for whoever has opened the pages.
// Nothing depends on it.
func (c *Connector) note(ctx context.Context, session Digest, r Result) {
	if err := c.Store.NoteResult(ctx, session, r); err != nil && !errors.Is(err, ErrNotFound) {
		c.Logger.Error("recording how a session stands", zap.String("integration", r.Integration), zap.Error(err))
	}
}

// fields name a flow in the log.
func (f *Flow) fields() []zap.Field {
	return []zap.Field{zap.String("integration", f.Integration), zap.String("flow", f.ID)}
}

func outcomeOf(conn Connection, err error) Outcome {
	if err == nil {
		return Outcome{Connection: conn.ID.Connection}
	}
	var callback *scheme.CallbackError
	var token *scheme.TokenError
	var lookup *scheme.LookupError
	var fields scheme.FieldErrors
	var verify *VerifyError
	switch {
	case errors.As(err, &fields):
		return Outcome{Code: "invalid_fields", Detail: strings.Join(slices.Sorted(maps.Keys(fields)), ", ")}
	case errors.As(err, &verify):
		return Outcome{Code: "credential_refused"}
	case errors.Is(err, ErrNotAllowed):
		return Outcome{Code: "integration_not_allowed"}
	case errors.As(err, &lookup):
		return Outcome{Code: "lookup_failed", Detail: lookup.Error()}
	case errors.As(err, &callback):
		return Outcome{Code: callback.Code, Detail: callback.Description, Callback: true}
	case errors.As(err, &token):
		return Outcome{Code: token.Code, Detail: token.Description}
	case errors.Is(err, ErrOtherBrowser):
		return Outcome{Code: "other_browser"}
	case errors.Is(err, ErrOtherCallback):
		return Outcome{Code: "other_callback"}
	case errors.Is(err, ErrUserMismatch):
		return Outcome{Code: "link_user_mismatch"}
	case errors.Is(err, ErrProofRefused):
		return Outcome{Code: "proof_refused"}
	case errors.Is(err, ErrSessionExpired):
		return Outcome{Code: "session_expired"}
	case errors.Is(err, ErrConnectionGone):
		return Outcome{Code: "connection_gone"}
	case errors.Is(err, ErrOtherAccount):
		return Outcome{Code: "other_account"}
	case errors.Is(err, ErrAccountUnknown):
		return Outcome{Code: "account_unknown"}
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
