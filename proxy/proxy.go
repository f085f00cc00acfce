// Package proxy carries calls to providers: it checks who calls, finds the
// connection and its credential, decides where the call may go, and sends it
// there, streaming both ways, through net/http/httputil.ReverseProxy.
//
// It may import proxy/redact, catalog, connect and its sub-packages, zap and the
// standard library; it knows nothing of Caddy.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// Call is one request on its way.
type Call struct {
	// Caller is who makes it.
	Caller *connect.Caller
	ID     connect.ID
	Auth   *connect.Bound
	// Replayed tells that the request was sent a second time.
	Replayed bool
	// Retries is how often it was sent again because the provider was too busy
	// or could not be reached.
	Retries int
	// Sent is when it was sent first; zero: it wasn't.
	Sent time.Time
	// Status is the provider's, of the answer that went to the caller; 0: none.
	Status int
	// Echoed tells that the answer had the credential in it.
	Echoed atomic.Bool

	ctx         context.Context // of the caller's request
	header      http.Header     // the caller's, if ReverseProxy has nothing to do with it
	first       attempt
	renewer     Renewer
	integration *connect.Integration
	base        *url.URL  // what the path is below
	plain       bool      // the caller wants the answer decompressed
	retrying    *retrying // nil: the call isn't sent again
	target      url.URL
	body        *stream // nil: the body is held, or there is none
	early       earlyWriter
	err         error
	// attached is what ends the call if its connection is removed or disabled.
	attached connect.Call
}

// callContext is a call as the context of its request, which saves a context
// that would have nothing but the call in it.
type callContext Call

func (c *callContext) Deadline() (time.Time, bool) { return c.ctx.Deadline() }
func (c *callContext) Done() <-chan struct{}       { return c.ctx.Done() }
func (c *callContext) Err() error                  { return c.ctx.Err() }

func (c *callContext) Value(key any) any {
	switch key {
	case callKey{}:
		return (*Call)(c)
	case egress.PlainKey{}:
		if c.target.Scheme == "http" {
			return true
		}
	}
	return c.ctx.Value(key)
}

type callKey struct{}

func callFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

var errNoCall = errors.New("proxy: request without a call")

// errCut ends the calls of a connection that was removed or disabled.
var errCut = fmt.Errorf("the connection was removed or disabled meanwhile: %w", connect.ErrNotFound)

// Proxy carries calls. Its fields are set before Provision and not changed
// after it.
type Proxy struct {
	// Base sends requests; it has to keep to the egress policy.
	Base         http.RoundTripper
	ReplayBuffer int64
	Paths        Paths
	// Prefix is the part of a request's path that isn't the provider's; redirects
	// lead back to it.
	Prefix    string
	Compat    Compat
	Answers   Answers
	Redaction Redaction
	// Retries is how often a call that may be repeated is sent again when the
	// provider is too busy or can't be reached, unless the call says otherwise.
	Retries int
	// Concurrency is how many calls a connection may have under way; 0: any
	// number. Streams and WebSockets count until they end.
	Concurrency int
	// CallerConcurrency is the same for all calls of a caller.
	CallerConcurrency int
	// Waits, if not nil, is told of calls that begin to wait for their turn, 1, and
	// that end it, -1.
	Waits func(int)
	// Circuit is after how many attempts in a row that don't reach a host it is
	// left alone for a while; 0: never.
	Circuit int
	// Expiry is what becomes of streams whose token ends.
	Expiry Expiry
	// Up and Down, if not nil, change the headers of requests, before the
	// credential is put on them, and of answers, as the caller gets them.
	Up, Down func(context.Context, http.Header)
	// FlushInterval is how often an answer is flushed while it is copied;
	// below zero: after every write. Event streams and answers of unknown
	// length are always flushed at once.
	FlushInterval time.Duration
	Logger        *zap.Logger

	forward   httputil.ReverseProxy
	redactors *redactors
	// By connection and by caller; nil: calls are not held back.
	bulkheads *bulkheads[connect.ID]
	callers   *bulkheads[string]
}

// Provision makes the proxy ready.
func (p *Proxy) Provision() {
	if p.Redaction != RedactOff {
		p.redactors = new(redactors)
	}
	if p.Waits == nil {
		p.Waits = func(int) {}
	}
	if p.Concurrency > 0 {
		p.bulkheads = newBulkheads[connect.ID](p.Concurrency, "The connection", p.Waits)
	}
	if p.CallerConcurrency > 0 {
		p.callers = newBulkheads[string](p.CallerConcurrency, "The caller", p.Waits)
	}
	transport := &Transport{
		Base: p.Base, ReplayBuffer: p.ReplayBuffer, CallerHeaders: p.Compat.CallerHeaders, Redaction: p.Redaction, Up: p.Up, Logger: p.Logger,
	}
	if p.Circuit > 0 {
		transport.circuits = &circuits{limit: int32(p.Circuit)}
	}
	p.forward = httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      transport,
		FlushInterval:  p.FlushInterval,
		BufferPool:     &buffers,
		ModifyResponse: p.answered,
		ErrorLog:       zap.NewStdLog(p.Logger),
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			callFrom(r.Context()).err = err
		},
	}
}

// Serve carries a call. Path is the escaped path that is asked of the provider:
// the request's own, less the proxy's prefix. An error means that nothing has
// been answered yet.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, path string, call *Call) error {
	// The query goes as it came. (ReverseProxy would drop what Go can't parse,
	// but it is the provider who has to understand it.)
	target, _, err := p.aim(call, r.Method, path, r.URL.RawQuery)
	if err != nil {
		return err
	}
	caller := r.Context()
	if p.bulkheads != nil {
		if err := p.bulkheads.enter(caller, call.ID); err != nil {
			return err
		}
		defer p.bulkheads.leave(call.ID)
	}
	if p.callers != nil { // after, since who waits for its connection takes nothing from its caller
		if err := p.callers.enter(caller, call.Caller.Name); err != nil {
			return err
		}
		defer p.callers.leave(call.Caller.Name)
	}
	ctx, cut := context.WithCancel(caller)
	defer cut()
	call.attached.Cut, call.attached.By = cut, call.Caller
	if !call.Auth.Attach(&call.attached) {
		return errCut
	}
	defer call.attached.Detach()
	call.target, call.ctx = target, ctx
	r = r.WithContext((*callContext)(call))
	if endToEnd(r.Header) {
		// ReverseProxy would copy all headers only to take out what isn't there.
		call.header, r.Header = r.Header, nil
	}
	if r.ContentLength < 0 || r.ContentLength > p.ReplayBuffer {
		call.body = &stream{ReadCloser: r.Body}
		r.Body = call.body
		defer call.body.finish(w)
		if r.ProtoMajor == 1 {
			// An answer may begin before the body has ended. Go's server would
			// then take the rest of the body, which is the provider's, for
			// itself. (Writers of tests can't do so, and needn't.)
			_ = http.NewResponseController(w).EnableFullDuplex()
		}
	}
	call.early = earlyWriter{w, p, call}
	p.forward.ServeHTTP(&call.early, r)
	if call.err == nil {
		return nil
	}
	// A call that has found out that its connection has ended is cut off with
	// all others, and knows better why.
	var reauth *connect.NeedsReauthError
	if ctx.Err() != nil && caller.Err() == nil && !errors.As(call.err, &reauth) {
		return errCut
	}
	if call.body != nil {
		call.body.closing(r, w.Header())
		if err := call.body.failure(); err != nil && r.Context().Err() == nil {
			call.err = &BodyError{err}
		}
	}
	return &UpstreamError{Err: call.err}
}

// answered makes the caller's answer of the provider's. Errors: *AnswerError.
func (p *Proxy) answered(res *http.Response) error {
	call := callFrom(res.Request.Context())
	if err := checkSwitch(res); err != nil {
		return err
	}
	p.redirected(call, res)
	p.expire(call, res)
	if err := p.redact(call, res); err != nil {
		return err
	}
	if p.Down != nil {
		p.Answers.guard(res, res.Header)
		p.Down(res.Request.Context(), res.Header)
	} else {
		p.Answers.guard(res, call.early.Header())
	}
	call.Status = res.StatusCode
	if call.body != nil && res.StatusCode != http.StatusSwitchingProtocols {
		call.body.closing(res.Request, res.Header)
	}
	return nil
}

// UpstreamError is a call that did not reach the provider, or whose answer did
// not come.
type UpstreamError struct{ Err error }

func (e *UpstreamError) Error() string { return "calling the provider: " + e.Err.Error() }

func (e *UpstreamError) Unwrap() error { return e.Err }

// StatusClientGone is the status, nginx's 499, of a call whose caller has gone.
const StatusClientGone = 499

// Problem is what the caller is told.
func (e *UpstreamError) Problem() *problem.Problem {
	var (
		reauth  *connect.NeedsReauthError
		own     problem.Coder
		timeout net.Error
		body    *scheme.BodyError
	)
	switch {
	case errors.As(e.Err, &reauth), errors.As(e.Err, &own), errors.As(e.Err, &body), errors.Is(e.Err, egress.ErrRefused):
		return problem.Of(e.Err)
	case errors.Is(e.Err, context.Canceled):
		return &problem.Problem{Status: StatusClientGone, Code: "client_gone", Message: "The caller went away."}
	case errors.As(e.Err, &timeout) && timeout.Timeout():
		return &problem.Problem{Status: http.StatusGatewayTimeout, Code: "upstream_timeout", Message: "The provider did not answer in time.", Retryable: true, Action: "retry"}
	}
	return &problem.Problem{Status: http.StatusBadGateway, Code: "upstream_unreachable", Message: "The provider could not be reached.", Retryable: true, Action: "retry"}
}

// buffers are what answers are copied through, 32 KiB each.
var buffers = bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte  { return b.pool.Get().(*[32 << 10]byte)[:] }
func (b *bufferPool) Put(p []byte) { b.pool.Put((*[32 << 10]byte)(p)) }
