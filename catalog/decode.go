package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder fills structs from YAML nodes, strictly. The struct is the schema:
//
//	`yaml:"url,required"`        the key, and that it must be there
//	`enum:"GET POST"`            the words allowed
//	`default:"POST"`             what stands when the key is absent
//
// A type that has more to check than its kind is a decodable.
type decoder struct {
	file  string
	errs  []located
	holes []hole // every template, for checks that need the whole entry
}

type located struct {
	line int
	err  error
}

// hole is a compiled template and where it stands.
type hole struct {
	parts template
	node  *yaml.Node
	path  string
}

type decodable interface {
	decode(d *decoder, n *yaml.Node, at place)
}

// defaulted is told which keys were written.
type defaulted interface {
	written(keys map[string]*yaml.Node)
}

// place is where the decoder is: token.params.scope.
type place struct {
	path string
	tag  reflect.StructTag
}

func (p place) key(name string) place {
	if p.path != "" {
		name = p.path + "." + name
	}
	return place{name, p.tag}
}

func (p place) item(i int) place { return place{fmt.Sprintf("%s[%d]", p.path, i), p.tag} }

// ParseError is one fault of a provider file.
type ParseError struct {
	File string
	Line int
	Msg  string // what is wrong and what to do
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	d.failLine(n.Line, fmt.Sprintf(format, args...))
}

func (d *decoder) failLine(line int, msg string) {
	d.errs = append(d.errs, located{line, &ParseError{d.file, line, msg}})
}

// err returns all faults in the order of the file.
func (d *decoder) err() error {
	slices.SortStableFunc(d.errs, func(a, b located) int { return a.line - b.line })
	var list []error
	for _, e := range d.errs {
		list = append(list, e.err)
	}
	return errors.Join(list...)
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, at place) {
	if x, ok := v.Addr().Interface().(decodable); ok {
		x.decode(d, n, at)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), at)
	case reflect.Struct:
		d.structure(n, v, at)
	case reflect.String:
		v.SetString(d.word(n, at))
	case reflect.Bool:
		b, ok := scalar(n).(bool)
		if !ok {
			d.fail(n, "%s must be true or false", at.path)
		}
		v.SetBool(b)
	case reflect.Int:
		i, ok := scalar(n).(int)
		if !ok {
			d.fail(n, "%s must be a whole number", at.path)
		}
		v.SetInt(int64(i))
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fail(n, "%s must be a list: start each line with \"- \"", at.path)
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.value(item, v.Index(i), at.item(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.pairs(n, at, func(key, value *yaml.Node) {
			x := reflect.New(v.Type().Elem()).Elem()
			d.value(value, x, at.key(key.Value))
			v.SetMapIndex(reflect.ValueOf(key.Value), x)
		})
	case reflect.Interface:
		if x := plain(n); x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		panic("catalog: decoder has no case for " + v.Type().String())
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, at place) {
	byKey := map[string]*yaml.Node{}
	t := v.Type()
	var known []string
	fields := map[string]reflect.StructField{}
	for i := range t.NumField() {
		f := t.Field(i)
		if tag := f.Tag.Get("yaml"); tag != "" {
			key, _, _ := strings.Cut(tag, ",")
			known = append(known, key)
			fields[key] = f
		}
	}
	ok := d.pairs(n, at, func(key, value *yaml.Node) {
		f, ok := fields[key.Value]
		if !ok {
			d.fail(key, "unknown key %q in %s%s", key.Value, cmp.Or(at.path, "provider"), didYouMean(key.Value, known))
			return
		}
		byKey[key.Value] = value
		inner := at.key(key.Value)
		inner.tag = f.Tag
		d.value(value, v.FieldByIndex(f.Index), inner)
	})
	if !ok {
		return
	}
	for _, key := range known {
		f := fields[key]
		if byKey[key] != nil {
			continue
		}
		if strings.HasSuffix(f.Tag.Get("yaml"), ",required") {
			d.fail(n, "%s is missing in %s", key, cmp.Or(at.path, "provider"))
		}
		if def, ok := f.Tag.Lookup("default"); ok {
			switch target := v.FieldByIndex(f.Index); target.Kind() {
			case reflect.Bool:
				target.SetBool(def == "true")
			default:
				target.SetString(def)
			}
		}
	}
	if x, ok := v.Addr().Interface().(defaulted); ok {
		x.written(byKey)
	}
}

// pairs calls f for each entry of a mapping. Duplicate keys are an error: which
// of them counts would be a matter of luck.
func (d *decoder) pairs(n *yaml.Node, at place, f func(key, value *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "%s must be a map of keys and values", cmp.Or(at.path, "a provider"))
		return false
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.fail(key, "keys of %s must be plain words", cmp.Or(at.path, "a provider"))
			continue
		}
		if first, dup := seen[key.Value]; dup {
			d.fail(key, "key %q of %s was already given in line %d", key.Value, cmp.Or(at.path, "provider"), first)
			continue
		}
		seen[key.Value] = key.Line
		f(key, value)
	}
	return true
}

// word reads a text. Numbers and dates are taken as they were written, so that
// notion-version: 2022-06-28 needs no quotes.
func (d *decoder) word(n *yaml.Node, at place) string {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, "%s must be a text", at.path)
		return ""
	}
	if n.Tag == "!!null" {
		d.fail(n, "%s has no value; remove the key or write \"\"", at.path)
		return ""
	}
	if enum, ok := at.tag.Lookup("enum"); ok {
		words := strings.Fields(enum)
		if !slices.Contains(words, n.Value) {
			hint := didYouMean(n.Value, words)
			if hint == "" {
				hint = "; it is one of " + strings.Join(words, ", ")
			}
			d.fail(n, "%s can't be %q%s", at.path, n.Value, hint)
		}
	}
	return n.Value
}

// templates reads a template or a list of alternatives.
func (d *decoder) templates(n *yaml.Node, at place) []hole {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		if nodes = n.Content; len(nodes) < 2 {
			d.fail(n, "%s: a list of alternatives has two or more entries", at.path)
			return nil
		}
	}
	at.tag = ""
	var out []hole
	for _, item := range nodes {
		src := d.word(item, at)
		t, err := parseTemplate(src)
		if err != nil {
			d.fail(item, "%s: %v", at.path, err)
			continue
		}
		h := hole{t, item, at.path}
		d.holes = append(d.holes, h)
		out = append(out, h)
	}
	return out
}

// shape refuses the parts of YAML that hide what a file says: anchors, aliases,
// own tags, and depth beyond reason.
func (d *decoder) shape(n *yaml.Node, depth int) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fail(n, "YAML anchors and aliases are not supported; write the value out")
		return false
	case depth > 16:
		d.fail(n, "nested deeper than 16 levels")
		return false
	case n.Tag != "" && !strings.HasPrefix(n.Tag, "!!"):
		d.fail(n, "the YAML tag %s is not supported", n.Tag)
		return false
	}
	for _, c := range n.Content {
		if !d.shape(c, depth+1) {
			return false
		}
	}
	return true
}

// scalar returns a string, bool, int or float64, nil for null.
func scalar(n *yaml.Node) any {
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	case "!!int":
		if i, err := strconv.Atoi(n.Value); err == nil {
			return i
		}
	case "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return f
		}
	}
	return n.Value
}

// plain returns a node as plain data. Dates stay text.
func plain(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plain(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			list[i] = plain(c)
		}
		return list
	}
	return scalar(n)
}

func plainDocument(data []byte) any {
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) != 1 {
		return nil
	}
	return plain(doc.Content[0])
}
