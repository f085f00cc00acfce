package catalog

import (
	"cmp"
	"fmt"
	"regexp/syntax"
	"strings"
)

// fieldGuides describes the fields that a person is asked for.
func (p *Provider) fieldGuides(fields []Field, secret bool) []FieldGuide {
	var out []FieldGuide
	for i := range fields {
		if fields[i].Asked() {
			out = append(out, p.fieldGuide(&fields[i], secret))
		}
	}
	return out
}

// FieldGuide describes one field of the entry.
func (p *Provider) FieldGuide(f *Field) FieldGuide { return p.fieldGuide(f, f.Secret) }

func (p *Provider) fieldGuide(f *Field, secret bool) FieldGuide {
	page := cmp.Or(p.Docs.Auth, p.Docs.Page())
	if secret && (p.Authorize == nil || f.Source == "") {
		page = cmp.Or(p.Docs.Console, page)
	}
	return FieldGuide{
		Name: f.Name, Title: f.Title(), Where: cmp.Or(f.Help, p.where(f)), Shape: f.Shape(), Example: f.Example, URL: cmp.Or(f.Docs, page),
	}
}

// where says where a value is found, as far as the field's name and form tell.
func (p *Provider) where(f *Field) string {
	name := p.ShortName()
	label := strings.HasPrefix(f.Suffix, ".") && strings.Contains(f.Suffix[1:], ".")
	kind := f.Name[strings.LastIndex(f.Name, "_")+1:]
	switch {
	case label && f.Format != "uri":
		return fmt.Sprintf("The part before %s in the address of your %s.", f.Suffix, name)
	case len(f.Enum) > 0:
		return fmt.Sprintf("Choose what applies to your %s account.", name)
	case f.Format == "hostname":
		return fmt.Sprintf("The host name of your %s, without https://.", name)
	case f.Format == "uri":
		return fmt.Sprintf("A whole address, as %s shows it.", name)
	case f.Format == "email", kind == "email":
		return fmt.Sprintf("The e-mail address of your %s account.", name)
	case f.Format == "pem_or_base64" || kind == "certificate" || strings.HasSuffix(f.Name, "private_key"):
		return fmt.Sprintf("The text of the file that you made for %s or downloaded from it, with its first and last line.", name)
	case strings.HasPrefix(f.Name, "client_") && kind == "id":
		return fmt.Sprintf("The ID of the API client, or app, that you make in %s.", name)
	case strings.HasPrefix(f.Name, "client_") && kind == "secret":
		return "Shown with the client ID, often only once."
	case kind == "username" || kind == "login":
		return fmt.Sprintf("The name that you sign in to %s with.", name)
	case kind == "password":
		return fmt.Sprintf("The password of that %s account.", name)
	case kind == "host", kind == "hostname", kind == "domain", strings.HasPrefix(f.Prefix, "https://"):
		return fmt.Sprintf("From the address of your %s, without https://.", name)
	case kind == "url", kind == "uri", kind == "endpoint":
		return fmt.Sprintf("The address that your %s account shows.", name)
	case kind == "region":
		return fmt.Sprintf("The region that your %s account is in.", name)
	case f.Secret:
		return fmt.Sprintf("Made in the settings of your %s account; it may be shown only once.", name)
	case kind == "id", kind == "key", kind == "number", kind == "code":
		return fmt.Sprintf("Shown in the settings of your %s account, or in its address.", name)
	}
	return fmt.Sprintf("As it is called in your %s account.", name)
}

// Shape says how a value looks, as far as example and regex tell: "It begins
// with sk- and has 51 characters." It is empty where they tell nothing.
func (f *Field) Shape() string {
	if len(f.Enum) > 0 {
		return ""
	}
	shown, _, masked := strings.Cut(f.Example, "*")
	if !masked || len(shown) < 2 || len(shown) > 24 {
		shown = ""
	}
	size := 0
	if f.Regexp != nil {
		if re, err := syntax.Parse(f.Regexp.String(), syntax.Perl); err == nil {
			re = re.Simplify()
			shown = cmp.Or(prefixOf(re), shown)
			if least, most := span(re); least == most && most > 3 {
				size = most
			}
		}
	}
	switch {
	case shown != "" && size > len(shown):
		return fmt.Sprintf("It begins with %s and has %d characters.", shown, size)
	case shown != "":
		return fmt.Sprintf("It begins with %s.", shown)
	case size > 0:
		return fmt.Sprintf("It has %d characters.", size)
	}
	return ""
}

// prefixOf is the text that all matches begin with.
func prefixOf(re *syntax.Regexp) string {
	if re.Op != syntax.OpConcat {
		re = &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{re}}
	}
	var b strings.Builder
	for _, sub := range re.Sub {
		switch {
		case sub.Op == syntax.OpBeginText || sub.Op == syntax.OpBeginLine:
		case sub.Op == syntax.OpLiteral && sub.Flags&syntax.FoldCase == 0:
			b.WriteString(string(sub.Rune))
		default:
			return b.String()
		}
	}
	return b.String()
}

// endless is more than any value has characters.
const endless = maxField + 1

// span is how many characters the shortest and the longest match have.
func span(re *syntax.Regexp) (least, most int) {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune), len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1, 1
	case syntax.OpCapture:
		return span(re.Sub[0])
	case syntax.OpStar:
		return 0, endless
	case syntax.OpPlus:
		least, _ = span(re.Sub[0])
		return least, endless
	case syntax.OpQuest:
		_, most = span(re.Sub[0])
		return 0, most
	case syntax.OpRepeat:
		least, most = span(re.Sub[0])
		if re.Max < 0 {
			return least * re.Min, endless
		}
		return least * re.Min, min(most*re.Max, endless)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			a, b := span(sub)
			least, most = least+a, min(most+b, endless)
		}
		return least, most
	case syntax.OpAlternate:
		least, most = endless, 0
		for _, sub := range re.Sub {
			a, b := span(sub)
			least, most = min(least, a), max(most, b)
		}
		return least, most
	}
	return 0, 0 // anchors
}
