package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
)

type callerKey struct{}

// app lets apps through whose key has the scope, and is not limited to some
// connections. Further scopes that only part of a call needs are asked for with
// may.
func (a *API) app(scope policy.Scope, h handler) handler {
	return a.limited(scope, func(w http.ResponseWriter, r *http.Request) error {
		if l := limits(r); l.Narrow() {
			return outOfReach("it is good for some connections or calls only, which this call is not about")
		}
		return h(w, r)
	})
}

// limited is app for calls that see to their caller's limits themselves.
func (a *API) limited(scope policy.Scope, h handler) handler {
	h = checked(h)
	return func(w http.ResponseWriter, r *http.Request) error {
		if a.Trusted {
			return h(w, r)
		}
		caller, err := a.known(r, scope)
		if err != nil {
			return err
		}
		return h(w, withCaller(r, caller))
	}
}

// appOrSession lets apps through, and visitors with a connect session.
func (a *API) appOrSession(scope policy.Scope, h handler) handler {
	app, visitor := a.limited(scope, h), checked(h)
	return func(w http.ResponseWriter, r *http.Request) error {
		if strings.Contains(r.Header.Get("Authorization"), connect.SessionPrefix) {
			return visitor(w, r)
		}
		return app(w, r)
	}
}

// known returns who calls, if it has the scope and calls no faster than it may.
func (a *API) known(r *http.Request, scope policy.Scope) (*connect.Caller, error) {
	now := time.Now()
	caller := callerOf(r)
	if caller == nil {
		var err error
		if caller, err = a.Callers.Who(r, now); err != nil {
			return nil, err
		}
	}
	if err := caller.Needs(scope); err != nil {
		return nil, err
	}
	return caller, caller.Count(now)
}

// As is a request of a caller who has proved itself before, as at the console's
// door.
func As(r *http.Request, c *connect.Caller) *http.Request { return withCaller(r, c) }

// Caller is whom As has said that a request is of, or nil.
func Caller(r *http.Request) *connect.Caller { return callerOf(r) }

func withCaller(r *http.Request, c *connect.Caller) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

// callerOf is who makes a call, or nil if it is trusted or a visitor's.
func callerOf(r *http.Request) *connect.Caller {
	c, _ := r.Context().Value(callerKey{}).(*connect.Caller)
	return c
}

// may returns a *policy.ScopeError if the caller, whom app has let through, has
// not this scope too.
func (a *API) may(r *http.Request, scope policy.Scope) error {
	if a.Trusted {
		return nil
	}
	c := callerOf(r)
	if c == nil {
		return &policy.ScopeError{Required: scope} // a visitor
	}
	// With the credential itself every call could be made, and with an
	// integration's client every connection renewed.
	l := c.Rules.Limits()
	if scope == policy.ConnectionsReadCredentials && len(l.Calls) > 0 || scope == policy.IntegrationsReadCredentials && l.Narrow() {
		return outOfReach("it may not read credentials")
	}
	return c.Needs(scope)
}
