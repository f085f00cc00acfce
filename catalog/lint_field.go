package catalog

import (
	"fmt"
	"reflect"
	"regexp/syntax"
	"slices"
	"strings"
)

// fields checks one of the lists app_fields, conn_fields and cred_fields.
func (l *linter) fields(namespace string, fields []Field) {
	used := l.used()
	for i := range fields {
		f := &fields[i]
		path := fmt.Sprintf("%s_fields[%d]", namespace, i)
		l.link(path+".docs", f.Docs)
		l.text(path, f)
		l.examples(path, f)
		if secretName.MatchString(f.Name) && !f.Secret {
			l.add(path, RuleSecret, "field %s must be marked secret: true", f.Name)
		}
		if namespace == "conn" && f.Secret && f.Asked() {
			l.add(path, RuleSecret, "field %s is a secret and conn_fields are stored as they are; move it to cred_fields", f.Name)
		}
		// Apps may read a connection field, and put it into their paths.
		if namespace == "cred" && f.Asked() && !used[f.Name] {
			l.add(path, RuleUnused, "field %s is asked for, but nothing uses {cred.%s}; use it or remove it", f.Name, f.Name)
		}
	}
}

func (l *linter) text(path string, f *Field) {
	if t := f.Title(); strings.TrimSpace(t) != t || len(t) > 60 || strings.HasSuffix(t, ".") {
		l.add(path+".label", RuleLabel, "field %s: a label is a few words without a full stop", f.Name)
	}
	if h := f.Help; h != "" && (len(h) > 200 || !strings.HasSuffix(h, ".")) {
		l.add(path+".help", RuleLabel, "field %s: help is a sentence or two of up to 200 characters", f.Name)
	}
}

// examples checks that examples and defaults pass the rules of their own field,
// a masked example as far as it shows.
func (l *linter) examples(path string, f *Field) {
	masked := strings.Contains(f.Example, "*")
	switch {
	case f.Example == "":
	case len(f.Example) > 400:
		l.add(path+".example", RuleExample, "field %s: an example has up to 400 characters; shorten it", f.Name)
	case f.Secret && !masked && len(f.Example) > 24:
		l.add(path+".example", RuleExample, "field %s: the example of a secret must be masked with *", f.Name)
	case masked && f.Regexp != nil && !couldMatch(f.Regexp.String(), f.Example):
		l.add(path+".example", RuleExample, "field %s: no value that looks like its own example %q matches its regex", f.Name, f.Example)
	case !masked && f.Check(f.Example) != nil:
		l.add(path+".example", RuleExample, "field %s: its own example %q is refused; mend the example or the rule", f.Name, f.Example)
	}
	if f.Default != "" && f.Check(f.Default) != nil {
		l.add(path+".default", RuleExample, "field %s: its own default %q is refused; mend the default or the rule", f.Name, f.Default)
	}
}

// used lists the credential fields that the entry refers to, in templates and by
// name.
func (l *linter) used() map[string]bool {
	used := map[string]bool{}
	for _, h := range l.holes {
		for _, r := range refs([]template{h.parts}) {
			if r.Namespace == "cred" {
				used[r.Path] = true
			}
		}
	}
	p := l.p
	if p.Signed != nil && p.Signed.Split != nil {
		used[p.Signed.Split.Field] = true
	}
	if p.Mode == ModeClientCredentials {
		used["client_id"], used["client_secret"] = true, true
	}
	if p.Token != nil && p.Token.MTLS {
		used["client_certificate"], used["client_private_key"] = true, true
	}
	if len(p.Flags) > 0 { // the scheme does by itself what the flag says
		for _, f := range p.CredFields {
			used[f.Name] = true
		}
	}
	return used
}

// holesOf are the templates of an entry, found again in its file.
func holesOf(p *Provider) []hole {
	d := &decoder{file: p.file}
	if root := d.document(p.data); root != nil {
		d.structure(root, reflect.ValueOf(new(Provider)).Elem(), place{})
	}
	return d.holes
}

// credential checks that requests carry what was asked for.
func (l *linter) credential() {
	p := l.p
	if p.Request == nil || p.SignRequest != nil || len(p.Flags) > 0 || p.Mode == ModeNone {
		return
	}
	carries := false
	for _, h := range l.holes {
		if strings.HasPrefix(h.path, "request.") {
			for _, r := range refs([]template{h.parts}) {
				carries = carries || r.Namespace == "cred" || r.Namespace == "token" || r.Namespace == "signed"
			}
		}
	}
	if !carries {
		l.add("request", RuleCredential, "nothing of the credential is put on a request; add a header such as authorization: Bearer {token.access_token}")
	}
}

// callback checks that values which come by way of the browser can't choose the
// host that gets the client's secret, whatever they are (S26).
func (l *linter) callback() {
	if l.p.Authorize == nil {
		return
	}
	for _, u := range l.p.urls() {
		for _, r := range hostRefs(u.url) {
			f, ok := l.p.Field(r.Namespace, r.Path)
			if r.Namespace != "conn" || l.p.Authorize.CaptureCallbackParams[r.Path] == "" {
				continue
			}
			if !ok || f.Regexp == nil && len(f.Enum) == 0 {
				l.add(u.path, RuleCallback, "%s comes from the callback, which anyone can forge, and %s is made of it; hold it to a regex or an enum in conn_fields", r, u.path)
			}
		}
	}
}

// hostRefs are what decides where a URL leads.
func hostRefs(u *URL) []Ref {
	var deciding []template
	for _, t := range u.alts {
		deciding = append(deciding, t.host, t.port)
		if t.base != nil {
			deciding = append(deciding, template{{expr: t.base}})
		}
	}
	return refs(deciding)
}

// couldMatch tells whether an expression matches some text in which each run of
// stars stands for any characters.
func couldMatch(expr, masked string) bool {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return false
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return false
	}
	states := follow(prog, []int{prog.Start})
	for _, c := range masked {
		if c != '*' {
			states = step(prog, states, func(in *syntax.Inst) bool { return in.MatchRune(c) })
			continue
		}
		for n := 0; n != len(states); { // any number of any characters
			n = len(states)
			more := step(prog, states, func(*syntax.Inst) bool { return true })
			states = follow(prog, append(states, more...))
		}
	}
	return slices.ContainsFunc(states, func(pc int) bool { return prog.Inst[pc].Op == syntax.InstMatch })
}

// step returns the states after a character that ok takes.
func step(prog *syntax.Prog, states []int, ok func(*syntax.Inst) bool) []int {
	var next []int
	for _, pc := range states {
		switch in := &prog.Inst[pc]; in.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if ok(in) {
				next = append(next, int(in.Out))
			}
		}
	}
	return follow(prog, next)
}

// follow adds the states that are reached without a character. Anchors hold:
// the whole text is matched.
func follow(prog *syntax.Prog, states []int) []int {
	var out []int
	seen := make([]bool, len(prog.Inst))
	for len(states) > 0 {
		pc := states[len(states)-1]
		states = states[:len(states)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		switch in := &prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			states = append(states, int(in.Out), int(in.Arg))
		case syntax.InstCapture, syntax.InstEmptyWidth, syntax.InstNop:
			states = append(states, int(in.Out))
		default:
			out = append(out, pc)
		}
	}
	return out
}
