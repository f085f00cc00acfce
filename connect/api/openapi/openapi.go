// Package openapi has the OpenAPI document of keycaddy's REST API, and checks
// requests by it: what the document says of a request is what the API takes.
// The document is in the YAML files beside this one, one for each area.
//
// It may import connect/problem, the JSON Schema validator, the YAML library and
// the standard library. It knows no handler: that every route is in the document,
// and every answer as it says, is what the tests of package api see to.
package openapi

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

//go:embed *.yaml
var files embed.FS

// Document is the API's description, ready to check by. It doesn't change.
type Document struct {
	// JSON is the document as it is served.
	JSON       []byte
	root       map[string]any
	compiler   *jsonschema.Compiler
	operations map[string]*Operation // "GET /connections/{id}"
}

// Load returns the document, which is read once.
var Load = sync.OnceValues(func() (*Document, error) {
	root, err := merged(files)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return newDocument(root)
})

// merged reads all files: what they have under paths, components and tags is put
// together, all else is in one of them.
func merged(files fs.FS) (map[string]any, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, err
	}
	root := map[string]any{}
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		var part map[string]any
		if err := yaml.Unmarshal(data, &part); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := merge(root, part, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return root, nil
}

func merge(into, part map[string]any, at string) error {
	for key, value := range part {
		have, taken := into[key]
		a, both := have.(map[string]any)
		b, maps := value.(map[string]any)
		switch {
		case !taken:
			into[key] = value
		case both && maps && strings.Count(at, "/") < 2:
			if err := merge(a, b, at+"/"+key); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s/%s is there already", at, key)
		}
	}
	return nil
}

func newDocument(root map[string]any) (*Document, error) {
	d := &Document{operations: make(map[string]*Operation)}
	var err error
	if d.JSON, err = json.Marshal(root); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.JSON))
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	d.root = parsed.(map[string]any)
	d.compiler = jsonschema.NewCompiler()
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(resource, d.root); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	paths := object(d.root["paths"])
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := object(paths[path])
		for method, raw := range item {
			if method == "parameters" || strings.HasPrefix(method, "x-") {
				continue
			}
			op, err := d.operation(path, method, item, object(raw))
			if err != nil {
				return nil, fmt.Errorf("openapi: %s %s: %w", strings.ToUpper(method), path, err)
			}
			d.operations[strings.ToUpper(method)+" "+path] = op
			for _, alias := range list(item["x-aliases"]) { // unless it has one of its own
				if a := alias.(string); object(paths[a])[method] == nil {
					d.operations[strings.ToUpper(method)+" "+a] = op
				}
			}
		}
	}
	return d, nil
}

// resource is what the document is called within the validator.
const resource = "https://keycaddy.invalid/openapi.json"

func (d *Document) compile(pointer ...string) (*jsonschema.Schema, error) {
	at := resource + "#"
	for _, p := range pointer {
		at += "/" + strings.NewReplacer("~", "~0", "/", "~1", "%", "%25", "{", "%7B", "}", "%7D").Replace(p)
	}
	return d.compiler.Compile(at)
}

// Operation returns what a method does at a path as the document has it, or nil.
func (d *Document) Operation(method, path string) *Operation { return d.operations[method+" "+path] }

// Operations returns all, as "GET /connections/{id}", aliases included.
func (d *Document) Operations() map[string]*Operation { return maps.Clone(d.operations) }

// resolve follows references within the document.
func (d *Document) resolve(v any) map[string]any {
	o := object(v)
	for range 10 {
		ref, ok := o["$ref"].(string)
		if !ok {
			break
		}
		o = object(d.at(ref))
	}
	return o
}

// at returns what a pointer such as #/components/schemas/Error leads to.
func (d *Document) at(pointer string) any {
	_, pointer, _ = strings.Cut(pointer, "#/")
	var v any = d.root
	for part := range strings.SplitSeq(pointer, "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~", "%7B", "{", "%7D", "}", "%25", "%").Replace(part)
		switch in := v.(type) {
		case map[string]any:
			v = in[part]
		case []any:
			var n int
			if _, err := fmt.Sscan(part, &n); err != nil || n < 0 || n >= len(in) {
				return nil
			}
			v = in[n]
		default:
			return nil
		}
	}
	return v
}

func object(v any) map[string]any { o, _ := v.(map[string]any); return o }

func list(v any) []any { l, _ := v.([]any); return l }
