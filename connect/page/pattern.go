package page

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"

	"github.com/keycaddy/keycaddy/catalog"
)

// maxPattern bounds a pattern attribute; one that would be longer is left out.
const maxPattern = 1024

// fieldPattern is the field's regular expression as the pattern attribute of an
// input, so that a slip shows before the form is sent; empty if it can't be
// said there. Around a value that isn't secret it allows what catalog.Field's
// Clean takes off.
func fieldPattern(f *catalog.Field) string {
	p, ok := browserPattern(f.Regexp.String())
	if !ok {
		return ""
	}
	if !f.Secret {
		var b strings.Builder
		b.WriteString(`\s*`)
		optional(&b, f.Prefix)
		b.WriteString("(?:" + p + ")")
		optional(&b, f.Suffix)
		if f.Suffix != "" {
			b.WriteString(`\u{2f}?`)
		}
		b.WriteString(`\s*`)
		p = b.String()
	}
	if len(p) > maxPattern {
		return ""
	}
	return p
}

func optional(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	b.WriteString("(?:")
	for _, r := range text {
		writeRune(b, r)
	}
	b.WriteString(")?")
}

// browserPattern writes an RE2 expression in the syntax of ECMAScript's v flag,
// which browsers compile pattern attributes with. It is written anew from the
// parsed expression: that flag refuses much of what RE2 and older browsers take,
// a bare hyphen at the end of a class for one.
func browserPattern(src string) (string, bool) {
	re, err := syntax.Parse(src, syntax.Perl)
	if err != nil {
		return "", false
	}
	if re.Op == syntax.OpConcat { // a pattern attribute matches the whole value anyway
		if len(re.Sub) > 0 && re.Sub[0].Op == syntax.OpBeginText {
			re.Sub = re.Sub[1:]
		}
		if n := len(re.Sub); n > 0 && re.Sub[n-1].Op == syntax.OpEndText {
			re.Sub = re.Sub[:n-1]
		}
	}
	var b strings.Builder
	ok := writePattern(&b, re)
	return b.String(), ok
}

func writePattern(b *strings.Builder, re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEmptyMatch:
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if re.Flags&syntax.FoldCase != 0 && unicode.SimpleFold(r) != r {
				b.WriteByte('[')
				writeRune(b, r)
				for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
					writeRune(b, o)
				}
				b.WriteByte(']')
				continue
			}
			writeRune(b, r)
		}
	case syntax.OpCharClass:
		b.WriteByte('[')
		for i := 0; i+1 < len(re.Rune); i += 2 {
			writeRune(b, re.Rune[i])
			if re.Rune[i+1] > re.Rune[i] {
				b.WriteByte('-')
				writeRune(b, re.Rune[i+1])
			}
		}
		b.WriteByte(']')
	case syntax.OpAnyCharNotNL:
		b.WriteString(`[^\n]`)
	case syntax.OpAnyChar:
		b.WriteString(`[^]`)
	case syntax.OpBeginText:
		b.WriteByte('^')
	case syntax.OpEndText:
		b.WriteByte('$')
	case syntax.OpWordBoundary:
		b.WriteString(`\b`)
	case syntax.OpNoWordBoundary:
		b.WriteString(`\B`)
	case syntax.OpCapture, syntax.OpConcat, syntax.OpAlternate:
		return writeGroup(b, re)
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		if !writeGroup(b, &syntax.Regexp{Op: syntax.OpCapture, Sub: re.Sub}) {
			return false
		}
		b.WriteString(count(re))
	default:
		return false
	}
	return true
}

// writeGroup writes sub-expressions, in brackets where they would otherwise
// run into what is around them.
func writeGroup(b *strings.Builder, re *syntax.Regexp) bool {
	between, bare := "", re.Op == syntax.OpConcat
	if re.Op == syntax.OpAlternate {
		between = "|"
	}
	if len(re.Sub) == 1 && re.Sub[0].Op == syntax.OpCharClass {
		bare = true
	}
	if !bare {
		b.WriteString("(?:")
	}
	for i, sub := range re.Sub {
		if i > 0 {
			b.WriteString(between)
		}
		if !writePattern(b, sub) {
			return false
		}
	}
	if !bare {
		b.WriteByte(')')
	}
	return true
}

func count(re *syntax.Regexp) string {
	switch {
	case re.Op == syntax.OpStar:
		return "*"
	case re.Op == syntax.OpPlus:
		return "+"
	case re.Op == syntax.OpQuest:
		return "?"
	case re.Max < 0:
		return fmt.Sprintf("{%d,}", re.Min)
	case re.Min == re.Max:
		return fmt.Sprintf("{%d}", re.Min)
	}
	return fmt.Sprintf("{%d,%d}", re.Min, re.Max)
}

// writeRune writes a character so that it stands for itself everywhere.
func writeRune(b *strings.Builder, r rune) {
	if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
		b.WriteRune(r)
		return
	}
	fmt.Fprintf(b, `\u{%x}`, r)
}
