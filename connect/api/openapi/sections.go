package openapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Section is a group of calls, for people to read.
type Section struct {
	Name, Description string
	Calls             []Call
}

// Call is an operation, for people to read.
type Call struct {
	ID, Method, Path, Summary, Description string
	Deprecated                             bool
	Parameters                             []Parameter
	Body                                   string // its schema
	Answers                                []Answer
}

// Parameter is a parameter of a Call.
type Parameter struct {
	Name, In, Description string
	Required              bool
}

// Answer is what a Call may get.
type Answer struct{ Status, Description, Body string }

// Title is the API's name.
func (d *Document) Title() string { return text(object(d.root["info"])["title"]) }

// Description says how the API is used in general.
func (d *Document) Description() string { return text(object(d.root["info"])["description"]) }

// Sections are the calls by tag, in the order of the document's tags.
func (d *Document) Sections() []Section {
	var out []Section
	for _, t := range list(d.root["tags"]) {
		s := Section{Name: text(object(t)["name"]), Description: text(object(t)["description"])}
		paths := object(d.root["paths"])
		for _, path := range slices.Sorted(maps.Keys(paths)) {
			item := object(paths[path])
			for _, method := range []string{"get", "post", "patch", "put", "delete"} {
				if raw := object(item[method]); raw != nil && slices.Contains(list(raw["tags"]), any(s.Name)) {
					s.Calls = append(s.Calls, d.call(strings.ToUpper(method), path, item, raw))
				}
			}
		}
		out = append(out, s)
	}
	return out
}

func (d *Document) call(method, path string, item, raw map[string]any) Call {
	c := Call{ID: text(raw["operationId"]), Method: method, Path: path, Summary: text(raw["summary"]), Description: text(raw["description"])}
	c.Deprecated, _ = raw["deprecated"].(bool)
	for _, p := range slices.Concat(list(item["parameters"]), list(raw["parameters"])) {
		o := d.resolve(p)
		required, _ := o["required"].(bool)
		c.Parameters = append(c.Parameters, Parameter{text(o["name"]), text(o["in"]), text(o["description"]), required})
	}
	c.Body = d.schemaText(d.resolve(raw["requestBody"]))
	responses := object(raw["responses"])
	for _, status := range slices.Sorted(maps.Keys(responses)) {
		r := d.resolve(responses[status])
		a := Answer{Status: status, Description: text(r["description"])}
		if status != "default" {
			a.Body = d.schemaText(r)
		}
		c.Answers = append(c.Answers, a)
	}
	return c
}

// schemaText is the schema of a request or an answer, one reference followed.
func (d *Document) schemaText(of map[string]any) string {
	schema := d.resolve(object(object(of["content"])["application/json"])["schema"])
	if schema == nil {
		return ""
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if e.Encode(schema) != nil {
		return "" // it was JSON before
	}
	return out.String()
}

func text(v any) string { s, _ := v.(string); return s }
