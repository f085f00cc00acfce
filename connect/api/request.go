package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keycaddy/keycaddy/connect/api/openapi"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// What a document in a body may be like, so that every store can keep it.
const (
	maxDepth  = 32
	maxDigits = 64
)

type operationKey struct{}

// described gives a request the document's description of it.
func described(op *openapi.Operation, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return h(w, r.WithContext(context.WithValue(r.Context(), operationKey{}, op)))
	}
}

func operation(r *http.Request) *openapi.Operation {
	op, _ := r.Context().Value(operationKey{}).(*openapi.Operation)
	return op
}

// checked looks at the query before a call is answered.
func checked(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := checkQuery(r); err != nil {
			return err
		}
		return h(w, r)
	}
}

// checkQuery refuses what the document doesn't have in the request's query.
func checkQuery(r *http.Request) error {
	op := operation(r)
	if op == nil {
		return nil
	}
	for name, values := range r.URL.Query() {
		if !keepable(name) || !keepable(strings.Join(values, "")) {
			return problem.Invalid("query_params", problem.Field{Code: "custom", Message: "Has a NUL character, or is not UTF-8", Path: []string{}})
		}
	}
	if bad := op.Query(r.URL.Query()); len(bad) > 0 {
		return problem.Invalid("query_params", bad...)
	}
	return nil
}

// read decodes a JSON body that is as the document says.
func read(r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &problem.Problem{Status: http.StatusUnsupportedMediaType, Code: "invalid_content_type", Message: "Content-Type header must be application/json", Action: "fix_request"}
	}
	data, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "request_too_large", Message: "The body is larger than 1 MiB.", Action: "fix_request"}
	}
	invalid := &problem.Problem{Status: http.StatusBadRequest, Code: "invalid_json", Message: "The body is not valid JSON.", Action: "fix_request"}
	if err != nil || !utf8.Valid(data) {
		return invalid
	}
	body, err := parse(data)
	if err != nil {
		return invalid
	}
	if f, ok := storable(body, nil); !ok {
		return problem.Invalid("body", f)
	}
	if op := operation(r); op != nil {
		if bad := op.Body(body); len(bad) > 0 {
			return problem.Invalid("body", bad...)
		}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading a body that is as the document says: %w", err)
	}
	return nil
}

// parse reads one JSON value, numbers as they are written.
func parse(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err = dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err = dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

// keepable tells whether stores can keep a text.
func keepable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// storable tells whether stores can keep a value as JSON.
func storable(v any, at []string) (problem.Field, bool) {
	bad := func(message string) (problem.Field, bool) {
		if at == nil {
			at = []string{}
		}
		return problem.Field{Code: "custom", Message: message, Path: at}, false
	}
	if len(at) > maxDepth {
		at = at[:1]
		return bad(fmt.Sprintf("Is nested deeper than %d levels", maxDepth))
	}
	below := func(name string) []string { return append(at[:len(at):len(at)], name) }
	switch v := v.(type) {
	case string:
		if !keepable(v) {
			return bad("Has a NUL character")
		}
	case json.Number:
		if f, err := v.Float64(); len(v) > maxDigits || err != nil || math.IsInf(f, 0) {
			return bad(fmt.Sprintf("Is a number that is too large, or has more than %d characters", maxDigits))
		}
	case map[string]any:
		for name, child := range v {
			if !keepable(name) {
				return bad("Has a NUL character in a key")
			}
			if f, ok := storable(child, below(name)); !ok {
				return f, false
			}
		}
	case []any:
		for n, child := range v {
			if f, ok := storable(child, below(strconv.Itoa(n))); !ok {
				return f, false
			}
		}
	}
	return problem.Field{}, true
}
