package catalog

import (
	"strings"
	"unicode"
)

// SnakeName writes a name the way those of fields are: apiKey, APP_ID,
// companyUUID and accounts-server become api_key, app_id, company_uuid and
// accounts_server.
func SnakeName(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			r = '_'
		case unicode.IsUpper(r) && i > 0:
			wordEnds := unicode.IsLower(runes[i-1]) || unicode.IsDigit(runes[i-1])
			acronymEnds := unicode.IsUpper(runes[i-1]) && i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if wordEnds || acronymEnds {
				b.WriteRune('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.Trim(b.String(), "_")
}

// Named returns values by the names that the entry's fields have, whatever way
// apps write them. What is no field keeps its name.
func (p *Provider) Named(values map[string]string) map[string]string {
	if values == nil {
		return nil
	}
	out := make(map[string]string, len(values))
	for name, value := range values {
		if snake := SnakeName(name); !p.asksFor(name) && p.asksFor(snake) {
			name = snake
		}
		out[name] = value
	}
	return out
}

func (p *Provider) asksFor(name string) bool {
	_, conn := p.Field("conn", name)
	_, cred := p.Field("cred", name)
	return conn || cred
}
