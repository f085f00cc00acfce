package connect

import "time"

// setbacks are what has gone wrong with a connection's renewals.
type setbacks struct {
	failures    int       // failed renewals in a row
	retryAt     time.Time // no renewal before
	lastErr     error
	futile      int // renewals in a row that did not help
	futileUntil time.Time
	refused     *Bound // the renewed credential that was refused last
}

// setbacks returns those of the entry, to be added to. Its lock has to be held.
func (e *entry) setbacks() *setbacks {
	if e.past == nil {
		e.past = new(setbacks)
	}
	return e.past
}
