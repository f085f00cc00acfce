package proxy

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// Paths says what keycaddy takes for an unambiguous path. Whatever two servers
// might read in two ways is refused, since what is checked here must be what
// the provider understands (S89).
type Paths struct {
	// EncodedSlash lets %2F through, inside a segment. Some APIs need it
	// (GitLab's project paths); servers that decode it early see two segments.
	EncodedSlash bool
}

// PathError is a request path that is refused.
type PathError struct{ Reason string }

func (e *PathError) Error() string { return "ambiguous path: " + e.Reason }

// Problem is what the caller is told.
func (e *PathError) Problem() *problem.Problem {
	return &problem.Problem{Status: http.StatusBadRequest, Code: "invalid_path", Message: "The path is refused: " + e.Reason + ".", Action: "fix_request",
		Errors: []problem.Field{{Code: "custom", Message: e.Reason, Path: []string{"path"}}}}
}

// Canonical is the one form of a request's path, as escaped by the caller, that
// limits are held against and that is sent: without leading slashes, with those
// characters percent-encoded that have to be, in capitals, and those in plain
// that never need to be (RFC 3986 section 6.2.2). All others keep the bytes that
// the caller gave them, since servers may tell these apart. Errors: *PathError.
func (p Paths) Canonical(escaped string) (string, error) {
	rest := strings.TrimLeft(escaped, "/")
	if err := p.check(rest); err != nil {
		return "", err
	}
	return normal(rest), nil
}

// normal writes a path that was checked in one way.
func normal(path string) string {
	i := 0
	for i < len(path) && path[i] != '%' && legal(path[i]) {
		i++
	}
	if i == len(path) {
		return path
	}
	const digits = "0123456789ABCDEF"
	out := append(make([]byte, 0, len(path)+8), path[:i]...)
	for ; i < len(path); i++ {
		c, plain := path[i], legal(path[i])
		if c == '%' {
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			plain = unreserved(c)
			i += 2
		}
		if plain {
			out = append(out, c)
		} else {
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(out)
}

// legal tells whether a path may have a character as it is (RFC 3986 section
// 3.3). That [ and ] may be there is an error that everybody makes.
func legal(c byte) bool {
	return unreserved(c) || strings.IndexByte("/!$&'()*+,;=:@[]", c) >= 0
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// unreserved tells whether a character means the same with and without
// percent-encoding (RFC 3986 section 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// Join puts a request's path below a base. The result is always below it.
// Errors: *PathError.
func (p Paths) Join(base *url.URL, escaped, rawQuery string) (url.URL, error) {
	canonical, err := p.Canonical(escaped)
	if err != nil {
		return url.URL{}, err
	}
	return below(base, canonical, rawQuery)
}

// below puts a canonical path below a base.
func below(base *url.URL, canonical, rawQuery string) (url.URL, error) {
	if strings.IndexByte(rawQuery, '#') >= 0 { // some servers end the query there (RFC 9112 section 3.2)
		return url.URL{}, &PathError{"its query has a #, which has to be written as %23"}
	}
	root := strings.TrimRight(base.EscapedPath(), "/")
	joined := root
	if canonical != "" || root == "" {
		joined += "/" + canonical
	}
	path, err := url.PathUnescape(joined)
	if err != nil {
		return url.URL{}, &PathError{"it has an invalid percent-encoding"}
	}
	u := url.URL{Scheme: base.Scheme, Host: base.Host, Path: path, RawPath: joined, RawQuery: rawQuery}
	if base.RawQuery != "" {
		u.RawQuery = strings.TrimSuffix(base.RawQuery+"&"+rawQuery, "&")
	}
	return u, nil
}

func (p Paths) check(escaped string) error {
	plain := true
	for i := range len(escaped) {
		switch c := escaped[i]; {
		case c == '\\':
			return &PathError{"it has a backslash"}
		case c <= ' ' || c == 0x7f || c == '#' || c == '?':
			return &PathError{"it has a character that belongs in no path"}
		case c == '%' || c == '.' || c == ';' || c >= 0x80:
			plain = false
		}
	}
	if plain {
		return nil
	}
	for segment := range strings.SplitSeq(escaped, "/") {
		if err := p.checkSegment(segment); err != nil {
			return err
		}
	}
	return nil
}

func (p Paths) checkSegment(segment string) error {
	decoded, err := url.PathUnescape(segment)
	if err != nil {
		return &PathError{"it has an invalid percent-encoding"}
	}
	if err := p.checkDecoded(decoded); err != nil {
		return err
	}
	// Servers that decode what they have decoded before must not see anything
	// new in it.
	if strings.Contains(decoded, "%") {
		again := decodeAny(decoded)
		if hidesAny(decoded) || again != decoded && ((Paths{}).checkDecoded(again) != nil || decodeAny(again) != again) {
			return &PathError{"it is encoded twice"}
		}
	}
	return nil
}

func (p Paths) checkDecoded(decoded string) error {
	if !utf8.ValidString(decoded) {
		return &PathError{"it is not UTF-8"}
	}
	for _, r := range decoded {
		if r < ' ' || r == 0x7f {
			return &PathError{"it has a control character"}
		}
	}
	if strings.Contains(decoded, `\`) {
		return &PathError{"it has a backslash"}
	}
	if !p.EncodedSlash && strings.Contains(decoded, "/") {
		return &PathError{"it has an encoded slash (%2F); where an API needs it, the operator can allow it with allow_encoded_slash"}
	}
	slashes := strings.Contains(decoded, "/")
	for part := range strings.SplitSeq(decoded, "/") {
		if part == "" && slashes {
			return &PathError{"it has an encoded slash (%2F) beside another slash, which servers take for one"}
		}
		name, _, _ := strings.Cut(part, ";") // matrix parameters don't hide it
		if name == "." || name == ".." {
			return &PathError{"it has a dot segment"}
		}
	}
	return nil
}

// hidesAny tells whether there is a second encoding of what paths are made of.
func hidesAny(decoded string) bool {
	lower := strings.ToLower(decoded)
	return slices.ContainsFunc([]string{"%25", "%2e", "%2f", "%5c", "%00"}, func(s string) bool { return strings.Contains(lower, s) })
}

// decodeAny reads percent-encodings as the most forgiving server does: what
// isn't one stays as it is.
func decodeAny(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				out = append(out, c[0])
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}
