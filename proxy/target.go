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

// Join puts a request's path, as escaped by the caller, below a base. The
// caller's bytes stay as they are, and the result is always below the base.
// Errors: *PathError.
func (p Paths) Join(base *url.URL, escaped, rawQuery string) (url.URL, error) {
	rest := strings.TrimLeft(escaped, "/")
	if err := p.check(rest); err != nil {
		return url.URL{}, err
	}
	root := strings.TrimRight(base.EscapedPath(), "/")
	joined := root
	if rest != "" || root == "" {
		joined += "/" + rest
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
	for part := range strings.SplitSeq(decoded, "/") {
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
