package proxy

import (
	"context"
	"hash/maphash"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keycaddy/keycaddy/connect/problem"
)

const (
	// MaxConcurrency is the highest number of calls at a time that a connection or
	// a caller can be held to.
	MaxConcurrency = 10_000
	// A call waits for its turn so long, behind so many others for each that may
	// be under way.
	turnWait      = 30 * time.Second
	waitingFactor = 10
)

// bulkheads bound how many calls a connection, or a caller, has under way, so that
// one whose provider is slow doesn't take up what all others need (S127). Those
// beyond wait in the order in which they came. Locks are shared by few of them.
type bulkheads[K comparable] struct {
	limit  int
	whose  string    // has as many calls as it may, as the answer says
	waits  func(int) // is told of calls that begin to wait, 1, and that end it, -1
	seed   maphash.Seed
	shards [64]bulkheadShard[K]
}

type bulkheadShard[K comparable] struct {
	mu  sync.Mutex
	ofs map[K]*bulkhead // those with calls under way
}

type bulkhead struct {
	running int
	waiting []chan struct{} // closed when it is its turn
}

func newBulkheads[K comparable](limit int, whose string, waits func(int)) *bulkheads[K] {
	b := &bulkheads[K]{limit: limit, whose: whose, waits: waits, seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].ofs = make(map[K]*bulkhead)
	}
	return b
}

func (b *bulkheads[K]) shard(id K) *bulkheadShard[K] {
	return &b.shards[maphash.Comparable(b.seed, id)%uint64(len(b.shards))]
}

// enter waits until another call may be made; leave has to follow if
// there is no error. Errors: *problem.Problem, and an *UpstreamError if the caller
// goes away.
func (b *bulkheads[K]) enter(ctx context.Context, id K) error {
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
		return b.crowded()
	}
	turn := make(chan struct{})
	own.waiting = append(own.waiting, turn)
	s.mu.Unlock()
	b.waits(1)
	defer b.waits(-1)

	late := time.NewTimer(turnWait)
	defer late.Stop()
	var err error
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = &UpstreamError{Err: ctx.Err()}
	case <-late.C:
		err = b.crowded()
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
func (b *bulkheads[K]) leave(id K) {
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

func (b *bulkheads[K]) crowded() error {
	return &problem.Problem{
		Status: http.StatusTooManyRequests, Code: "too_many_calls", Message: b.whose + " has as many calls under way as it may.",
		Retryable: true, Action: "retry", RetryAfter: time.Second,
	}
}
