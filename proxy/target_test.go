package proxy

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// What two servers might read in two ways is refused; all else goes below the
// base as it came (S89).
func TestJoin(t *testing.T) {
	t.Parallel()
	const refused = ""
	for _, c := range []struct{ base, path, query, want string }{
		// As it came.
		{"https://api.example/v1", "/users", "", "https://api.example/v1/users"},
		{"https://api.example/v1", "users", "", "https://api.example/v1/users"},
		{"https://api.example/v1/", "/users", "", "https://api.example/v1/users"},
		{"https://api.example/v1", "/users/", "", "https://api.example/v1/users/"},
		{"https://api.example/v1", "", "", "https://api.example/v1"},
		{"https://api.example/v1", "/", "", "https://api.example/v1"},
		{"https://api.example", "", "", "https://api.example/"},
		{"https://api.example/", "/", "", "https://api.example/"},
		{"https://api.example", "/a", "", "https://api.example/a"},
		{"https://api.example/v1", "/a//b", "", "https://api.example/v1/a//b"},
		{"https://api.example/a%20b", "/~user/A", "", "https://api.example/a%20b/~user/A"},
		// In the one way in which it is written here.
		{"https://api.example", "/%7Euser/%41%2d", "", "https://api.example/~user/A-"},
		{"https://api.example", "/%c3%a9é", "", "https://api.example/%C3%A9%C3%A9"},
		{"https://api.example", "/a|b\"<>^`{}", "", "https://api.example/a%7Cb%22%3C%3E%5E%60%7B%7D"},
		{"https://api.example", "/a%21!%2c,%3a:%5b[%25", "", "https://api.example/a%21!%2C,%3A:%5B[%25"},
		{"https://api.example", "/v1.0/a..b/...x/.well-known", "", "https://api.example/v1.0/a..b/...x/.well-known"},
		{"https://api.example", "/a;v=1/b:c@d/e,f;g", "", "https://api.example/a;v=1/b:c@d/e,f;g"},
		{"https://api.example", "/%E2%82%AC/%25/100%25", "", "https://api.example/%E2%82%AC/%25/100%25"},
		{"https://api.example", "/a%3Fb%23c", "", "https://api.example/a%3Fb%23c"},
		{"https://api.example", "/a%2520b", "", "https://api.example/a%2520b"},
		// Another host stays a path.
		{"https://api.example/v1", "//evil.example/x", "", "https://api.example/v1/evil.example/x"},
		{"https://api.example", "//evil.example/x", "", "https://api.example/evil.example/x"},
		{"https://api.example", "/https://evil.example/x", "", "https://api.example/https://evil.example/x"},
		{"https://api.example", "/@evil.example", "", "https://api.example/@evil.example"},
		{"https://api.example", "@evil.example", "", "https://api.example/@evil.example"},
		{"https://api.example", ":80@evil.example", "", "https://api.example/:80@evil.example"},
		// Queries.
		{"https://api.example", "/a", "b=1&c;d=%zz&%&=", "https://api.example/a?b=1&c;d=%zz&%&="},
		{"https://api.example?v=2", "/a", "b=1", "https://api.example/a?v=2&b=1"},
		{"https://api.example?v=2", "/a", "", "https://api.example/a?v=2"},
		{"https://api.example", "/a", "x=/../..", "https://api.example/a?x=/../.."},
		// Refused.
		{"https://api.example/v1", "/..", "", refused},
		{"https://api.example/v1", "/../admin", "", refused},
		{"https://api.example/v1", "/a/../../admin", "", refused},
		{"https://api.example/v1", "/a/..", "", refused},
		{"https://api.example/v1", "/./a", "", refused},
		{"https://api.example/v1", "/.", "", refused},
		{"https://api.example/v1", "/%2e%2e/admin", "", refused},
		{"https://api.example/v1", "/%2E./admin", "", refused},
		{"https://api.example/v1", "/.%2e", "", refused},
		{"https://api.example/v1", "/%252e%252e/admin", "", refused},
		{"https://api.example/v1", "/%25%32%65%25%32%65/admin", "", refused},
		{"https://api.example/v1", "/%25252e%25252e/admin", "", refused},
		{"https://api.example/v1", "/..%253b/admin", "", refused},
		{"https://api.example/v1", "/%25c0%25ae%25c0%25ae/admin", "", refused},
		{"https://api.example/v1", "/a%250d%250ab", "", refused},
		{"https://api.example/v1", "/..;/admin", "", refused},
		{"https://api.example/v1", "/..;x=1/admin", "", refused},
		{"https://api.example/v1", "/..%3b/admin", "", refused},
		{"https://api.example/v1", "/.;/a", "", refused},
		{"https://api.example/v1", "/a%2fb", "", refused},
		{"https://api.example/v1", "/a%2Fb", "", refused},
		{"https://api.example/v1", "/..%2f..%2fadmin", "", refused},
		{"https://api.example/v1", "/a%252fb", "", refused},
		{"https://api.example/v1", `/a\b`, "", refused},
		{"https://api.example/v1", `/..\admin`, "", refused},
		{"https://api.example/v1", "/a%5cb", "", refused},
		{"https://api.example/v1", "/a%5Cb", "", refused},
		{"https://api.example/v1", "/a%255cb", "", refused},
		{"https://api.example/v1", "/%c0%ae%c0%ae/admin", "", refused},
		{"https://api.example/v1", "/a%c0%afb", "", refused},
		{"https://api.example/v1", "/%ff", "", refused},
		{"https://api.example/v1", "/a%00", "", refused},
		{"https://api.example/v1", "/a%2500", "", refused},
		{"https://api.example/v1", "/a\x00", "", refused},
		{"https://api.example/v1", "/a%0d%0ab", "", refused},
		{"https://api.example/v1", "/a%7f", "", refused},
		{"https://api.example/v1", "/a\r\nHost: evil", "", refused},
		{"https://api.example/v1", "/a b", "", refused},
		{"https://api.example/v1", "/a\tb", "", refused},
		{"https://api.example/v1", "/a#b", "", refused},
		{"https://api.example/v1", "/a", "b#c", refused},
		{"https://api.example/v1", "/a?b", "", refused},
		{"https://api.example/v1", "/a%", "", refused},
		{"https://api.example/v1", "/a%zz", "", refused},
		{"https://api.example/v1", "/%u002e%u002e/", "", refused},
	} {
		u, err := Paths{}.Join(parse(t, c.base), c.path, c.query)
		var bad *PathError
		switch {
		case c.want == refused:
			if !errors.As(err, &bad) || problem.Of(err).Status != 400 || problem.Of(err).Code != "invalid_path" {
				t.Errorf("%q below %s: got %v, %v", c.path, c.base, u, err)
			}
		case err != nil:
			t.Errorf("%q below %s: %v", c.path, c.base, err)
		case u.Scheme+"://"+u.Host+u.RequestURI() != c.want:
			t.Errorf("%q below %s: sent to %s", c.path, c.base, u.Scheme+"://"+u.Host+u.RequestURI())
		}
	}
}

func TestJoinWithEncodedSlash(t *testing.T) {
	t.Parallel()
	base := parse(t, "https://api.example/v4")
	u, err := Paths{EncodedSlash: true}.Join(base, "/projects/group%2Fsub%2fname/files", "")
	if err != nil || u.RequestURI() != "/v4/projects/group%2Fsub%2Fname/files" {
		t.Errorf("got %v, %v", u, err)
	}
	for _, p := range []string{"/..%2f..%2fadmin", "/a%2f..", "/a%2F%2e%2e%2Fb", "/%2f.%2f", "/a%252f..%252f..", "/..%252fb", "/a%2f..;x%2fb", "/a%5c..", "/%2f%00"} {
		if u, err := (Paths{EncodedSlash: true}).Join(base, p, ""); err == nil {
			t.Errorf("%q: got %v", p, u)
		}
	}
}

// FuzzTarget checks what a joined target has to be, however the path is
// written: at the base's scheme and host, below its path even for a server that
// decodes more often than it should, and of the caller's own bytes.
func FuzzTarget(f *testing.F) {
	for _, p := range []string{
		"/", "", "a", "/a/", "/../x", "/%2e%2e/x", "/%2E.", "/%252e%252e", "/%2f", "/%5c", `\`, "//host/x", "..;/", "/..%3b/", "/%c0%ae%c0%ae/",
		"/%00", "#", "?", " ", "/a//b", "/%25%32%65", "/%%32%65%%32%65/x", "/a%2Fb", "/%25252e", "/\u20ac", "/%ef%bc%8e%ef%bc%8e/", "/a|b\"", "/[x]", ":x@y", "/%25c0%25ae",
	} {
		f.Add(p, "a=1&b;c", false)
		f.Add(p, "", true)
	}
	base, err := url.Parse("https://api.example:8443/base/v1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p, query string, encodedSlash bool) {
		u, err := Paths{EncodedSlash: encodedSlash}.Join(base, p, query)
		if err != nil {
			var bad *PathError
			if u != (url.URL{}) || !errors.As(err, &bad) || bad.Reason == "" {
				t.Fatalf("%q: %v, %v", p, u, err)
			}
			return
		}
		if u.Scheme != base.Scheme || u.Host != base.Host || u.User != nil || u.Opaque != "" || u.RawQuery != query {
			t.Fatalf("%q: got %#v", p, u)
		}
		wire := u.EscapedPath()
		rest := strings.TrimLeft(p, "/")
		want := "/base/v1"
		if rest != "" {
			want += "/" + rest
		}
		if as, err := url.PathUnescape(want); err != nil || as != u.Path {
			t.Fatalf("%q means %q, %v", p, u.Path, err)
		}
		// What a URL may hold is sent as it came, but for percent-encodings that
		// have another spelling; what it may not is escaped.
		if valid(rest) && !strings.Contains(rest, "%") && wire != want {
			t.Fatalf("%q is sent as %q", p, wire)
		}
		again, err := Paths{EncodedSlash: encodedSlash}.Join(base, strings.TrimPrefix(wire, "/base/v1"), query)
		if err != nil || again != u || wire != u.RawPath {
			t.Fatalf("%q isn't canonical: %q, %q, %v", p, wire, again.RawPath, err)
		}
		if strings.ContainsAny(wire, " \t\r\n\x00\x7f\\#?") {
			t.Fatalf("%q is sent as %q", p, wire)
		}
		for n, seen := 1, wire; n <= 3; n++ {
			seen = decode(seen)
			if clean := path.Clean(withoutParameters(strings.ReplaceAll(seen, `\`, "/"))); clean != "/base/v1" && !strings.HasPrefix(clean, "/base/v1/") {
				t.Fatalf("%q is %q when decoded %d times", p, clean, n)
			}
			if n < 3 && !utf8.ValidString(seen) || strings.Contains(seen, "\x00") {
				t.Fatalf("%q is %q when decoded %d times", p, seen, n)
			}
		}
	})
}

// valid tells whether Go sends the bytes of an escaped path as they are.
func valid(escaped string) bool {
	decoded, err := url.PathUnescape("/" + escaped)
	return err == nil && (&url.URL{Path: decoded, RawPath: "/" + escaped}).EscapedPath() == "/"+escaped
}

// decode reads percent-encodings as the most forgiving server does: those that
// aren't any stay.
func decode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i+2 < len(s) && s[i] == '%' {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// withoutParameters takes ;x=1 out of every segment, as some servers do.
func withoutParameters(p string) string {
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}
