package connect

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/keycaddy/keycaddy/connect/policy"
)

// Caller is who makes a call, and what it may do.
type Caller struct {
	// Name is that of its API key, or how it has proved itself otherwise.
	Name   string
	Scopes policy.Scopes
	Rules  *policy.Rules

	*usage
}

// usage is what outlives that a caller's key is read again.
type usage struct {
	bucket policy.Bucket
	// used is when it has called last, in microseconds since 1970, to within
	// usePrecision; noted is what of it the store has.
	used, noted atomic.Int64
}

// usePrecision is how exactly it is known when a key was used last. Calls that
// come sooner write nothing, not even to memory that others read.
const usePrecision = time.Minute

// Callers knows who makes a request.
type Callers interface {
	// Who returns who makes a request, or an *AuthError.
	Who(r *http.Request, now time.Time) (*Caller, error)
}

// NewCaller makes a caller of what it was given; limits that can't be read let
// nothing through.
func NewCaller(name string, scopes policy.Scopes, limits policy.Limits) *Caller {
	rules, err := limits.Compile()
	if err != nil {
		rules = policy.Nothing
	}
	return &Caller{Name: name, Scopes: scopes, Rules: rules, usage: new(usage)}
}

// Needs returns a *policy.ScopeError if the caller has not the scope.
func (c *Caller) Needs(scope policy.Scope) error {
	if !c.Scopes.Has(scope) {
		return &policy.ScopeError{Required: scope}
	}
	return nil
}

// Count counts a call. Errors: *RateError.
func (c *Caller) Count(now time.Time) error {
	if wait, ok := c.bucket.Take(c.Rules.Rate(), now); !ok {
		return &RateError{wait}
	}
	return nil
}

// RateError is a call that came before there was room for it.
type RateError struct{ RetryAfter time.Duration }

func (e *RateError) Error() string { return "the caller's rate is used up" }

// Reaches tells whether the caller may have to do with a connection.
func (c *Caller) Reaches(conn *Connection) bool {
	return c.Rules.Reaches(&policy.Subject{Integration: conn.Integration, Connection: conn.ID.Connection, EndUser: conn.UserID(), Tags: conn.Tags})
}
