package catalog

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// function is one function of the template language. The functions that hash
// and encode join their (remaining) arguments first. No error text may contain
// an argument.
type function struct {
	name       string
	min, max   int                 // number of arguments; max -1: any
	perRequest bool                // gives another result for each request
	check      func([]*expr) error // of literal arguments, when the file is read
	call       func(*Env, []string) (string, error)
}

var functions = table(
	function{name: "base64", min: 1, max: -1, call: joined(func(s string) string {
		return base64.StdEncoding.EncodeToString([]byte(s))
	})},
	function{name: "uuid", perRequest: true, call: func(e *Env, _ []string) (string, error) {
		return e.newUUID(), nil
	}},
	function{name: "time", min: 1, max: 2, perRequest: true, check: checkTime, call: callTime},
	function{name: "sha256_hex", min: 1, max: -1, call: joined(func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	})},
	function{name: "sha256_base64", min: 1, max: -1, call: joined(func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return base64.StdEncoding.EncodeToString(sum[:])
	})},
	function{name: "hmac_sha1_hex", min: 2, max: -1, call: hmacHex(sha1.New)},
	function{name: "hmac_sha256_hex", min: 2, max: -1, call: hmacHex(sha256.New)},
	function{name: "ed25519_sign_base64", min: 2, max: -1, call: signEd25519},
	function{name: "key_fingerprint", min: 1, max: 1, call: fingerprint},
	function{name: "left", min: 2, max: 2, check: checkLeft, call: callLeft},
	function{name: "upper", min: 1, max: 1, call: joined(strings.ToUpper)},
	function{name: "replace", min: 3, max: 3, call: func(_ *Env, a []string) (string, error) {
		if a[1] == "" {
			return a[0], nil
		}
		// The result may be much longer than the arguments: look before building it.
		if len(a[0])+strings.Count(a[0], a[1])*len(a[2]) > 2*maxOutput {
			return "", errTooLong
		}
		return strings.ReplaceAll(a[0], a[1], a[2]), nil
	}},
	function{name: "host_of", min: 1, max: 1, call: func(_ *Env, a []string) (string, error) {
		u, err := url.Parse(a[0])
		if err != nil || u.Hostname() == "" {
			return "", errors.New("not a URL with a host") // err would quote the value
		}
		return u.Hostname(), nil
	}},
	function{name: "jwt_claim", min: 2, max: 2, call: jwtClaim},
	function{name: "urlencode", min: 1, max: -1, call: joined(url.QueryEscape)},
	function{name: "json", min: 1, max: 1, call: func(_ *Env, a []string) (string, error) {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		err := enc.Encode(a[0])
		return strings.TrimSuffix(b.String(), "\n"), err
	}},
)

var functionNames = slices.Sorted(maps.Keys(functions))

func table(list ...function) map[string]*function {
	m := make(map[string]*function, len(list))
	for i := range list {
		m[list[i].name] = &list[i]
	}
	return m
}

func (f *function) checkArgs(args []*expr) error {
	n := len(args)
	switch {
	case f.max < 0 && n < f.min:
		return fmt.Errorf("%s needs %d or more arguments, not %d", f.name, f.min, n)
	case f.max >= 0 && (n < f.min || n > f.max) && f.min == f.max:
		return fmt.Errorf("%s takes %d arguments, not %d", f.name, f.min, n)
	case f.max >= 0 && (n < f.min || n > f.max):
		return fmt.Errorf("%s takes %d to %d arguments, not %d", f.name, f.min, f.max, n)
	case f.check != nil:
		return f.check(args)
	}
	return nil
}

func joined(f func(string) string) func(*Env, []string) (string, error) {
	return func(_ *Env, args []string) (string, error) {
		s := strings.Join(args, "")
		if len(s) > maxOutput {
			return "", errTooLong
		}
		return f(s), nil
	}
}

func hmacHex(h func() hash.Hash) func(*Env, []string) (string, error) {
	return func(_ *Env, args []string) (string, error) {
		m := hmac.New(h, []byte(args[0]))
		for _, a := range args[1:] {
			m.Write([]byte(a))
		}
		return hex.EncodeToString(m.Sum(nil)), nil
	}
}

// layouts of time(). unix and unix_ms are numbers.
var layouts = map[string]string{
	"iso":         "2006-01-02T15:04:05.000Z",
	"iso_seconds": "2006-01-02T15:04:05",
	"basic":       "20060102T150405Z",
	"rfc2822":     "Mon, 02 Jan 2006 15:04:05 +0000",
	"date":        "2006-01-02",
	"unix":        "",
	"unix_ms":     "",
}

func checkTime(args []*expr) error {
	if _, ok := layouts[args[0].text]; !ok || !args[0].literal() {
		return fmt.Errorf("time has the layouts %s, each in quotes", strings.Join(slices.Sorted(maps.Keys(layouts)), ", "))
	}
	if len(args) == 2 {
		if _, err := parseOffset(args[1].text); err != nil || !args[1].literal() {
			return errors.New("the offset of time is a quoted sign, number and unit: '+1m', '-30s', '+7d'")
		}
	}
	return nil
}

func callTime(e *Env, args []string) (string, error) {
	t := e.now()
	if len(args) == 2 {
		d, err := parseOffset(args[1])
		if err != nil {
			return "", err
		}
		t = t.Add(d)
	}
	switch args[0] {
	case "unix":
		return strconv.FormatInt(t.Unix(), 10), nil
	case "unix_ms":
		return strconv.FormatInt(t.UnixMilli(), 10), nil
	}
	return t.Format(layouts[args[0]]), nil
}

func parseOffset(s string) (time.Duration, error) {
	bad := errors.New("bad offset")
	if len(s) < 3 || s[0] != '+' && s[0] != '-' {
		return 0, bad
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	unit, ok := units[s[len(s)-1]]
	n, err := strconv.ParseUint(s[1:len(s)-1], 10, 16)
	if !ok || err != nil {
		return 0, bad
	}
	if s[0] == '-' {
		unit = -unit
	}
	return time.Duration(n) * unit, nil
}

func checkLeft(args []*expr) error {
	if _, err := strconv.ParseUint(args[1].text, 10, 16); err != nil || !args[1].literal() {
		return errors.New("left takes a text and a quoted number: left(cred.api_key, '20')")
	}
	return nil
}

// callLeft counts characters, not bytes.
func callLeft(_ *Env, args []string) (string, error) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return "", errors.New("not a number")
	}
	for i := range args[0] {
		if n == 0 {
			return args[0][:i], nil
		}
		n--
	}
	return args[0], nil
}

func (x *expr) literal() bool { return x.fn == nil && x.ref.Namespace == "" }

// keyOf reads a private or public key: PEM, or base64 of PEM or DER, which is
// what the field format pem_or_base64 lets a person paste.
func keyOf(s string) (any, error) {
	der := []byte(s)
	for range 2 {
		if block, _ := pem.Decode(der); block != nil {
			der = block.Bytes
			break
		}
		if b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(der)), "")); err == nil {
			der = b
		}
	}
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKIXPublicKey(der); err == nil {
		return k, nil
	}
	return nil, errors.New("not a key in PEM")
}

func signEd25519(_ *Env, args []string) (string, error) {
	k, err := keyOf(args[0])
	if err != nil {
		return "", err
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return "", errors.New("not an Ed25519 private key")
	}
	sig := ed25519.Sign(key, []byte(strings.Join(args[1:], "")))
	return base64.StdEncoding.EncodeToString(sig), nil
}

func fingerprint(_ *Env, args []string) (string, error) {
	k, err := keyOf(args[0])
	if err != nil {
		return "", err
	}
	if s, ok := k.(crypto.Signer); ok {
		k = s.Public()
	}
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return "", errors.New("not a key with a public part")
	}
	sum := sha256.Sum256(der)
	return "SHA256:" + base64.StdEncoding.EncodeToString(sum[:]), nil
}

// jwtClaim reads a claim without checking the signature: the token came straight
// from the vendor over TLS.
func jwtClaim(_ *Env, args []string) (string, error) {
	parts := strings.Split(args[0], ".")
	if len(parts) != 3 {
		return "", errors.New("not a JWT")
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return "", errors.New("not a JWT")
	}
	claims := map[string]json.RawMessage{}
	if json.Unmarshal(b, &claims) != nil {
		return "", errors.New("not a JWT")
	}
	raw := claims[args[1]]
	var s string
	switch {
	case len(raw) == 0, string(raw) == "null", string(raw) == `""`:
		return "", fmt.Errorf("the token has no such claim: %w", ErrMissing)
	case json.Unmarshal(raw, &s) == nil:
		return s, nil
	case raw[0] == '{' || raw[0] == '[':
		return "", errors.New("the claim is not a single value")
	}
	return string(raw), nil
}
