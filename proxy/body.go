package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// DefaultReplayBuffer is how large a body may be, in bytes, to be kept for a
// second attempt.
const DefaultReplayBuffer = 256 << 10

// body is a request body that can be sent again if it is small and its length
// is known. All others stream through once and are never held up.
type body struct {
	bytes      []byte
	held       bool
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
	return body{bytes: p, held: true, replayable: true}, nil
}

// attach gives an attempt its own reader of the body.
func (b *body) attach(out *http.Request) {
	if !b.held {
		return
	}
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.bytes)), nil }
	out.Body = io.NopCloser(bytes.NewReader(b.bytes))
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

// discard ends an answer that is not wanted. Reading a little of it lets the
// connection be used again.
func discard(res *http.Response) {
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	_ = res.Body.Close()
}
