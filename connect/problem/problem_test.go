package problem_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/egress"
	. "github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

const canary = "canary-secret"

type coder struct{}

func (coder) Error() string     { return canary }
func (coder) Problem() *Problem { return &Problem{Status: 418, Code: "teapot"} }

func TestEveryErrorHasItsAnswer(t *testing.T) {
	id := connect.ID{Integration: "github", Connection: "ada"}
	token := func(c scheme.Class, code string) error {
		return &scheme.TokenError{Class: c, Code: code, Description: canary, RetryAfter: 90 * time.Second}
	}
	tests := map[string]struct {
		err       error
		status    int
		code      string
		action    string
		retryable bool
	}{
		"its own":                 {&Problem{Status: 409, Code: "x", Action: "y"}, 409, "x", "y", false},
		"coder":                   {coder{}, 418, "teapot", "", false},
		"no key":                  {&connect.AuthError{Code: "missing_auth_header", Message: "m"}, 401, "missing_auth_header", "fix_request", false},
		"unknown integration":     {&connect.UnknownIntegrationError{Key: "x"}, 404, "unknown_provider_config", "fix_request", false},
		"needs reauth":            {&connect.NeedsReauthError{ID: id, Cause: "invalid_grant"}, 424, "needs_reauth", "reconnect", false},
		"fields":                  {scheme.FieldErrors{"b": "x", "a": "y"}, 400, "invalid_body", "fix_request", false},
		"verification refused":    {&connect.VerifyError{Status: 401}, 400, "connection_test_failed", "fix_request", false},
		"verification impossible": {&connect.VerifyError{Cause: errors.New(canary)}, 502, "connection_test_unreachable", "retry", true},
		"verification's network":  {&connect.VerifyError{Cause: token(scheme.Transient, "timeout")}, 502, "connection_test_unreachable", "retry", true},
		"transient":               {token(scheme.Transient, "http_503"), 502, "refresh_token_external_error", "retry", true},
		"revoked":                 {token(scheme.Revoked, "invalid_grant"), 424, "needs_reauth", "reconnect", false},
		"misconfigured":           {token(scheme.Misconfigured, "invalid_client"), 424, "refresh_token_external_error", "fix_integration", false},
		"futile":                  {connect.ErrFutile, 503, "renewal_paused", "retry", true},
		"session":                 {connect.ErrSessionExpired, 401, "unknown_connect_session_token", "fix_request", false},
		"not allowed":             {connect.ErrNotAllowed, 400, "integration_not_allowed", "fix_request", false},
		"not found":               {connect.ErrNotFound, 404, "unknown_connection", "fix_request", false},
		"vault down":              {vault.ErrUnavailable, 503, "unavailable", "retry", true},
		"store down":              {connect.ErrStoreUnavailable, 503, "unavailable", "retry", true},
		"corrupt":                 {vault.ErrCorrupt, 424, "credential_missing", "contact_operator", false},
		"gone from the vault":     {vault.ErrNotFound, 424, "credential_missing", "contact_operator", false},
		"refused address":         {egress.ErrRefused, 403, "refused_address", "contact_operator", false},
		"deadline":                {context.DeadlineExceeded, 504, "timeout", "retry", true},
		"anything else":           {errors.New(canary), 500, "server_error", "contact_operator", false},
		"decoding":                {fmt.Errorf("decoding %s", canary), 500, "server_error", "contact_operator", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{test.err, fmt.Errorf("%s: %w", canary, test.err), errors.Join(errors.New(canary), test.err)} {
				p := Of(err)
				if p.Status != test.status || p.Code != test.code || p.Action != test.action || p.Retryable != test.retryable {
					t.Errorf("got %d %+v", p.Status, p)
				}
				w := httptest.NewRecorder()
				p.Write(w, "req1")
				body := w.Body.String()
				if strings.Contains(body, canary) || strings.Contains(fmt.Sprint(w.Header()), canary) {
					t.Errorf("S52: tells %s", body)
				}
				var got struct {
					Error struct {
						Code      string `json:"code"`
						RequestID string `json:"request_id"`
					} `json:"error"`
				}
				if err := json.Unmarshal([]byte(body), &got); err != nil || got.Error.Code != test.code || got.Error.RequestID != "req1" || w.Code != test.status || w.Header().Get(Header) != test.code {
					t.Errorf("wrote %d %v %s", w.Code, w.Header(), body)
				}
				for name, want := range map[string]string{"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
					if w.Header().Get(name) != want {
						t.Errorf("%s is %q", name, w.Header().Get(name))
					}
				}
			}
		})
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	for wait, want := range map[time.Duration]string{0: "", time.Millisecond: "1", time.Second: "1", 1500 * time.Millisecond: "2", time.Hour: "3600"} {
		w := httptest.NewRecorder()
		p := &Problem{Status: 503, Code: "x", RetryAfter: wait}
		p.Write(w, "id")
		if got := w.Header().Get("Retry-After"); got != want || p.RequestID != "" {
			t.Errorf("%v: %q", wait, got)
		}
	}
	for name, err := range map[string]error{
		"90": &scheme.TokenError{Class: scheme.Transient, Code: "http_429", RetryAfter: 90 * time.Second}, "5": vault.ErrUnavailable,
	} {
		w := httptest.NewRecorder()
		Of(err).Write(w, "")
		if got := w.Header().Get("Retry-After"); got != name {
			t.Errorf("%v: Retry-After %q, want %q", err, got, name)
		}
	}
}

func TestShapeIsNangos(t *testing.T) {
	for want, p := range map[string]*Problem{
		`{"error":{"code":"invalid_body","errors":[{"code":"custom","message":"y","path":["a"]},{"code":"custom","message":"x","path":["b"]}],"retryable":false,"action":"fix_request"}}`: Of(scheme.FieldErrors{"b": "x", "a": "y"}),
		`{"error":{"code":"not_found","message":"Failed <&> \"q\"","retryable":false,"request_id":"r"}}`:                                                                                  {Status: 404, Code: "not_found", Message: `Failed <&> "q"`, RequestID: "ignored"},
	} {
		w := httptest.NewRecorder()
		id := ""
		if p.Code == "not_found" {
			id = "r"
		}
		p.Write(w, id)
		var a, b any
		if json.Unmarshal(w.Body.Bytes(), &a) != nil || json.Unmarshal([]byte(want), &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("got %s, want %s", w.Body, want)
		}
	}
	if p := (&Problem{Code: "a", Message: "b"}); p.Error() != "a: b" || (&Problem{Code: "a"}).Error() != "a" {
		t.Error("Error is off")
	}
}
