package egress

import (
	"context"
	"io"
	"net/http"
	"time"
)

// awakeTicks is in how many parts a timeout is counted.
const awakeTicks = 20

// awake bounds requests by the time that the process was awake. One that was
// stopped (a virtual machine that was moved, a container that was frozen) would
// by the clock be over when the process wakes up, and the answer that has come
// meanwhile would be dropped, with a refresh token in it that the provider gives
// out once.
type awake struct {
	next    http.RoundTripper
	timeout time.Duration
	tick    func(time.Duration) (ticks <-chan time.Time, stop func())
}

func newTicker(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// RoundTrip fails with context.DeadlineExceeded if the answer isn't there, body
// and all, in time.
func (a *awake) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	go a.count(ctx, cancel)
	res, err := a.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	res.Body = &timedBody{res.Body, ctx, cancel}
	return res, nil
}

// count cancels the request after as many ticks as the timeout has: a ticker
// drops those that nobody was awake for.
func (a *awake) count(ctx context.Context, cancel context.CancelCauseFunc) {
	ticks, stop := a.tick(a.timeout / awakeTicks)
	defer stop()
	for range awakeTicks {
		select {
		case <-ticks:
		case <-ctx.Done():
			return
		}
	}
	cancel(context.DeadlineExceeded)
}

// timedBody ends the count with the body.
type timedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && context.Cause(b.ctx) == context.DeadlineExceeded {
		err = context.DeadlineExceeded
	}
	return n, err
}

func (b *timedBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
