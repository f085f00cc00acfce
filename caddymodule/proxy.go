package caddymodule

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/proxy"
)

func init() { caddy.RegisterModule(Proxy{}) }

// Proxy sends a call on to the provider of the connection that it names, with
// the connection's credential. A call names its connection with the headers
// `Connection-Id` and `Provider-Config-Key`, and proves itself with
// `Authorization: Bearer <api key>`; none of the three reaches the provider.
//
// If the provider says that the credential has ended, it is renewed and the
// call is sent again, once, and the caller never notices.
type Proxy struct {
	// The part of the path that is not the provider's, such as `/proxy`.
	StripPrefix string `json:"strip_prefix,omitempty"`

	// How large a body may be, in bytes, to be kept for the second attempt.
	// Larger ones, and those of unknown length, are streamed once; a refusal
	// then goes to the caller, and the next call finds a new credential.
	// Default: 262144 (256 KiB)
	ReplayBuffer int64 `json:"replay_buffer,omitempty"`

	// How often answers are flushed while they are copied; below zero: after
	// every write. Event streams and answers of unknown length are flushed
	// at once in any case.
	FlushInterval caddy.Duration `json:"flush_interval,omitempty"`

	// Let `%2F` through in paths. It is refused by default, since servers
	// don't agree on what it means; some APIs (GitLab's) need it.
	AllowEncodedSlash bool `json:"allow_encoded_slash,omitempty"`

	// Headers of providers' answers that pass although they are about the
	// origin that answers come from, which is this site: `Set-Cookie`,
	// `Access-Control-*`, `Strict-Transport-Security` and their like; and
	// `Cache-Control`, `Content-Security-Policy` and `Content-Disposition`,
	// which are replaced otherwise.
	PassHeaders []string `json:"pass_headers,omitempty"`

	// What becomes of an answer that has the very credential in it that was put
	// on the request: `off` looks for none, `alert` logs it, `redact` blots it
	// out, `block` refuses the answer. All but `off` ask providers for answers
	// that aren't compressed. Default: off
	Redact string `json:"redact,omitempty"`

	// How often a call is sent again if the provider answers that it is too busy
	// (429, 5xx, or what its catalog entry says), or can't be reached. It holds
	// for calls that may be repeated: GET, HEAD, OPTIONS, PUT, DELETE, and those
	// with an `Idempotency-Key`. A call's own header `Retries` comes first, and
	// holds for every method. Waits are the provider's, and a minute in all at
	// the most. Default: 0
	Retries int `json:"retries,omitempty"`

	// How many calls each connection may have under way on a node, so that one
	// whose provider is slow can't take up what all others need. Those beyond
	// wait in the order in which they came: ten times as many, for 30 seconds at
	// the most, then they are answered 429. Streams and WebSockets count until
	// they end. Up to 10000. Default: 0, any number
	Concurrency int `json:"concurrency,omitempty"`

	// The same for all calls of each caller, such as an API key. Default: 0, any
	// number
	CallerConcurrency int `json:"caller_concurrency,omitempty"`

	// After how many attempts in a row that don't reach a provider's host it is
	// left alone: for ten seconds calls are answered 503 at once, then one tries
	// it. An answer of whatever status shows that it is there. Up to 10000.
	// Default: 0, never
	Circuit int `json:"circuit,omitempty"`

	// What becomes of a stream (a WebSocket, server-sent events, gRPC) whose access
	// token ends while it is open: `run` lets it run, `drain` ends it when nothing
	// has come for a second, after a minute at the latest, `close` ends it at once.
	// For its caller it ends as if the provider had ended it. Default: run
	StreamExpiry string `json:"stream_expiry,omitempty"`

	// What is changed in the headers of requests, before the credential is put on
	// them, and of answers, as the caller gets them; as in `reverse_proxy`. Headers
	// about the message itself, such as `Host` and `Content-Length`, stay.
	Headers *headers.Handler `json:"headers,omitempty"`

	// What Nango's proxy does and this one doesn't unless it is said here, since
	// each is a hazard.
	Compat Compat `json:"compat,omitzero"`

	// How providers are connected to: one of Caddy's transports.
	// Default: http
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	app    *App
	proxy  proxy.Proxy
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Proxy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keycaddy_proxy", New: func() caddy.Module { return new(Proxy) }}
}

// Provision sets up the proxy.
func (p *Proxy) Provision(ctx caddy.Context) error {
	p.logger = ctx.Logger()
	app, err := ctx.App("keycaddy")
	if err != nil {
		return fmt.Errorf("loading keycaddy: %w", err)
	}
	p.app = app.(*App)
	if p.ReplayBuffer == 0 {
		p.ReplayBuffer = proxy.DefaultReplayBuffer
	}
	if p.TransportRaw == nil {
		p.TransportRaw = json.RawMessage(`{"protocol":"http"}`)
	}
	transport, err := ctx.LoadModule(p, "TransportRaw")
	if err != nil {
		return fmt.Errorf("loading transport: %w", err)
	}
	base, err := guard(transport.(http.RoundTripper), p.app.policy)
	if err != nil {
		return err
	}
	if p.Retries < 0 || p.Retries > proxy.MaxRetries {
		return fmt.Errorf("retries: %d is not between 0 and %d", p.Retries, proxy.MaxRetries)
	}
	if p.Concurrency < 0 || p.Concurrency > proxy.MaxConcurrency {
		return fmt.Errorf("concurrency: %d is not between 0 and %d", p.Concurrency, proxy.MaxConcurrency)
	}
	if p.CallerConcurrency < 0 || p.CallerConcurrency > proxy.MaxConcurrency {
		return fmt.Errorf("caller_concurrency: %d is not between 0 and %d", p.CallerConcurrency, proxy.MaxConcurrency)
	}
	if p.Circuit < 0 || p.Circuit > proxy.MaxCircuit {
		return fmt.Errorf("circuit: %d is not between 0 and %d", p.Circuit, proxy.MaxCircuit)
	}
	if p.StreamExpiry == "" {
		p.StreamExpiry = "run"
	}
	expiry, err := proxy.ParseExpiry(p.StreamExpiry)
	if err != nil {
		return fmt.Errorf("stream_expiry: %w", err)
	}
	up, down, err := headerOps(ctx, p.Headers)
	if err != nil {
		return err
	}
	answers, err := proxy.Passing(p.PassHeaders)
	if err != nil {
		return fmt.Errorf("pass_headers: %w", err)
	}
	compat, err := p.Compat.make(caddy.NewReplacer())
	if err != nil {
		return err
	}
	if p.Redact == "" {
		p.Redact = "off"
	}
	redaction, err := proxy.ParseRedaction(p.Redact)
	if err != nil {
		return fmt.Errorf("redact: %w", err)
	}
	p.proxy = proxy.Proxy{
		Base:              base,
		ReplayBuffer:      p.ReplayBuffer,
		Paths:             proxy.Paths{EncodedSlash: p.AllowEncodedSlash},
		Prefix:            p.StripPrefix,
		Compat:            compat,
		Answers:           answers,
		Redaction:         redaction,
		Retries:           p.Retries,
		Concurrency:       p.Concurrency,
		CallerConcurrency: p.CallerConcurrency,
		Waits:             func(n int) { p.app.run.runtime.metrics.queued.Add(float64(n)) },
		Circuit:           p.Circuit,
		Expiry:            expiry,
		Up:                up,
		Down:              down,
		FlushInterval:     time.Duration(p.FlushInterval),
		Logger:            p.logger,
	}
	p.proxy.Provision()
	return nil
}

// answerTimeout is how long a provider may take until its answer begins, unless
// the transport says otherwise: longer than any does that means to answer.
const answerTimeout = 10 * time.Minute

// guard makes Caddy's http transport keep to the egress policy. The guard is at
// the dialer, which sees the addresses; transports without one can't be kept.
func guard(transport http.RoundTripper, policy egress.Policy) (http.RoundTripper, error) {
	h, ok := transport.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil, fmt.Errorf("transport %T can't be kept from private addresses; use http", transport)
	}
	for _, v := range h.Versions {
		if v == "3" {
			return nil, fmt.Errorf("transport http: version 3 can't be kept from private addresses; leave it out")
		}
	}
	if h.Resolver != nil {
		return nil, fmt.Errorf("transport http: resolver can't be used here; names are resolved by the system, so that every address is checked")
	}
	if h.Transport.DialTLSContext != nil {
		return nil, fmt.Errorf("transport http: tls_server_name can't have a placeholder here")
	}
	if h.NetworkProxyRaw == nil {
		// Whoever sets HTTP_PROXY for a machine doesn't mean credentials of
		// other people's users.
		h.Transport.Proxy = nil
	}
	if h.ExpectContinueTimeout == 0 {
		// A caller that asks first learns that its credential is refused before
		// it has sent the body. A provider that never says so costs a second.
		h.Transport.ExpectContinueTimeout = time.Second
	}
	if h.ResponseHeaderTimeout == 0 {
		h.Transport.ResponseHeaderTimeout = answerTimeout
	}
	h.Transport.DialContext = policy.Dial(h.Transport.DialContext)
	return traced{egress.Telling(transportOf{h})}, nil
}

// transportOf is Caddy's transport, which can be had with a client certificate.
type transportOf struct{ *reverseproxy.HTTPTransport }

// Certified implements egress.Certifier. Calls have their scheme and host, which
// is what Caddy's own RoundTrip would see to.
func (t transportOf) Certified(cert tls.Certificate) (http.RoundTripper, error) {
	return egress.WithCertificate(t.Transport, cert)
}

// ServeHTTP sends a call on.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	run, err := p.app.wait(r.Context())
	if err != nil {
		return answer(w, r, p.logger, err)
	}
	var (
		call    *proxy.Call
		began   = time.Now()
		aborted = true // unless it comes to an end: what breaks off panics
		counts  = run.runtime.metrics
	)
	counts.inFlight.Inc()
	defer func() {
		counts.observe(call, began, aborted, err)
		run.logCall(r, p.StripPrefix, call, began, aborted, err)
		describe(r.Context(), call)
	}()
	call, err = p.proxy.Resolve(r, run.callers, run.setup, renewals{run.refresher})
	if err == nil {
		err = p.carry(w, r, call)
	}
	aborted = false
	return answer(w, r, p.logger, err)
}

func (p *Proxy) carry(w http.ResponseWriter, r *http.Request, call *proxy.Call) error {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(placeholders(call))
	}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), p.StripPrefix)
	if !ok {
		return &proxy.PathError{Reason: "the prefix " + p.StripPrefix + " is written in another way"}
	}
	return p.proxy.Serve(w, r, path, call)
}

// placeholders are looked up when something asks for them, which costs a call
// nothing otherwise.
func placeholders(call *proxy.Call) caddy.ReplacerFunc {
	return func(key string) (any, bool) {
		name, ok := strings.CutPrefix(key, "http.keycaddy.")
		if !ok {
			return nil, false
		}
		switch name {
		case "integration":
			return call.ID.Integration, true
		case "connection":
			return call.ID.Connection, true
		case "provider":
			return call.Auth.Provider, true
		case "caller":
			return call.Caller.Name, true
		case "replayed":
			return call.Replayed, true
		case "retries":
			return call.Retries, true
		case "echoed":
			return call.Echoed.Load(), true
		}
		return nil, false
	}
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	keycaddy_proxy [<path>/*] {
//	    replay_buffer       <size>
//	    flush_interval      <duration>
//	    allow_encoded_slash
//	    pass_headers        <name>...
//	    redact              off|alert|redact|block
//	    retries             <number>
//	    concurrency         <number>
//	    caller_concurrency  <number>
//	    circuit             <number>
//	    stream_expiry       run|drain|close
//	    header_up           [+|-]<field> [<value|regexp> [<replacement>]]
//	    header_down         [+|-]<field> [<value|regexp> [<replacement>]]
//	    compat              base_url_override <integration> <url>...
//	    compat              endpoint_templates
//	    compat              caller_headers
//	    transport           <name> { ... }
//	}
func (p *Proxy) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "replay_buffer":
			if !d.NextArg() {
				return d.ArgErr()
			}
			size, err := humanize.ParseBytes(d.Val())
			if err != nil {
				return d.Errf("replay_buffer: %q is not a size such as 256KiB", d.Val())
			}
			if size == 0 || size > 64<<20 {
				return d.Errf("replay_buffer: %s is not between 1B and 64MiB", d.Val())
			}
			if p.ReplayBuffer != 0 {
				return d.Err("replay_buffer is given twice")
			}
			p.ReplayBuffer = int64(size)
		case "flush_interval":
			if p.FlushInterval != 0 {
				return d.Err("flush_interval is given twice")
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			if d.Val() == "-1" {
				p.FlushInterval = -1
				break
			}
			interval, err := caddy.ParseDuration(d.Val())
			if err != nil {
				return d.Errf("flush_interval: %q is not a duration such as 100ms, nor -1", d.Val())
			}
			p.FlushInterval = caddy.Duration(interval)
		case "allow_encoded_slash":
			p.AllowEncodedSlash = true
		case "pass_headers":
			names := d.RemainingArgs()
			if len(names) == 0 {
				return d.ArgErr()
			}
			p.PassHeaders = append(p.PassHeaders, names...)
		case "redact":
			if err := oneArg(d, &p.Redact); err != nil {
				return err
			}
			if _, err := proxy.ParseRedaction(p.Redact); err != nil {
				return d.Errf("redact: %v", err)
			}
			continue
		case "retries", "concurrency", "caller_concurrency", "circuit":
			to := map[string]*int{"retries": &p.Retries, "concurrency": &p.Concurrency, "caller_concurrency": &p.CallerConcurrency, "circuit": &p.Circuit}
			if err := number(d, to[d.Val()]); err != nil {
				return err
			}
			continue
		case "stream_expiry":
			if err := oneArg(d, &p.StreamExpiry); err != nil {
				return err
			}
			if _, err := proxy.ParseExpiry(p.StreamExpiry); err != nil {
				return d.Errf("stream_expiry: %v", err)
			}
			continue
		case "header_up", "header_down":
			if err := parseHeaderOp(d, &p.Headers); err != nil {
				return err
			}
			continue
		case "compat":
			if err := p.Compat.parse(d); err != nil {
				return err
			}
			continue
		case "transport":
			if !d.NextArg() {
				return d.ArgErr()
			}
			if p.TransportRaw != nil {
				return d.Err("transport is given twice")
			}
			name := d.Val()
			module, err := caddyfile.UnmarshalModule(d, "http.reverse_proxy.transport."+name)
			if err != nil {
				return err
			}
			if _, ok := module.(http.RoundTripper); !ok {
				return d.Errf("%s is not a transport", name)
			}
			p.TransportRaw = caddyconfig.JSONModuleObject(module, "protocol", name, nil)
			continue
		default:
			return d.Errf("unrecognized subdirective %s", d.Val())
		}
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Proxy)(nil)
	_ caddyhttp.MiddlewareHandler = (*Proxy)(nil)
	_ caddyfile.Unmarshaler       = (*Proxy)(nil)
)
