package policy

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Call is a kind of call that is allowed: methods, and a pattern of paths.
type Call struct {
	methods  []string // empty: any
	segments []string // decoded
	below    bool     // ends in "**"
}

// ParseCall reads a call as it is written in limits: `[<method>[,<method>…]]
// <path>`, such as `GET,HEAD /repos/*/issues/**`. Without methods, or with `*`,
// it is for all of them. The path is the provider's, below the address that its
// documentation calls the base URL, and is compared byte by byte after what is
// percent-encoded in it was decoded.
//
// In a path `*` stands for any characters of one segment, at least one where it
// is the whole segment, and none of them an encoded slash; and `**` at the end
// for whatever comes below, and for nothing too. What follows a `;` in a segment
// is not a part of the path to servers that know matrix parameters: `*` alone
// stands for a segment with them, if there is something before, and a `*` beside
// other characters for none.
func ParseCall(text string) (Call, error) {
	var c Call
	methods, path, found := strings.Cut(strings.TrimSpace(text), " ")
	if !found {
		methods, path = "*", methods
	}
	path = strings.TrimSpace(path)
	if methods != "*" {
		for m := range strings.SplitSeq(methods, ",") {
			if m == "" || strings.IndexFunc(m, func(r rune) bool { return r < 'A' || r > 'Z' }) >= 0 {
				return c, fmt.Errorf("%q: methods are written in capitals, with commas between", text)
			}
			c.methods = append(c.methods, m)
		}
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return c, fmt.Errorf("%q: a path begins with a slash", text)
	}
	if strings.ContainsAny(rest, "?#\\ ") {
		return c, fmt.Errorf("%q: a path has no query, backslash or space", text)
	}
	for segment := range strings.SplitSeq(rest, "/") {
		if c.below {
			return c, fmt.Errorf("%q: ** is for the end of a path", text)
		}
		if segment == "**" {
			c.below = true
			continue
		}
		plain, err := url.PathUnescape(segment)
		switch {
		case err != nil:
			return c, fmt.Errorf("%q: it has an invalid percent-encoding", text)
		case plain == "." || plain == "..":
			return c, fmt.Errorf("%q: it has a dot segment", text)
		case strings.Contains(plain, "**"):
			return c, fmt.Errorf("%q: ** is a segment of its own", text)
		case strings.Contains(strings.ToLower(segment), "%2a"):
			return c, fmt.Errorf("%q: a * that is a part of the path can't be written", text)
		}
		c.segments = append(c.segments, plain)
	}
	if len(c.segments) > 1 && slices.Contains(c.segments[:len(c.segments)-1], "") {
		return c, fmt.Errorf("%q: it has an empty segment", text)
	}
	return c, nil
}

// Matches tells whether a request is such a call. Path is canonical and has no
// leading slash.
func (c *Call) Matches(method, path string) bool {
	if len(c.methods) > 0 && !slices.Contains(c.methods, method) {
		return false
	}
	for i, want := range c.segments {
		segment, rest, more := strings.Cut(path, "/")
		if !match(want, segment) {
			return false
		}
		if last := i == len(c.segments)-1; last {
			return !more || c.below
		}
		if !more {
			return false
		}
		path = rest
	}
	return c.below // "/**"
}

// match compares a segment, as it is on the wire, with a decoded pattern.
func match(pattern, segment string) bool {
	plain := segment
	if strings.IndexByte(segment, '%') >= 0 {
		plain = unescape(segment)
	}
	first, rest, stars := strings.Cut(pattern, "*")
	if !stars {
		return pattern == plain
	}
	if pattern == "*" {
		name, _, _ := strings.Cut(plain, ";")
		return name != "" && !strings.Contains(plain, "/")
	}
	if !strings.HasPrefix(plain, first) || strings.Contains(plain, ";") && !strings.Contains(pattern, ";") {
		return false
	}
	plain = plain[len(first):]
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more { // the last one is at the end
			return strings.HasSuffix(plain, part) && !strings.Contains(plain[:len(plain)-len(part)], "/")
		}
		i := strings.Index(plain, part)
		if i < 0 || strings.Contains(plain[:i], "/") {
			return false
		}
		plain, rest = plain[i+len(part):], after
	}
}

// unescape decodes what was checked to be decodable; what isn't stays.
func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}
