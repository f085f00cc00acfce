package page

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// The script with which an app's page opens these pages, and its types.
var (
	clientScript = []byte(mustRead("connect.js") + "\n")
	clientTypes  = []byte(mustRead("connect.d.ts") + "\n")
)

// serveClient serves the app's script. It is the same for everybody.
func (h *Handler) serveClient(w http.ResponseWriter, r *http.Request) {
	body, kind := clientScript, "text/javascript; charset=utf-8"
	if r.URL.Path == typesPath {
		body, kind = clientTypes, "text/plain; charset=utf-8"
	}
	head := w.Header()
	head.Set("Content-Type", kind)
	head.Set("Cache-Control", "public, max-age=3600")
	head.Set("Cross-Origin-Resource-Policy", "cross-origin") // a script for other sites
	if _, err := w.Write(body); err != nil {
		h.logger.Debug("the visitor has gone", zap.Error(err))
	}
}

// serveResult tells a page of the app that has the session's token how the
// latest attempt stands: the way that is left when a provider has cut its window
// off, or when it is finished on another device.
func (h *Handler) serveResult(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Vary", "Origin")
	if origin := r.Header.Get("Origin"); slices.Contains(h.connector.Setup.AppOrigins(), origin) {
		head.Set("Access-Control-Allow-Origin", origin)
		head.Set("Access-Control-Allow-Headers", "Authorization")
		head.Set("Access-Control-Max-Age", "600")
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	var body any
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	v, err := h.connector.Visit(r.Context(), token)
	switch {
	case err != nil:
		head.Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusGone)
		body = map[string]string{"status": "unknown"}
	case v.Result == nil:
		body = map[string]string{"status": "open"}
	default:
		body = v.Result
	}
	head.Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		h.logger.Debug("the visitor has gone", zap.Error(err))
	}
}
