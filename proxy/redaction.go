package proxy

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/proxy/redact"
)

// Redaction says what becomes of an answer with the very credential in it that
// was put on the request: of a provider that echoes what it gets, or shows it on
// a page about an error (S105).
type Redaction uint8

const (
	// RedactOff looks for nothing.
	RedactOff Redaction = iota
	// RedactAlert lets answers pass, and logs it.
	RedactAlert
	// RedactBlot blots the credential out.
	RedactBlot
	// RedactBlock refuses the answer, or breaks it off where the credential is.
	RedactBlock
)

// redactionNames are the names that operators know.
var redactionNames = []string{"off", "alert", "redact", "block"}

// ParseRedaction reads off, alert, redact or block.
func ParseRedaction(s string) (Redaction, error) {
	return parseName[Redaction](redactionNames, s)
}

// parseName reads one of the names; the first stands for what doesn't exist, too.
func parseName[T ~uint8](names []string, s string) (T, error) {
	i := slices.Index(names, s)
	if i < 0 {
		return 0, fmt.Errorf("%q is none of %s", s, strings.Join(names, ", "))
	}
	return T(i), nil
}

// readable makes a request one whose answer can be looked into. What a transport
// asks to be compressed, it decompresses by itself.
func (r Redaction) readable(h http.Header) {
	if r != RedactOff {
		delete(h, "Accept-Encoding")
		delete(h, "Sec-Websocket-Extensions") // permessage-deflate (RFC 7692)
	}
}

// Redactors are kept for this many connections at the most. One is a few
// kilobytes, and making it takes as long as a small part of a call.
const redactorSlots = 1 << 10

// redactors keeps those of the connections that were used last, without a lock:
// what doesn't find its own in its place makes it anew.
type redactors struct {
	slots [redactorSlots]atomic.Pointer[redactor]
}

type redactor struct {
	auth *connect.Bound
	*redact.Redactor
}

var redactorSeed = maphash.MakeSeed()

func (r *redactors) of(auth *connect.Bound) *redact.Redactor {
	slot := &r.slots[maphash.String(redactorSeed, auth.UID)%redactorSlots]
	if kept := slot.Load(); kept != nil && kept.auth == auth {
		return kept.Redactor
	}
	fresh := &redactor{auth, redact.New(auth.Secrets())}
	slot.Store(fresh)
	return fresh.Redactor
}

var errEchoed = &AnswerError{"it has the connection's credential in it"}

// redact looks for the credential in an answer. Errors: *AnswerError.
func (p *Proxy) redact(call *Call, res *http.Response) error {
	if p.Redaction == RedactOff {
		return nil
	}
	r := p.redactors.of(call.Auth)
	if r == nil {
		return nil
	}
	if err := p.redactHeader(call, r, res.Header, "header"); err != nil {
		return err
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		if conn, ok := res.Body.(io.ReadWriteCloser); ok {
			res.Body = &watched{ReadWriteCloser: conn, in: r.NewReader(conn, p.Redaction.stream(), func() { p.echoed(call, "stream") })}
		}
		return nil
	}
	if res.Body == http.NoBody || res.ContentLength == 0 || res.Request.Method == http.MethodHead {
		return nil
	}
	if err := decompress(res); err != nil && p.Redaction != RedactAlert {
		return err
	}
	res.Body = &redacted{Reader: r.NewReader(res.Body, p.Redaction.stream(), func() { p.echoed(call, "body") }), Closer: res.Body, done: func() {
		_ = p.redactHeader(call, r, res.Trailer, "trailer")
	}}
	return nil
}

// redactHeader looks for the credential in headers or trailers, and changes
// them in place.
func (p *Proxy) redactHeader(call *Call, r *redact.Redactor, h http.Header, where string) error {
	for name, values := range h {
		for i, v := range values {
			clean, found := r.String(v)
			if !found {
				continue
			}
			p.echoed(call, where)
			switch p.Redaction {
			case RedactBlock:
				delete(h, name)
				return errEchoed
			case RedactBlot:
				values[i] = clean
			}
		}
	}
	return nil
}

func (r Redaction) stream() redact.Mode {
	switch r {
	case RedactBlot:
		return redact.Blot
	case RedactBlock:
		return redact.Stop
	}
	return redact.Report
}

// echoed notes that the credential was found.
func (p *Proxy) echoed(call *Call, where string) {
	if !call.Echoed.Swap(true) {
		p.Logger.Warn("the provider's answer has the connection's credential in it",
			zap.String("integration", call.ID.Integration), zap.String("connection", call.ID.Connection),
			zap.String("where", where), zap.String("redaction", redactionNames[p.Redaction]))
	}
}

// redacted is a body that is looked into, and after it the trailers.
type redacted struct {
	io.Reader
	io.Closer
	done func()
}

func (b *redacted) Close() error {
	err := b.Closer.Close()
	b.done()
	return err
}

// watched is a switched connection. Frames keep their lengths, so that nothing
// needs to be known of them; what goes to the provider isn't looked into.
type watched struct {
	io.ReadWriteCloser
	in io.Reader
}

func (w *watched) Read(p []byte) (int, error) { return w.in.Read(p) }

// CloseWrite tells the provider that nothing more comes.
func (w *watched) CloseWrite() error { return closeWrite(w.ReadWriteCloser) }

func closeWrite(conn io.ReadWriteCloser) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// decompress makes an answer's body readable that the provider has compressed
// without being asked. Errors: *AnswerError.
func decompress(res *http.Response) error {
	var open func(io.Reader) (io.ReadCloser, error)
	coding := strings.ToLower(strings.Join(res.Header["Content-Encoding"], ","))
	switch coding {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		open = func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }
	case "deflate":
		open = zlib.NewReader
	default:
		return &AnswerError{"it is compressed (" + coding + ") although that wasn't asked for, so that it can't be looked into"}
	}
	delete(res.Header, "Content-Encoding")
	delete(res.Header, "Content-Length")
	res.ContentLength, res.Uncompressed = -1, true
	res.Body = &decompressed{Closer: res.Body, src: res.Body, open: open}
	return nil
}

// decompressed is a body that is opened when it is read: its first bytes may not
// be there before.
type decompressed struct {
	io.Closer
	src  io.Reader
	open func(io.Reader) (io.ReadCloser, error)
	r    io.Reader
}

func (d *decompressed) Read(p []byte) (int, error) {
	if d.r == nil {
		r, err := d.open(d.src)
		if err != nil {
			return 0, fmt.Errorf("decompressing the provider's answer: %w", err)
		}
		d.r = r
	}
	return d.r.Read(p)
}
