// Package api is keycaddy's REST API, as a plain http.Handler. Where Nango has
// a call, the call and its answers have Nango's shape, so that apps written
// for it need to change the host only.
//
// It may import catalog, connect and its sub-packages, zap and the standard
// library. What goes over the wire is defined here and nowhere else.
package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/api/openapi"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// API answers the calls of apps.
type API struct {
	Connector *connect.Connector
	// Callers knows who calls; Keys are the API keys among them.
	Callers connect.Callers
	Keys    *connect.Keyring
	// Aim says where a call would go, and which of its caller's rules lets it
	// through; it is the proxy's.
	Aim func(caller *connect.Caller, b *connect.Bound, method, path, rawQuery string) (target url.URL, rule string, err error)
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
	ofConnections := make(map[string]http.Handler) // by method
	ofMetadata := make(map[string]http.Handler)    // of a connection in the path
	for pattern, h := range a.routes() {
		method, path, _ := strings.Cut(pattern, " ")
		wrapped := a.wrap(described(document().Operation(method, path), h))
		switch path {
		case "/connections/{id}":
			ofConnections[method] = wrapped
		case "/connection/{id}/metadata":
			ofMetadata[method] = wrapped
		default:
			mux.Handle(pattern, wrapped)
		}
	}
	nothing := a.wrap(func(_ http.ResponseWriter, r *http.Request) error {
		return &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "There is no " + r.Method + " " + r.URL.Path + " here.", Action: "fix_request"}
	})
	mux.Handle("/", nothing)
	for _, pattern := range outOfScope {
		mux.Handle(pattern, a.wrap(a.app(policy.AnyKey, notHere)))
	}
	for _, pattern := range outOfScopeForBrowsers {
		mux.Handle(pattern, a.wrap(notHere))
	}
	climbs := a.wrap(func(http.ResponseWriter, *http.Request) error {
		const reason = "it has dot segments, empty segments or a backslash"
		return &problem.Problem{Status: http.StatusBadRequest, Code: "invalid_path", Message: "The path is refused: " + reason + ".", Action: "fix_request",
			Errors: []problem.Field{{Code: "custom", Message: reason, Path: []string{"path"}}}}
	})
	return a.browsers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !keepable(r.URL.Path) {
			nothing.ServeHTTP(w, r)
			return
		}
		// A connection's id may have slashes, which the mux would clean away.
		if id, single, ok := connectionPath(r); ok {
			r.SetPathValue("id", id)
			h := ofConnections[r.Method]
			if single {
				h = ofMetadata[r.Method]
			}
			if h != nil {
				h.ServeHTTP(w, r)
				return
			}
		}
		if p := r.URL.Path; p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/") || strings.Contains(p, `\`) {
			climbs.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// connectionPath finds the id of a connection in a path, and whether it is about
// the metadata of that one.
func connectionPath(r *http.Request) (id string, metadata, ok bool) {
	id, ok = strings.CutPrefix(r.URL.Path, "/connections/")
	if !ok {
		if id, ok = strings.CutPrefix(r.URL.Path, "/connection/"); ok && (r.Method == http.MethodPost || r.Method == http.MethodPatch) {
			if one, of := strings.CutSuffix(id, "/metadata"); of {
				return one, true, one != ""
			}
		}
	}
	if r.Method == http.MethodPatch && id == "metadata" {
		return "", false, false // of connections that the body names
	}
	return id, false, ok && id != ""
}

// document is the API's description.
func document() *openapi.Document {
	d, err := openapi.Load()
	if err != nil {
		panic(err) // it is a part of the program
	}
	return d
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
