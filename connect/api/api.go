// Package api is keycaddy's REST API, as a plain http.Handler. Where Nango has
// a call, the call and its answers have Nango's shape, so that apps written
// for it need to change the host only.
//
// It may import catalog, connect and its sub-packages, zap and the standard
// library. What goes over the wire is defined here and nowhere else.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// API answers the calls of apps.
type API struct {
	Connector *connect.Connector
	// Keys are the API keys that may call.
	Keys *connect.Keyring
	// APIKeys looks after the keys that are stored.
	APIKeys *connect.Keys
	// Trusted skips the check of keys: the caller has been checked by other
	// means, as on Caddy's admin endpoint.
	Trusted bool
	Logger  *zap.Logger
	// RequestID names a request as the logs do; it may return "".
	RequestID func(*http.Request) string
}

// handler answers a call; an error means that it has not answered yet.
type handler func(w http.ResponseWriter, r *http.Request) error

// Handler returns the API. What it doesn't know it answers with 404, and a path
// that climbs with 400: it may have been meant for the proxy, and is nowhere
// taken for what it would be without its dots.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h handler) {
		mux.Handle(pattern, a.wrap(h))
	}
	handle("GET /health", a.health)
	handle("GET /health/ready", a.health)
	handle("GET /health/live", a.live)
	handle("GET /providers", a.app(policy.AnyKey, a.listProviders))
	handle("GET /providers/{provider}", a.app(policy.AnyKey, a.getProvider))
	handle("GET /integrations", a.appOrSession(policy.IntegrationsList, a.listIntegrations))
	handle("GET /integrations/{key}", a.app(policy.IntegrationsRead, a.getIntegration))
	handle("POST /connect/sessions", a.app(policy.ConnectSessionsWrite, a.createSession))
	handle("POST /connect/sessions/reconnect", a.app(policy.ConnectSessionsWrite, a.createReconnectSession))
	handle("POST /connect/sessions/confirm", a.app(policy.ConnectSessionsWrite, a.confirmSession))
	handle("GET /connect/session", a.getSession)
	handle("DELETE /connect/session", a.deleteSession)
	handle("GET /connections", a.app(policy.ConnectionsList, a.listConnections))
	handle("GET /keys", a.app(policy.KeysList, a.listKeys))
	handle("POST /keys", a.app(policy.KeysCreate, a.createKey))
	handle("PATCH /keys/{name}", a.app(policy.KeysUpdate, a.updateKey))
	handle("DELETE /keys/{name}", a.app(policy.KeysDelete, a.revokeKey))
	handle("POST /keys/{name}/rotate", a.app(policy.KeysUpdate, a.rotateKey))
	handle("POST /explain", a.app(policy.Explain, a.explain))
	handle("GET /logs", a.app(policy.LogsRead, a.listLogs))
	handle("GET /logs/{id}", a.app(policy.LogsRead, a.getLog))
	handle("GET /webhooks", a.app(policy.WebhooksRead, a.listEndpoints))
	handle("GET /webhooks/deliveries", a.app(policy.WebhooksRead, a.listDeliveries))
	handle("POST /webhooks/redeliver", a.app(policy.WebhooksRedeliver, a.redeliver))
	handle("GET /images/template-logos/{file}", a.logo)
	handle("/", func(_ http.ResponseWriter, r *http.Request) error {
		return &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "There is no " + r.Method + " " + r.URL.Path + " here.", Action: "fix_request"}
	})
	getConnection, deleteConnection := a.wrap(a.app(policy.ConnectionsRead, a.getConnection)), a.wrap(a.app(policy.ConnectionsDelete, a.deleteConnection))
	climbs := a.wrap(func(http.ResponseWriter, *http.Request) error {
		const reason = "it has dot segments, empty segments or a backslash"
		return &problem.Problem{Status: http.StatusBadRequest, Code: "invalid_path", Message: "The path is refused: " + reason + ".", Action: "fix_request",
			Errors: []problem.Field{{Code: "custom", Message: reason, Path: []string{"path"}}}}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A connection's id may have slashes, which the mux would clean away.
		if id, ok := strings.CutPrefix(r.URL.Path, "/connections/"); ok && id != "" {
			r.SetPathValue("id", id)
			switch r.Method {
			case http.MethodGet:
				getConnection.ServeHTTP(w, r)
				return
			case http.MethodDelete:
				deleteConnection.ServeHTTP(w, r)
				return
			}
		}
		if p := r.URL.Path; p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/") || strings.Contains(p, `\`) {
			climbs.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// wrap is where all errors of the API end.
func (a *API) wrap(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		err := h(w, r)
		if err == nil {
			return
		}
		p := problem.Of(err)
		id := ""
		if a.RequestID != nil {
			id = a.RequestID(r)
		}
		if p.Status >= 500 {
			a.Logger.Error("answering a call", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.String("request_id", id), zap.Error(err))
		}
		p.Write(w, id)
	})
}

// reply sends v as JSON.
func reply(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
	return nil
}

// read decodes a JSON body strictly.
func read(r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &problem.Problem{Status: http.StatusUnsupportedMediaType, Code: "invalid_content_type", Message: "Content-Type header must be application/json", Action: "fix_request"}
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return &problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "request_too_large", Message: "The body is larger than 1 MiB.", Action: "fix_request"}
	case errors.As(err, &wrongType):
		return problem.Invalid("body", problem.Field{Code: "invalid_type", Message: "Invalid input: expected " + wrongType.Type.String(), Path: strings.Split(wrongType.Field, ".")})
	case err != nil && strings.HasPrefix(err.Error(), "json: unknown field "):
		return problem.Invalid("body", problem.Field{Code: "unrecognized_keys", Message: "Unrecognized key: " + strings.TrimPrefix(err.Error(), "json: unknown field "), Path: []string{}})
	}
	return &problem.Problem{Status: http.StatusBadRequest, Code: "invalid_json", Message: "The body is not valid JSON.", Action: "fix_request"}
}

// query checks that a request's query has no keys but these, and none twice.
func query(r *http.Request, keys ...string) error {
	var bad []problem.Field
	for name, values := range r.URL.Query() {
		known := false
		for _, k := range keys {
			known = known || name == k || strings.HasSuffix(k, "[") && strings.HasPrefix(name, k) && strings.HasSuffix(name, "]")
		}
		switch {
		case !known:
			bad = append(bad, problem.Field{Code: "unrecognized_keys", Message: fmt.Sprintf("Unrecognized key: %q", name), Path: []string{}})
		case len(values) > 1:
			bad = append(bad, problem.Field{Code: "custom", Message: "Given more than once", Path: []string{name}})
		}
	}
	if len(bad) > 0 {
		return problem.Invalid("query_params", bad...)
	}
	return nil
}
