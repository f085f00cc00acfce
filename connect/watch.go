package connect

import (
	"context"
	"time"
)

const (
	// watchEvery is how often the store is asked what others have changed.
	watchEvery = 500 * time.Millisecond
	// watchOverlap is how far each question goes back behind the one before, for
	// changes that were being written then.
	watchOverlap = 5 * time.Second
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
				r.heard(&changes[i])
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
func (r *Refresher) heard(c *Change) {
	v, ok := r.entries.Load(c.ID)
	if !ok {
		return
	}
	e := v.(*entry)
	e.owner.Store(nil)
	if c.Removed || c.Status != StatusActive {
		e.calls.cut(c.UID)
	}
	b := e.bound.Load()
	if b == nil {
		return
	}
	switch same := b.Connection.UID == c.UID; {
	case c.Removed && same, !c.Removed && (!same || c.Status != StatusActive):
		e.drop(b)
	case !c.Removed && c.Version > b.Version:
		e.expect(b, c.Version)
	}
}
