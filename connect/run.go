package connect

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/spool"
)

const (
	// deliverEvery is how often vault and store are offered what they haven't
	// got yet.
	deliverEvery = time.Second
	// recoverEvery is how often unfinished renewals are looked for, and
	// recoverBatch how many are looked at each time.
	recoverEvery, recoverBatch = 5 * time.Second, 100
	// dueEvery is how often the store is asked what is due; dueBatch are taken
	// each time, which others leave alone for dueHold.
	dueEvery, dueBatch, dueHold = 5 * time.Second, 50, 10 * time.Minute
	// keepAlive is when a refresh token that isn't used is used, so that it
	// doesn't die of idleness: before the shortest time that providers are
	// known to allow, seven days.
	keepAlive = 5 * 24 * time.Hour
	// longLived access tokens are renewed after a fraction of their time.
	longLived         = 24 * time.Hour
	longLivedFraction = 0.7
)

// Run does what doesn't wait for a call: hear what others change, renew what is
// due, end what was interrupted, and write what the vault could not take. It begins
// when the refresher is configured, and returns when the context ends.
func (r *Refresher) Run(ctx context.Context) {
	r.reclaim(ctx)
	if !r.configured(ctx) {
		return
	}
	var all sync.WaitGroup
	all.Go(func() { r.watch(ctx) })
	all.Go(func() { every(ctx, watchEvery, func() { r.hearIntegrations(ctx) }) })
	all.Go(func() { r.probe(ctx) })
	if !r.ReadOnly {
		all.Go(func() { every(ctx, deliverEvery, func() { r.deliver(ctx); r.giveBackAll(ctx) }) })
		all.Go(func() { every(ctx, recoverEvery, func() { r.recover(ctx); r.removeIntegrations(ctx) }) })
		all.Go(func() { every(ctx, dueEvery, func() { r.renewDue(ctx) }) })
	}
	all.Wait()
}

// configured waits for the first setup: without one nothing can be bound.
func (r *Refresher) configured(ctx context.Context) bool {
	for r.setup.Load() == nil {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// reclaim gives back the leases that a former life of this process held: it
// can't be at it any more.
func (r *Refresher) reclaim(ctx context.Context) {
	if r.Spool == nil || r.ReadOnly {
		return
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := r.Store.Vacate(ctx, r.node())
		if err == nil || ctx.Err() != nil {
			return
		}
		r.Logger.Warn("giving back the leases of this node's former life; trying again", zap.Error(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// recover looks after renewals and removals that nobody is at any more and whose
// end was not recorded.
func (r *Refresher) recover(ctx context.Context) {
	r.adoptSpools(ctx)
	leases, err := r.Store.Intents(ctx, recoverBatch)
	if err != nil {
		return // the outage is reported elsewhere
	}
	for _, l := range leases {
		if ctx.Err() != nil {
			return
		}
		if strings.HasPrefix(l.Name, removalPrefix) {
			r.resume(ctx, l)
		} else {
			r.finish(ctx, l.Intent)
		}
	}
}

// finish ends an interrupted renewal as the next call would.
func (r *Refresher) finish(ctx context.Context, i *Intent) {
	c, err := r.Store.Connection(ctx, i.ID)
	if err != nil {
		return
	}
	if i.Sealed != nil && r.unwritten(c.UID) == nil {
		if p, cred, err := r.unsealed(ctx, i.Sealed); err == nil && p.UID == c.UID {
			r.keep(Connection{ID: p.ID, UID: p.UID, Config: p.Config}, cred, 0)
		}
	}
	held, _, err := r.held(ctx, c)
	switch {
	case err != nil:
		return // asked again soon
	case held.Version > i.Version:
		r.clear(ctx, c, held.Version)
		return
	case r.unwritten(c.UID) != nil:
		return // that goes to the vault first
	}
	b, err := r.join(ctx, i.ID, r.entry(i.ID), nil)
	if err == nil && b.Version == i.Version {
		_, err = r.renewBehind(ctx, i.ID, b)
	}
	if err != nil && ctx.Err() == nil && !ended(err) {
		r.Logger.Info("an interrupted renewal is still not finished", connectionFields(i.ID, zap.Error(err))...)
	}
}

// clear drops the intent of a renewal whose outcome is in the vault.
func (r *Refresher) clear(ctx context.Context, c Connection, version uint64) {
	l, err := r.Store.Lease(ctx, leaseName(c.UID), r.node(), r.leaseTTL())
	if err != nil {
		return // held: its holder sees to it
	}
	if l.Intent != nil && l.Intent.Version < version {
		l.Intent = nil
	}
	r.giveBack(ctx, l)
}

// renewBehind renews for nobody: it makes way for those who wait.
func (r *Refresher) renewBehind(ctx context.Context, id ID, stale *Bound) (*Bound, error) {
	f, _, b, err := r.start(ctx, id, r.entry(id), stale, true)
	if b != nil || err != nil {
		return b, err
	}
	select {
	case <-f.done:
		return f.bound, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// adoptSpools takes over what processes on this machine have left that ended
// and were not started again.
func (r *Refresher) adoptSpools(ctx context.Context) {
	if r.Spool == nil || !r.collected.Load() {
		return
	}
	left, err := r.Spool.Left()
	if err != nil {
		r.Logger.Warn("looking for what other processes have left", zap.Error(err))
	}
	for _, s := range left {
		r.adoptSpool(ctx, s)
	}
}

func (r *Refresher) adoptSpool(ctx context.Context, s *spool.Spool) {
	defer s.Close()
	if err := r.Store.Vacate(ctx, s.Node()); err != nil {
		return
	}
	if err := r.takeOver(s); err != nil {
		r.Logger.Error("reading what another process has left", zap.Error(err))
		return
	}
	// All of it is in this process's own spool now.
	if err := s.Clear(); err != nil {
		r.Logger.Warn("clearing what another process has left", zap.Error(err))
	}
}

// renewDue renews what is due although nobody has asked: connections that are
// in use, before a call has to wait for it, and those that aren't, before their
// refresh tokens die of it.
func (r *Refresher) renewDue(ctx context.Context) {
	due, err := r.Store.Due(ctx, dueBatch, dueHold)
	if err != nil {
		return
	}
	slots := make(chan struct{}, 8)
	var all sync.WaitGroup
	for _, c := range due {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			b, err := r.join(ctx, c.ID, r.entry(c.ID), nil)
			if err == nil && b.Version <= c.Version {
				_, err = r.renewBehind(ctx, c.ID, b)
			}
			if err != nil && ctx.Err() == nil && !ended(err) {
				r.Logger.Info("a renewal that was due has to wait", connectionFields(c.ID, zap.Error(err))...)
			}
		})
	}
	all.Wait()
}

// dueAfter is when a connection is to be renewed next if nobody asks. Those in
// use: shortly before they would be renewed on a call, each at another moment.
// Others: before the refresh token may die of idleness.
func dueAfter(cred *scheme.Credential, used bool) time.Time {
	now, life := time.Now(), cred.Expires.Sub(cred.Issued)
	if cred.RefreshToken == "" {
		// One that lives for weeks may be all that there is to get the next one
		// with, once it has ended (Instagram). Others are had again when needed.
		if !cred.Expires.IsZero() && life > longLived {
			return now.Add(jitter(time.Duration(float64(life) * longLivedFraction)))
		}
		return time.Time{}
	}
	if used && !cred.Expires.IsZero() && life > 0 {
		margin := min(latestMargin, life/marginFraction)
		ahead := time.Duration(rand.Float64() * dueAhead * float64(life))
		return now.Add(max(life-margin-ahead, life/2))
	}
	return now.Add(jitter(keepAlive))
}

// jitter takes up to a tenth off.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10) }
