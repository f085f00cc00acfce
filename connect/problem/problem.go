// Package problem is where errors end: it says, for every error that keycaddy
// can have, what the caller is told. The JSON is the shape of Nango's API,
// {"error": {"code", "message"}}, with the members of RFC 9457 that help a
// caller beside it, and the header Keycaddy-Error tells keycaddy's own answers
// from a provider's.
//
// It may import connect, connect/scheme, vault and the standard library. Errors
// that other packages make bring their own Problem.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// Header names the code of the error on answers that are keycaddy's own.
const Header = "Keycaddy-Error"

// Unavailable is the code of errors that go away when store and vault are back.
const Unavailable = "unavailable"

// Problem is an error as the caller gets it.
type Problem struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
	// Errors name the fields of the request that won't do.
	Errors []Field `json:"errors,omitempty"`
	// Retryable says that the same request may succeed later.
	Retryable bool `json:"retryable"`
	// Action says who has to do what: reconnect, fix_request, fix_integration,
	// retry, contact_operator.
	Action string `json:"action,omitempty"`
	// Payload is what else Nango's answers have there.
	Payload any `json:"payload,omitempty"`
	// RequestID finds the request in the logs.
	RequestID string `json:"request_id,omitempty"`
	// RetryAfter is how long to wait before trying again.
	RetryAfter time.Duration `json:"-"`
}

// Field is one thing in a request that won't do. Code and Path are as in
// Nango's answers.
type Field struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Path    []string `json:"path"`
}

// Error makes a Problem an error, so that handlers can return one.
func (p *Problem) Error() string {
	if p.Message == "" {
		return p.Code
	}
	return p.Code + ": " + p.Message
}

// Coder is an error that knows what the caller is told.
type Coder interface{ Problem() *Problem }

// Invalid is a request with fields that won't do. What names the part of the
// request: body, query_params, headers, uri_params.
func Invalid(what string, fields ...Field) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "invalid_" + what, Errors: fields, Action: "fix_request"}
}

// Of finds what the caller is told of an error. What isn't known is a
// server_error without a message: the logs have it.
func Of(err error) *Problem {
	var (
		own     *Problem
		coder   Coder
		unknown *connect.UnknownIntegrationError
		reauth  *connect.NeedsReauthError
		off     *connect.DisabledError
		busy    *connect.BusyError
		fields  scheme.FieldErrors
		token   *scheme.TokenError
		verify  *connect.VerifyError
		auth    *connect.AuthError
		body    *scheme.BodyError
		lookup  *scheme.LookupError
		scope   *policy.ScopeError
		call    *policy.CallError
		limit   *policy.LimitError
		rate    *connect.RateError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &coder):
		return coder.Problem()
	case errors.As(err, &auth):
		return &Problem{Status: http.StatusUnauthorized, Code: auth.Code, Message: auth.Message, Action: "fix_request", Payload: struct{}{}}
	case errors.As(err, &scope):
		return &Problem{Status: http.StatusForbidden, Code: "forbidden", Message: "Insufficient scope. Required: " + string(scope.Required), Action: "fix_request"}
	case errors.As(err, &call):
		return &Problem{Status: http.StatusForbidden, Code: "forbidden", Message: "The caller may not make this call: " + call.Reason + ".", Action: "fix_request"}
	case errors.As(err, &limit):
		return Invalid("body", Field{Code: "custom", Message: limit.Reason, Path: []string{"limits", limit.Limit}})
	case errors.As(err, &rate):
		return &Problem{Status: http.StatusTooManyRequests, Code: "too_many_request", Message: "The caller makes calls faster than it may.", Retryable: true, Action: "retry", RetryAfter: rate.RetryAfter}
	case errors.As(err, &unknown):
		return &Problem{Status: http.StatusNotFound, Code: "unknown_provider_config", Message: "Integration \"" + unknown.Key + "\" does not exist", Action: "fix_request"}
	case errors.As(err, &reauth):
		return &Problem{Status: http.StatusFailedDependency, Code: "needs_reauth", Message: "The provider has refused this connection's credential (" + reauth.Cause + "). Its user has to connect again.", Action: "reconnect"}
	case errors.As(err, &off):
		return &Problem{Status: http.StatusForbidden, Code: "connection_disabled", Message: "This connection is switched off.", Action: "contact_operator"}
	case errors.As(err, &busy):
		return &Problem{Status: http.StatusServiceUnavailable, Code: "renewal_waits", Message: "This connection's credential can't be renewed just yet: " + busy.Reason + ".", Retryable: true, Action: "retry", RetryAfter: busy.RetryAfter}
	case errors.As(err, &fields):
		p := Invalid("body")
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			p.Errors = append(p.Errors, Field{Code: "custom", Message: fields[name], Path: []string{name}})
		}
		return p
	case errors.As(err, &verify):
		if verify.Status == 0 {
			return &Problem{Status: http.StatusBadGateway, Code: "connection_test_unreachable", Message: "The provider could not be asked whether it accepts the credential. Nothing was stored.", Retryable: true, Action: "retry"}
		}
		return &Problem{Status: http.StatusBadRequest, Code: "connection_test_failed", Message: "The provider has refused the credential (status " + strconv.Itoa(verify.Status) + "). Nothing was stored.", Action: "fix_request"}
	case errors.As(err, &token):
		return ofToken(token)
	case errors.As(err, &lookup):
		return &Problem{Status: http.StatusBadGateway, Code: "lookup_failed", Message: "The provider has accepted the credential, but did not tell what is needed to use it (" + lookup.Error() + "). Nothing was stored.", Retryable: true, Action: "retry"}
	case errors.As(err, &body):
		p := &Problem{Status: http.StatusBadRequest, Code: "unsuitable_body", Message: "The request can't be given its credential: " + body.Reason + ".", Action: "fix_request"}
		if body.TooLarge {
			p.Status, p.Code = http.StatusRequestEntityTooLarge, "body_not_held"
		}
		return p
	case errors.Is(err, connect.ErrFutile):
		return &Problem{Status: http.StatusServiceUnavailable, Code: "renewal_paused", Message: "The provider refused the last renewed credential too, so that renewing it again has to wait.", Retryable: true, Action: "retry"}
	case errors.Is(err, connect.ErrSessionExpired):
		return &Problem{Status: http.StatusUnauthorized, Code: "unknown_connect_session_token", Message: "The connect session is unknown or has expired.", Action: "fix_request", Payload: struct{}{}}
	case errors.Is(err, connect.ErrNotAllowed):
		return &Problem{Status: http.StatusBadRequest, Code: "integration_not_allowed", Message: "The connect session is not for this integration.", Action: "fix_request"}
	case errors.Is(err, connect.ErrOtherAccount):
		return &Problem{Status: http.StatusConflict, Code: "other_account", Message: "This is another account than the one that the connection is of. Nothing was changed. Sign in with the same account, or let it be changed with allow_account_change.", Action: "reconnect"}
	case errors.Is(err, connect.ErrAccountUnknown):
		return &Problem{Status: http.StatusConflict, Code: "account_unknown", Message: "The provider did not tell whose account this is, so that it can't be made sure that it is the one that the connection is of. Nothing was changed.", Retryable: true, Action: "retry"}
	case errors.Is(err, connect.ErrNotFound):
		return &Problem{Status: http.StatusNotFound, Code: "unknown_connection", Message: "There is no such connection.", Action: "fix_request"}
	case errors.Is(err, vault.ErrUnavailable), errors.Is(err, connect.ErrStoreUnavailable):
		return &Problem{Status: http.StatusServiceUnavailable, Code: Unavailable, Message: "keycaddy can't reach what it stores things in just now.", Retryable: true, Action: "retry", RetryAfter: 5 * time.Second}
	case errors.Is(err, vault.ErrCorrupt), errors.Is(err, vault.ErrNotFound):
		return &Problem{Status: http.StatusFailedDependency, Code: "credential_missing", Message: "This connection's credential can't be read from the vault. Its user has to connect again, or the operator has to restore it.", Action: "contact_operator"}
	case errors.Is(err, egress.ErrRefused):
		return &Problem{Status: http.StatusForbidden, Code: "refused_address", Message: "The provider's address is not one that keycaddy may connect to. The operator can open it with egress allow.", Action: "contact_operator"}
	case errors.Is(err, context.DeadlineExceeded):
		return &Problem{Status: http.StatusGatewayTimeout, Code: "timeout", Message: "It took too long.", Retryable: true, Action: "retry"}
	}
	return &Problem{Status: http.StatusInternalServerError, Code: "server_error", Message: "Something went wrong in keycaddy; its log says what.", Action: "contact_operator"}
}

func ofToken(e *scheme.TokenError) *Problem {
	p := &Problem{Status: http.StatusBadGateway, Code: "refresh_token_external_error", Message: "The provider did not issue a token (" + e.Code + ").", Retryable: true, Action: "retry", RetryAfter: e.RetryAfter}
	switch e.Class {
	case scheme.Revoked:
		p.Status, p.Code, p.Retryable, p.Action = http.StatusFailedDependency, "needs_reauth", false, "reconnect"
	case scheme.Misconfigured:
		p.Status, p.Retryable, p.Action = http.StatusFailedDependency, false, "fix_integration"
	}
	return p
}

// Write sends the problem. The request's id, if it has one, goes along.
func (p *Problem) Write(w http.ResponseWriter, requestID string) {
	out := *p
	out.RequestID = requestID
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(Header, p.Code)
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(p.Status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(struct {
		Error Problem `json:"error"`
	}{out})
}
