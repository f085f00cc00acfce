package redact

import (
	"errors"
	"io"
	"sync"
)

// Mode is what is done about a secret.
type Mode int

const (
	// Report lets it pass; Found tells of it.
	Report Mode = iota
	// Blot blots it out.
	Blot
	// Stop ends the stream before it, with ErrFound.
	Stop
)

// ErrFound ends a stream that has a secret in it.
var ErrFound = errors.New("redact: the stream has a secret in it")

// held is how much of a secret has to be there for it to be held back until the
// rest comes: what ends by chance as a secret begins, goes on at once. If a
// secret's rest follows in another piece, at most held-1 bytes of it have gone.
const held = 4

// chunk is how much is read at once.
const chunk = 32 << 10

// Reader is a stream in which secrets are looked for. Whatever is surely none
// of them can be read as soon as it is there.
type Reader struct {
	r    *Redactor
	mode Mode
	src  io.Reader
	// Found is called when a secret is found for the first time.
	found func()

	// buf[from:safe] can be read. buf[safe:end] is held back: it may be
	// a secret's beginning. The held-1 bytes before from have been read, and are
	// kept because one may have begun there.
	buf             *[]byte
	from, safe, end int
	until           int // what is before this is part of a secret
	used            int // how much of buf has ever been written to
	err             error
}

// NewReader makes a Reader of a stream. Found may be nil.
func (r *Redactor) NewReader(src io.Reader, mode Mode, found func()) *Reader {
	return &Reader{r: r, mode: mode, src: src, found: found}
}

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// Read reads what is surely no secret, or what is left of it.
func (d *Reader) Read(p []byte) (int, error) {
	for d.from == d.safe {
		if d.err != nil {
			d.release()
			return 0, d.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		d.fill()
	}
	n := copy(p, (*d.buf)[d.from:d.safe])
	d.from += n
	return n, nil
}

// fill reads once, and looks at what there is.
func (d *Reader) fill() {
	if d.buf == nil {
		d.buf = chunks.Get().(*[]byte)
	}
	b := *d.buf
	// What isn't needed any more makes room.
	keep := max(0, d.from-(held-1))
	copy(b, b[keep:d.end])
	d.from, d.safe, d.end, d.until = d.from-keep, d.safe-keep, d.end-keep, d.until-keep
	if len(b)-d.end < d.r.longest {
		b = append(b[:d.end:d.end], make([]byte, len(b)+d.r.longest)...)
		d.buf = &b
	}
	n, err := d.src.Read(b[d.end:])
	d.end += n
	d.used = max(d.used, d.end)
	d.err = err
	if n == 0 && err == nil {
		return
	}
	found, rest := d.r.scan(b[:d.end], held)
	if err != nil {
		rest = d.end
	}
	d.blot(b, d.from, rest) // the end of one that was found before
	for _, f := range found {
		if f.from >= rest {
			break // it is held back, and found again
		}
		if d.found != nil {
			d.found()
			d.found = nil
		}
		switch d.mode {
		case Blot:
			d.until = max(d.until, f.to)
			d.blot(b, max(f.from, d.from), rest)
		case Stop:
			d.err, d.safe, d.end = ErrFound, d.from, d.from
			return
		}
	}
	d.safe = max(d.from, rest)
}

// blot blots out a secret that goes on until until, as far as it is let go of:
// in what is held back another one may begin, which is still to be found.
func (d *Reader) blot(b []byte, from, rest int) {
	for i := from; i < min(d.until, rest); i++ {
		b[i] = blot
	}
}

// release gives the memory back once there is nothing more to read.
func (d *Reader) release() {
	if d.buf != nil && len(*d.buf) == chunk {
		clear((*d.buf)[:d.used]) // the next stream is another connection's
		chunks.Put(d.buf)
	}
	d.buf, d.from, d.safe, d.end = nil, 0, 0, 0
}
