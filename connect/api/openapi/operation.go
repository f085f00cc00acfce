package openapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// Operation is one call.
type Operation struct {
	ID string
	// Raw is the operation as the document has it.
	Raw map[string]any

	doc       *Document
	params    []parameter
	body      *jsonschema.Schema
	optional  bool                          // the body
	responses map[string]*jsonschema.Schema // by status; nil: there is no body
}

// parameter is one of the query.
type parameter struct {
	name           string
	required, deep bool
	many           bool
	kind           string
	least, most    int
	enum           []string
	pattern        *regexp.Regexp
	maxLength      int
}

func (d *Document) operation(path, method string, item, raw map[string]any) (*Operation, error) {
	op := &Operation{Raw: raw, doc: d, responses: make(map[string]*jsonschema.Schema)}
	op.ID, _ = raw["operationId"].(string)
	if op.ID == "" {
		return nil, errors.New("it has no operationId")
	}
	for _, p := range slices.Concat(list(item["parameters"]), list(raw["parameters"])) {
		if err := op.parameter(d.resolve(p)); err != nil {
			return nil, err
		}
	}
	const kind = "application/json"
	if body := d.resolve(raw["requestBody"]); body != nil {
		required, _ := body["required"].(bool)
		op.optional = !required
		var err error
		if op.body, err = d.compile("paths", path, method, "requestBody", "content", kind, "schema"); err != nil {
			return nil, fmt.Errorf("request body: %w", err)
		}
	}
	for status, r := range object(raw["responses"]) {
		response := d.resolve(r)
		op.responses[status] = nil
		if object(response["content"])[kind] == nil {
			continue
		}
		at := []string{"paths", path, method, "responses", status}
		if ref, ok := object(r)["$ref"].(string); ok {
			at = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
		}
		var err error
		if op.responses[status], err = d.compile(append(at, "content", kind, "schema")...); err != nil {
			return nil, fmt.Errorf("response %s: %w", status, err)
		}
	}
	return op, nil
}

func (op *Operation) parameter(raw map[string]any) error {
	if raw["in"] != "query" {
		return nil
	}
	p := parameter{}
	p.name, _ = raw["name"].(string)
	p.required, _ = raw["required"].(bool)
	p.deep = raw["style"] == "deepObject"
	schema := op.doc.resolve(raw["schema"])
	p.kind, _ = schema["type"].(string)
	if p.kind == "array" {
		p.many = true
		schema = op.doc.resolve(schema["items"])
		p.kind, _ = schema["type"].(string)
	}
	number := func(name string, none int) int {
		if n, ok := schema[name].(json.Number); ok {
			if i, err := strconv.Atoi(n.String()); err == nil {
				return i
			}
		}
		return none
	}
	p.least, p.most, p.maxLength = number("minimum", 0), number("maximum", 1<<30), number("maxLength", 0)
	for _, e := range list(schema["enum"]) {
		p.enum = append(p.enum, e.(string))
	}
	if s, ok := schema["pattern"].(string); ok {
		var err error
		if p.pattern, err = regexp.Compile(s); err != nil {
			return err
		}
	}
	op.params = append(op.params, p)
	return nil
}

// Yes and no, as a query has them.
var (
	yes = []string{"true", "1", "yes", "on", "y", "enabled"}
	no  = []string{"false", "0", "no", "off", "n", "disabled"}
)

// Flag reads a query's yes or no that has passed Query.
func Flag(s string) bool { return slices.Contains(yes, strings.ToLower(s)) }

// Query returns what won't do in a request's query.
func (op *Operation) Query(q url.Values) []problem.Field {
	var bad []problem.Field
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		p := op.named(name)
		switch {
		case p == nil:
			bad = append(bad, problem.Field{Code: "unrecognized_keys", Message: fmt.Sprintf("Unrecognized key: %q", name), Path: []string{}})
			continue
		case len(q[name]) > 1 && !p.many:
			seen[p.name] = true
			bad = append(bad, problem.Field{Code: "custom", Message: "Given more than once", Path: []string{name}})
			continue
		}
		seen[p.name] = true
		for _, v := range q[name] {
			if f, ok := p.check(v); !ok {
				f.Path = []string{p.name}
				bad = append(bad, f)
			}
		}
	}
	for i := range op.params {
		if p := &op.params[i]; p.required && !seen[p.name] {
			bad = append(bad, problem.Field{Code: "invalid_type", Message: "Invalid input: expected string, received undefined", Path: []string{p.name}})
		}
	}
	return bad
}

// named finds the parameter that a name in a query is of: tags[x] is of tags,
// include[] of include.
func (op *Operation) named(name string) *parameter {
	for i := range op.params {
		p := &op.params[i]
		switch {
		case p.deep:
			if strings.HasPrefix(name, p.name+"[") && strings.HasSuffix(name, "]") {
				return p
			}
		case name == p.name, p.many && name == p.name+"[]":
			return p
		}
	}
	return nil
}

func (p *parameter) check(v string) (problem.Field, bool) {
	invalid := func(options []string) (problem.Field, bool) {
		return problem.Field{Code: "invalid_value", Message: `Invalid option: expected one of "` + strings.Join(options, `"|"`) + `"`}, false
	}
	switch {
	case p.kind == "integer":
		n, err := strconv.Atoi(v)
		switch {
		case err != nil:
			return problem.Field{Code: "invalid_type", Message: "Invalid input: expected number, received string"}, false
		case n < p.least:
			return problem.Field{Code: "too_small", Message: fmt.Sprintf("Too small: expected number to be >=%d", p.least)}, false
		case n > p.most:
			return problem.Field{Code: "too_big", Message: fmt.Sprintf("Too big: expected number to be <=%d", p.most)}, false
		}
	case p.kind == "boolean":
		if l := strings.ToLower(v); !slices.Contains(yes, l) && !slices.Contains(no, l) {
			return invalid(slices.Concat(yes, no))
		}
	case p.enum != nil:
		if !slices.Contains(p.enum, v) {
			return invalid(p.enum)
		}
	case p.required && v == "":
		return problem.Field{Code: "too_small", Message: "Too small: expected string to have >=1 characters"}, false
	case p.maxLength > 0 && len(v) > p.maxLength:
		return problem.Field{Code: "too_big", Message: fmt.Sprintf("Too big: expected string to have <=%d characters", p.maxLength)}, false
	case p.pattern != nil && !p.pattern.MatchString(v):
		return problem.Field{Code: "invalid_format", Message: fmt.Sprintf("Invalid string: must match pattern /%s/", p.pattern)}, false
	}
	return problem.Field{}, true
}

// TakesBody tells whether the call has a body, and whether it needs one.
func (op *Operation) TakesBody() (takes, needs bool) { return op.body != nil, !op.optional }

// Body returns what won't do in a request's body, which package jsonschema's
// UnmarshalJSON has read.
func (op *Operation) Body(v any) []problem.Field {
	if op.body == nil {
		return nil
	}
	var failed *jsonschema.ValidationError
	if errors.As(op.body.Validate(v), &failed) {
		return op.doc.fields(failed)
	}
	return nil
}

// Response tells whether an answer is as the document has it.
func (op *Operation) Response(status int, body []byte) error {
	schema, ok := op.responses[strconv.Itoa(status)]
	if !ok {
		if schema, ok = op.responses["default"]; !ok || status < 400 {
			return fmt.Errorf("%s: status %d is not in the document", op.ID, status)
		}
	}
	if schema == nil {
		if len(body) > 0 {
			return fmt.Errorf("%s: status %d has a body, and none in the document", op.ID, status)
		}
		return nil
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
	if err != nil {
		return fmt.Errorf("%s: status %d: the body is not JSON: %w", op.ID, status, err)
	}
	if err := schema.Validate(v); err != nil {
		return fmt.Errorf("%s: status %d: %w", op.ID, status, err)
	}
	return nil
}
