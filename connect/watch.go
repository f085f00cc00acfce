package connect

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

const (
	// watchEvery is how often the store is asked what others have changed.
	watchEvery = 500 * time.Millisecond
	// watchOverlap is how far each question goes back behind the one before, for
	// changes that were being written then.
	watchOverlap = 5 * time.Second
	// hearTimeout bounds a look at what integrations others have made.
	hearTimeout = 10 * time.Second
)

// watch drops from memory what other processes have changed: a connection that
// they have removed, disabled or connected again is not served from here any
// longer than it takes to hear of it. While the store can't be asked, what is in
// memory goes on being served, for as long as its integration allows.
func (r *Refresher) watch(ctx context.Context) {
	announced := r.Store.Announced(ctx)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for mark := (time.Time{}); ; {
		changes, present, err := r.Store.Changes(ctx, mark)
		if ctx.Err() != nil {
			return
		}
		r.storeAnswered(err)
		if err == nil {
			mark = present.Add(-watchOverlap)
			for i := range changes {
				r.heard(ctx, &changes[i])
			}
		}
		select {
		case <-announced:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// heard drops what is held of a connection if the change is news.
func (r *Refresher) heard(ctx context.Context, c *Change) {
	e, ok := r.entries.all().Load(c.ID)
	if !ok {
		return
	}
	e.owner.Store(nil)
	if c.Removed || c.Status != StatusActive {
		e.calls.cut(c.UID)
	}
	b := e.bound.Load()
	if b == nil {
		return
	}
	switch same := b.UID == c.UID; {
	case c.Removed && same, !c.Removed && (!same || c.Status != StatusActive):
		e.drop(b)
	case !c.Removed && c.Version > b.Version:
		e.expect(b, c.Version)
	case !c.Removed && momentOf(c.Updated) > b.updated && r.factsChanged(ctx, b):
		e.drop(b)
	}
}

// factsChanged tells whether the store knows other things of a connection than
// what was bound: whose it is, say, by which callers are let through.
func (r *Refresher) factsChanged(ctx context.Context, b *Bound) bool {
	row, err := r.Store.Connection(ctx, b.ID)
	if err != nil || row.UID != b.UID {
		return false
	}
	was, err := b.Connection()
	return err != nil || !sameFacts(&row, &was)
}

// hearIntegrations asks for integrations that others have made or changed. That
// the store can't be asked is told elsewhere.
func (r *Refresher) hearIntegrations(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hearTimeout)
	defer cancel()
	if err := r.LoadIntegrations(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrStoreUnavailable) {
		r.Logger.Error("reading integrations", zap.Error(err))
	}
}
