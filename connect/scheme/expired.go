package scheme

import (
	"bytes"
	"compress/gzip"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// maxSignal is how much of a body is looked at for a sign that the credential
// has ended.
const maxSignal = 16 << 10

// Expired tells whether an answer says that the credential has ended: a 401, or
// what the provider's entry takes for one. A 401 that asks for a wider scope is
// none of these: a new token would have the same scope (RFC 6750 section 3.1).
// The answer's body stays to be read whole.
func (b *Binding) Expired(res *http.Response) bool {
	if res.StatusCode == http.StatusUnauthorized {
		for _, challenge := range res.Header["Www-Authenticate"] {
			if strings.Contains(challenge, "insufficient_scope") {
				return false
			}
		}
		return true
	}
	req := b.provider.Request
	if slices.Contains(req.ExpiredStatuses, res.StatusCode) {
		return true
	}
	var doc *document
	for i := range req.Expired {
		s := &req.Expired[i]
		if s.Status != res.StatusCode {
			continue
		}
		if s.Header != "" {
			if slices.ContainsFunc(res.Header.Values(s.Header), func(v string) bool { return strings.Contains(v, s.Contains) }) {
				return true
			}
			continue
		}
		if doc == nil {
			doc = peek(res)
		}
		if saysSo(s, doc) {
			return true
		}
	}
	return false
}

func saysSo(s *catalog.Signal, doc *document) bool {
	v, ok := doc.text(s.Path)
	return ok && v == s.Equals
}

// peek reads a JSON body and puts it back. What is long, no JSON, or may go on
// for ever is left alone.
func peek(res *http.Response) *document {
	none := &document{}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind != "application/json" && !strings.HasSuffix(kind, "+json") || res.ContentLength > maxSignal || res.ContentLength < 0 && res.StatusCode < 400 {
		return none
	}
	var head bytes.Buffer
	_, err := io.CopyN(&head, res.Body, maxSignal+1)
	whole := err == io.EOF
	rest := io.Reader(res.Body)
	if err != nil && !whole {
		rest = failing{err} // the reader gets what was there, and then the same error
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head.Bytes()), rest), res.Body}
	if !whole {
		return none
	}
	data := head.Bytes()
	if strings.EqualFold(res.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return none
		}
		if data, err = io.ReadAll(io.LimitReader(z, 4*maxSignal)); err != nil {
			return none
		}
	}
	doc, err := parseDocument(data, asJSON)
	if err != nil {
		return none
	}
	return &doc
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
