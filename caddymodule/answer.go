package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/proxy"
)

// requestID is the request's id as Caddy's logs have it.
func requestID(r *http.Request) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	id, _ := repl.GetString("http.request.uuid")
	return id
}

// answer is where an error of a handler ends. A site with error routes of its
// own (handle_errors) gets the error; else the caller gets JSON.
func answer(w http.ResponseWriter, r *http.Request, logger *zap.Logger, err error) error {
	if err == nil {
		return nil
	}
	p := problem.Of(err)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.keycaddy.error", p.Code)
	}
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Errors != nil {
		return caddyhttp.Error(p.Status, err)
	}
	id := requestID(r)
	if p.Status >= 500 || p.Status == http.StatusFailedDependency {
		logger.Error("refusing a call", zap.String("code", p.Code), zap.String("request_id", id), zap.Error(err))
	} else if c := logger.Check(zap.DebugLevel, "refusing a call"); c != nil {
		c.Write(zap.String("code", p.Code), zap.String("request_id", id), zap.Error(err))
	}
	if p.Status == proxy.StatusClientGone {
		return nil // nobody is there to be answered
	}
	p.Write(w, id)
	return nil
}
