package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

type callerKey struct{}

// app lets apps through whose key has the scope. Further scopes that only part
// of a call needs are asked for with may.
func (a *API) app(scope policy.Scope, h handler) handler {
	h = checked(h)
	return func(w http.ResponseWriter, r *http.Request) error {
		if a.Trusted {
			return h(w, r)
		}
		key, err := a.Keys.Check(r.Header.Get("Authorization"))
		if err != nil {
			return err
		}
		if err := key.Needs(scope); err != nil {
			return err
		}
		if len(key.Integrations) > 0 {
			return &problem.Problem{Status: http.StatusForbidden, Code: "forbidden", Message: "This API key is for the proxy only.", Action: "fix_request"}
		}
		return h(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, key)))
	}
}

// appOrSession lets apps through, and visitors with a connect session.
func (a *API) appOrSession(scope policy.Scope, h handler) handler {
	app, visitor := a.app(scope, h), checked(h)
	return func(w http.ResponseWriter, r *http.Request) error {
		if strings.Contains(r.Header.Get("Authorization"), connect.SessionPrefix) {
			return visitor(w, r)
		}
		return app(w, r)
	}
}

// may returns a *policy.ScopeError if the caller, whom app has let through, has
// not this scope too.
func (a *API) may(r *http.Request, scope policy.Scope) error {
	if a.Trusted {
		return nil
	}
	key, ok := r.Context().Value(callerKey{}).(connect.APIKey)
	if !ok {
		return &policy.ScopeError{Required: scope} // a visitor
	}
	return key.Needs(scope)
}
