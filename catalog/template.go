package catalog

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of the template language. They are far above what any vendor needs and
// keep a hostile overlay file or answer from costing memory.
const (
	maxTemplate = 16 << 10 // bytes of source
	maxNesting  = 8        // calls inside calls
	maxArgs     = 64       // arguments of one call
	maxOutput   = 64 << 10 // bytes of a filled value
)

// template is a text with holes, ready to be filled:
//
//	template = *( literal / "{{" / "}}" / "{" expr "}" )
//	expr     = ref / call / string
//	ref      = namespace "." path
//	call     = name "(" [ expr *( ", " expr ) ] ")"
//	string   = "'" *( char / "\\" / "\'" / "\n" ) "'"
type template []part

// part is a literal, or a hole when expr is set.
type part struct {
	text string
	expr *expr
}

// expr is one of three: a reference (ref set), a call (fn set) or a text.
type expr struct {
	ref   Ref
	field *Field // what the reference names, for its default and its rules
	fn    *function
	args  []*expr
	text  string
}

// Ref names a value: conn.subdomain is {"conn", "subdomain"}.
type Ref struct{ Namespace, Path string }

func (r Ref) String() string { return r.Namespace + "." + r.Path }

func parseTemplate(src string) (template, error) {
	if len(src) > maxTemplate {
		return nil, fmt.Errorf("template longer than %d bytes", maxTemplate)
	}
	p := parser{src: src}
	var t template
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			t = append(t, part{text: lit.String()})
			lit.Reset()
		}
	}
	for p.pos < len(src) {
		switch c := src[p.pos]; {
		case strings.HasPrefix(src[p.pos:], "{{"), strings.HasPrefix(src[p.pos:], "}}"):
			lit.WriteByte(c)
			p.pos += 2
		case c == '}':
			return nil, errors.New("} without {; write }} for the character itself")
		case c == '{':
			flush()
			p.pos++
			x, err := p.expr(0)
			if err != nil {
				return nil, err
			}
			if !p.take('}') {
				return nil, fmt.Errorf("missing } after {%s; write {{ for the character itself", x)
			}
			t = append(t, part{expr: x})
		default:
			lit.WriteByte(c)
			p.pos++
		}
	}
	flush()
	return t, nil
}

type parser struct {
	src string
	pos int
}

func (p *parser) take(c byte) bool {
	if p.pos < len(p.src) && p.src[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *parser) spaces() {
	for p.take(' ') {
	}
}

// run takes the longest run of bytes that ok accepts.
func (p *parser) run(ok func(byte) bool) string {
	start := p.pos
	for p.pos < len(p.src) && ok(p.src[p.pos]) {
		p.pos++
	}
	return p.src[start:p.pos]
}

func (p *parser) expr(depth int) (*expr, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("calls nested deeper than %d", maxNesting)
	}
	if p.take('\'') {
		return p.str()
	}
	name := p.run(isNameByte)
	switch {
	case name == "" || name[0] < 'a' || name[0] > 'z':
		return nil, errors.New("{ must be followed by a reference such as conn.subdomain or a call such as uuid(); write {{ for the character itself")
	case p.take('('):
		return p.call(name, depth)
	case p.take('.'):
		return p.ref(name)
	}
	if functions[name] != nil {
		return nil, fmt.Errorf("%s is a function; write %s(...)", name, name)
	}
	return nil, fmt.Errorf("%q is neither a reference nor a call; a reference has a namespace, such as conn.%s", name, name)
}

func (p *parser) ref(namespace string) (*expr, error) {
	if err := checkNamespace(namespace); err != nil {
		return nil, err
	}
	start := p.pos
	for {
		if p.run(isPathByte) == "" {
			return nil, fmt.Errorf("the reference %s.%s ends in a dot", namespace, p.src[start:p.pos])
		}
		if !p.take('.') {
			break
		}
	}
	return &expr{ref: Ref{namespace, p.src[start:p.pos]}}, nil
}

func (p *parser) call(name string, depth int) (*expr, error) {
	fn := functions[name]
	if fn == nil {
		return nil, fmt.Errorf("unknown function %q%s", name, didYouMean(name, functionNames))
	}
	x := &expr{fn: fn}
	p.spaces()
	for !p.take(')') {
		if len(x.args) > 0 && !p.take(',') {
			return nil, fmt.Errorf("missing , or ) in the call of %s", name)
		}
		if len(x.args) == maxArgs {
			return nil, fmt.Errorf("%s has more than %d arguments", name, maxArgs)
		}
		p.spaces()
		arg, err := p.expr(depth + 1)
		if err != nil {
			return nil, err
		}
		x.args = append(x.args, arg)
		p.spaces()
	}
	return x, fn.checkArgs(x.args)
}

func (p *parser) str() (*expr, error) {
	var b strings.Builder
	for p.pos < len(p.src) {
		c := p.src[p.pos]
		p.pos++
		switch c {
		case '\'':
			return &expr{text: b.String()}, nil
		case '\\':
			switch {
			case p.take('\\'):
				b.WriteByte('\\')
			case p.take('\''):
				b.WriteByte('\'')
			case p.take('n'):
				b.WriteByte('\n')
			default:
				return nil, errors.New(`unknown escape in a quoted text; there are \\, \' and \n`)
			}
		default:
			b.WriteByte(c)
		}
	}
	return nil, errors.New("quoted text without an end; close it with '")
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_'
}

func isPathByte(c byte) bool {
	return isNameByte(c) || c >= 'A' && c <= 'Z' || c == '$' || c == '-'
}

var namespaces = []string{"conn", "cred", "app", "token", "resp", "signed", "req", "flow", "claim", "answer", "step1"}

func checkNamespace(name string) error {
	for _, n := range namespaces {
		if n == name {
			return nil
		}
	}
	if _, ok := stepNumber(name); ok {
		return nil
	}
	return fmt.Errorf("unknown namespace %q%s", name, didYouMean(name, namespaces))
}

// stepNumber reads step1 to step9.
func stepNumber(namespace string) (int, bool) {
	if len(namespace) == 5 && namespace[:4] == "step" && namespace[4] >= '1' && namespace[4] <= '9' {
		return int(namespace[4] - '0'), true
	}
	return 0, false
}

// String returns the source in its canonical form: parsing it again gives the
// same template.
func (t template) String() string {
	var b strings.Builder
	for _, p := range t {
		if p.expr != nil {
			b.WriteString("{" + p.expr.String() + "}")
		} else {
			b.WriteString(bracesEscaped.Replace(p.text))
		}
	}
	return b.String()
}

var (
	bracesEscaped = strings.NewReplacer("{", "{{", "}", "}}")
	quotesEscaped = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`)
)

func (x *expr) String() string {
	switch {
	case x.fn != nil:
		args := make([]string, len(x.args))
		for i, a := range x.args {
			args[i] = a.String()
		}
		return x.fn.name + "(" + strings.Join(args, ", ") + ")"
	case x.ref.Namespace != "":
		return x.ref.String()
	}
	return "'" + quotesEscaped.Replace(x.text) + "'"
}

func (t template) fill(e *Env) (string, error) {
	if len(t) == 1 {
		return t[0].fill(e)
	}
	var b strings.Builder
	for i := range t {
		s, err := t[i].fill(e)
		if err != nil {
			return "", err
		}
		if b.Len()+len(s) > maxOutput {
			return "", errTooLong
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func (p *part) fill(e *Env) (string, error) {
	if p.expr == nil {
		return p.text, nil
	}
	return p.expr.eval(e, false)
}

// eval fills one hole. An empty value is as good as none, except inside a call:
// a Basic header with an empty password is what some vendors ask for.
func (x *expr) eval(e *Env, inCall bool) (string, error) {
	switch {
	case x.fn != nil:
		var small [4]string
		args := small[:0]
		for _, a := range x.args {
			s, err := a.eval(e, true)
			if err != nil {
				return "", err
			}
			args = append(args, s)
		}
		s, err := x.fn.call(e, args)
		if err != nil {
			return "", fmt.Errorf("%s: %w", x, err)
		}
		if len(s) > maxOutput {
			return "", errTooLong
		}
		return s, nil
	case x.ref.Namespace != "":
		v, ok := e.lookup(x.ref)
		if v == "" && x.field != nil && x.field.hasDefault {
			v, ok = x.field.Default, true
		}
		if !ok || v == "" && !inCall {
			return "", &MissingError{x.ref, x.field != nil && !x.field.Required && x.field.Asked()}
		}
		if len(v) > maxOutput {
			return "", errTooLong
		}
		return v, nil
	}
	return x.text, nil
}

// walk calls f for every expression of the template, calls before arguments.
func (t template) walk(f func(*expr)) {
	for i := range t {
		if t[i].expr != nil {
			t[i].expr.walk(f)
		}
	}
}

func (x *expr) walk(f func(*expr)) {
	f(x)
	for _, a := range x.args {
		a.walk(f)
	}
}
