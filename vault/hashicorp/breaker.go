package hashicorp

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	tripAfter   = 3                      // failures in a row
	firstPause  = 250 * time.Millisecond // after which one call tries whether Vault is back
	longest     = 5 * time.Second        // of these pauses
	maxLoginGap = 15 * time.Second       // between two logins that fail
)

// breaker lets calls fail at once while Vault is down, so that they don't pile
// up. Its zero value lets all through.
type breaker struct {
	mu       sync.Mutex
	failures int
	until    time.Time
	trying   bool
	last     error
}

// enter returns an error if the call has to fail at once. Otherwise the caller
// has to call leave.
func (b *breaker) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < tripAfter {
		return nil
	}
	if b.trying || time.Now().Before(b.until) {
		return &tooSoonError{b.last}
	}
	b.trying = true
	return nil
}

// leave records how the call went. An error that isn't an outage counts as an
// answer; known is false if the call was given up before there was any.
func (b *breaker) leave(err error, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	switch {
	case !known:
	case !Outage(err):
		b.failures = 0
	default:
		b.failures++
		b.last = err
		b.until = time.Now().Add(pause(b.failures-tripAfter, firstPause, longest))
	}
}

// tooSoonError is an error that was met a moment ago.
type tooSoonError struct{ last error }

func (e *tooSoonError) Error() string {
	return e.last.Error() + " (a moment ago; not asked again so soon)"
}

func (e *tooSoonError) Unwrap() error { return e.last }

// pause is first, doubled n times, longest at the most, and shortened by chance
// so that the nodes of a cluster don't come all at once.
func pause(n int, first, longest time.Duration) time.Duration {
	d := longest
	if n < 10 {
		d = min(first<<max(n, 0), longest)
	}
	return d/2 + rand.N(d/2+1)
}
