package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/connect/problem"
)

const (
	// MaxRetries is how often a call is sent again at the most.
	MaxRetries = 10
	// maxRetryWait bounds all the waits of a call together. If a provider asks
	// for more, its answer goes to the caller at once.
	maxRetryWait = time.Minute
	// Without a word from the provider, waits get longer from the least on.
	retryWaitMin, retryWaitMax = 500 * time.Millisecond, 10 * time.Second
)

// retrying says whether and how often a call is sent again when the provider is
// too busy or can't be reached.
type retrying struct {
	left   int
	done   int
	waited time.Duration
	// asked says that the caller wants it, whatever the method; else only calls
	// that may be repeated are (RFC 9110 section 9.2.2).
	asked bool
	on    []int          // statuses besides the provider's own
	facts *catalog.Retry // how the provider tells; may be nil
}

// asksForRetries reads the headers Retries and Retry-On. It returns nil if the
// call isn't to be sent again. Errors: *problem.Problem.
func asksForRetries(h http.Header, byDefault int) (*retrying, error) {
	var bad []problem.Field
	if byDefault == 0 && h["Retries"] == nil && h["Retry-On"] == nil {
		return nil, nil
	}
	r := &retrying{left: byDefault}
	if v := h.Get("Retries"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			bad = append(bad, problem.Field{Code: "invalid_type", Message: "The header Retries is not a number", Path: []string{"retries"}})
		}
		r.left, r.asked = min(n, MaxRetries), n > 0
	}
	if v := h.Get("Retry-On"); v != "" {
		for s := range strings.SplitSeq(v, ",") {
			status, err := strconv.Atoi(strings.TrimSpace(s))
			if err != nil || status < 100 || status > 599 {
				bad = append(bad, problem.Field{Code: "invalid_format", Message: "The header Retry-On is not a list of statuses such as 500,503", Path: []string{"retry-on"}})
				break
			}
			r.on = append(r.on, status)
		}
	}
	if len(bad) > 0 {
		return nil, problem.Invalid("headers", bad...)
	}
	if r.left == 0 {
		return nil, nil
	}
	return r, nil
}

// repeatable tells whether sending a request twice does no more than sending it
// once: by its method, or because the provider is given a key to know it by.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != ""
}

// again tells whether a call that ended so is sent again, and waits until it is
// time. Res or err is nil.
func (r *retrying) again(ctx context.Context, req *http.Request, b body, res *http.Response, err error) bool {
	if r == nil || r.left == 0 || !b.replayable || !r.asked && !repeatable(req) || !r.worthwhile(res, err) {
		return false
	}
	wait := r.wait(res, time.Now())
	if r.waited += wait; r.waited > maxRetryWait {
		return false
	}
	r.left--
	r.done++
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

// worthwhile tells whether another attempt may end in another way.
func (r *retrying) worthwhile(res *http.Response, err error) bool {
	if err != nil {
		return unreached(err)
	}
	if res.StatusCode < 400 || res.StatusCode == http.StatusUnauthorized {
		return slices.Contains(r.on, res.StatusCode) // a 401 is for renewing, not for waiting
	}
	return slices.Contains(r.on, res.StatusCode) || r.facts.Limited(res.StatusCode) ||
		r.facts != nil && r.facts.RemainingHeader != "" && res.Header.Get(r.facts.RemainingHeader) == "0"
}

// unreached tells whether an attempt has failed because of the provider or the
// way to it.
func unreached(err error) bool {
	var own problem.Coder // a body that broke off, a connection that needs its user
	return !errors.Is(err, context.Canceled) && !errors.Is(err, egress.ErrRefused) && !errors.As(err, &own)
}

// wait is how long to wait: as long as the provider asks for, or longer each
// time, with jitter so that calls that failed together don't come back together.
func (r *retrying) wait(res *http.Response, now time.Time) time.Duration {
	var asked time.Duration
	if res != nil {
		if d, ok := retryAfter(res.Header.Get("Retry-After"), now); ok {
			asked = d
		}
		if r.facts != nil {
			for _, name := range r.facts.AfterHeaders {
				if d, ok := retryAfter(res.Header.Get(name), now); ok {
					asked = max(asked, d)
				}
			}
			for _, name := range r.facts.AtHeaders {
				if at, ok := moment(res.Header.Get(name)); ok {
					asked = max(asked, at.Sub(now))
				}
			}
		}
	}
	if asked > 0 {
		return asked + rand.N(asked/10+1)
	}
	d := min(retryWaitMin<<min(r.done, MaxRetries), retryWaitMax)
	return d/2 + rand.N(d/2)
}

// retryAfter reads seconds, or a date (RFC 9110 section 10.2.3).
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	if s, err := strconv.ParseFloat(v, 64); err == nil && s >= 0 && s < 1e9 {
		return time.Duration(s * float64(time.Second)), true
	}
	at, err := http.ParseTime(v)
	return max(0, at.Sub(now)), err == nil
}

// moment reads seconds or milliseconds since 1970, or a date.
func moment(v string) (time.Time, bool) {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		if n > 1e11 {
			return time.UnixMilli(n), true
		}
		return time.Unix(n, 0), true
	}
	for _, layout := range []string{http.TimeFormat, time.RFC3339, time.RFC850, time.ANSIC} {
		if at, err := time.Parse(layout, v); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
