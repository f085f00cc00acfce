package connect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

// leaseWait bounds the wait for another process's renewal, from when it could
// be at the token endpoint.
const leaseWait = 20 * time.Second

func (r *Refresher) leaseTTL() time.Duration {
	if r.LeaseTTL > 0 {
		return r.LeaseTTL
	}
	return DefaultLeaseTTL
}

// node is the name of this process. Without a spool it has none that would
// outlive it.
func (r *Refresher) node() string {
	if r.Spool != nil {
		return r.Spool.Node()
	}
	return ""
}

func leaseName(uid string) string { return "refresh/" + uid }

// hold keeps a connection from being renewed while its user connects again,
// unless somebody is at it for longer than a user can be kept waiting. newest is
// the version that was being renewed, or may be: 0 if none was.
func (r *Refresher) hold(ctx context.Context, c Connection) (release func(), newest uint64) {
	const patience, poll = 2 * time.Second, 50 * time.Millisecond
	for end := time.Now().Add(patience); ; {
		l, err := r.Store.Lease(ctx, leaseName(c.UID), r.node(), r.leaseTTL())
		if err == nil {
			if l.Intent != nil {
				newest = l.Intent.Version + 1
			}
			l.Intent = nil // whatever came of it, it is the former consent's
			return func() { (&rotation{Refresher: r, stale: &Bound{ID: c.ID, UID: c.UID}, lease: l}).release(ctx) }, newest
		}
		if !errors.Is(err, ErrHeld) || time.Now().After(end) || ctx.Err() != nil {
			r.Logger.Warn("connecting again while the connection may be renewed", connectionFields(c.ID, zap.Error(err))...)
			return func() {}, c.Version + 1
		}
		time.Sleep(poll)
	}
}

// take takes the connection's lease. While another process holds it, it waits
// until there is a newer credential, and returns that.
func (ro *rotation) take(ctx context.Context) (*Bound, error) {
	const pollMin, pollMax = 10 * time.Millisecond, time.Second
	id, limit := ro.stale.ID, leaseWait
	if ro.in.TokenRate > 0 {
		limit += turnWait // the holder may be waiting for its turn
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for wait := pollMin; ; wait = min(wait*2, pollMax) {
		began := time.Now()
		l, err := ro.Store.Lease(ctx, leaseName(ro.stale.UID), ro.node(), ro.leaseTTL())
		if err == nil {
			ro.lease, ro.until = l, began.Add(ro.leaseTTL())
			return nil, nil
		}
		if !errors.Is(err, ErrHeld) {
			return nil, fmt.Errorf("taking the refresh lease of %s: %w", id, err)
		}
		if ro.early {
			return nil, errMadeWay // somebody is at it
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the refresh lease of %s: %w", id, ctx.Err())
		}
		// The row first, which costs less than the vault.
		c, err := ro.current(ctx, ro.stale.ID, ro.stale.UID)
		if err != nil {
			return nil, err
		}
		if c.Version > ro.stale.Version {
			b, err := ro.fetch(ctx, c)
			if err != nil || b.newerThan(ro.stale) {
				return b, err
			}
		}
	}
}

// release gives the lease back, and with it what is to be known of an intent.
func (ro *rotation) release(ctx context.Context) {
	// The flight's time may be over, and the next holder shouldn't have to sit
	// out the lease.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	ro.giveBack(ctx, ro.lease)
	ro.step("released")
}

// giveBack releases a lease. If the store doesn't take it, it is offered again
// until it does: otherwise nobody, not even this process, could renew the
// connection until the lease runs out.
func (r *Refresher) giveBack(ctx context.Context, l Lease) {
	if err := r.Store.Release(ctx, l); err != nil {
		r.Logger.Warn("giving back a lease; trying again soon", zap.String("lease", l.Name), zap.Error(err))
		r.unreleased.Store(l.Name, &l)
	}
}

// giveBackAll offers the store what it has not taken.
func (r *Refresher) giveBackAll(ctx context.Context) {
	r.unreleased.Range(func(name, v any) bool {
		if err := r.Store.Release(ctx, *v.(*Lease)); err != nil {
			return false // the others would fare no better
		}
		r.unreleased.CompareAndDelete(name, v)
		return true
	})
}
