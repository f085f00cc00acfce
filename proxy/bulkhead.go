package proxy

import (
	"context"
	"hash/maphash"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

const (
	// MaxConcurrency is the highest number of calls at a time that a connection
	// can be held to.
	MaxConcurrency = 10_000
	// A call waits for its turn so long, behind so many others for each that may
	// be under way.
	turnWait      = 30 * time.Second
	waitingFactor = 10
)

// bulkheads bound how many calls a connection has under way, so that one whose
// provider is slow doesn't take up what all others need (S127). Those beyond
// wait in the order in which they came. Locks are shared by few connections.
type bulkheads struct {
	limit  int
	seed   maphash.Seed
	shards [64]bulkheadShard
}

type bulkheadShard struct {
	mu  sync.Mutex
	ofs map[connect.ID]*bulkhead // those with calls under way
}

type bulkhead struct {
	running int
	waiting []chan struct{} // closed when it is its turn
}

func newBulkheads(limit int) *bulkheads {
	b := &bulkheads{limit: limit, seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].ofs = make(map[connect.ID]*bulkhead)
	}
	return b
}

func (b *bulkheads) shard(id connect.ID) *bulkheadShard {
	return &b.shards[maphash.Comparable(b.seed, id)%uint64(len(b.shards))]
}

// enter waits until the connection may make another call; leave has to follow if
// there is no error. Errors: *problem.Problem, and an *UpstreamError if the caller
// goes away.
func (b *bulkheads) enter(ctx context.Context, id connect.ID) error {
	s := b.shard(id)
	s.mu.Lock()
	own := s.ofs[id]
	if own == nil {
		own = new(bulkhead)
		s.ofs[id] = own
	}
	if own.running < b.limit {
		own.running++
		s.mu.Unlock()
		return nil
	}
	if len(own.waiting) >= b.limit*waitingFactor {
		s.mu.Unlock()
		return crowded()
	}
	turn := make(chan struct{})
	own.waiting = append(own.waiting, turn)
	s.mu.Unlock()

	late := time.NewTimer(turnWait)
	defer late.Stop()
	var err error
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = &UpstreamError{Err: ctx.Err()}
	case <-late.C:
		err = crowded()
	}
	s.mu.Lock()
	i := slices.Index(own.waiting, turn)
	if i >= 0 {
		own.waiting = slices.Delete(own.waiting, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 { // its turn has come in this very moment, and is somebody else's
		b.leave(id)
	}
	return err
}

// leave lets the next call in.
func (b *bulkheads) leave(id connect.ID) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.ofs[id]
	if len(own.waiting) > 0 {
		close(own.waiting[0])
		own.waiting = slices.Delete(own.waiting, 0, 1)
		return
	}
	if own.running--; own.running == 0 {
		delete(s.ofs, id)
	}
}

func crowded() error {
	return &problem.Problem{
		Status: http.StatusTooManyRequests, Code: "too_many_calls", Message: "The connection has as many calls under way as it may.",
		Retryable: true, Action: "retry", RetryAfter: time.Second,
	}
}
