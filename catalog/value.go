package catalog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var (
	// ErrMissing is wrapped by every error of a template that refers to a value
	// which is absent or empty. The text names the reference, conn.subdomain,
	// and never contains a value. See [MissingError].
	ErrMissing = errors.New("missing value")

	// ErrUnsafe is wrapped by every error of a template whose value is there but
	// would change the host, the path or the headers of a request.
	// See [UnsafeError].
	ErrUnsafe = errors.New("unsafe value")

	// errNothing says that all there is in a map was left out.
	errNothing = fmt.Errorf("nothing in it resolves: %w", ErrMissing)

	errTooLong = fmt.Errorf("filled value is longer than %d bytes", maxOutput)
)

// MissingError names the reference that has no value. Optional is set when the
// reference is to a field that a person may leave empty.
type MissingError struct {
	Ref      Ref
	Optional bool
}

// leftEmpty reports whether err is about a field that was rightly left empty.
func leftEmpty(err error) bool {
	var m *MissingError
	return errors.As(err, &m) && m.Optional || errors.Is(err, errNothing)
}

func (e *MissingError) Error() string { return e.Ref.String() + " is missing or empty" }

// Is makes errors.Is(err, ErrMissing) hold.
func (e *MissingError) Is(target error) bool { return target == ErrMissing }

// UnsafeError says which part of a request a value would have broken. Reason is
// fit to be shown to the person who typed the value.
type UnsafeError struct {
	Where  string // conn.subdomain, or header authorization
	Reason string
}

func (e *UnsafeError) Error() string { return e.Where + ": " + e.Reason }

// Is makes errors.Is(err, ErrUnsafe) hold.
func (e *UnsafeError) Is(target error) bool { return target == ErrUnsafe }

// Env is what templates are filled from. One Env serves one outgoing request,
// so that uuid() and time() are the same all over it. It is not safe for several
// goroutines at once.
type Env struct {
	// Lookup returns the value a reference names. It is asked again for each
	// reference, so it should be quick.
	Lookup func(namespace, path string) (value string, ok bool)

	// Now is the time of the request. Default: time.Now on first use.
	Now time.Time

	uuid string
}

func (e *Env) lookup(r Ref) (string, bool) {
	if e == nil || e.Lookup == nil {
		return "", false
	}
	return e.Lookup(r.Namespace, r.Path)
}

func (e *Env) now() time.Time {
	if e == nil {
		return time.Now().UTC()
	}
	if e.Now.IsZero() {
		e.Now = time.Now()
	}
	return e.Now.UTC()
}

func (e *Env) newUUID() string {
	if e == nil {
		return randomUUID()
	}
	if e.uuid == "" {
		e.uuid = randomUUID()
	}
	return e.uuid
}

func randomUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand stops the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Value is a template, or several alternatives of which the first that resolves
// wins. The zero Value is what a key that was not written gives; it fills to "".
type Value struct{ alts []template }

// ParseValue makes a Value from its source, several for alternatives. It checks
// namespaces, functions and arguments, but not that the fields exist.
func ParseValue(alternatives ...string) (Value, error) {
	var v Value
	for _, src := range alternatives {
		t, err := parseTemplate(src)
		if err != nil {
			return Value{}, err
		}
		v.alts = append(v.alts, t)
	}
	return v, nil
}

// Fill returns the text, at most 64 KiB. An alternative is passed over only when
// a value is missing ([ErrMissing]); any other error counts at once, so that a
// broken value never falls through to another host.
func (v Value) Fill(e *Env) (string, error) {
	var err error
	for _, t := range v.alts {
		var s string
		if s, err = t.fill(e); !errors.Is(err, ErrMissing) {
			return s, err
		}
	}
	return "", err
}

// PerRequest reports whether the value depends on the request: on req.*, uuid()
// or time(). Any other value can be filled once for a credential.
func (v Value) PerRequest() bool { return perRequest(v.alts) }

// Refs returns every value the template refers to, each once, in order.
func (v Value) Refs() []Ref { return refs(v.alts) }

// IsZero reports whether the key was not written at all.
func (v Value) IsZero() bool { return len(v.alts) == 0 }

// String returns the source, alternatives separated by " | ".
func (v Value) String() string {
	parts := make([]string, len(v.alts))
	for i, t := range v.alts {
		parts[i] = t.String()
	}
	return strings.Join(parts, " | ")
}

func perRequest(alts []template) (found bool) {
	for _, t := range alts {
		t.walk(func(x *expr) {
			if x.ref.Namespace == "req" || x.fn != nil && x.fn.perRequest {
				found = true
			}
		})
	}
	return found
}

func refs(alts []template) []Ref {
	var out []Ref
	for _, t := range alts {
		t.walk(func(x *expr) {
			if x.ref.Namespace != "" && !slices.Contains(out, x.ref) {
				out = append(out, x.ref)
			}
		})
	}
	return out
}
