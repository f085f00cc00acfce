package nango

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// A text of providers.yaml has placeholders, ${...}, and may be a choice of two,
// "a || b". functions are those placeholders that look like calls.
var functions = map[string]struct {
	name    string
	swapped bool // the last argument is ours first: the key
}{
	"base64":       {name: "base64"},
	"sha256Hex":    {name: "sha256_hex"},
	"sha256Base64": {name: "sha256_base64"},
	"hmacSha1Hex":  {name: "hmac_sha1_hex", swapped: true},
	"ed25519Sign":  {name: "ed25519_sign_base64", swapped: true},
	"fingerprint":  {name: "key_fingerprint"},
}

// clocks are the time formats that are in use.
var clocks = map[string]string{
	"":                             "iso",
	"YYYY-MM-DDTHH:mm:ss":          "iso_seconds",
	"YYYYMMDDTHHmmss[Z]":           "basic",
	"ddd, DD MMM YYYY HH:mm:ss ZZ": "rfc2822",
	"YYYY-MM-DD":                   "date",
	"X":                            "unix",
	"x":                            "unix_ms",
}

// names are the placeholders without a namespace.
var names = map[string]string{
	"apiKey": "cred.api_key", "username": "cred.username", "password": "cred.password",
	"accessToken": "token.access_token", "refresh_token": "token.refresh_token", "token": "signed.assertion",
	"clientId": "app.client_id", "clientSecret": "app.client_secret", "random": "uuid()",
	"method": "req.method", "host": "req.host", "path": "req.path", "endpoint": "req.endpoint",
	"params": "req.canonical_params", "body": "req.body",
}

// choice translates a text that may be a choice: a string, or a list of them.
func choice(s string) (any, error) {
	parts := strings.Split(s, " || ")
	out := make([]any, len(parts))
	for i, p := range parts {
		t, err := template(strings.TrimSpace(p))
		if err != nil {
			return nil, err
		}
		out[i] = t
	}
	if len(out) == 1 {
		return template(s)
	}
	return out, nil
}

// template translates a text that is no choice.
func template(s string) (string, error) {
	s = strings.ReplaceAll(s, "{{$guid}}", "${random}")
	segments, err := cut(s, 0)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, seg := range segments {
		if seg.expr != "" {
			b.WriteString("{" + seg.expr + "}")
			continue
		}
		b.WriteString(strings.NewReplacer("{", "{{", "}", "}}").Replace(seg.text))
	}
	return b.String(), nil
}

// segment is literal text, or an expression of ours.
type segment struct{ text, expr string }

func cut(s string, depth int) ([]segment, error) {
	if depth > 8 {
		return nil, fmt.Errorf("placeholders nested too deep in %.80q", s)
	}
	var out []segment
	for {
		before, rest, found := strings.Cut(s, "${")
		if before != "" {
			out = append(out, segment{text: before})
		}
		if !found {
			return out, nil
		}
		inner, after, ok := closing(rest)
		if !ok {
			return nil, fmt.Errorf("${ without } in %.80q", s)
		}
		x, err := expression(inner, depth)
		if err != nil {
			return nil, err
		}
		out = append(out, segment{expr: x})
		s = after
	}
}

// closing finds the brace that ends a placeholder.
func closing(s string) (inner, after string, ok bool) {
	open := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "${"):
			open++
		case s[i] == '}' && open > 0:
			open--
		case s[i] == '}':
			return s[:i], s[i+1:], true
		}
	}
	return "", "", false
}

func expression(s string, depth int) (string, error) {
	if name, args, isCall := strings.Cut(s, "("); isCall && strings.HasSuffix(args, ")") {
		return call(name, strings.TrimSuffix(args, ")"), depth)
	}
	if strings.HasPrefix(s, "now") {
		return now(strings.TrimPrefix(s, "now"))
	}
	if x, ok := names[s]; ok {
		return x, nil
	}
	namespace, name, dotted := strings.Cut(s, ".")
	switch {
	case !dotted:
	case namespace == "connectionConfig" || namespace == "connection_config":
		return "conn." + catalog.SnakeName(name), nil
	case s == "credentials._cookies":
		return "token.cookies", nil
	case namespace == "credentials" && strings.HasPrefix(name, "raw."):
		return "resp." + strings.TrimPrefix(name, "raw."), nil
	case namespace == "credentials" || namespace == "assertionOption":
		return "cred." + catalog.SnakeName(name), nil
	case stepForm.MatchString(namespace):
		return s, nil
	}
	return "", fmt.Errorf("the placeholder ${%.80s} is not known", s)
}

var stepForm = regexp.MustCompile(`^step[1-9]$`)

func call(name, args string, depth int) (string, error) {
	f, ok := functions[name]
	if !ok {
		return "", fmt.Errorf("the function %.40s can't be said in a template", name)
	}
	key := ""
	if f.swapped { // the message, and behind the last comma the key
		i := strings.LastIndex(args, ",")
		if i < 0 {
			return "", fmt.Errorf("the function %s needs two arguments", name)
		}
		args, key = args[:i], strings.TrimSpace(args[i+1:])
	}
	var list []string
	for _, part := range []string{key, args} {
		segments, err := cut(part, depth+1)
		if err != nil {
			return "", err
		}
		for _, seg := range segments {
			if seg.expr == "" {
				seg.expr = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(seg.text) + "'"
			}
			list = append(list, seg.expr)
		}
	}
	return f.name + "(" + strings.Join(list, ", ") + ")", nil
}

// now translates what stands behind the word: ":FORMAT" or "+7:days:FORMAT".
func now(s string) (string, error) {
	offset := ""
	if s != "" && (s[0] == '+' || s[0] == '-') {
		amount, rest, _ := strings.Cut(s, ":")
		unit, layout, _ := strings.Cut(rest, ":")
		short, ok := map[string]string{"days": "d", "hours": "h", "minutes": "m", "seconds": "s"}[unit]
		if !ok {
			return "", fmt.Errorf("the time unit %.40q is not known", unit)
		}
		offset, s = ", '"+amount+short+"'", ":"+layout
	}
	layout, ok := clocks[strings.TrimPrefix(s, ":")]
	if !ok {
		return "", fmt.Errorf("the time format %.60q is not known", strings.TrimPrefix(s, ":"))
	}
	return "time('" + layout + "'" + offset + ")", nil
}

// tree translates all texts of a value, and leaves numbers and switches alone.
func tree(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return choice(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			x, err := tree(v[i])
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	case map[string]any:
		return branch(v)
	case object:
		return branch(v)
	}
	return v, nil
}

func branch(m map[string]any) (object, error) {
	if m == nil {
		return nil, nil
	}
	out := object{}
	for k, v := range m {
		x, err := tree(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		out[k] = x
	}
	return out, nil
}
