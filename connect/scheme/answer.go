package scheme

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// answer is what a token endpoint has given, put in order.
type answer struct {
	access, refresh string
	scopes          []string
	expires         time.Time
	raw             []byte // JSON
	capture         map[string]string
}

// maxLifetime clamps what a provider says of a token's lifetime.
const maxLifetime = 10 * 365 * 24 * time.Hour

// parseAnswer reads a successful answer by the entry's token_response block.
// It is received at now; the defaults are RFC 6749 section 5.1. Errors are
// *TokenError; nothing of a partial answer is returned.
func parseAnswer(p *catalog.Provider, body []byte, form bool, now time.Time) (*answer, error) {
	doc, err := parseDocument(body, form)
	if err != nil {
		return nil, err
	}
	spec := p.TokenResponse
	if spec == nil {
		spec = &catalog.TokenResponse{}
	}
	if ok := spec.OK; ok != nil {
		if v, _ := doc.text(ok.Path); v != fmt.Sprint(ok.Equals) {
			return nil, refusal(doc, http.StatusOK)
		}
	}
	if code, ok := doc.text("error"); ok && code != "" && code != "false" && code != "0" {
		// GitHub and others send errors with status 200.
		return nil, refusal(doc, http.StatusOK)
	}
	first := func(explicit string, defaults ...string) string {
		paths := defaults
		if explicit != "" {
			paths = []string{explicit}
		}
		for _, path := range paths {
			if v, ok := doc.text(path); ok && v != "" {
				return v
			}
		}
		if spec.AlternateRoot != "" {
			for _, path := range paths {
				if v, ok := doc.text(spec.AlternateRoot + "." + path); ok && v != "" {
					return v
				}
			}
		}
		return ""
	}
	a := &answer{raw: doc.raw, capture: map[string]string{}}
	access := []string{"access_token"}
	if p.Mode == catalog.ModeClientCredentials {
		access = append(access, "data.token", "jwt")
	}
	a.access = first(spec.AccessToken, access...)
	a.refresh = first(spec.RefreshToken, "refresh_token")
	if a.access == "" {
		if _, ok := doc.at("error").(map[string]any); ok {
			return nil, refusal(doc, http.StatusOK)
		}
		return nil, &TokenError{Class: Transient, Code: "no_access_token", Description: "the provider's answer has no access token in it"}
	}
	if !usableToken(a.access) || !usableToken(a.refresh) {
		return nil, &TokenError{Class: Transient, Code: "bad_token", Description: "the provider's answer has a token with characters that no token may have"}
	}
	// RFC 6749 section 7.1: a token of a type that isn't understood must not
	// be used. Vendors put words of their own there (Slack: bot), which mean
	// Bearer; these two don't.
	if typ := first("", "token_type"); strings.EqualFold(typ, "mac") || strings.EqualFold(typ, "dpop") {
		return nil, &TokenError{Class: Misconfigured, Code: "token_type", Description: "the provider has issued a " + clean(typ) + " token, which isn't supported"}
	}
	if scope := first("", "scope"); scope != "" {
		a.scopes = strings.FieldsFunc(scope, func(r rune) bool { return r == ' ' || r == ',' })
	}
	for field, path := range spec.Capture {
		if v, ok := doc.text(path); ok {
			a.capture[field] = v
		}
	}
	a.expires = lifetime(p, spec, first, a.access, now)
	return a, nil
}

// lifetime tells when the token ends; zero: not known. An end that is past by
// this machine's clock is none: the token would be renewed at every call.
func lifetime(p *catalog.Provider, spec *catalog.TokenResponse, first func(string, ...string) string, access string, now time.Time) time.Time {
	if spec.LifetimeS > 0 {
		return now.Add(time.Duration(spec.LifetimeS) * time.Second)
	}
	if !spec.NoExpiryGiven {
		if at := first(spec.ExpiresAt, "expires_at"); at != "" && spec.ExpiresIn == "" {
			if t, ok := parseTime(at); ok && t.After(now) {
				return clampTime(t, now)
			}
		}
		if in := first(spec.ExpiresIn, "expires_in"); in != "" {
			unit := time.Second
			if spec.ExpiresInUnit == "ms" {
				unit = time.Millisecond
			}
			if d, ok := parseDuration(in, unit); ok {
				return now.Add(d)
			}
		}
	}
	if t, ok := jwtExpiry(access); ok && t.After(now) {
		return clampTime(t, now)
	}
	if p.Mode == catalog.ModeClientCredentials {
		return now.Add(time.Hour)
	}
	return time.Time{}
}

func clampTime(t, now time.Time) time.Time {
	if limit := now.Add(maxLifetime); t.After(limit) {
		return limit
	}
	return t
}

// parseDuration reads a number of units, also one written as a string or with
// a fraction, or a duration such as "2h". Less than a second is no lifetime.
func parseDuration(s string, unit time.Duration) (time.Duration, bool) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || f*float64(unit) < float64(time.Second) {
			return 0, false
		}
		if f*float64(unit) >= float64(maxLifetime) {
			return maxLifetime, true
		}
		return time.Duration(f * float64(unit)), true
	}
	d, err := time.ParseDuration(s)
	return min(d, maxLifetime), err == nil && d >= time.Second
}

// parseTime reads an instant: seconds or milliseconds since 1970 by their
// magnitude, or ISO 8601.
func parseTime(s string) (time.Time, bool) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		switch {
		case math.IsNaN(f) || f <= 0 || f > 1e15:
			return time.Time{}, false
		case f > 1e11:
			return time.UnixMilli(int64(f)), true
		}
		return time.Unix(int64(f), 0), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// jwtExpiry reads the exp claim of a token that is a JWT (RFC 7519 section
// 4.1.4). The signature isn't checked: the token came over TLS from its issuer,
// and the claim only says when to ask for the next one.
func jwtExpiry(token string) (time.Time, bool) {
	var claims struct {
		Exp json.Number `json:"exp"`
	}
	if !jwtClaims(token, &claims) || claims.Exp == "" {
		return time.Time{}, false
	}
	return parseTime(claims.Exp.String())
}

// usableToken tells whether a token can be put into a header as it is:
// visible ASCII without quotes (RFC 6750 section 2.1 allows less).
func usableToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' {
			return false
		}
	}
	return true
}

// document is a provider's answer, whatever it was written in.
type document struct {
	root any
	raw  []byte
}

func parseDocument(body []byte, form bool) (document, error) {
	trimmed := bytes.TrimSpace(body)
	if form && (len(trimmed) == 0 || trimmed[0] != '{') {
		values, err := url.ParseQuery(string(trimmed))
		if err != nil || len(values) == 0 {
			return document{}, notJSON()
		}
		root := make(map[string]any, len(values))
		for k := range values {
			root[k] = values.Get(k)
		}
		raw, _ := json.Marshal(root) // strings always marshal
		return document{root, raw}, nil
	}
	dec := json.NewDecoder(bytes.NewReader(trimmed))
	dec.UseNumber()
	var root any
	if err := dec.Decode(&root); err != nil {
		return document{}, notJSON()
	}
	if _, err := dec.Token(); err != io.EOF {
		return document{}, notJSON() // there is more behind it
	}
	if s, ok := root.(string); ok { // the whole body is the token
		return document{s, trimmed}, nil
	}
	if _, ok := root.(map[string]any); !ok {
		return document{}, notJSON()
	}
	return document{root, trimmed}, nil
}

func notJSON() error {
	return &TokenError{Class: Transient, Code: "not_json", Description: "the provider's answer is not JSON"}
}

// at returns what is at a dotted path; nil if there is nothing.
func (d document) at(path string) any {
	v := d.root
	if path == "$body" {
		return v
	}
	for key := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(node) {
				return nil
			}
			v = node[i]
		default:
			return nil
		}
	}
	return v
}

// text returns the value at a dotted path if it is a string, number or bool.
func (d document) text(path string) (string, bool) {
	switch v := d.at(path).(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// responseValue is document.text of a stored answer.
func responseValue(raw []byte, path string) (string, bool) {
	doc, err := parseDocument(raw, false)
	if err != nil {
		return "", false
	}
	return doc.text(path)
}

// refusal reads the error of an answer (RFC 6749 section 5.2).
func refusal(doc document, status int) error {
	code, _ := doc.text("error")
	description, _ := doc.text("error_description")
	if code == "" { // {"error": {"code": …, "message": …}} is common too
		code, _ = doc.text("error.code")
		description, _ = doc.text("error.message")
	}
	code = cleanCode(code)
	if code == "" {
		code = "http_" + strconv.Itoa(status)
	}
	return &TokenError{Class: classify(code), Code: code, Description: clean(description)}
}

// cleanCode keeps the characters that error codes have, and 64 of them.
func cleanCode(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.", r) {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), 64)]
}
