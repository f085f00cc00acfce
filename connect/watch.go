package connect

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// watchEvery is how often the store is asked what others have changed.
	watchEvery = 500 * time.Millisecond
	// watchOverlap is how far each question goes back behind the one before, for
	// changes that were being written then.
	watchOverlap = 5 * time.Second
)

// Watch drops from memory what other processes have changed: a connection that
// they have removed, disabled or connected again is not served from here any
// longer than it takes to hear of it. It returns when the context ends. While
// the store can't be asked, what is in memory goes on being served.
func (r *Refresher) Watch(ctx context.Context) {
	var mark time.Time
	failing := false
	for tick := time.NewTicker(watchEvery); ; {
		changes, present, err := r.Store.Changes(ctx, mark)
		switch {
		case ctx.Err() != nil:
			tick.Stop()
			return
		case err != nil:
			if !failing {
				r.Logger.Warn("can't hear what others change; going on with what is in memory", zap.Error(err))
			}
			failing = true
		default:
			failing = false
			mark = present.Add(-watchOverlap)
			for i := range changes {
				r.heard(&changes[i])
			}
		}
		select {
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
	b := e.bound.Load()
	if b == nil {
		return
	}
	same := b.Connection.UID == c.UID
	if c.Removed && same || !c.Removed && (!same || c.Version > b.Version || c.Status != StatusActive) {
		// Not Forget: a renewal that is under way has to stay the only one.
		e.mu.Lock()
		if e.bound.Load() == b {
			e.bound.Store(nil)
		}
		e.mu.Unlock()
	}
}
