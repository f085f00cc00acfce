package catalog

import (
	"regexp"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Field is a value that somebody has to give: the operator (app_fields), or the
// person who connects an account (conn_fields, cred_fields).
type Field struct {
	Name     string `yaml:"name,required"`
	Label    string `yaml:"label"` // our own; see Title
	Help     string `yaml:"help"`  // our own: where the value is found, in a sentence
	Docs     string `yaml:"docs"`  // our own: the vendor's page about it
	Required bool   `yaml:"required"`

	Format  string   `yaml:"format" enum:"hostname uri uuid email pem_or_base64"`
	Regexp  *Regexp  `yaml:"regex"`
	Enum    []string `yaml:"enum"`
	Example string   `yaml:"example"` // made up or masked

	Prefix  string `yaml:"prefix"` // shown before the input, no part of the value
	Suffix  string `yaml:"suffix"`
	Default string `yaml:"default"`

	Hidden    bool   `yaml:"hidden"`
	Secret    bool   `yaml:"secret"` // mask and redact
	Automatic bool   `yaml:"automatic"`
	Source    string `yaml:"source" enum:"token_response callback webhook derive operator"`
	Implied   bool   `yaml:"implied"`
	Ephemeral bool   `yaml:"ephemeral"` // needed once, not to be stored

	VisibleWhen *VisibleWhen `yaml:"visible_when"`
	DenySuffix  []string     `yaml:"deny_suffix"` // hosts under these are refused
	Order       int          `yaml:"order"`

	hasDefault bool
}

// VisibleWhen ties a field to the value of another one of the same list.
type VisibleWhen struct {
	Field  string `yaml:"field,required"`
	Equals string `yaml:"equals,required"`
}

func (f *Field) written(keys map[string]*yaml.Node) { f.hasDefault = keys["default"] != nil }

// HasDefault reports whether the file gives a default. It may be "": a Basic
// password that the vendor ignores. Templates take the default by themselves
// when a value is absent.
func (f *Field) HasDefault() bool { return f.hasDefault }

// Asked reports whether the person who connects is asked for the field.
func (f *Field) Asked() bool { return !f.Hidden && !f.Automatic && f.Source == "" }

// Title is what a form shows: the label, or the name in words (api_key: API key).
func (f *Field) Title() string {
	if f.Label != "" {
		return f.Label
	}
	words := strings.Split(f.Name, "_")
	for i, w := range words {
		switch {
		case acronyms[w] != "":
			words[i] = acronyms[w]
		case i == 0 && w != "":
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, " ")
}

var acronyms = map[string]string{
	"api": "API", "arn": "ARN", "aws": "AWS", "crm": "CRM", "dc": "DC", "hmac": "HMAC",
	"http": "HTTP", "https": "HTTPS", "id": "ID", "ids": "IDs", "ip": "IP", "json": "JSON",
	"jwk": "JWK", "jwt": "JWT", "mcp": "MCP", "oauth": "OAuth", "oauth2": "OAuth 2", "pat": "PAT",
	"pem": "PEM", "scim": "SCIM", "sdk": "SDK", "sid": "SID", "sso": "SSO", "sts": "STS",
	"tld": "TLD", "tls": "TLS", "uri": "URI", "url": "URL", "uuid": "UUID",
}

// Clean takes off what people paste along with a value: spaces around it, and
// the prefix and suffix that the form shows anyway.
func (f *Field) Clean(value string) string {
	value = strings.TrimFunc(value, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' || r == '\u200b' })
	if f.Prefix != "" {
		value = strings.TrimPrefix(value, f.Prefix)
	}
	if f.Suffix != "" {
		value = strings.TrimSuffix(strings.TrimSuffix(value, "/"), f.Suffix)
	}
	return value
}

// Regexp is a regular expression in RE2 syntax.
type Regexp struct {
	whole, part *regexp.Regexp
	src         string
}

// Match reports whether the expression matches the whole of s, anchored or not.
func (r *Regexp) Match(s string) bool { return r.whole.MatchString(s) }

// Find returns the leftmost match in s and its groups, nil if there is none.
func (r *Regexp) Find(s string) []string { return r.part.FindStringSubmatch(s) }

// String returns the source.
func (r *Regexp) String() string { return r.src }

func (r *Regexp) decode(d *decoder, n *yaml.Node, at place) {
	r.src = d.word(n, at)
	part, err := regexp.Compile(r.src)
	if err != nil {
		d.fail(n, "%s: %v; the syntax is RE2, without look-around", at.path, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		part = regexp.MustCompile("")
	}
	r.part = part
	r.whole, err = regexp.Compile(`\A(?:` + r.src + `)\z`)
	if err != nil {
		r.whole = part
	}
}
