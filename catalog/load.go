package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the longest provider file that is read. The longest shipped one has
// less than 8 KiB.
const maxFile = 256 << 10

var (
	idForm   = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	lineForm = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)
)

// Parse reads one provider file, strictly. The file name is for error messages;
// when it ends in .yaml its base must be the id. All faults are reported at
// once, each a [*ParseError].
func Parse(file string, data []byte) (*Provider, error) {
	d := &decoder{file: file}
	root := d.document(data)
	if root == nil || !d.shape(root, 0) {
		return nil, d.err()
	}
	p := &Provider{file: file, data: data}
	if d.structure(root, reflect.ValueOf(p).Elem(), place{}); len(d.errs) == 0 {
		d.entry(root, p)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	p.keepRaw()
	return p, nil
}

// document returns the one map of the file, nil after reporting why not.
func (d *decoder) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		d.failLine(0, fmt.Sprintf("longer than %d KiB; that is no provider file", maxFile>>10))
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.failLine(0, "the file is empty")
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			d.syntax(err)
		} else {
			d.fail(&more, "one file holds one provider; remove everything from this --- on")
		}
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		d.fail(root, "a provider file is a map of keys and values")
		return nil
	}
	return root
}

// syntax reports an error of the YAML parser with its line.
func (d *decoder) syntax(err error) {
	msg, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := lineForm.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = m[2]
	}
	d.failLine(line, "not valid YAML: "+msg)
}

// entry checks what can only be seen with the whole entry at hand.
func (d *decoder) entry(root *yaml.Node, p *Provider) {
	at := func(key string) *yaml.Node { return child(root, key) }
	base, isFile := strings.CutSuffix(path.Base(d.file), ".yaml")
	switch {
	case !idForm.MatchString(p.ID):
		d.fail(at("id"), "id %q may have lower-case letters, digits and single hyphens between them", p.ID)
	case isFile && base != p.ID:
		d.fail(at("id"), "id %q and file name differ; name the file %s.yaml", p.ID, p.ID)
	}
	if p.Token != nil {
		if p.Refresh == nil {
			p.Refresh = &Refresh{Rotates: true}
		}
		if p.Refresh.Mode == "" {
			p.Refresh.Mode = RefreshByToken
			if p.Mode == ModeClientCredentials {
				p.Refresh.Mode = RefreshReissue
			}
		}
	}
	switch p.Mode {
	case ModeOAuth2Code:
		if p.Authorize == nil || p.Authorize.URL.IsZero() && p.Authorize.Mode == "" {
			d.fail(root, "auth_scheme %s needs authorize.url", p.Mode)
		}
		if p.Token == nil || p.Token.URL.IsZero() && !p.HasFlag("vendor_sdk_token_exchange") {
			d.fail(root, "auth_scheme %s needs token.url", p.Mode)
		}
	case ModeClientCredentials, ModeTwoStep:
		// token.url may be absent where nobody knows it; Lint tells.
		if p.Token == nil {
			d.fail(root, "auth_scheme %s needs token", p.Mode)
		}
	case ModeAPIKey, ModeBasic:
		if len(p.CredFields)+len(p.AppFields) == 0 {
			d.fail(root, "auth_scheme %s needs cred_fields", p.Mode)
		}
	}
	if p.Request == nil && p.Mode != ModeNone {
		d.fail(root, "request is missing in provider")
	}
	d.fields(at("app_fields"), p.AppFields)
	d.fields(at("conn_fields"), p.ConnFields)
	d.fields(at("cred_fields"), p.CredFields)
	for i := range p.Derive {
		d.derive(at("derive").Content[i], &p.Derive[i])
	}
	if p.Scopes != nil {
		d.scopes(at("scopes"), p.Scopes)
	}
	if p.Account != nil {
		d.account(at("account"), p.Account)
	}
	d.bind(p)
}

func (d *decoder) fields(list *yaml.Node, fields []Field) {
	names := map[string]bool{}
	for i := range fields {
		names[fields[i].Name] = true
	}
	for i := range fields {
		f, n := &fields[i], list.Content[i]
		switch {
		case !nameForm.MatchString(f.Name):
			d.fail(n, "field name %q: lower-case letters, digits and _, beginning with a letter", f.Name)
		case !names[f.Name]:
			d.fail(n, "field %q is declared twice", f.Name)
		case f.VisibleWhen != nil && !slices.ContainsFunc(fields, func(o Field) bool { return o.Name == f.VisibleWhen.Field }):
			d.fail(n, "field %q: visible_when names %q, which is not in the same list", f.Name, f.VisibleWhen.Field)
		}
		names[f.Name] = false
	}
}

func (d *decoder) derive(n *yaml.Node, v *Derive) {
	sources := 0
	for _, is := range []bool{v.Request != nil, v.FromTokenResponse, v.JWTClaim != "", !v.Copy.IsZero()} {
		if is {
			sources++
		}
	}
	if sources > 1 {
		d.fail(n, "a look-up has one source: request, from_token_response, jwt_claim or copy")
	}
	if t := v.Transform; t != "" && t != "last_path_segment" && (!strings.HasPrefix(t, "after:") || t == "after:") {
		d.fail(n, "transform can't be %q; it is last_path_segment or after:<marker>", t)
	}
	if w := v.When; w != nil && (len(w.PathEquals)|len(w.ArrayLength))&^2 != 0 {
		d.fail(n, "when: path_equals and array_length have two entries, a path and a value")
	}
}

// names that templates may use in the namespaces that have a fixed set.
var fixedNames = map[string][]string{
	"token":  {"access_token", "refresh_token", "cookies"},
	"signed": {"assertion"},
	"req":    {"method", "host", "path", "endpoint", "body", "canonical_params"},
	"flow":   {"code", "state", "scope", "user_scope", "redirect_uri", "token_url"},
	"app":    {"client_id", "client_secret", "user_agent"},
}

// bind ties each reference to the field it names.
func (d *decoder) bind(p *Provider) {
	known := map[string][]string{}
	for ns, names := range fixedNames {
		known[ns] = slices.Clone(names)
	}
	add := func(ns string, names ...string) { known[ns] = append(known[ns], names...) }
	for _, f := range p.AppFields {
		add("app", f.Name)
	}
	for _, f := range p.CredFields {
		add("cred", f.Name)
	}
	add("conn", p.connNames()...)
	if p.Signed != nil && p.Signed.Split != nil {
		add("cred", p.Signed.Split.Into...)
	}
	for _, v := range p.Derive {
		if v.ExtraToken != "" {
			add("token", v.ExtraToken)
		}
	}
	check := func(n *yaml.Node, path string, r Ref) {
		names, limited := known[r.Namespace]
		step, isStep := stepNumber(r.Namespace)
		own, inPlace := ofAccount(r, path)
		switch {
		case own && !inPlace:
			d.fail(n, "%s: %s is known in account only", path, r)
		case own:
		case isStep && step > 1+len(p.TokenSteps):
			d.fail(n, "%s: %s refers to the answer of token request %d, but there are %d", path, r, step, 1+len(p.TokenSteps))
		case isStep || r.Namespace == "resp":
		case limited && slices.Contains(names, r.Path):
		case r.Namespace == "conn" || r.Namespace == "cred" || r.Namespace == "app":
			d.fail(n, "%s: %s is not declared; add a field %q to %s_fields%s", path, r, r.Path, r.Namespace, didYouMean(r.Path, names))
		default:
			d.fail(n, "%s: there is no %s%s", path, r, didYouMean(r.Path, names))
		}
	}
	for _, h := range d.holes {
		h.parts.walk(func(x *expr) {
			if x.ref.Namespace != "" {
				check(h.node, h.path, x.ref)
				x.field, _ = p.Field(x.ref.Namespace, x.ref.Path)
			}
		})
	}
}

// connNames lists the connection fields, declared or filled by the flow.
func (p *Provider) connNames() []string {
	var names []string
	for _, f := range p.ConnFields {
		names = append(names, f.Name)
	}
	var captures []map[string]string
	if a := p.Authorize; a != nil {
		captures = append(captures, a.CaptureCallbackParams, a.CaptureWebhookPaths)
	}
	if r := p.TokenResponse; r != nil {
		captures = append(captures, r.Capture, r.CaptureOnRefresh)
	}
	for _, v := range p.Derive {
		captures = append(captures, v.Set)
		names = append(names, v.To, v.SetSuccess)
	}
	for _, m := range captures {
		for name := range m {
			names = append(names, name)
		}
	}
	return names
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return n
}

func (r *StatusRange) decode(d *decoder, n *yaml.Node, at place) {
	s := d.word(n, at)
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		from, to = strings.Replace(s, "xx", "00", 1), strings.Replace(s, "xx", "99", 1)
	}
	var err1, err2 error
	r.From, err1 = strconv.Atoi(from)
	r.To, err2 = strconv.Atoi(to)
	if err1 != nil || err2 != nil || len(from) != 3 || len(to) != 3 || r.From < 100 || r.To < r.From {
		d.fail(n, "%s: %q is no status; write 403, 5xx or 500-502", at.path, s)
	}
}
