package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/egress"
)

// Renewer replaces a credential that a provider has refused.
type Renewer interface {
	// Renew returns a credential newer than stale.
	Renew(ctx context.Context, stale *connect.Bound) (*connect.Bound, error)
	// Accepted and Refused tell how a renewed credential was received.
	Accepted(*connect.Bound)
	Refused(*connect.Bound)
}

// Transport puts a connection's credential on a request and sends it. If the
// provider says that the credential has ended, it is renewed once and the
// request is sent once more, with the same method, headers and body. If the
// provider is too busy or can't be reached, and the call is to be sent again for
// that, so it is: see retrying.
//
// The credential is put on a copy: no log, placeholder or handler that has the
// request can see it.
type Transport struct {
	Base http.RoundTripper
	// ReplayBuffer is how large a body may be, in bytes, to be sent again.
	ReplayBuffer int64
	// CallerHeaders lets Nango-Proxy-* replace the credential's headers.
	CallerHeaders bool
	// Redaction, if any, is of answers, which have to be readable for it.
	Redaction Redaction
	// Up, if not nil, changes the headers of a request before the credential is
	// put on it.
	Up func(context.Context, http.Header)

	Logger *zap.Logger

	circuits *circuits // nil: hosts that can't be reached are not left alone

	untried   sync.Map // connect.ID → untried
	certified sync.Map // digest of a client certificate → http.RoundTripper
}

// untried is a credential that was renewed without a request to try it with.
type untried struct {
	auth  *connect.Bound
	since time.Time
}

// untriedFor is how long a refusal of an untried credential shows that renewing
// it did not help.
const untriedFor = 30 * time.Second

// RoundTrip sends the request of the call in its context. Errors: what is wrong
// with the body (*BodyError), *connect.NeedsReauthError, what the base returns.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	call := callFrom(req.Context())
	if call == nil {
		closeBody(req)
		return nil, errNoCall
	}
	held, err := hold(req, t.ReplayBuffer)
	if err != nil {
		return nil, err
	}
	call.Sent = time.Now()
	for {
		res, err := t.try(req, call, held)
		if !call.retrying.again(req.Context(), req, held, res, err) {
			return res, err
		}
		call.Retries++
		if res != nil {
			discard(res)
		}
	}
}

// try sends a request, and once more if its credential has ended.
func (t *Transport) try(req *http.Request, call *Call, held body) (*http.Response, error) {
	res, err := t.send(req, call, held)
	if err != nil || !call.Auth.Expired(res) {
		return res, err
	}
	if !held.replayable {
		t.renewLater(req.Context(), call)
		return res, nil
	}
	fresh, err := call.renewer.Renew(req.Context(), call.Auth)
	if err != nil {
		var reauth *connect.NeedsReauthError
		if errors.As(err, &reauth) {
			discard(res)
			return nil, err
		}
		return res, nil // the provider's own answer says more than ours would
	}
	discard(res)
	call.Auth, call.Replayed = fresh, true
	res, err = t.send(req, call, held)
	if err == nil {
		if fresh.Expired(res) {
			call.renewer.Refused(fresh)
		} else {
			call.renewer.Accepted(fresh)
		}
	}
	return res, err
}

// renewLater renews a credential that was refused with a body that is gone, so
// that the next call finds a good one. If that is refused too, and soon, the
// renewer is told, and no token is asked for: a provider that refuses an upload
// for another reason must not be asked on every one (S71).
func (t *Transport) renewLater(ctx context.Context, call *Call) {
	if last, ok := t.untried.Load(call.ID); ok && last.(untried).auth == call.Auth && t.untried.CompareAndDelete(call.ID, last) && time.Since(last.(untried).since) < untriedFor {
		call.renewer.Refused(call.Auth)
		return
	}
	go func() {
		fresh, err := call.renewer.Renew(context.WithoutCancel(ctx), call.Auth)
		if err != nil {
			t.Logger.Debug("renewing after a refused upload", zap.Error(err))
			return
		}
		t.untried.Store(call.ID, untried{fresh, time.Now()})
	}()
}

// attempt is a request as it is sent, and its URL: one allocation for both.
type attempt struct {
	req http.Request
	url url.URL
}

// send sends a copy of the request with the credential on it.
func (t *Transport) send(req *http.Request, call *Call, b body) (*http.Response, error) {
	a, auth := &call.first, call.Auth
	if a.req.URL != nil { // what has been sent may still be read by a transport
		a = new(attempt)
	}
	a.req, a.url = *req, *req.URL
	out := &a.req
	out.URL = &a.url
	out.Header = carried(req.Header)
	t.Redaction.readable(out.Header)
	if call.plain {
		delete(out.Header, "Accept-Encoding") // then the transport asks for gzip, and undoes it
	}
	if t.Up != nil {
		out.Header = out.Header.Clone() // the values are shared
		t.Up(req.Context(), out.Header)
	}
	b.attach(out)
	if err := auth.Inject(out); err != nil {
		closeBody(out)
		return nil, err
	}
	if t.CallerHeaders {
		prefixed(out.Header, req.Header, true)
	}
	unshadow(out, auth)
	// Last of all, and again for every attempt: signatures are of what is sent.
	if err := auth.Sign(out, b.bytes, b.replayable); err != nil {
		closeBody(out)
		return nil, err
	}
	base, err := t.base(auth)
	if err == nil && t.circuits != nil {
		err = t.circuits.allow(out.URL.Host, time.Now())
	}
	if err != nil {
		closeBody(out)
		return nil, err
	}
	res, err := base.RoundTrip(out)
	if t.circuits != nil {
		switch {
		case err == nil:
			t.circuits.reached(out.URL.Host)
		case unreached(err):
			t.circuits.failed(out.URL.Host, time.Now())
		}
	}
	return res, err
}

// base is the transport for a credential. One with a client certificate has
// connections of its own, which no other certificate's calls go over (S128).
func (t *Transport) base(auth *connect.Bound) (http.RoundTripper, error) {
	if auth.Certificate == nil {
		return t.Base, nil
	}
	key := sha256.Sum256(auth.Certificate.Certificate[0])
	if rt, ok := t.certified.Load(key); ok {
		return rt.(http.RoundTripper), nil
	}
	fresh, err := egress.WithCertificate(t.Base, *auth.Certificate)
	if err != nil {
		return nil, err
	}
	rt, _ := t.certified.LoadOrStore(key, fresh)
	return rt.(http.RoundTripper), nil
}

var _ Renewer = (*connect.Refresher)(nil)
