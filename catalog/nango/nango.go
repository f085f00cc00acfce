// Package nango reads a providers.yaml as Nango has it, and says the same in
// this project's own form, so that an operator can bring along what a
// self-hosted Nango was given.
//
// The file is data with placeholders; what Nango does in code beside it can't be
// read from it. An entry that needs such code is reported, with the reason, and
// whoever has one of the same id keeps that.
//
// It may import catalog and the YAML library, and nothing else of this module.
package nango

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keycaddy/keycaddy/catalog"
)

// maxFile is the largest file that is read. Nango's own has less than 1 MiB.
const maxFile = 16 << 20

// Remark says what of an entry was not taken, and why.
type Remark struct {
	ID      string
	Line    int  // in providers.yaml
	Refused bool // the entry as a whole
	Reason  string
}

func (r Remark) String() string { return fmt.Sprintf("line %d: %s: %s", r.Line, r.ID, r.Reason) }

// Parse translates a providers.yaml. The providers come in the order of their
// ids, as if each had been read from a file of its own. The error is about the
// file as a whole.
func Parse(data []byte) (providers []*catalog.Provider, remarks []Remark, err error) {
	entries, err := read(data)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		p, err := e.provider()
		if err != nil {
			remarks = append(remarks, Remark{e.id, e.line, true, oneLine(err)})
			continue
		}
		if script := e.has.text("post_connection_script"); script != "" {
			remarks = append(remarks, Remark{e.id, e.line, false, "what is looked up after connecting (" + script + ") is done by code there"})
		}
		providers = append(providers, p)
	}
	slices.SortFunc(providers, func(a, b *catalog.Provider) int { return strings.Compare(a.ID, b.ID) })
	return providers, remarks, nil
}

// entry is one provider of the file, with what it inherits.
type entry struct {
	id   string
	line int
	has  object
}

// object is a YAML map.
type object map[string]any

func read(data []byte) ([]entry, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("longer than %d MiB; that is no providers.yaml", maxFile>>20)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("a providers.yaml is a map from ids to providers")
	}
	root := doc.Content[0]
	raw := make(map[string]object, len(root.Content)/2)
	entries := make([]entry, 0, len(root.Content)/2)
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		var has object
		if err := value.Decode(&has); err != nil || has == nil {
			return nil, fmt.Errorf("line %d: %s is not a map of keys and values", value.Line, key.Value)
		}
		if raw[key.Value] != nil {
			return nil, fmt.Errorf("line %d: %s is given twice", key.Line, key.Value)
		}
		raw[key.Value] = has
		entries = append(entries, entry{id: key.Value, line: key.Line})
	}
	for i := range entries {
		has, err := inherit(raw, entries[i].id, 0)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", entries[i].line, err)
		}
		entries[i].has = has
	}
	return entries, nil
}

// inherit lays an entry over the one it is an alias of: whole top-level keys.
func inherit(raw map[string]object, id string, depth int) (object, error) {
	own, ok := raw[id]
	if !ok {
		return nil, fmt.Errorf("there is no provider %q", id)
	}
	base := own.text("alias")
	if base == "" {
		return own, nil
	}
	if depth > 8 {
		return nil, fmt.Errorf("aliases of %s lead in a circle", id)
	}
	merged := object{}
	from, err := inherit(raw, base, depth+1)
	if err != nil {
		return nil, err
	}
	for _, m := range []object{from, own} {
		for k, v := range m {
			merged[k] = v
		}
	}
	return merged, nil
}

func (o object) text(key string) string {
	s, ok := o[key].(string)
	if !ok && o[key] != nil {
		if n, isNumber := o[key].(int); isNumber {
			return fmt.Sprint(n)
		}
	}
	return s
}

func (o object) flag(key string) bool {
	b, _ := o[key].(bool)
	return b
}

func (o object) number(key string) int {
	n, _ := o[key].(int)
	return n
}

func (o object) object(key string) object {
	switch m := o[key].(type) {
	case object:
		return m
	case map[string]any:
		return m
	}
	return nil
}

func (o object) list(key string) []any {
	l, _ := o[key].([]any)
	return l
}

// words is a list of texts.
func (o object) words(key string) []string {
	var out []string
	for _, v := range o.list(key) {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

// set keeps what isn't empty.
func (o object) set(key string, value any) {
	switch v := value.(type) {
	case nil:
		return
	case string:
		if v == "" {
			return
		}
	case object:
		if len(v) == 0 {
			return
		}
	case map[string]string:
		if len(v) == 0 {
			return
		}
	case []any:
		if len(v) == 0 {
			return
		}
	case []string:
		if len(v) == 0 {
			return
		}
	case bool:
		if !v {
			return
		}
	case int:
		if v == 0 {
			return
		}
	}
	o[key] = value
}

// oneLine makes an error of many fit for a list.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
