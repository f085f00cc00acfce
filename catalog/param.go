package catalog

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Params are named values of a query, a form, a JSON body, a set of claims, in
// the order they were written (it matters for XML).
type Params []Pair

// Pair is one of [Params].
type Pair struct {
	Name  string
	Value Param
}

// Param is a value that keeps its type: a template, a bool, a number, a list or
// a map. The zero Param is an empty map.
type Param struct {
	text   Value
	scalar any // bool, int, float64
	list   []Param
	isList bool
	pairs  Params
}

// TextParam makes a Param from a template.
func TextParam(v Value) Param { return Param{text: v} }

// Get returns the value with that name.
func (ps Params) Get(name string) (Param, bool) {
	for _, p := range ps {
		if p.Name == name {
			return p.Value, true
		}
	}
	return Param{}, false
}

// Fill returns the values as plain data: string, bool, int, float64, []any and
// map[string]any. A value that does not resolve is an error, unless it refers to
// a field that need not be given: that one is left out.
func (ps Params) Fill(e *Env) (map[string]any, error) {
	return ps.fill(e, false)
}

// FillPresent is Fill, but what does not resolve is left out, in nested maps and
// lists too; a map left empty disappears. That is the rule of request.query,
// request.body and signed claims.
func (ps Params) FillPresent(e *Env) (map[string]any, error) {
	return ps.fill(e, true)
}

func (ps Params) fill(e *Env, lenient bool) (map[string]any, error) {
	m := make(map[string]any, len(ps))
	for _, p := range ps {
		v, err := p.Value.fill(e, lenient)
		switch {
		case leftEmpty(err), lenient && errors.Is(err, ErrMissing):
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		m[p.Name] = v
	}
	return m, nil
}

// Form is Fill for the values as text. A list or a map is an error.
func (ps Params) Form(e *Env) (url.Values, error) {
	return ps.form(e, false)
}

// FormPresent is Form, but what does not resolve is left out.
func (ps Params) FormPresent(e *Env) (url.Values, error) {
	return ps.form(e, true)
}

func (ps Params) form(e *Env, lenient bool) (url.Values, error) {
	out := make(url.Values, len(ps))
	for _, p := range ps {
		s, err := p.Value.Text(e)
		switch {
		case leftEmpty(err), lenient && errors.Is(err, ErrMissing):
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		out.Set(p.Name, s)
	}
	return out, nil
}

// PerRequest reports whether any value depends on the request.
func (ps Params) PerRequest() bool {
	for _, p := range ps {
		if p.Value.PerRequest() {
			return true
		}
	}
	return false
}

// Fill returns the value with its type kept.
func (p Param) Fill(e *Env) (any, error) { return p.fill(e, false) }

func (p Param) fill(e *Env, lenient bool) (any, error) {
	switch {
	case !p.text.IsZero():
		return p.text.Fill(e)
	case p.scalar != nil:
		return p.scalar, nil
	case p.isList:
		out := make([]any, 0, len(p.list))
		for _, item := range p.list {
			v, err := item.fill(e, lenient)
			switch {
			case leftEmpty(err), lenient && errors.Is(err, ErrMissing):
				continue
			case err != nil:
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	m, err := p.pairs.fill(e, lenient)
	if err == nil && len(m) == 0 && len(p.pairs) > 0 {
		return nil, errNothing
	}
	return m, err
}

// Text returns the value for a form or a query. Lists and maps have none.
func (p Param) Text(e *Env) (string, error) {
	switch v := p.scalar.(type) {
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	}
	if p.text.IsZero() {
		return "", errors.New("a list or a map can't be sent as form or query")
	}
	return p.text.Fill(e)
}

// PerRequest reports whether the value depends on the request.
func (p Param) PerRequest() bool {
	for _, item := range p.list {
		if item.PerRequest() {
			return true
		}
	}
	return p.text.PerRequest() || p.pairs.PerRequest()
}

// Pairs returns the entries of a map, nil for anything else.
func (p Param) Pairs() Params { return p.pairs }

// decode reads a list of strings as alternatives, unless the tag lists:"plain"
// says that lists are lists there: a scope claim is one, a header is not.
func (p *Param) decode(d *decoder, n *yaml.Node, at place) {
	switch n.Kind {
	case yaml.MappingNode:
		p.pairs = Params{}
		p.pairs.decode(d, n, at)
	case yaml.SequenceNode:
		if at.tag.Get("lists") != "plain" && len(n.Content) > 1 && allText(n) {
			p.text.decode(d, n, at)
			return
		}
		p.isList = true
		for i, item := range n.Content {
			var x Param
			x.decode(d, item, at.item(i))
			p.list = append(p.list, x)
		}
	default:
		switch v := scalar(n).(type) {
		case nil:
			d.fail(n, "%s has no value; remove the key or write \"\"", at.path)
		case string:
			p.text.decode(d, n, at)
		default:
			p.scalar = v
		}
	}
}

func (ps *Params) decode(d *decoder, n *yaml.Node, at place) {
	d.pairs(n, at, func(key, value *yaml.Node) {
		var p Param
		p.decode(d, value, at.key(key.Value))
		*ps = append(*ps, Pair{key.Value, p})
	})
}

func (b *Body) decode(d *decoder, n *yaml.Node, at place) {
	if n.Kind == yaml.MappingNode {
		b.Encoding = "json"
		at.tag = `lists:"plain"`
		b.Tree.decode(d, n, at)
		return
	}
	at.tag = `enum:"form json query xml none"`
	b.Encoding = d.word(n, at)
}

func allText(n *yaml.Node) bool {
	for _, item := range n.Content {
		if _, ok := scalar(item).(string); !ok || item.Kind != yaml.ScalarNode {
			return false
		}
	}
	return true
}

func (v *Value) decode(d *decoder, n *yaml.Node, at place) {
	for _, t := range d.templates(n, at) {
		v.alts = append(v.alts, t.parts)
	}
}
