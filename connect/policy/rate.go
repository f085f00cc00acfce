package policy

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Rate is a number of calls in a time. The zero value limits nothing.
type Rate struct {
	Calls int
	Per   time.Duration
}

// ParseRate reads a rate as it is written in limits: `<calls>/<time>`, such as
// `100/1m` or `5/s`. Times are from 1s to 24h, calls from 1 to a million.
func ParseRate(text string) (Rate, error) {
	calls, per, ok := strings.Cut(text, "/")
	n, err := strconv.Atoi(calls)
	if !ok || err != nil || n < 1 || n > 1e6 {
		return Rate{}, fmt.Errorf("%q is not a rate such as 100/1m", text)
	}
	if per != "" && (per[0] < '0' || per[0] > '9') {
		per = "1" + per
	}
	d, err := time.ParseDuration(per)
	if err != nil || d < time.Second || d > maxRateTime {
		return Rate{}, fmt.Errorf("%q: the time of a rate is from 1s to 24h", text)
	}
	return Rate{n, d}, nil
}

// Bucket counts the calls of one caller against a rate: as many as the rate has
// may come at once, and each makes room again after its share of the time. It is
// the generic cell rate algorithm, one atomic number and no lock. The zero value
// is full.
type Bucket struct {
	// due is when the bucket is full again, in nanoseconds since epoch.
	due atomic.Int64
}

// epoch makes the bucket's clock a monotonic one.
var epoch = time.Now()

// Take counts a call, or says how long to wait for there to be room for it.
func (b *Bucket) Take(r Rate, now time.Time) (wait time.Duration, ok bool) {
	if r.Calls == 0 {
		return 0, true
	}
	each := int64(r.Per) / int64(r.Calls)
	present := int64(now.Sub(epoch))
	for {
		due := b.due.Load()
		next := max(due, present) + each
		if over := next - present - each*int64(r.Calls); over > 0 {
			return time.Duration(over), false
		}
		if b.due.CompareAndSwap(due, next) {
			return 0, true
		}
	}
}
