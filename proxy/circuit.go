package proxy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keycaddy/keycaddy/connect/problem"
)

const (
	// MaxCircuit is the most failures in a row that a circuit can be set to.
	MaxCircuit = 10_000
	// circuitPause is how long no call is made to a host whose circuit is open,
	// but for one to try it.
	circuitPause = 10 * time.Second
)

// circuits keep calls from hosts that can't be reached: each would wait for a
// time-out and hold what others need. What counts are attempts without an answer;
// an answer of whatever status shows that the host is there.
type circuits struct {
	limit int32
	hosts sync.Map // host → *circuit, of those that were not reached last
}

type circuit struct {
	failures atomic.Int32 // in a row
	until    atomic.Int64 // when the next call may try it, in nanoseconds since 1970; 0: it is closed
}

// allow tells whether a call may be made to a host. Errors: *problem.Problem.
func (c *circuits) allow(host string, now time.Time) error {
	found, ok := c.hosts.Load(host)
	if !ok {
		return nil
	}
	of := found.(*circuit)
	until := of.until.Load()
	if until == 0 {
		return nil
	}
	if wait := time.Unix(0, until).Sub(now); wait > 0 || !of.until.CompareAndSwap(until, now.Add(circuitPause).UnixNano()) {
		return &problem.Problem{
			Status: http.StatusServiceUnavailable, Code: "upstream_down", Message: "The provider could not be reached several times in a row, and is left alone for a moment.",
			Retryable: true, Action: "retry", RetryAfter: max(wait, time.Second),
		}
	}
	return nil // this one tries it
}

func (c *circuits) reached(host string) {
	if _, ok := c.hosts.Load(host); ok {
		c.hosts.Delete(host)
	}
}

func (c *circuits) failed(host string, now time.Time) {
	found, ok := c.hosts.Load(host)
	if !ok {
		found, _ = c.hosts.LoadOrStore(host, new(circuit))
	}
	if of := found.(*circuit); of.failures.Add(1) >= c.limit {
		of.until.Store(now.Add(circuitPause).UnixNano())
	}
}
