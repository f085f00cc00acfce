// Package redact finds secrets in what a provider sends back, in all the
// encodings that servers put what they have received into, and blots them out:
// in headers, and in streams of which it never holds more than the beginning of
// a secret.
//
// What it looks for are exact values, so that it finds nothing else. What is
// blotted out keeps its length, and with it every length that was announced
// before: of bodies, chunks, ranges and WebSocket frames.
//
// It imports nothing but the standard library.
package redact

import (
	"bytes"
	"slices"
)

// MinLength is how long a secret has to be, in bytes, to be looked for. Shorter
// ones would be found in places where they mean something else.
const MinLength = 8

// blot takes the place of each byte of a secret. It needs no escaping anywhere.
const blot = '*'

// Redactor finds a set of secrets. It doesn't change, and serves any number of
// goroutines.
//
// It searches as Wu and Manber do ("A fast algorithm for multi-pattern
// searching", TR-94-17, 1994): the three bytes at the end of a window of
// the shortest pattern's length say how far the window can move on.
type Redactor struct {
	patterns [][]byte
	window   int // the length of the shortest pattern, at most 255
	longest  int
	shift    [tableSize]uint8
}

const (
	tableBits = 12
	tableSize = 1 << tableBits
	block     = 3
)

// New makes a Redactor of secrets. It is nil if none of them is long enough to
// be looked for.
func New(secrets []string) *Redactor {
	r := new(Redactor)
	for _, s := range secrets {
		for _, f := range forms(s) {
			if len(f) >= MinLength && !slices.ContainsFunc(r.patterns, func(p []byte) bool { return string(p) == f }) {
				r.patterns = append(r.patterns, []byte(f))
			}
		}
	}
	if len(r.patterns) == 0 {
		return nil
	}
	r.window = 255
	for _, p := range r.patterns {
		r.window, r.longest = min(r.window, len(p)), max(r.longest, len(p))
	}
	for i := range r.shift {
		r.shift[i] = uint8(r.window - block + 1)
	}
	for _, p := range r.patterns {
		for end := block; end <= r.window; end++ {
			h := hash(p[end-block:])
			r.shift[h] = min(r.shift[h], uint8(r.window-end))
		}
	}
	return r
}

func hash(b []byte) uint32 {
	return (uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16) * 0x9e3779b1 >> (32 - tableBits)
}

// span is where a secret is.
type span struct{ from, to int }

// scan finds the secrets in b. Rest is where one may have begun that b doesn't
// hold to its end, with at least held bytes of it there; len(b) if there is none.
func (r *Redactor) scan(b []byte, held int) (found []span, rest int) {
	rest = len(b)
	i := 0
	for i+r.window <= len(b) {
		if s := int(r.shift[hash(b[i+r.window-block:])]); s > 0 {
			i += s
			continue
		}
		for _, p := range r.patterns {
			if p[0] != b[i] {
				continue
			}
			if bytes.HasPrefix(b[i:], p) {
				found = append(found, span{i, i + len(p)})
			} else if len(b)-i < len(p) && bytes.HasPrefix(p, b[i:]) {
				rest = min(rest, i)
			}
		}
		i++
	}
	// Where the window doesn't fit any more, a pattern can only have begun.
	for ; i <= len(b)-held && i < rest; i++ {
		for _, p := range r.patterns {
			if p[0] == b[i] && bytes.HasPrefix(p, b[i:]) {
				return found, i
			}
		}
	}
	return found, rest
}

// String blots out the secrets in a header's value, and tells whether there was
// one.
func (r *Redactor) String(s string) (string, bool) {
	if len(s) < r.window {
		return s, false
	}
	b := append(make([]byte, 0, 512), s...) // most fit, and need no memory of their own
	found, _ := r.scan(b, len(b)+1)
	if len(found) == 0 {
		return s, false
	}
	for _, f := range found {
		erase(b[f.from:f.to])
	}
	return string(b), true
}

// Finds tells whether a secret is in s.
func (r *Redactor) Finds(s string) bool {
	_, found := r.String(s)
	return found
}

func erase(b []byte) {
	for i := range b {
		b[i] = blot
	}
}
