package caddymodule

import (
	"context"
	"crypto/tls"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/proxy"
)

// Spans are made where Caddy's `tracing` stands before the proxy on the site: one
// for each attempt that is sent to a provider, and one for each renewal that a call
// waits for. Neither has an address's path or query in it, nor the text of an
// error, which may have both (S125).
const tracer = "github.com/keycaddy/keycaddy"

// span begins one below the span of a context; nil: there is none, or it isn't
// recorded.
func span(ctx context.Context, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	return parent.TracerProvider().Tracer(tracer).Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
}

// traced has a span for each attempt.
type traced struct{ next http.RoundTripper }

// Certified implements egress.Certifier.
func (t traced) Certified(cert tls.Certificate) (http.RoundTripper, error) {
	next, err := egress.WithCertificate(t.next, cert)
	return traced{next}, err
}

func (t traced) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, s := span(req.Context(), "provider "+req.Method, trace.SpanKindClient,
		attribute.String("http.request.method", req.Method), attribute.String("server.address", req.URL.Hostname()))
	if s == nil {
		return t.next.RoundTrip(req)
	}
	defer s.End()
	res, err := t.next.RoundTrip(req.WithContext(ctx))
	switch {
	case err != nil:
		s.SetStatus(codes.Error, "no answer")
	default:
		s.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
		if res.StatusCode >= 400 {
			s.SetStatus(codes.Error, "")
		}
	}
	return res, err
}

// renewals has a span for each renewal.
type renewals struct{ *connect.Refresher }

// Renew implements proxy.Renewer.
func (r renewals) Renew(ctx context.Context, stale *connect.Bound) (*connect.Bound, error) {
	ctx, s := span(ctx, "renew credential", trace.SpanKindInternal)
	if s == nil {
		return r.Refresher.Renew(ctx, stale)
	}
	defer s.End()
	fresh, err := r.Refresher.Renew(ctx, stale)
	if err != nil {
		s.SetStatus(codes.Error, "not renewed")
	}
	return fresh, err
}

// describe tells the span of a call what it was.
func describe(ctx context.Context, call *proxy.Call) {
	s := trace.SpanFromContext(ctx)
	if call == nil || !s.IsRecording() {
		return
	}
	s.SetAttributes(
		attribute.String("keycaddy.provider", call.Auth.Provider), attribute.String("keycaddy.integration", call.ID.Integration),
		attribute.String("keycaddy.connection", call.ID.Connection), attribute.String("keycaddy.caller", call.Caller.Name),
		attribute.Bool("keycaddy.replayed", call.Replayed), attribute.Int("keycaddy.retries", call.Retries),
	)
}

var _ proxy.Credentials = renewals{}
