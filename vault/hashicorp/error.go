package hashicorp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keycaddy/keycaddy/vault"
)

// ErrReadOnly says that this node is set up to read only. Nothing was written,
// and the same call can't ever succeed.
var ErrReadOnly = errors.New("hashicorp: this node may only read (read_only is set)")

// PermissionError says that Vault knows the token and refuses it the path
// (403). It concerns this path only: calls for others go on. It wraps
// vault.ErrUnavailable, for the policy may be mended at any time.
type PermissionError struct {
	// Path is the path without its last segment, which tells connections
	// apart, in the form that policies have it: secret/data/keycaddy/*.
	Path string
	// Capability is what the policy has to grant there.
	Capability string
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("vault: permission denied: the policy of keycaddy's token must grant %q on %q", e.Capability, e.Path)
}

// Unwrap returns vault.ErrUnavailable.
func (e *PermissionError) Unwrap() error { return vault.ErrUnavailable }

// LoginError says that Vault refuses the login itself, or that there is nothing
// to log in with. It wraps
// vault.ErrUnavailable: the next call tries again, after a while.
type LoginError struct {
	Method string // token, AppRole or Kubernetes
	Reason string // what Vault says and what to do
}

func (e *LoginError) Error() string { return "vault: " + e.Method + " login failed: " + e.Reason }

// Unwrap returns vault.ErrUnavailable.
func (e *LoginError) Unwrap() error { return vault.ErrUnavailable }

// StatusError says that Vault can't do just now what it was asked to, or gave
// an answer that makes no sense. It wraps vault.ErrUnavailable.
type StatusError struct {
	Status int    // of HTTP
	Reason string // what is the matter and what to do
	// RetryAfter is how long Vault asks to wait; 0: it doesn't say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	if e.RetryAfter > 0 {
		return fmt.Sprintf("vault: %s (status %d, retry after %s)", e.Reason, e.Status, e.RetryAfter)
	}
	return fmt.Sprintf("vault: %s (status %d)", e.Reason, e.Status)
}

// Unwrap returns vault.ErrUnavailable.
func (e *StatusError) Unwrap() error { return vault.ErrUnavailable }

// Outage tells whether the error is of Vault as a whole and passes by itself, as
// opposed to one path, a wrong login or a wrong configuration.
func Outage(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		switch status.Status {
		case 472, 473, http.StatusNotImplemented, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	var network *networkError
	return errors.As(err, &network)
}

// networkError says that there was no answer. It doesn't unwrap to the cause,
// which may be a deadline of our own that callers would take for theirs.
type networkError struct{ reason string }

func (e *networkError) Error() string { return "vault: " + e.reason }

func (e *networkError) Unwrap() error { return vault.ErrUnavailable }

// failed makes an error of a request that got no answer. The client's own
// errors carry the whole address, so only their cause is kept.
func failed(err error, timeout time.Duration) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &networkError{fmt.Sprintf("no answer within %s", timeout)}
	}
	return &networkError{"can't be reached: " + err.Error()}
}

// answer is what Vault has answered.
type answer struct {
	status     int
	body       []byte
	retryAfter time.Duration
}

// errors are Vault's messages, shortened. They quote no values.
func (a *answer) errors() string {
	var body struct{ Errors []string }
	if json.Unmarshal(a.body, &body) != nil || len(body.Errors) == 0 {
		return ""
	}
	text := strings.Join(strings.Fields(strings.Join(body.Errors, "; ")), " ")
	return text[:min(len(text), 300)]
}

func (a *answer) says(part string) bool { return strings.Contains(string(a.body), part) }

// err makes an error of an answer that is none of the caller's business: see
// the page "HTTP API" of Vault's documentation, section "HTTP status codes".
func (a *answer) err() error {
	e := &StatusError{Status: a.status, RetryAfter: a.retryAfter}
	switch {
	case a.status == http.StatusNotFound && a.says("no handler for route"):
		e.Reason = "nothing is mounted there: " + a.errors()
	case a.status == http.StatusPreconditionFailed:
		e.Reason = "this node of Vault has not yet seen the latest write"
	case a.status == http.StatusTooManyRequests:
		e.Reason = "rate limit reached, or a standby node"
	case a.status == 472, a.status == 473:
		e.Reason = "a standby node that does not answer"
	case a.status == http.StatusNotImplemented:
		e.Reason = "not initialised: run `vault operator init`"
	case a.status == http.StatusServiceUnavailable && a.says("sealed"):
		e.Reason = "sealed: run `vault operator unseal`"
	case a.status == http.StatusServiceUnavailable:
		e.Reason = "down for maintenance"
	case a.status == http.StatusBadRequest && a.says("Upgrading from non-versioned"):
		e.Status, e.Reason = http.StatusServiceUnavailable, "the KV engine is being upgraded to version 2"
	default:
		e.Reason = "unexpected answer"
		if text := a.errors(); text != "" {
			e.Reason += ": " + text
		}
	}
	return e
}

// again tells whether the same request may succeed in a moment.
func again(err error) bool {
	var soon *tooSoonError
	if errors.As(err, &soon) {
		return false
	}
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status == http.StatusPreconditionFailed || status.Status == http.StatusTooManyRequests || status.Status >= 500 || Outage(err)
	}
	return Outage(err)
}

// read makes an answer of what the client returns. It closes the body.
func read(res *api.Response, err error, timeout time.Duration) (*answer, error) {
	if res == nil {
		if err == nil {
			err = errors.New("no answer")
		}
		return nil, failed(err, timeout)
	}
	defer res.Body.Close()
	a := &answer{status: res.StatusCode}
	if a.body, err = readBody(res.Body); err != nil {
		return nil, failed(err, timeout)
	}
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
		a.retryAfter = min(time.Duration(seconds)*time.Second, time.Hour)
	}
	return a, nil
}

// refusal is the answer in an error of the client's, if there is one.
func refusal(err error) (*answer, bool) {
	var refused *api.ResponseError
	if !errors.As(err, &refused) {
		return &answer{status: http.StatusNoContent}, false
	}
	body, _ := json.Marshal(map[string]any{"errors": refused.Errors}) // of texts, which can't fail
	return &answer{status: refused.StatusCode, body: body}, true
}
