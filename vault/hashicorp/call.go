package hashicorp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"
)

// maxAnswer bounds an answer of Vault, in bytes: four values of vault.MaxValue.
const maxAnswer = 2 << 20

// maxAttempts is how often a request is sent in one call.
const maxAttempts = 4

// request is a request to Vault.
type request struct {
	method, path string // the path without /v1/
	body         any    // to be made JSON; nil: none
	capability   string // what the policy has to grant for it
	place        string // the path as PermissionError names it
}

// call sends the request until there is an answer that asking again can't
// improve, within the vault's timeout. Its errors wrap vault.ErrUnavailable, or
// are ctx's. An answer of 400 or 404 is the caller's to understand.
//
// unsure is true if an attempt before the last one may have had its effect
// although there was no answer to it, or a bad one.
func (v *Vault) call(ctx context.Context, r request) (a *answer, unsure bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	bounded, cancel := context.WithTimeout(ctx, v.config.Timeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		a, err = v.attempt(ctx, bounded, r)
		if err == nil || ctx.Err() != nil || attempt+1 == maxAttempts || !again(err) {
			break
		}
		wait := pause(attempt, 100*time.Millisecond, time.Second)
		if e, ok := err.(*StatusError); ok {
			wait = max(wait, e.RetryAfter)
		}
		if end, _ := bounded.Deadline(); time.Until(end) < wait {
			break
		}
		unsure = unsure || !refusedUnread(err)
		select {
		case <-time.After(wait):
		case <-bounded.Done():
		}
	}
	if ctx.Err() != nil && err != nil {
		return nil, unsure, fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return a, unsure, err
}

// refusedUnread tells whether Vault surely has done nothing.
func refusedUnread(err error) bool {
	e, ok := err.(*StatusError)
	if !ok {
		return false
	}
	switch e.Status {
	case http.StatusPreconditionFailed, http.StatusTooManyRequests, http.StatusNotImplemented, http.StatusServiceUnavailable, 472, 473:
		return true
	}
	return false
}

// attempt sends the request once, or a second time with a new token if Vault
// doesn't know the first any more.
func (v *Vault) attempt(callers, ctx context.Context, r request) (_ *answer, err error) {
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		return nil, &networkError{fmt.Sprintf("%d requests are under way, and none has come back within %s", maxCalls, v.config.Timeout)}
	}
	if err := v.breaker.enter(); err != nil {
		return nil, err
	}
	defer func() { v.breaker.leave(err, callers.Err() == nil) }()
	s, err := v.keeper.session(ctx, nil)
	if err != nil {
		return nil, err
	}
	a, err := send(ctx, s.client, r, v.config.Timeout)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusForbidden && v.keeper.refused(ctx, s, a) {
		if s, err = v.keeper.session(ctx, s); err != nil {
			return nil, err
		}
		if a, err = send(ctx, s.client, r, v.config.Timeout); err != nil {
			return nil, err
		}
	}
	switch {
	case a.status < 300, a.status == http.StatusBadRequest && !a.says("Upgrading from non-versioned"):
		return a, nil
	case a.status == http.StatusNotFound && !a.says("no handler for route"):
		return a, nil
	case a.status == http.StatusForbidden:
		return nil, &PermissionError{Path: r.place, Capability: r.capability}
	}
	return nil, a.err()
}

// send sends the request with the client's token. The error is of type
// networkError.
func send(ctx context.Context, client *api.Client, r request, timeout time.Duration) (*answer, error) {
	switch r.method {
	case http.MethodGet:
		res, err := client.Logical().ReadRawWithContext(ctx, r.path)
		return read(res, err, timeout)
	case http.MethodDelete:
		_, err := client.Logical().DeleteWithContext(ctx, r.path)
		if a, ok := refusal(err); ok || err == nil {
			return a, nil
		}
		return nil, failed(err, timeout)
	}
	body, err := json.Marshal(r.body)
	if err != nil {
		return nil, failed(err, timeout)
	}
	res, err := client.Logical().WriteRawWithContext(ctx, r.path, body)
	return read(res, err, timeout)
}

func readBody(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	}
	return body, err
}
