package caddymodule

import (
	"context"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"

	"github.com/keycaddy/keycaddy/proxy"
)

type changeHeaders = func(context.Context, http.Header)

// headerOps makes what changes the headers of requests and answers; nil: nothing
// does.
func headerOps(ctx caddy.Context, h *headers.Handler) (up, down changeHeaders, err error) {
	if h == nil {
		return nil, nil, nil
	}
	if err := h.Provision(ctx); err != nil {
		return nil, nil, fmt.Errorf("headers: %w", err)
	}
	if err := h.Validate(); err != nil {
		return nil, nil, fmt.Errorf("headers: %w", err)
	}
	if up, err = changes("header_up", h.Request); err != nil || h.Response == nil {
		return up, nil, err
	}
	if h.Response.Require != nil {
		return nil, nil, fmt.Errorf("header_down: require can't be used here")
	}
	down, err = changes("header_down", h.Response.HeaderOps)
	return up, down, err
}

func changes(option string, ops *headers.HeaderOps) (changeHeaders, error) {
	if ops == nil {
		return nil, nil
	}
	for _, set := range []http.Header{ops.Add, ops.Set} {
		for name := range set {
			if proxy.OfMessage(name) {
				return nil, fmt.Errorf("%s: %s is about the message on its way, and can't be set", option, name)
			}
		}
	}
	return func(ctx context.Context, h http.Header) {
		if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			ops.ApplyTo(h, repl)
		}
	}, nil
}

// parseHeaderOp reads header_up or header_down.
func parseHeaderOp(d *caddyfile.Dispenser, to **headers.Handler) error {
	if *to == nil {
		*to = new(headers.Handler)
	}
	h := *to
	var ops *headers.HeaderOps
	if d.Val() == "header_up" {
		if h.Request == nil {
			h.Request = new(headers.HeaderOps)
		}
		ops = h.Request
	} else {
		if h.Response == nil {
			h.Response = &headers.RespHeaderOps{HeaderOps: new(headers.HeaderOps)}
		}
		ops = h.Response.HeaderOps
	}
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 3 {
		return d.ArgErr()
	}
	var value string
	var replacement *string
	if len(args) > 1 {
		value = args[1]
	}
	if len(args) == 3 {
		replacement = &args[2]
	}
	if err := headers.CaddyfileHeaderOp(ops, args[0], value, replacement); err != nil {
		return d.WrapErr(err)
	}
	return nil
}
