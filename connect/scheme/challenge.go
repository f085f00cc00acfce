package scheme

import "strings"

// challenge is one of a WWW-Authenticate header (RFC 9110 section 11.6.1).
type challenge struct {
	scheme string
	params map[string]string // by lower-case name
}

// parseChallenges reads a header that may have several challenges, as far as it
// can be read. Of parameters that come twice the first counts.
func parseChallenges(s string) []challenge {
	var out []challenge
	p := challengeParser{s: s}
	for {
		p.skip(" \t,")
		word := p.token()
		if word == "" {
			return out
		}
		space := p.skip(" \t")
		if len(out) > 0 && p.peek() == '=' {
			p.i++
			p.skip(" \t")
			v, ok := p.value()
			if !ok {
				return out
			}
			name := strings.ToLower(word)
			if _, twice := out[len(out)-1].params[name]; !twice {
				out[len(out)-1].params[name] = v
			}
			continue
		}
		if !space && p.peek() != 0 && p.peek() != ',' {
			return out
		}
		out = append(out, challenge{word, map[string]string{}})
		p.token68()
	}
}

type challengeParser struct {
	s string
	i int
}

func (p *challengeParser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *challengeParser) skip(set string) bool {
	start := p.i
	for p.i < len(p.s) && strings.IndexByte(set, p.s[p.i]) >= 0 {
		p.i++
	}
	return p.i > start
}

func (p *challengeParser) token() string {
	start := p.i
	for p.i < len(p.s) && (isAlphanumeric(p.s[p.i]) || strings.IndexByte("!#$%&'*+-.^_`|~", p.s[p.i]) >= 0) {
		p.i++
	}
	return p.s[start:p.i]
}

// token68 steps over credentials that are no parameters, such as Negotiate's.
func (p *challengeParser) token68() {
	start := p.i
	for p.i < len(p.s) && (isAlphanumeric(p.s[p.i]) || strings.IndexByte("-._~+/", p.s[p.i]) >= 0) {
		p.i++
	}
	end := p.i
	for p.peek() == '=' {
		p.i++
	}
	if p.i == start {
		return
	}
	rest := strings.TrimLeft(p.s[p.i:], " \t")
	if rest != "" && rest[0] != ',' || end == p.i && rest != "" && rest[0] == '=' {
		p.i = start // it was a parameter's name
	}
}

func (p *challengeParser) value() (string, bool) {
	if p.peek() != '"' {
		v := p.token()
		return v, v != ""
	}
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case '"':
			p.i++
			return b.String(), true
		case '\\':
			if p.i++; p.i == len(p.s) {
				return "", false
			}
			b.WriteByte(p.s[p.i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
