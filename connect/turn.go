package connect

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

const (
	// turnWait is how long somebody who waits for a credential may have to wait
	// for a turn at the token endpoint; who would have to wait for longer is
	// told so at once.
	turnWait = time.Minute
	// maxTurns is how many turns a renewal lets pass.
	maxTurns = 5
	// openAfter is how many token calls in a row have to fail at one host until
	// all of its connections are held back, and hold how long at first and at
	// most.
	openAfter          = 5
	holdMin, holdMax   = time.Second, 2 * time.Minute
	retryAfterAtTheMax = 10 * time.Minute
)

// errMadeWay says that an early renewal was put off since others are waiting
// for the same token endpoint.
var errMadeWay = errors.New("connect: an early renewal makes way for others")

// endpoint names what the calls of a token endpoint are paced by.
func endpoint(in *Integration, g scheme.Grant) string {
	if host := in.Scheme.TokenHost(g); host != "" {
		return "token/" + host
	}
	return "token/" + in.Key
}

// spacing is the time between two token calls of all processes together; 0:
// there is no rate. It is a tenth more than the rate needs, since not all calls
// take the same time from their turn to the provider.
func (in *Integration) spacing() time.Duration {
	if in.TokenRate <= 0 {
		return 0
	}
	return time.Duration(1.1 * float64(time.Second) / in.TokenRate)
}

// turn waits until the token endpoint may be asked: processes share the rate
// that its integration allows, and the pause that the provider has asked for
// (S76, S79). Early renewals don't wait: there is time for them later. It
// returns when the turn is over; the zero time: never.
func (r *Refresher) turn(ctx context.Context, id ID, in *Integration, g scheme.Grant, early bool) (over time.Time, err error) {
	spacing := in.spacing()
	within := turnWait
	if early {
		within = 0
	}
	wait, ok, err := r.Store.Turn(ctx, endpoint(in, g), spacing, within)
	switch {
	case err != nil:
		return time.Time{}, err
	case !ok && early:
		return time.Time{}, errMadeWay
	case !ok:
		return time.Time{}, &BusyError{ID: id, RetryAfter: wait, Reason: "its provider's token endpoint is asked too much, or asked to be left alone"}
	}
	if spacing > 0 {
		over = time.Now().Add(wait + spacing)
	}
	if wait <= 0 {
		return over, nil
	}
	select {
	case <-time.After(wait):
		return over, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// tokenAnswered notes how a token call has ended: a provider that asks for a
// pause, or that has failed for several connections in a row, is left alone by
// all of them (S77).
func (r *Refresher) tokenAnswered(ctx context.Context, in *Integration, g scheme.Grant, err error) {
	name := endpoint(in, g)
	var te *scheme.TokenError
	if !errors.As(err, &te) || te.Class != scheme.Transient {
		r.troubles.Delete(name)
		return
	}
	t, _ := r.troubles.LoadOrStore(name, new(atomic.Int64))
	n := t.(*atomic.Int64).Add(1)
	var wait time.Duration
	switch {
	case te.RetryAfter > 0:
		wait = min(te.RetryAfter, retryAfterAtTheMax)
	case te.Code == "http_429" || te.Code == "http_503":
		wait = min(holdMin<<min(n-1, 10), holdMax)
	case n >= openAfter:
		wait = min(holdMin<<min(n-openAfter, 10), holdMax)
	default:
		return
	}
	r.Logger.Warn("leaving a token endpoint alone", zap.String("endpoint", name), zap.Duration("for", wait), zap.Int64("failures", n))
	if err := r.Store.Defer(ctx, name, wait); err != nil {
		r.Logger.Warn("telling others to leave a token endpoint alone", zap.String("endpoint", name), zap.Error(err))
	}
}
