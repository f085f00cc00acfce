package simulator

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The template language, read a second time: what the catalog package makes of
// a template and what is demanded here must agree, or the entry isn't proved.

type template []node

// node is a literal, a reference or a call.
type node struct {
	text string // literal
	ref  string // conn.subdomain
	call string
	args []node
}

func (n node) String() string {
	switch {
	case n.ref != "":
		return n.ref
	case n.call != "":
		args := make([]string, len(n.args))
		for i, a := range n.args {
			args[i] = a.String()
		}
		return n.call + "(" + strings.Join(args, ",") + ")"
	}
	return "'" + n.text + "'"
}

func parseTemplate(src string) (template, error) {
	var out template
	var lit strings.Builder
	for i := 0; i < len(src); {
		switch {
		case strings.HasPrefix(src[i:], "{{"), strings.HasPrefix(src[i:], "}}"):
			lit.WriteByte(src[i])
			i += 2
		case src[i] == '{':
			if lit.Len() > 0 {
				out = append(out, node{text: lit.String()})
				lit.Reset()
			}
			n, rest, err := parseNode(src[i+1:])
			if err != nil {
				return nil, err
			}
			if !strings.HasPrefix(rest, "}") {
				return nil, fmt.Errorf("template %q: } is missing", src)
			}
			out = append(out, n)
			i = len(src) - len(rest) + 1
		default:
			lit.WriteByte(src[i])
			i++
		}
	}
	if lit.Len() > 0 {
		out = append(out, node{text: lit.String()})
	}
	return out, nil
}

var (
	refForm  = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[A-Za-z0-9_$-]+)+`)
	callForm = regexp.MustCompile(`^[a-z][a-z0-9_]*\(`)
)

func parseNode(s string) (node, string, error) {
	if strings.HasPrefix(s, "'") {
		var text strings.Builder
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] == '\'':
				return node{text: text.String()}, s[i+1:], nil
			case s[i] == '\\' && i+1 < len(s):
				if i++; s[i] == 'n' {
					text.WriteByte('\n')
				} else {
					text.WriteByte(s[i])
				}
			default:
				text.WriteByte(s[i])
			}
		}
		return node{}, "", errors.New("a quoted text has no end")
	}
	if name := callForm.FindString(s); name != "" {
		n := node{call: strings.TrimSuffix(name, "(")}
		s = s[len(name):]
		for {
			s = strings.TrimLeft(s, " ")
			if strings.HasPrefix(s, ")") {
				return n, s[1:], nil
			}
			arg, rest, err := parseNode(s)
			if err != nil {
				return node{}, "", err
			}
			n.args = append(n.args, arg)
			s = strings.TrimPrefix(strings.TrimLeft(rest, " "), ",")
		}
	}
	if ref := refForm.FindString(s); ref != "" {
		return node{ref: ref}, s[len(ref):], nil
	}
	return node{}, "", fmt.Errorf("%.30q is neither a reference nor a call", s)
}

var (
	// errAbsent says that a template refers to a value that isn't there.
	errAbsent = errors.New("a value is not there")
	// errLater says that a template holds a value which the client makes for
	// each request, and that it hasn't been seen elsewhere in the request yet.
	errLater = errors.New("a value of the request is not known yet")
)

// scope is what templates are read against: the values that vendor and client
// share, and those that the client made for one request (uuid, time), which are
// taken from where they stand in plain sight.
type scope struct {
	lookup func(ref string) (string, bool)
	made   map[string]string
	now    time.Time
	// assertion checks what the client has signed itself.
	assertion func(token string) error
}

// choose returns the first alternative whose references are all there.
func (s *scope) choose(alternatives []string) (template, error) {
	err := errAbsent
	for _, src := range alternatives {
		t, e := parseTemplate(src)
		if e != nil {
			return nil, e
		}
		if e = s.present(t, false); e == nil {
			return t, nil
		} else if !errors.Is(e, errAbsent) {
			err = e
		}
	}
	return nil, err
}

func (s *scope) present(nodes []node, inCall bool) error {
	for _, n := range nodes {
		if n.ref != "" && n.ref != assertionRef {
			if v, ok := s.lookup(n.ref); !ok || v == "" && !inCall {
				return errAbsent
			}
		}
		if err := s.present(n.args, true); err != nil {
			return err
		}
	}
	return nil
}

// text fills a template. Its error is errAbsent, errLater, or a value that a
// function can't take.
func (s *scope) text(t template) (string, error) {
	var b strings.Builder
	for _, n := range t {
		v, err := s.eval(n, false)
		if err != nil {
			return "", err
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

func (s *scope) eval(n node, inCall bool) (string, error) {
	switch {
	case n.ref != "" && n.ref != assertionRef:
		v, ok := s.lookup(n.ref)
		if !ok || v == "" && !inCall {
			return "", errAbsent
		}
		return v, nil
	case n.isMade():
		if v, ok := s.made[n.String()]; ok {
			return v, nil
		}
		return "", errLater
	case n.call != "":
		args := make([]string, len(n.args))
		for i, a := range n.args {
			var err error
			if args[i], err = s.eval(a, true); err != nil {
				return "", err
			}
		}
		return call(n.call, args)
	}
	return n.text, nil
}

// match reports how a value differs from what a template makes. Values made
// for the request are learned from it.
func (s *scope) match(t template, got string) error {
	pattern, made := strings.Builder{}, []node{}
	pattern.WriteString(`\A`)
	for _, n := range t {
		v, err := s.eval(n, false)
		switch {
		case errors.Is(err, errLater) && n.isMade():
			made = append(made, n)
			pattern.WriteString("(" + madeForm(n) + ")")
		case err != nil:
			return err
		default:
			pattern.WriteString(regexp.QuoteMeta(v))
		}
	}
	pattern.WriteString(`\z`)
	m := regexp.MustCompile(pattern.String()).FindStringSubmatch(got)
	if m == nil {
		return fmt.Errorf("is %s, not %s", quote(got), s.show(t))
	}
	for i, n := range made {
		if seen, ok := s.made[n.String()]; ok && seen != m[i+1] {
			return fmt.Errorf("%s has two values in one request", n)
		}
		if n.ref == assertionRef {
			if err := s.assertion(m[i+1]); err != nil {
				return fmt.Errorf("has an assertion that does not do: %w", err)
			}
		}
		if n.call == "time" {
			if err := s.plausible(n, m[i+1]); err != nil {
				return err
			}
		}
		s.made[n.String()] = m[i+1]
	}
	return nil
}

// show is a template filled as far as it can be, for fault messages.
func (s *scope) show(t template) string {
	var b strings.Builder
	for _, n := range t {
		if v, err := s.eval(n, false); err == nil {
			b.WriteString(v)
		} else {
			b.WriteString("{" + n.String() + "}")
		}
	}
	return quote(b.String())
}

func quote(s string) string {
	if len(s) > 160 {
		s = s[:160] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// assertionRef is the assertion that the client has signed.
const assertionRef = "signed.assertion"

// isMade tells whether a value is made by the client for each request.
func (n node) isMade() bool { return n.ref == assertionRef || n.call == "uuid" || n.call == "time" }

func madeForm(n node) string {
	if n.ref == assertionRef {
		return `[A-Za-z0-9_.+/=-]+`
	}
	if n.call == "uuid" {
		return `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
	}
	return timeForms[n.args[0].text].form
}

// timeForms are the layouts of time(), with how to read them.
var timeForms = map[string]struct{ form, layout string }{
	"iso":         {`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`, "2006-01-02T15:04:05.000Z"},
	"iso_seconds": {`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d`, "2006-01-02T15:04:05"},
	"basic":       {`\d{8}T\d{6}Z`, "20060102T150405Z"},
	"rfc2822":     {`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000`, "Mon, 02 Jan 2006 15:04:05 -0700"},
	"date":        {`\d{4}-\d\d-\d\d`, "2006-01-02"},
	"unix":        {`\d{10}`, ""},
	"unix_ms":     {`\d{13}`, ""},
}

// plausible checks that a time is the present, moved by the offset.
func (s *scope) plausible(n node, v string) error {
	var at time.Time
	var err error
	slack := 5 * time.Minute
	switch layout := n.args[0].text; layout {
	case "unix", "unix_ms":
		var number int64
		if _, err = fmt.Sscan(v, &number); layout == "unix" {
			at = time.Unix(number, 0)
		} else {
			at = time.UnixMilli(number)
		}
	default:
		if layout == "date" {
			slack = 24 * time.Hour
		}
		at, err = time.ParseInLocation(timeForms[layout].layout, v, time.UTC)
	}
	if err != nil {
		return fmt.Errorf("%s can't be read: %v", n, err)
	}
	want := s.now
	if len(n.args) > 1 {
		want = want.Add(offset(n.args[1].text))
	}
	if d := at.Sub(want); d < -slack || d > slack {
		return fmt.Errorf("%s is %v off", n, d.Round(time.Second))
	}
	return nil
}

// offset reads +1m, -30s, +7d.
func offset(s string) time.Duration {
	var days int
	if n, _ := fmt.Sscanf(s, "%dd", &days); n == 1 && strings.HasSuffix(s, "d") {
		return time.Duration(days) * 24 * time.Hour
	}
	d, _ := time.ParseDuration(s)
	return d
}
