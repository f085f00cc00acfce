package scheme

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
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
	cookies         string
	capture         map[string]string
	extra           map[string]Token // by the name of their root
}

// maxLifetime clamps what a provider says of a token's lifetime.
const maxLifetime = 10 * 365 * 24 * time.Hour

// reader reads a successful answer by the entry's token_response block. The
// answer of the last request is the token response; those before it are there
// for paths that begin with step1, step2 and so on.
type reader struct {
	provider *catalog.Provider
	spec     *catalog.TokenResponse
	docs     []document
	renewal  bool
	now      time.Time
}

// readAnswer reads what was received at now; the defaults are RFC 6749 section
// 5.1. Errors are *TokenError; nothing of a partial answer is returned.
func readAnswer(p *catalog.Provider, docs []document, renewal bool, now time.Time) (*answer, error) {
	r := &reader{p, p.TokenResponse, docs, renewal, now}
	if r.spec == nil {
		r.spec = &catalog.TokenResponse{}
	}
	if err := r.refused(); err != nil {
		return nil, err
	}
	doc := r.last()
	a := &answer{raw: doc.raw, cookies: doc.cookies, capture: r.captured(), extra: map[string]Token{}}
	access := []string{"access_token"}
	if p.Mode == catalog.ModeClientCredentials {
		access = append(access, "data.token", "jwt")
	}
	var root string
	a.access, root = r.first(r.spec.AccessToken, access...)
	a.refresh = r.under(root, r.spec.RefreshToken, "refresh_token")
	if a.access == "" && !(renewal && p.Refresh != nil && p.Refresh.KeepsAccessToken) {
		if _, ok := doc.at("error").(map[string]any); ok {
			return nil, refusal(doc, http.StatusOK)
		}
		return nil, &TokenError{Class: Transient, Code: "no_access_token", Description: "the provider's answer has no access token in it"}
	}
	// RFC 6749 section 7.1: a token of a type that isn't understood must not
	// be used. Vendors put words of their own there (Slack: bot), which mean
	// Bearer; these two don't.
	if typ := r.under(root, "", "token_type"); strings.EqualFold(typ, "mac") || strings.EqualFold(typ, "dpop") {
		return nil, &TokenError{Class: Misconfigured, Code: "token_type", Description: "the provider has issued a " + clean(typ) + " token, which isn't supported"}
	}
	a.scopes = r.granted(root)
	a.expires = r.lifetime(root, a.access)
	if alt := r.spec.AlternateRoot; alt != "" && root == "" {
		if t := (Token{AccessToken: Secret(r.under(alt, "", "access_token")), RefreshToken: Secret(r.under(alt, "", "refresh_token"))}); t.AccessToken != "" {
			t.Expires = r.lifetime(alt, t.AccessToken.Reveal())
			a.extra[alt] = t
		}
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	return a, nil
}

// check refuses tokens that no header can carry (S46).
func (a *answer) check() error {
	tokens := []string{a.access, a.refresh}
	for _, t := range a.extra {
		tokens = append(tokens, t.AccessToken.Reveal(), t.RefreshToken.Reveal())
	}
	for _, t := range tokens {
		if !usableToken(t) {
			return &TokenError{Class: Transient, Code: "bad_token", Description: "the provider's answer has a token with characters that no token may have"}
		}
	}
	return nil
}

func (r *reader) last() document { return r.docs[len(r.docs)-1] }

// text returns what is at a path of the answers.
func (r *reader) text(path string) (string, bool) {
	if name, rest, ok := strings.Cut(path, "."); ok && strings.HasPrefix(name, "step") {
		if n, err := strconv.Atoi(name[4:]); err == nil {
			if n < 1 || n > len(r.docs) {
				return "", false
			}
			return r.docs[n-1].text(rest)
		}
	}
	return r.last().text(path)
}

// first returns the first of the paths that has something, and the root it was
// found under, which is the entry's alternate root or "".
func (r *reader) first(explicit string, defaults ...string) (value, root string) {
	roots := []string{""}
	if r.spec.AlternateRoot != "" {
		roots = append(roots, r.spec.AlternateRoot)
	}
	for _, root := range roots {
		if v := r.under(root, explicit, defaults...); v != "" {
			return v, root
		}
	}
	return "", ""
}

func (r *reader) under(root, explicit string, defaults ...string) string {
	if explicit != "" {
		defaults = []string{explicit}
	}
	for _, path := range defaults {
		if root != "" {
			path = root + "." + path
		}
		if v, ok := r.text(path); ok && v != "" {
			return v
		}
	}
	return ""
}

// refused finds an error in an answer that came as a success.
func (r *reader) refused() error {
	doc := r.last()
	switch doc.root.(type) {
	case map[string]any:
	case string:
		return nil
	default:
		return notReadable("JSON")
	}
	if ok := r.spec.OK; ok != nil && (ok.On != "refresh" || r.renewal) {
		if v, _ := doc.text(ok.Path); v != fmt.Sprint(ok.Equals) {
			return refusal(doc, http.StatusOK)
		}
	}
	if code, ok := doc.text("error"); ok && code != "" && code != "false" && code != "0" {
		// GitHub and others send errors with status 200.
		return refusal(doc, http.StatusOK)
	}
	return nil
}

// captured are the connection's values that the answers tell. One that the last
// answer doesn't have may be in one before it.
func (r *reader) captured() map[string]string {
	out := map[string]string{}
	sets := []map[string]string{r.spec.Capture}
	if r.renewal {
		sets = append(sets, r.spec.CaptureOnRefresh)
	}
	for _, set := range sets {
		for field, path := range set {
			if v, ok := r.text(path); ok {
				out[field] = v
				continue
			}
			for i := len(r.docs) - 1; i >= 0; i-- {
				if v, ok := plainText(r.docs[i].at(path)); ok {
					out[field] = v
					break
				}
			}
		}
	}
	return out
}

// plainText is a single value as text, or a list or map as JSON of up to 4 KiB,
// such as TikTok's list of advertisers.
func plainText(v any) (string, bool) {
	switch v.(type) {
	case map[string]any, []any:
		data, err := json.Marshal(v)
		return string(data), err == nil && len(data) <= 4<<10
	}
	return scalarText(v)
}

// lifetime tells when the token ends; zero: not known. An end that is past by
// this machine's clock is none: the token would be renewed at every call.
func (r *reader) lifetime(root, access string) time.Time {
	p, spec, now := r.provider, r.spec, r.now
	first := func(explicit, standard string) string { return r.under(root, explicit, standard) }
	if r.renewal && p.Refresh != nil && p.Refresh.LifetimeS > 0 {
		return now.Add(time.Duration(p.Refresh.LifetimeS) * time.Second)
	}
	if spec.LifetimeS > 0 {
		return now.Add(time.Duration(spec.LifetimeS) * time.Second)
	}
	if !spec.NoExpiryGiven {
		if at := first(spec.ExpiresAt, "expires_at"); at != "" && spec.ExpiresIn == "" {
			if t, ok := parseTime(at, now); ok && t.After(now) {
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

var fromNow = regexp.MustCompile(`^(\d{1,5}):(\d{1,2}):(\d{1,2})$`)

// parseTime reads an instant: seconds or milliseconds since 1970 by their
// magnitude, ISO 8601, or days, hours and minutes from now (D:HH:MM).
func parseTime(s string, now time.Time) (time.Time, bool) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		switch {
		case math.IsNaN(f) || f <= 0 || f > 1e15:
			return time.Time{}, false
		case f > 1e11:
			return time.UnixMilli(int64(f)), true
		}
		return time.Unix(int64(f), 0), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	if m := fromNow.FindStringSubmatch(s); m != nil {
		var d time.Duration
		for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute} {
			n, err := strconv.Atoi(m[i+1])
			if err != nil {
				return time.Time{}, false
			}
			d += time.Duration(n) * unit
		}
		return now.Add(d), true
	}
	return time.Time{}, false
}

// jwtExpiry reads the exp claim of a token that is a JWT (RFC 7519 section
// 4.1.4). The signature isn't checked: the token came over TLS from its issuer,
// and the claim only says when to ask for the next one.
func jwtExpiry(token string) (time.Time, bool) {
	exp, ok := jwtClaim(token, "exp")
	if !ok {
		return time.Time{}, false
	}
	return parseTime(exp, time.Time{})
}

// jwtClaim reads a claim that is a single value.
func jwtClaim(token, name string) (string, bool) {
	_, rest, ok := strings.Cut(token, ".")
	payload, _, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 {
		return "", false
	}
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(payload, "="))
	if err != nil {
		return "", false
	}
	doc, err := parseDocument(data, asJSON)
	if err != nil {
		return "", false
	}
	claims, ok := doc.root.(map[string]any)
	if !ok {
		return "", false
	}
	v, ok := scalarText(claims[name])
	return v, ok && v != ""
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

// refusal reads the error of an answer (RFC 6749 section 5.2).
func refusal(doc document, status int) error {
	code, _ := doc.text("error")
	description, _ := doc.text("error_description")
	// {"error": {"code": …, "message": …}} is common too; the others are AWS's.
	for _, root := range []string{"error.", "ErrorResponse.Error.", "Error."} {
		if code == "" {
			code, _ = doc.text(root + "code")
			description, _ = doc.text(root + "message")
		}
		if code == "" {
			code, _ = doc.text(root + "Code")
			description, _ = doc.text(root + "Message")
		}
	}
	code = cleanCode(code)
	if code == "" {
		code = "http_" + strconv.Itoa(status)
	}
	return &TokenError{Class: classify(code), Code: code, Status: status, Description: clean(description)}
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
