package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// DefaultReplayBuffer is how large a body may be, in bytes, to be kept for a
// second attempt.
const DefaultReplayBuffer = 256 << 10

// body is a request body that can be sent again if it is small and its length
// is known. All others stream through once and are never held up.
type body struct {
	bytes      []byte // nil: not held
	replayable bool
}

// hold reads the body if it may be needed again. The bytes are never pooled: a
// transport may still read them after it has returned.
func hold(req *http.Request, limit int64) (body, error) {
	if req.Body == nil || req.Body == http.NoBody || req.ContentLength == 0 {
		return body{replayable: true}, nil
	}
	if req.ContentLength < 0 || req.ContentLength > limit {
		return body{}, nil
	}
	p := make([]byte, req.ContentLength)
	_, err := io.ReadFull(req.Body, p)
	if cerr := req.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return body{}, &BodyError{err}
	}
	return body{bytes: p, replayable: true}, nil
}

// attach gives an attempt its own reader of the body.
func (b body) attach(out *http.Request) {
	if b.bytes == nil {
		return
	}
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.bytes)), nil }
	out.Body, _ = out.GetBody()
}

// stream is a body that isn't held. The transport reads it while the answer
// goes to the caller already, and may not be done when that has ended.
type stream struct {
	io.ReadCloser
	whole, over atomic.Bool // it was read to its end; the handler returns

	mu  sync.Mutex // held while reading
	err error      // what reading it has failed with
}

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := s.ReadCloser.Read(p)
	if err == io.EOF {
		s.whole.Store(true)
	} else if err != nil {
		s.err = err
	}
	return n, err
}

// failure is what reading has failed with so far.
func (s *stream) failure() error {
	if !s.mu.TryLock() {
		return nil // it is being read
	}
	defer s.mu.Unlock()
	return s.err
}

// finish makes sure that nothing of the body is read once the handler has
// returned, which servers don't allow. A read that waits for the caller is
// ended, and the caller's connection with it: see closing.
func (s *stream) finish(w http.ResponseWriter) {
	s.over.Store(true)
	if !s.mu.TryLock() {
		if !s.whole.Load() && http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) != nil {
			return // a writer that can't do so; nothing waits for it
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
}

// closing asks the server to end the connection after an answer that doesn't
// wait for the body's end: what is left of the body, or comes after a body that
// is malformed, must not be taken for another request (S84).
func (s *stream) closing(r *http.Request, h http.Header) {
	if r.ProtoMajor == 1 && !s.whole.Load() {
		h.Set("Connection", "close")
	}
}

// BodyError is a request whose body did not arrive whole.
type BodyError struct{ err error }

func (e *BodyError) Error() string { return fmt.Sprintf("reading request body: %v", e.err) }

func (e *BodyError) Unwrap() error { return e.err }

// Problem is what the caller is told.
func (e *BodyError) Problem() *problem.Problem {
	var tooLarge *http.MaxBytesError
	if errors.As(e.err, &tooLarge) {
		return &problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "request_too_large", Message: "The request's body is too large.", Action: "fix_request"}
	}
	return &problem.Problem{Status: http.StatusBadRequest, Code: "incomplete_body", Message: "The request's body did not arrive whole.", Action: "fix_request"}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // what is left of it is nobody's concern any more
	}
}

// discardWait is how long the rest of an unwanted answer is waited for.
const discardWait = 100 * time.Millisecond

// discard ends an answer that is not wanted. Reading a little of it lets the
// connection be used again, but is not worth waiting for.
func discard(res *http.Response) {
	late := time.AfterFunc(discardWait, func() { _ = res.Body.Close() })
	defer late.Stop()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	_ = res.Body.Close()
}
