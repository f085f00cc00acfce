package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"strings"
)

// forms are the ways in which a server may write a secret that it has received:
// as it is; escaped for a URL, for JSON, for HTML; in hex; in base64, where it
// may stand anywhere in what was encoded. Some may be the same.
func forms(secret string) []string {
	if len(secret) < MinLength {
		return nil
	}
	out := []string{secret, percent(secret), hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret)))}
	if !unreserved(secret) {
		out = append(out, escaped(secret)...)
	}
	for offset := range 3 {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			f := inside(e, secret, offset)
			out = append(out, f)
			if strings.ContainsAny(f, "+/") { // escaped once more
				out = append(out, strings.ReplaceAll(f, "/", `\/`), url.QueryEscape(f), lowerEscapes(url.QueryEscape(f)))
			}
		}
	}
	return out
}

// unreserved tells whether a secret needs no escaping anywhere (RFC 3986 section
// 2.3).
func unreserved(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// escaped are the forms of one that does.
func escaped(secret string) []string {
	query, path := url.QueryEscape(secret), url.PathEscape(secret)
	return []string{
		query, path, lowerEscapes(query), lowerEscapes(path), strings.ReplaceAll(query, "+", "%20"),
		quoted(secret, true), quoted(secret, false), strings.ReplaceAll(quoted(secret, false), "/", `\/`),
		html.EscapeString(secret), htmlNames.Replace(secret), htmlHex.Replace(secret),
	}
}

var (
	htmlNames = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;")
	htmlHex   = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;")
	escape    = regexp.MustCompile("%[0-9A-F]{2}")
)

func lowerEscapes(s string) string { return escape.ReplaceAllStringFunc(s, strings.ToLower) }

// percent escapes every byte.
func percent(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte('%')
		b.WriteByte(digits[s[i]>>4])
		b.WriteByte(digits[s[i]&15])
	}
	return b.String()
}

// quoted is the inside of a JSON string.
func quoted(s string, forHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(forHTML)
	_ = e.Encode(s) // a string can always be encoded
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}

// inside is what base64 makes of a secret that begins offset bytes after
// a multiple of three, less the digits at its ends that its neighbours have
// a part in.
func inside(e *base64.Encoding, secret string, offset int) string {
	encoded := e.EncodeToString(append(make([]byte, offset), secret...))
	from := (offset*8 + 5) / 6
	to := (offset + len(secret)) * 8 / 6
	return encoded[from:to]
}
