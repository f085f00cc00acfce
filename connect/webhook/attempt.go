package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/keycaddy/keycaddy/connect"
)

const (
	// backoffMin is the wait after the first failed attempt; it doubles with
	// each, up to backoffMax.
	backoffMin, backoffMax = 5 * time.Second, 6 * time.Hour
	// After so many failures in a row an endpoint is left alone for pauseMin,
	// twice as long with each further one, up to pauseMax; then one delivery
	// tries whether it is back.
	circuitAfter       = 5
	pauseMin, pauseMax = 30 * time.Second, 15 * time.Minute
	// retryAfterMax bounds what an endpoint may ask for.
	retryAfterMax = 24 * time.Hour
	// maxError bounds what is kept of an error, in characters.
	maxError = 200
)

// outcome is what came of an attempt.
type outcome struct {
	status     int
	err        string
	retryAfter time.Duration
}

func (o outcome) ok() bool { return o.status >= 200 && o.status < 300 }

// backoff is the wait after a number of attempts, give or take a fifth, so that
// deliveries that failed together don't come back together.
func backoff(attempts int) time.Duration {
	d := min(backoffMin<<min(attempts-1, 20), backoffMax)
	return d - d/5 + rand.N(2*d/5)
}

// pauseAfter is how long an endpoint is left alone after a number of failures in
// a row.
func pauseAfter(failures int) time.Duration {
	if failures < circuitAfter {
		return 0
	}
	d := min(pauseMin<<min(failures-circuitAfter, 20), pauseMax)
	return d - rand.N(d/5)
}

// attempt posts an event to an endpoint, once.
func (s *Sender) attempt(ctx context.Context, c *Config, e *connect.Endpoint, d *connect.Delivery) outcome {
	to, secrets, ok := c.find(e)
	switch {
	case !ok:
		return outcome{err: "the endpoint is not configured any more"}
	case len(secrets) == 0:
		return outcome{err: "there is no secret to sign it with: webhook_secret is not set"}
	}
	body, err := c.Payload(&d.Event)
	if err != nil {
		return outcome{err: "the event can't be written as JSON"}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return outcome{err: "the endpoint's address is not one"}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "keycaddy")
	req.Header.Set("Keycaddy-Event", string(d.Event.Kind))
	sign(req.Header, d.Event.ID, time.Now(), body, secrets)
	res, err := c.Client.Do(req)
	if err != nil {
		return outcome{err: told(err)}
	}
	defer res.Body.Close()
	// So that the connection can be used again; what is said is nobody's.
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
	o := outcome{status: res.StatusCode}
	if !o.ok() {
		o.err = fmt.Sprintf("answered with %d", res.StatusCode)
		o.retryAfter = retryAfter(res.Header.Get("Retry-After"), time.Now())
	}
	return o
}

// told is an error without the address, which may have a secret in its query.
func told(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	n := 0
	return strings.Map(func(r rune) rune { // a certificate's names are the other side's words
		if n++; n > maxError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, err.Error())
}

// retryAfter reads how long to wait (RFC 9110 section 10.2.3); 0: not said.
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, retryAfterMax)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), retryAfterMax)
	}
	return 0
}
