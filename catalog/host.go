package catalog

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// fillHost puts the host together from literals and values.
func (t *urlTemplate) fillHost(e *Env) (*url.URL, error) {
	var extra string // port and path prefix that came with a value
	whole := len(t.host) == 1 && len(t.port) == 0
	host, err := t.host.fillEach(e, func(x *expr, v string) (string, error) {
		if err := x.checkField(v); err != nil {
			return "", err
		}
		if whole {
			v, extra = x.cutHost(v)
		}
		return v, checkHostPiece(x, v)
	})
	if err != nil {
		return nil, err
	}
	if !t.host.literal() {
		host = strings.ToLower(host)
		if err := checkHost(host); err != nil {
			return nil, &UnsafeError{t.host.String(), err.Error()}
		}
		// By construction; a second look at the promise this package makes.
		if !underSuffix(host, t.suffix()) {
			return nil, &UnsafeError{t.host.String(), "the host does not end as the template says"}
		}
	}
	port, err := t.port.fill(e)
	if err != nil {
		return nil, err
	}
	var prefix string
	if extra != "" {
		port, prefix, err = checkExtra(extra)
	} else if port != "" {
		err = checkPort(port)
	}
	if err != nil {
		return nil, &UnsafeError{t.host.String(), err.Error()}
	}
	return reparse(t.scheme, host+port, prefix)
}

// suffix is the literal end of the host.
func (t *urlTemplate) suffix() string {
	if last := t.host[len(t.host)-1]; last.expr == nil {
		return strings.ToLower(last.text)
	}
	return ""
}

func underSuffix(host, suffix string) bool {
	rest, ok := strings.CutSuffix(host, suffix)
	return ok && rest != ""
}

// checkField applies the rules of the declared field. A value that came from an
// answer of the vendor has not been checked before.
func (x *expr) checkField(v string) error {
	if x.field == nil {
		return nil
	}
	if err := x.field.Check(v); err != nil {
		var fe *FieldError
		reason := "the value is not allowed"
		if errors.As(err, &fe) {
			reason = fe.Message
		}
		return &UnsafeError{x.String(), reason}
	}
	return nil
}

// cutHost takes port and path prefix off a value, where the field provides for
// them: its enum, its example or its regex shows one.
func (x *expr) cutHost(v string) (host, extra string) {
	// Some vendors show their address with the scheme; the template has its own.
	v = strings.TrimPrefix(v, "https://")
	f := x.field
	if f == nil || f.Format == "hostname" {
		return v, ""
	}
	i := strings.IndexAny(v, ":/")
	if i < 0 {
		return v, ""
	}
	shown := append([]string{f.Example}, f.Enum...)
	if f.Regexp != nil {
		shown = append(shown, f.Regexp.String())
	}
	for _, s := range shown {
		if strings.IndexByte(s, v[i]) >= 0 {
			return v[:i], v[i:]
		}
	}
	return v, ""
}

// checkExtra splits :8443/path and checks both.
func checkExtra(s string) (port, path string, err error) {
	port, path, _ = strings.Cut(s, "/")
	if port != "" {
		if err := checkPort(port); err != nil {
			return "", "", err
		}
	}
	if path = strings.TrimRight(path, "/"); path == "" {
		return port, "", nil
	}
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "" || seg == "." || seg == ".." || strings.ContainsFunc(seg, notPathRune) {
			return "", "", errors.New("the path may have letters, digits and - . _ ~ between single slashes")
		}
	}
	return port, "/" + path, nil
}

// checkPort checks a port with its colon.
func checkPort(s string) error {
	digits := s[1:]
	if n, err := strconv.ParseUint(digits, 10, 16); err != nil || n == 0 || digits[0] == '0' {
		return errors.New("the port must be a number from 1 to 65535")
	}
	return nil
}

// reparse is the last check: what the URL parser of the program sees must be
// what was put together.
func reparse(scheme, host, path string) (*url.URL, error) {
	u, err := url.Parse(scheme + "://" + host + path)
	if err != nil || u.Scheme != scheme || u.Host != host || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.EscapedPath() != path {
		return nil, &UnsafeError{"url", "it does not stay the same when it is read again"}
	}
	return u, nil
}

// fillBase reads the absolute URL that the first reference holds.
func (t *urlTemplate) fillBase(e *Env, alone bool) (*url.URL, error) {
	v, err := t.base.eval(e, false)
	if err != nil {
		return nil, err
	}
	if err := t.base.checkField(v); err != nil {
		return nil, err
	}
	refuse := func(reason string) (*url.URL, error) { return nil, &UnsafeError{t.base.String(), reason} }
	if i := strings.IndexFunc(v, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }); i >= 0 {
		return refuse("a URL has no spaces, backslashes, control characters or letters beyond ASCII (write xn-- and percent-encode)")
	}
	u, err := url.Parse(v)
	switch {
	case err != nil, u.Opaque != "", u.Host == "":
		return refuse("it must be a whole URL such as https://example.com")
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse("the URL must begin with https://")
	case u.User != nil:
		return refuse("the URL must not have a user name or password")
	case strings.Contains(v, "#"):
		return refuse("the URL must not have a # part")
	case strings.Contains(v, "?") && !alone:
		return refuse("the URL must not have a ? part")
	}
	u.Host = strings.ToLower(u.Host)
	name, port := u.Hostname(), u.Port()
	if strings.HasSuffix(u.Host, ":") {
		return refuse("the port is missing after the colon")
	}
	if port != "" && checkPort(":"+port) != nil {
		return refuse("the port must be a number from 1 to 65535")
	}
	// The operator may point an integration at an address; a person may not.
	if addr, err := netip.ParseAddr(name); err == nil && t.base.ref.Namespace == "app" && addr.Zone() == "" && addr.String() == name {
		return u, nil
	}
	if strings.Contains(u.Host, "[") {
		return refuse("the host must be a name, not an IP address")
	}
	if err := checkHost(name); err != nil {
		return refuse(err.Error())
	}
	return u, nil
}

// checkHostPiece is for a value that becomes part of a host name.
func checkHostPiece(x *expr, v string) error {
	for _, r := range v {
		if r >= 0x80 {
			return &UnsafeError{x.String(), "write the name in its xn-- form; other letters than a-z are not taken"}
		}
		if notHostRune(r) {
			return &UnsafeError{x.String(), fmt.Sprintf("a host name has letters, digits, hyphens and dots, not %q", r)}
		}
	}
	if v == "" || v[0] == '.' || v[len(v)-1] == '.' || strings.Contains(v, "..") {
		return &UnsafeError{x.String(), "a host name has something between its dots, and none at its ends"}
	}
	return nil
}

// checkHost checks a whole host name: labels of letters, digits and hyphens, and
// no IP address. Resolvers take 127.1, 0x7f000001 and 017700000001 for addresses
// too, and all of these end in a label that is a number.
func checkHost(host string) error {
	if len(host) > 253 {
		return errors.New("the host name is longer than 253 characters")
	}
	var last string
	for label := range strings.SplitSeq(host, ".") {
		switch {
		case label == "":
			return errors.New("the host name has an empty label")
		case len(label) > 63:
			return errors.New("a label of the host name is longer than 63 characters")
		case label[0] == '-' || label[len(label)-1] == '-':
			return errors.New("a label of the host name begins or ends with a hyphen")
		case strings.ContainsFunc(label, func(r rune) bool { return r == '.' || notHostRune(r) }):
			return errors.New("a host name has letters, digits, hyphens and dots only")
		}
		last = label
	}
	if isNumber(last) {
		return errors.New("the host must be a name, not an IP address")
	}
	return nil
}

func isNumber(label string) bool {
	digits := "0123456789"
	if rest, ok := strings.CutPrefix(strings.ToLower(label), "0x"); ok {
		label, digits = rest, "0123456789abcdef"
	}
	return strings.Trim(strings.ToLower(label), digits) == ""
}

func notHostRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
}

func notPathRune(r rune) bool {
	return notHostRune(r) && r != '_' && r != '~'
}
