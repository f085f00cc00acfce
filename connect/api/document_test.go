package api_test

import (
	"strings"

	"github.com/keycaddy/keycaddy/connect/api/openapi"
)

// documented checks that an answer is as the document has it. Whatever the tests
// of this package call is so.
func (s *service) documented(method, path string, a answer) {
	s.t.Helper()
	d, err := openapi.Load()
	must(s.t, err)
	var found *openapi.Operation
	exact := -1
	for pattern, op := range d.Operations() {
		m, p, _ := strings.Cut(pattern, " ")
		if literal, ok := matches(p, path); m == method && ok && literal > exact {
			found, exact = op, literal
		}
	}
	if found == nil || a.header.Get("Content-Type") == "image/svg+xml" || strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		return
	}
	if err := found.Response(a.status, []byte(a.body)); err != nil {
		s.t.Errorf("%s %s: the answer is not as the document says: %v\n%s", method, path, err, a.body)
	}
}

// matches tells whether a path is one of a pattern's, and how much of it is said
// literally. The id of a connection may have slashes.
func matches(pattern, path string) (literal int, ok bool) {
	parts, at := strings.Split(pattern, "/"), strings.Split(path, "/")
	for n, p := range parts {
		switch {
		case n >= len(at):
			return 0, false
		case p == "{id}" && n == len(parts)-1:
			return literal, at[n] != "" || n < len(at)-1
		case p == "{id}" && at[len(at)-1] == parts[len(parts)-1]:
			return literal + 1, len(at) >= len(parts)
		case strings.HasPrefix(p, "{"):
		case p != at[n]:
			return 0, false
		default:
			literal++
		}
	}
	return literal, len(at) == len(parts)
}
