package connect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

const (
	// flightTimeout bounds one renewal, whoever waits for it: the wait for the
	// lease, the token call and the write to the vault.
	flightTimeout = 60 * time.Second
	// leaseTTL outlives the token call and the write after it, so that nobody
	// else starts while the holder may still be at it.
	leaseTTL = 90 * time.Second
	// leaseWait bounds the wait for the lease: the token call and the write
	// that follow have to have time left.
	leaseWait = 20 * time.Second
	// A credential is renewed in the background when a fifth of its lifetime is
	// left, or five minutes.
	latestMargin   = 5 * time.Minute
	marginFraction = 5
	// It is taken to have ended a tenth of its lifetime before the provider's
	// time, or ten seconds: a call takes a while to get there.
	maxSkew = 10 * time.Second
	// After a renewal whose credential was refused as well, the next one has to
	// wait: a provider that answers 401 for another reason must not be asked
	// for a token on every call (S71).
	futileWait, futileWaitMax = 30 * time.Second, 30 * time.Minute
	// After a failed renewal the next attempt waits, longer each time.
	backoffMin, backoffMax = time.Second, 5 * time.Minute
)

// Bound is one version of a connection's credential, ready for use.
type Bound struct {
	*scheme.Binding
	Connection Connection
	Version    vault.Version
	// Expires is when the credential is taken to be useless, a little before
	// the provider's own time; zero: not known.
	Expires time.Time
	// renewAt is when it is renewed in the background; zero: never.
	renewAt time.Time
}

// Refresher has a working credential for every connection. Those in use are
// held in memory, bound once per version; Current is a map look-up and two
// comparisons, and takes no lock.
//
// A renewal is one flight per connection and process, one lease per connection
// among processes, and one check-and-set in the vault, in that order of
// strictness: the first two keep the provider from being asked twice, the last
// decides what holds.
type Refresher struct {
	Store  Store
	Vault  vault.Vault
	Logger *zap.Logger
	// ReadOnly says that the vault can't be written from here, so that nothing
	// is renewed: the new credential would have nowhere to go. Those that other
	// processes renew are taken over.
	ReadOnly bool

	setup   atomic.Pointer[Setup]
	entries sync.Map // ID → *entry
	flights sync.Map // *flight → nothing: those under way
}

// entry is what the process knows of one connection.
type entry struct {
	bound atomic.Pointer[Bound]

	mu          sync.Mutex
	flight      *flight
	failures    int       // failed renewals in a row
	retryAt     time.Time // no renewal before
	lastErr     error
	futile      int // renewals in a row that did not help
	futileUntil time.Time
	refused     *Bound // the renewed credential that was refused last
}

type flight struct {
	setup *Setup
	done  chan struct{}
	bound *Bound
	err   error
}

// Configure makes the refresher work by another setup, after a reload of the
// configuration. What was bound by the old one is bound again on its next use.
func (r *Refresher) Configure(s *Setup) {
	r.setup.Store(s)
	r.entries.Range(func(_, v any) bool {
		e := v.(*entry)
		e.mu.Lock() // a flight that lands now has seen the new setup, or we see what it brought
		e.bound.Store(nil)
		e.mu.Unlock()
		return true
	})
}

// Forget drops what is held of a connection, so that its next use asks the
// store. It is called when the connection was changed or removed.
func (r *Refresher) Forget(id ID) { r.entries.Delete(id) }

// Drain waits until no renewal is under way, or the context ends: a renewal
// that is cut off after the provider has answered would lose a refresh token.
func (r *Refresher) Drain(ctx context.Context) error {
	for {
		var f *flight
		r.flights.Range(func(k, _ any) bool {
			f = k.(*flight)
			return false
		})
		if f == nil {
			return nil
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Current returns the connection's credential. One that has ended is renewed
// first; one that will end soon is returned and renewed in the background, and
// keeps serving should that fail. If an ended one can't be renewed because the
// provider is down, it is returned all the same: the provider's own answer
// says more than ours would.
//
// Errors: ErrNotFound, a NeedsReauthError, or what kept the credential from
// being read.
func (r *Refresher) Current(ctx context.Context, id ID) (*Bound, error) {
	e := r.entry(id)
	b := e.bound.Load()
	if b == nil {
		var err error
		if b, err = r.join(ctx, id, e, nil); err != nil {
			return nil, err
		}
	}
	if b.renewAt.IsZero() {
		return b, nil
	}
	now := time.Now()
	if now.Before(b.renewAt) {
		return b, nil
	}
	if now.Before(b.Expires) {
		r.start(ctx, id, e, b) // and don't wait for it
		return b, nil
	}
	fresh, err := r.join(ctx, id, e, b)
	if err == nil {
		return fresh, nil
	}
	if ended(err) || ctx.Err() != nil {
		return nil, err
	}
	return b, nil
}

// Renew returns a credential newer than stale, which the provider has refused.
// Whoever calls it with a version that has been replaced since gets the newer
// one, and no token is asked for.
//
// Errors: scheme.ErrNotRenewable, ErrFutile, ErrNotFound, a NeedsReauthError,
// a *scheme.TokenError, or what kept the new credential from being stored.
func (r *Refresher) Renew(ctx context.Context, stale *Bound) (*Bound, error) {
	e := r.entry(stale.Connection.ID)
	if b := e.bound.Load(); b != nil && b.newerThan(stale) {
		return b, nil
	}
	if !stale.Renewable {
		return nil, scheme.ErrNotRenewable
	}
	e.mu.Lock()
	futile := time.Now().Before(e.futileUntil)
	e.mu.Unlock()
	if futile {
		return nil, ErrFutile
	}
	return r.join(ctx, stale.Connection.ID, e, stale)
}

// Refused reports that a credential that had just been renewed was refused
// too, so that renewing isn't what is needed.
func (r *Refresher) Refused(b *Bound) {
	e := r.entry(b.Connection.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refused == b { // by another call that was under way with it
		return
	}
	e.refused = b
	wait := min(futileWait<<min(e.futile, 10), futileWaitMax)
	e.futile++
	e.futileUntil = time.Now().Add(wait)
	r.Logger.Warn("renewed credential was refused too; not renewing it on the next refusals",
		connectionFields(b.Connection.ID, zap.Duration("for", wait))...)
}

// Accepted reports that a credential that had just been renewed worked.
func (r *Refresher) Accepted(b *Bound) {
	e := r.entry(b.Connection.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.futile, e.futileUntil = 0, time.Time{}
}

func (r *Refresher) entry(id ID) *entry {
	if e, ok := r.entries.Load(id); ok {
		return e.(*entry)
	}
	e, _ := r.entries.LoadOrStore(id, new(entry))
	return e.(*entry)
}

func (b *Bound) newerThan(stale *Bound) bool {
	return b.Connection.UID != stale.Connection.UID || b.Version > stale.Version
}

// join starts the connection's flight, or joins the one under way, and waits
// for it. The flight doesn't end when the caller does. Stale is the credential
// to be replaced; nil: any will do.
func (r *Refresher) join(ctx context.Context, id ID, e *entry, stale *Bound) (*Bound, error) {
	for {
		f, own, b, err := r.start(ctx, id, e, stale)
		if b != nil || err != nil {
			return b, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		// A flight that was under way already may have been one that only
		// read the credential that the caller has found stale.
		if !own && f.err == nil && stale != nil && !f.bound.newerThan(stale) {
			continue
		}
		return f.bound, f.err
	}
}

// start starts the flight, which is then the caller's own, unless one is under
// way or what the caller needs is there already.
func (r *Refresher) start(ctx context.Context, id ID, e *entry, stale *Bound) (_ *flight, own bool, _ *Bound, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flight; f != nil {
		return f, false, nil, nil
	}
	if b := e.bound.Load(); b != nil && (stale == nil || b.newerThan(stale)) {
		return nil, false, b, nil
	}
	if stale != nil && time.Now().Before(e.retryAt) {
		return nil, false, nil, e.lastErr
	}
	f := &flight{done: make(chan struct{}), setup: r.setup.Load()}
	e.flight = f
	r.flights.Store(f, nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTimeout)
	go func() {
		defer cancel()
		if stale == nil {
			f.bound, f.err = r.load(ctx, id)
		} else {
			f.bound, f.err = r.renew(ctx, stale)
		}
		r.land(id, e, f, stale != nil)
	}()
	return f, true, nil, nil
}

// land ends a flight: what it brought is published before anyone can start
// another one.
func (r *Refresher) land(id ID, e *entry, f *flight, renewal bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case f.err == nil:
		if f.setup == r.setup.Load() {
			e.bound.Store(f.bound)
		}
		e.failures, e.retryAt, e.lastErr = 0, time.Time{}, nil
	case ended(f.err):
		// The store is asked again on the next use: the connection may be
		// made again, or its user may connect it anew, at any time.
		r.entries.CompareAndDelete(id, e)
	case renewal:
		e.lastErr = f.err
		e.retryAt = time.Now().Add(backoff(e.failures, f.err))
		e.failures++
	}
	e.flight = nil
	r.flights.Delete(f)
	close(f.done)
}

// backoff is how long to wait after a number of failures: what the provider
// asked for, or longer each time, with jitter so that connections that failed
// together don't come back together.
func backoff(failures int, err error) time.Duration {
	var te *scheme.TokenError
	if errors.As(err, &te) && te.RetryAfter > 0 {
		return te.RetryAfter
	}
	d := min(backoffMin<<min(failures, 16), backoffMax)
	return d/2 + rand.N(d/2)
}

// load reads the connection as it is.
func (r *Refresher) load(ctx context.Context, id ID) (*Bound, error) {
	c, err := r.Store.Connection(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("reading connection %s: %w", id, err)
	}
	if c.Status == StatusNeedsReauth {
		return nil, &NeedsReauthError{ID: id, Cause: c.Cause}
	}
	v, err := r.Vault.Read(ctx, c.VaultName())
	if err != nil {
		return nil, fmt.Errorf("reading the credential of %s: %w", id, err)
	}
	return r.bind(c, v)
}

// bind makes a version ready for use.
func (r *Refresher) bind(c Connection, v vault.Entry) (*Bound, error) {
	cred, err := scheme.DecodeCredential(v.Value)
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", c.ID, err)
	}
	return r.bindCredential(c, v.Version, cred)
}

func (r *Refresher) bindCredential(c Connection, version vault.Version, cred scheme.Credential) (*Bound, error) {
	sch, err := r.scheme(c)
	if err != nil {
		return nil, err
	}
	binding, err := sch.Bind(scheme.Grant{Credential: cred, Config: c.Config})
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", c.ID, err)
	}
	b := &Bound{Binding: binding, Connection: c, Version: version}
	if end := cred.Expires; !end.IsZero() && binding.Renewable {
		life := end.Sub(cred.Issued)
		b.Expires = end.Add(-min(maxSkew, life/10))
		b.renewAt = end.Add(-max(min(latestMargin, life/marginFraction), min(binding.Margin, life)))
	}
	return b, nil
}

func (r *Refresher) scheme(c Connection) (scheme.Scheme, error) {
	in, err := r.setup.Load().Integration(c.Integration)
	if err != nil {
		return nil, err
	}
	return in.Scheme, nil
}

// Credential returns the connection's credential itself, for apps that fetch
// it; it is renewed first if it has ended. Errors are those of Current.
func (r *Refresher) Credential(ctx context.Context, id ID) (Connection, scheme.Credential, error) {
	b, err := r.Current(ctx, id)
	if err != nil {
		return Connection{}, scheme.Credential{}, err
	}
	v, err := r.Vault.Read(ctx, b.Connection.VaultName())
	if err != nil {
		return b.Connection, scheme.Credential{}, fmt.Errorf("reading the credential of %s: %w", id, err)
	}
	cred, err := scheme.DecodeCredential(v.Value)
	return b.Connection, cred, err
}
