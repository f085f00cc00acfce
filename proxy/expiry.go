package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Expiry says what becomes of a stream (a WebSocket, server-sent events, gRPC)
// whose access token ends while it is open. Providers look at a token when a
// stream begins, and most never again.
type Expiry uint8

const (
	// ExpiryRun lets it run for as long as both sides want it.
	ExpiryRun Expiry = iota
	// ExpiryDrain ends it when nothing has come for a moment, so that no message
	// is cut in two, and after drainTime at the latest.
	ExpiryDrain
	// ExpiryClose ends it at once.
	ExpiryClose
)

const (
	drainTime  = time.Minute
	drainPause = time.Second // without a byte from the provider, a message is taken to be over
)

var expiryNames = []string{"run", "drain", "close"}

// ParseExpiry reads run, drain or close.
func ParseExpiry(s string) (Expiry, error) { return parseName[Expiry](expiryNames, s) }

// streaming tells whether an answer is a stream that may be open for long.
func streaming(res *http.Response) bool {
	if res.StatusCode == http.StatusSwitchingProtocols {
		return true
	}
	kind := res.Header.Get("Content-Type")
	return strings.HasPrefix(kind, "text/event-stream") || strings.HasPrefix(kind, "application/grpc")
}

// expire sees to it that a stream ends with its token, if that is wanted and
// known. It ends for its caller as if the provider had ended it: a WebSocket's
// connection closes, clients of events come again, and are given a fresh token.
func (p *Proxy) expire(call *Call, res *http.Response) {
	if p.Expiry == ExpiryRun || !streaming(res) {
		return
	}
	end, ok := call.Auth.Ends()
	if !ok {
		return
	}
	e := &expiring{ReadCloser: res.Body, how: p.Expiry}
	e.read.Store(time.Now().UnixNano())
	e.over = func() {
		p.Logger.Info("a stream was ended with its access token", zap.String("integration", call.ID.Integration),
			zap.String("connection", call.ID.Connection), zap.String("stream_expiry", expiryNames[p.Expiry]))
	}
	e.mu.Lock()
	e.timer = time.AfterFunc(time.Until(end), e.expired)
	e.mu.Unlock()
	res.Body = e
	if conn, ok := e.ReadCloser.(io.ReadWriteCloser); ok {
		res.Body = &expiringConn{e, conn}
	}
}

// expiring is a body that ends with its token.
type expiring struct {
	io.ReadCloser
	how   Expiry
	over  func()
	read  atomic.Int64 // when something was read last, in nanoseconds since 1970
	ended atomic.Bool

	mu    sync.Mutex // guards the timer, which may fire before it is kept
	timer *time.Timer
	since time.Time // when the token has ended
}

func (e *expiring) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if e.ended.Load() {
		return 0, io.EOF
	}
	if n > 0 {
		e.read.Store(time.Now().UnixNano())
	}
	return n, err
}

func (e *expiring) expired() {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.since.IsZero() {
		e.since = now
	}
	quiet := now.Sub(time.Unix(0, e.read.Load()))
	if e.how == ExpiryDrain && quiet < drainPause && now.Sub(e.since) < drainTime {
		e.timer.Reset(drainPause - quiet)
		return
	}
	e.ended.Store(true)
	_ = e.ReadCloser.Close() // which ends a read that waits
	e.over()
}

func (e *expiring) Close() error {
	e.mu.Lock()
	e.timer.Stop()
	e.mu.Unlock()
	return e.ReadCloser.Close()
}

// expiringConn is one for a switched connection.
type expiringConn struct {
	*expiring
	conn io.ReadWriteCloser
}

func (e *expiringConn) Write(p []byte) (int, error) { return e.conn.Write(p) }

// CloseWrite tells the provider that nothing more comes.
func (e *expiringConn) CloseWrite() error { return closeWrite(e.conn) }
