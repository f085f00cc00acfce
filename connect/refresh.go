package connect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/spool"
	"github.com/keycaddy/keycaddy/vault"
)

const (
	// flightTimeout bounds one renewal, whoever waits for it: the wait for the
	// lease and for a turn at the token endpoint, the token call and the write
	// to the vault.
	flightTimeout = 3 * time.Minute
	// After a renewal whose credential was refused as well, the next one has to
	// wait: a provider that answers 401 for another reason must not be asked
	// for a token on every call (S71).
	futileWait, futileWaitMax = 30 * time.Second, 30 * time.Minute
	// After a failed renewal the next attempt waits, longer each time.
	backoffMin, backoffMax = time.Second, 5 * time.Minute
)

// Refresher has a working credential for every connection. Those in use are
// held in memory, bound once per version; Current is a map look-up and two
// comparisons, and takes no lock.
//
// A renewal is one flight per connection and process, one lease per connection
// among processes, and one check-and-set in the vault, in that order of
// strictness: the first two keep the provider from being asked twice, the last
// decides what holds. See rotate.go.
//
// Run has to run beside it.
type Refresher struct {
	Store  Store
	Vault  vault.Vault
	Logger *zap.Logger
	// ReadOnly says that the vault can't be written from here, so that nothing
	// is renewed: the new credential would have nowhere to go. Those that other
	// processes renew are taken over.
	ReadOnly bool
	// Spool, if not nil, keeps new credentials until the vault has them, also
	// if the process ends before.
	Spool *spool.Spool
	// LeaseTTL is how long a lease lasts from when the token endpoint is asked;
	// 0: DefaultLeaseTTL.
	LeaseTTL time.Duration
	// Trace, if not nil, is called at each step of a rotation, in Steps.
	Trace func(step string, id ID)
	// Journal, if not nil, keeps every renewal step by step.
	Journal *Journal
	// Clock is the time of day; nil: time.Now.
	Clock func() time.Time

	// Observe, if not nil, is told of every renewal that the provider was asked
	// for: success, revoked, misconfigured, transient or failed, and how long it
	// took.
	Observe func(provider, outcome string, took time.Duration)

	setup   atomic.Pointer[Setup]
	entries entries
	flights sync.Map // *flight → nothing: those under way
	common  sync.Map // integration's key → *scheme.Common: of what was bound last
	memory  memory

	handover handover
	parcels  sync.Map // UID → *unwritten: credentials that the vault hasn't yet
	// unreleased are leases that the store has not taken back: name → *Lease.
	unreleased sync.Map
	troubles   sync.Map // token endpoint → *atomic.Int64: failures in a row
	outage     atomic.Pointer[Outage]
	made       made
	// collected: what a former life has left in the spool was taken over.
	collected  atomic.Bool
	collecting sync.Mutex
}

// entry is what the process knows of one connection.
type entry struct {
	bound atomic.Pointer[Bound]
	calls calls
	// owner is the connection as Whose has read it.
	owner atomic.Pointer[Connection]
	// used: a call has asked for it since it was renewed last; called: since
	// memory has looked last.
	used, called atomic.Bool
	kept         bool // in memory, whose lock guards it

	mu     sync.Mutex
	flight *flight
	past   *setbacks // nil: none, as with nearly all of them
}

// entries are what the process knows of all connections. sync.Map would need three
// allocations for each and not one, and garbage collection looks at every one.
type entries struct {
	once sync.Once
	byID *xsync.Map[ID, *entry]
}

func (e *entries) all() *xsync.Map[ID, *entry] {
	e.once.Do(func() { e.byID = xsync.NewMap[ID, *entry]() })
	return e.byID
}

type flight struct {
	setup *Setup
	// outdated: the connection was changed since the flight began, so that what
	// it brings may be old. It is if its version is less than atLeast.
	outdated bool
	atLeast  uint64
	done     chan struct{}
	bound    *Bound
	err      error
}

// Configure makes the refresher work by another setup, after a reload of the
// configuration. What was bound by the old one is bound again on its next use.
func (r *Refresher) Configure(s *Setup) {
	r.attach(s)
	r.setup.Store(s)
	r.common.Clear()
	r.entries.all().Range(func(_ ID, e *entry) bool {
		e.mu.Lock() // a flight that lands now has seen the new setup, or we see what it brought
		e.bound.Store(nil)
		e.mu.Unlock()
		return true
	})
}

// Forget drops what is held of a connection, so that its next use asks the
// store. It is called when the connection was changed.
func (r *Refresher) Forget(id ID) {
	if e, ok := r.entries.all().Load(id); ok {
		e.drop(nil)
	}
}

// End is Forget for a connection that was removed or disabled: its calls that
// are under way are cut off.
func (r *Refresher) End(id ID, uid string) {
	if e, ok := r.entries.all().Load(id); ok {
		e.drop(nil)
		e.calls.cut(uid)
	}
}

// drop makes the next use ask the store, if b (nil: anything) is what is held.
// The entry stays: a renewal that is under way has to stay the only one.
func (e *entry) drop(b *Bound) {
	e.owner.Store(nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	if b == nil || e.bound.Load() == b {
		e.bound.Store(nil)
	}
	if e.flight != nil {
		e.flight.outdated = true
	}
}

// expect is drop for a credential that was replaced by a newer version.
func (e *entry) expect(b *Bound, version uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.bound.Load() == b {
		e.bound.Store(nil)
	}
	if e.flight != nil {
		e.flight.atLeast = max(e.flight.atLeast, version)
	}
}

// Drain waits until no renewal is under way and all that was renewed is either
// in the vault or in the spool, or until the context ends.
func (r *Refresher) Drain(ctx context.Context) error {
	for {
		var f *flight
		r.flights.Range(func(k, _ any) bool {
			f = k.(*flight)
			return false
		})
		if f == nil {
			break
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.flush(ctx)
}

// Current returns the connection's credential. One that has ended is renewed
// first; one that will end soon is returned and renewed in the background, and
// keeps serving should that fail. If an ended one can't be renewed because the
// provider is down, it is returned all the same: the provider's own answer
// says more than ours would.
//
// Errors: ErrNotFound, a NeedsReauthError, a DisabledError, an OutageError, or
// what kept the credential from being read.
func (r *Refresher) Current(ctx context.Context, id ID) (*Bound, error) {
	e := r.entry(id)
	if !e.called.Load() { // reading is shared, writing isn't
		e.called.Store(true)
	}
	b := e.bound.Load()
	if b == nil {
		var err error
		if b, err = r.join(ctx, id, e, nil); err != nil {
			return nil, err
		}
	}
	if o := r.outage.Load(); o != nil {
		if err := o.bars(b); err != nil {
			return nil, err
		}
	}
	if b.renewAt == 0 {
		return b, nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	now := momentOf(r.now())
	if now < b.renewAt {
		return b, nil
	}
	if now < b.expires {
		r.start(ctx, id, e, b, true) // and don't wait for it
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

// Whose returns the connection as it was when the store was asked last, which is
// again after each change of it. No secret is read. Errors: ErrNotFound, or what
// kept the store from answering.
func (r *Refresher) Whose(ctx context.Context, id ID) (*Connection, error) {
	if e, ok := r.entries.all().Load(id); ok {
		if c := e.owner.Load(); c != nil {
			return c, nil
		}
	}
	c, err := r.Store.Connection(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("reading connection %s: %w", id, err)
	}
	r.entry(id).owner.Store(&c)
	return &c, nil
}

// replace takes b for the same version of it.
func (e *entry) replace(b *Bound) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.bound.Load(); old != nil && old.Version == b.Version && old.UID == b.UID {
		b.calls = &e.calls
		e.bound.Store(b)
	}
}

func (r *Refresher) now() time.Time {
	if r.Clock != nil {
		return r.Clock()
	}
	return time.Now()
}

// Renew returns a credential newer than stale, which the provider has refused.
// Whoever calls it with a version that has been replaced since gets the newer
// one, and no token is asked for.
//
// Errors: scheme.ErrNotRenewable, ErrFutile, ErrNotFound, a NeedsReauthError,
// a *scheme.TokenError, a *BusyError, or what kept the new credential from
// being had.
func (r *Refresher) Renew(ctx context.Context, stale *Bound) (*Bound, error) {
	e := r.entry(stale.ID)
	if b := e.bound.Load(); b != nil && b.newerThan(stale) {
		return b, nil
	}
	if !stale.Renewable {
		return nil, scheme.ErrNotRenewable
	}
	e.mu.Lock()
	futile := e.past != nil && time.Now().Before(e.past.futileUntil)
	e.mu.Unlock()
	if futile {
		return nil, ErrFutile
	}
	return r.join(ctx, stale.ID, e, stale)
}

// Refused reports that a credential that had just been renewed was refused
// too, so that renewing isn't what is needed.
func (r *Refresher) Refused(b *Bound) {
	e := r.entry(b.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	past := e.setbacks()
	if past.refused == b { // by another call that was under way with it
		return
	}
	past.refused = b
	wait := min(futileWait<<min(past.futile, 10), futileWaitMax)
	past.futile++
	past.futileUntil = time.Now().Add(wait)
	r.Logger.Warn("renewed credential was refused too; not renewing it on the next refusals",
		connectionFields(b.ID, zap.Duration("for", wait))...)
}

// Accepted reports that a credential that had just been renewed worked.
func (r *Refresher) Accepted(b *Bound) {
	e := r.entry(b.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.past != nil {
		e.past.futile, e.past.futileUntil = 0, time.Time{}
	}
}

func (r *Refresher) entry(id ID) *entry {
	if e, ok := r.entries.all().Load(id); ok {
		return e
	}
	e, _ := r.entries.all().LoadOrStore(id, new(entry))
	return e
}

// join starts the connection's flight, or joins the one under way, and waits
// for it. The flight doesn't end when the caller does. Stale is the credential
// to be replaced; nil: any will do.
func (r *Refresher) join(ctx context.Context, id ID, e *entry, stale *Bound) (*Bound, error) {
	for {
		f, own, b, err := r.start(ctx, id, e, stale, false)
		if b != nil || err != nil {
			return b, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			select { // a call that is cut off by what its own renewal has brought is told of that
			case <-f.done:
			default:
				return nil, context.Cause(ctx)
			}
		}
		if f.outdated {
			continue // what it has brought may be old already
		}
		// A flight that was under way already may have been one that only
		// read the credential that the caller has found stale, or one that
		// made way.
		if !own && stale != nil && (f.err == nil && !f.bound.newerThan(stale) || errors.Is(f.err, errMadeWay)) {
			continue
		}
		return f.bound, f.err
	}
}

// start starts the flight, which is then the caller's own, unless one is under
// way or what the caller needs is there already. Early: the credential still
// works, so that nobody waits; such a flight makes way for those that somebody
// waits for.
func (r *Refresher) start(ctx context.Context, id ID, e *entry, stale *Bound, early bool) (_ *flight, own bool, _ *Bound, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flight; f != nil {
		return f, false, nil, nil
	}
	if b := e.bound.Load(); b != nil && (stale == nil || b.newerThan(stale)) {
		return nil, false, b, nil
	}
	if past := e.past; stale != nil && past != nil && time.Now().Before(past.retryAt) {
		return nil, false, nil, past.lastErr
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
			f.bound, f.err = r.renew(ctx, stale, early)
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
	f.outdated = f.outdated || f.err == nil && f.bound.Version < f.atLeast
	switch {
	case f.err == nil:
		f.bound.calls = &e.calls
		if f.setup == r.setup.Load() && !f.outdated {
			e.calls.reopen()
			e.bound.Store(f.bound)
			r.memory.add(e, f.setup.inMemory())
		}
		if past := e.past; past != nil {
			past.failures, past.retryAt, past.lastErr = 0, time.Time{}, nil
		}
	case ended(f.err):
		// The store is asked again on the next use: the connection may be
		// made again, or its user may connect it anew, at any time.
		if b := e.bound.Swap(nil); b != nil {
			defer e.calls.cut(b.UID) // when those that wait have their answer
		}
		r.entries.all().Compute(id, func(now *entry, _ bool) (*entry, xsync.ComputeOp) {
			if now == e {
				return nil, xsync.DeleteOp
			}
			return now, xsync.CancelOp
		})
	case errors.Is(f.err, errMadeWay):
	case renewal:
		past := e.setbacks()
		past.lastErr = f.err
		past.retryAt = time.Now().Add(backoff(past.failures, f.err))
		past.failures++
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
	var busy *BusyError
	if errors.As(err, &busy) {
		return min(busy.RetryAfter, backoffMax)
	}
	d := min(backoffMin<<min(failures, 16), backoffMax)
	return d/2 + rand.N(d/2)
}
