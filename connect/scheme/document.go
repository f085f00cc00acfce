package scheme

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// document is a provider's answer, whatever it was written in: JSON, a form,
// XML, or a text that is a token as a whole.
type document struct {
	root    any
	raw     []byte // as JSON
	cookies string // name=value pairs of the answer, for a Cookie header
}

// syntax is how an answer is written.
type syntax int

const (
	asJSON syntax = iota
	asForm        // or JSON: some providers call everything text
	asXML
)

// syntaxOf reads the syntax from an answer's media type.
func syntaxOf(contentType string) syntax {
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case kind == "application/x-www-form-urlencoded", kind == "text/plain":
		return asForm
	case kind == "text/xml", kind == "application/xml", strings.HasSuffix(kind, "+xml"):
		return asXML
	}
	return asJSON
}

func parseDocument(body []byte, as syntax) (document, error) {
	trimmed := bytes.TrimSpace(body)
	switch {
	case as == asXML && bytes.HasPrefix(trimmed, []byte("<")):
		root, err := parseXML(trimmed)
		if err != nil {
			return document{}, notReadable("XML")
		}
		return plainDocument(root)
	case as == asForm && (len(trimmed) == 0 || trimmed[0] != '{' && trimmed[0] != '['):
		values, err := url.ParseQuery(string(trimmed))
		if err != nil || len(values) == 0 {
			return document{}, notReadable("JSON")
		}
		root := make(map[string]any, len(values))
		for k := range values {
			root[k] = values.Get(k)
		}
		return plainDocument(root)
	}
	dec := json.NewDecoder(bytes.NewReader(trimmed))
	dec.UseNumber()
	var root any
	if err := dec.Decode(&root); err != nil {
		return document{}, notReadable("JSON")
	}
	if _, err := dec.Token(); err != io.EOF {
		return document{}, notReadable("JSON") // there is more behind it
	}
	return document{root: root, raw: trimmed}, nil
}

// plainDocument is a document of strings, lists and maps.
func plainDocument(root map[string]any) (document, error) {
	raw, err := json.Marshal(root)
	if err != nil {
		return document{}, fmt.Errorf("keeping an answer: %w", err)
	}
	return document{root: root, raw: raw}, nil
}

// textDocument is an answer that is a token as a whole. It may be written as a
// JSON string or without quotes.
func textDocument(body []byte) (document, error) {
	text := string(bytes.TrimSpace(body))
	var quoted string
	if json.Unmarshal([]byte(text), &quoted) == nil {
		text = quoted
	}
	raw, err := json.Marshal(text)
	if err != nil {
		return document{}, fmt.Errorf("keeping an answer: %w", err)
	}
	return document{root: text, raw: raw}, nil
}

func notReadable(as string) error {
	return &TokenError{Class: Transient, Code: "not_" + strings.ToLower(as), Description: "the provider's answer is not " + as}
}

// cookiesOf joins the cookies of an answer the way a browser sends them back.
func cookiesOf(res *http.Response) string {
	var pairs []string
	for _, c := range res.Cookies() {
		if c.MaxAge >= 0 && c.Value != "" {
			pairs = append(pairs, c.Name+"="+c.Value)
		}
	}
	return strings.Join(pairs, "; ")
}

// at returns what is at a dotted path; nil if there is nothing.
func (d document) at(path string) any {
	v := d.root
	if path == "$body" || path == "" {
		return v
	}
	for key := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(node) {
				return nil
			}
			v = node[i]
		default:
			return nil
		}
	}
	return v
}

// text returns the value at a dotted path if it is a string, number or bool.
func (d document) text(path string) (string, bool) { return scalarText(d.at(path)) }

func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// responseValue is document.text of a stored answer.
func responseValue(raw []byte, path string) (string, bool) {
	doc, err := parseDocument(raw, asJSON)
	if err != nil {
		return "", false
	}
	return doc.text(path)
}
