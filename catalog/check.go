package catalog

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxField is the longest value a field takes.
const maxField = 64 << 10

// Codes of [FieldError].
const (
	CodeRequired  = "required"
	CodeTooLong   = "too_long"
	CodeCharacter = "character" // control or invisible characters
	CodeFormat    = "format"    // hostname, uri, uuid, email, pem_or_base64
	CodePattern   = "pattern"   // the regex of the field
	CodeEnum      = "enum"
	CodeDenied    = "denied" // deny_suffix
)

// FieldError says what is wrong with the value of one field. The message is for
// the person who typed it; it never contains the value.
type FieldError struct {
	Field   string // name, as in the catalogue
	Code    string
	Message string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

var uuidForm = regexp.MustCompile(`^[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}$`)

// Check reports what is wrong with a value as a [*FieldError], nil when nothing
// is. An empty value is fine unless the field is required and has no default.
func (f *Field) Check(value string) error {
	bad := func(code, format string, args ...any) error {
		return &FieldError{f.Name, code, fmt.Sprintf(format, args...)}
	}
	switch {
	case value == "":
		if f.Required && !f.hasDefault {
			return bad(CodeRequired, "%s is required.", f.Title())
		}
		return nil
	case len(value) > maxField:
		return bad(CodeTooLong, "%s is longer than 64 KiB.", f.Title())
	case !utf8.ValidString(value) || strings.ContainsFunc(f.withoutNewlines(value), invisible):
		return bad(CodeCharacter, "%s has a line break or another character that can't be seen. Copy it again, without the space around it.", f.Title())
	}
	if len(f.Enum) > 0 && !slices.Contains(f.Enum, value) {
		return bad(CodeEnum, "%s must be one of %s.", f.Title(), strings.Join(f.Enum, ", "))
	}
	if want := f.checkFormat(value); want != "" {
		return bad(CodeFormat, "%s must be %s%s.", f.Title(), want, f.like())
	}
	if f.Regexp != nil && !f.Regexp.Match(value) {
		return bad(CodePattern, "%s does not have the form that is expected%s.", f.Title(), f.like())
	}
	host := hostIn(value)
	for _, s := range f.DenySuffix {
		if s = strings.ToLower(strings.TrimPrefix(s, ".")); host == s || strings.HasSuffix(host, "."+s) {
			return bad(CodeDenied, "%s must not be an address under %s%s.", f.Title(), s, f.like())
		}
	}
	return nil
}

// like shows the form of the value by the example of the field, which is made up.
func (f *Field) like() string {
	if f.Example == "" {
		return ""
	}
	return ", such as " + f.Example
}

// withoutNewlines lets keys in PEM have the line breaks they come with. Header
// values are checked once more when they are filled.
func (f *Field) withoutNewlines(value string) string {
	if f.Format == "pem_or_base64" || strings.HasPrefix(value, "-----BEGIN ") {
		return strings.NewReplacer("\r", "", "\n", "").Replace(value)
	}
	return value
}

func invisible(r rune) bool { return !unicode.IsPrint(r) }

// checkFormat returns what the value must be, or "".
func (f *Field) checkFormat(v string) string {
	ok := true
	var want string
	switch f.Format {
	case "hostname":
		want, ok = "a host name", checkHost(v) == nil
	case "uri":
		u, err := url.Parse(v)
		want, ok = "a whole URL that begins with https://", err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
	case "uuid":
		want, ok = "a UUID", uuidForm.MatchString(v)
	case "email":
		a, err := mail.ParseAddress(v)
		want, ok = "an e-mail address", err == nil && a.Address == v
	case "pem_or_base64":
		want, ok = "a key in PEM", isPEM(v)
	}
	if ok {
		return ""
	}
	return want
}

func isPEM(v string) bool {
	if block, _ := pem.Decode([]byte(v)); block != nil {
		return true
	}
	_, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(v), ""))
	return err == nil
}

// hostIn returns the host of a URL or of a bare name with port and path.
func hostIn(v string) string {
	if _, after, ok := strings.Cut(v, "://"); ok {
		v = after
	}
	if i := strings.IndexAny(v, "/:?#"); i >= 0 {
		v = v[:i]
	}
	return strings.TrimSuffix(strings.ToLower(v), ".")
}
