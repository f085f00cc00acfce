package catalog

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Headers are header templates by name, lower-case as written.
type Headers map[string]Value

// Canonical returns the form of a header name that net/http uses as map key.
func Canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// Fill returns the headers that resolve, by canonical name; the others are left
// out. It fails with [ErrUnsafe] when a value has a character that headers can't
// carry.
func (h Headers) Fill(e *Env) (map[string]string, error) {
	out := make(map[string]string, len(h))
	for name, v := range h {
		s, err := v.FillHeader(name, e)
		switch {
		case errors.Is(err, ErrMissing):
			continue
		case err != nil:
			return nil, err
		}
		out[Canonical(name)] = s
	}
	return out, nil
}

// PerRequest reports whether any header depends on the request.
func (h Headers) PerRequest() bool {
	for _, v := range h {
		if v.PerRequest() {
			return true
		}
	}
	return false
}

// FillHeader is Fill for a value that becomes the header with that name.
func (v Value) FillHeader(name string, e *Env) (string, error) {
	s, err := v.Fill(e)
	if err != nil {
		return "", fmt.Errorf("header %s: %w", name, err)
	}
	return s, CheckHeaderValue(name, s)
}

// CheckHeaderValue refuses what would end a header line or the request: CR, LF,
// NUL and every other control character but the tab. The error is an
// [UnsafeError] and does not contain the value.
func CheckHeaderValue(name, value string) error {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return &UnsafeError{"header " + name, "the value has a line break or another control character"}
		}
	}
	return nil
}

// reserved headers belong to the connection or frame the message. A catalogue
// entry that sets one could smuggle a request.
var reserved = []string{
	"connection", "content-length", "host", "keep-alive", "proxy-authenticate",
	"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// CheckHeaderName returns an error if a request can't have a header of that
// name, or the proxy owns it.
func CheckHeaderName(name string) error {
	switch {
	case name == "" || strings.ContainsFunc(name, notTokenRune):
		return fmt.Errorf("%q is not a header name", name)
	case slices.Contains(reserved, strings.ToLower(name)):
		return fmt.Errorf("the header %q can't be set; the proxy owns it", name)
	}
	return nil
}

func (h *Headers) decode(d *decoder, n *yaml.Node, at place) {
	*h = Headers{}
	d.pairs(n, at, func(key, value *yaml.Node) {
		name := key.Value
		switch {
		case name == "" || strings.ContainsFunc(name, notTokenRune):
			d.fail(key, "%s: %q is not a header name", at.path, name)
		case name != strings.ToLower(name):
			d.fail(key, "%s: write header names in lower case: %q", at.path, strings.ToLower(name))
		case slices.Contains(reserved, name):
			d.fail(key, "%s: the header %q can't be set; the proxy owns it", at.path, name)
		}
		var v Value
		v.decode(d, value, at.key(name))
		if !v.IsZero() {
			for _, t := range v.alts {
				for _, p := range t {
					if p.expr == nil && CheckHeaderValue(name, p.text) != nil {
						d.fail(value, "%s: the value has a line break or another control character", at.key(name).path)
					}
				}
			}
			(*h)[name] = v
		}
	})
}

func notTokenRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
}
