package scheme

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oauth1Signer signs requests by OAuth 1.0a (RFC 5849 section 3), with
// HMAC-SHA1, HMAC-SHA256 or PLAINTEXT.
type oauth1Signer struct {
	method                      string
	realm                       string
	consumerKey, consumerSecret string
	token, tokenSecret          string
	// extra are protocol parameters of one request: oauth_callback,
	// oauth_verifier.
	extra map[string]string
	// nonce and now are of tests; nil: random, and time.Now.
	nonce func() string
	now   func() time.Time
}

func (s *oauth1Signer) names() []string { return []string{"Authorization"} }

// pairOf is a parameter, encoded as section 3.6 says.
type pairOf struct{ name, value string }

func (s *oauth1Signer) sign(r *http.Request, body *held) error {
	oauth := []pairOf{{"oauth_consumer_key", s.consumerKey}}
	if s.token != "" {
		oauth = append(oauth, pairOf{"oauth_token", s.token})
	}
	oauth = append(oauth, pairOf{"oauth_signature_method", s.method}, pairOf{"oauth_timestamp", s.timestamp()}, pairOf{"oauth_nonce", s.newNonce()}, pairOf{"oauth_version", "1.0"})
	for name, v := range s.extra {
		oauth = append(oauth, pairOf{name, v})
	}
	signature, err := s.signature(r, body, oauth)
	if err != nil {
		return err
	}
	// Section 3.5.1.
	var b strings.Builder
	b.WriteString("OAuth ")
	if s.realm != "" {
		b.WriteString(`realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s.realm) + `", `)
	}
	for _, p := range oauth {
		b.WriteString(percentEncode(p.name) + `="` + percentEncode(p.value) + `", `)
	}
	b.WriteString(`oauth_signature="` + percentEncode(signature) + `"`)
	r.Header["Authorization"] = []string{b.String()}
	return nil
}

func (s *oauth1Signer) signature(r *http.Request, body *held, oauth []pairOf) (string, error) {
	key := percentEncode(s.consumerSecret) + "&" + percentEncode(s.tokenSecret)
	var h func() hash.Hash
	switch s.method {
	case "PLAINTEXT":
		// Section 3.4.4: the secrets themselves go along (S102).
		if r.URL.Scheme != "https" {
			return "", errors.New("PLAINTEXT signatures are sent by https only")
		}
		return key, nil
	case "HMAC-SHA256":
		h = sha256.New
	default:
		h = sha1.New
	}
	text, err := baseString(r, body, oauth)
	if err != nil {
		return "", err
	}
	mac := hmac.New(h, []byte(key))
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// baseString is what is signed (section 3.4.1).
func baseString(r *http.Request, body *held, oauth []pairOf) (string, error) {
	params := slices.Clone(oauth)
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return "", &BodyError{Reason: "its query can't be read, and so not be signed"}
	}
	params = append(params, query...)
	// Section 3.4.1.3.1: a body counts if it is a form. (A form without a body
	// has nothing in it.)
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		if !body.whole {
			return "", body.err()
		}
		form, err := parseQuery(string(body.bytes))
		if err != nil {
			return "", &BodyError{Reason: "the body is not a form"}
		}
		params = append(params, form...)
	}
	for i, p := range params {
		params[i] = pairOf{percentEncode(p.name), percentEncode(p.value)}
	}
	slices.SortFunc(params, func(a, b pairOf) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	pairs := make([]string, len(params))
	for i, p := range params {
		pairs[i] = p.name + "=" + p.value
	}
	return strings.ToUpper(r.Method) + "&" + percentEncode(baseURI(r.URL)) + "&" + percentEncode(strings.Join(pairs, "&")), nil
}

// baseURI is section 3.4.1.2.
func baseURI(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if port := u.Port(); scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path
}

// parseQuery reads parameters in their order, also such that come twice.
func parseQuery(raw string) ([]pairOf, error) {
	var out []pairOf
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, err
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, err
		}
		out = append(out, pairOf{name, value})
	}
	return out, nil
}

func (s *oauth1Signer) timestamp() string {
	now := time.Now
	if s.now != nil {
		now = s.now
	}
	return strconv.FormatInt(now().Unix(), 10)
}

// newNonce has 130 bits of chance, so that no two nodes make the same (S101).
func (s *oauth1Signer) newNonce() string {
	if s.nonce != nil {
		return s.nonce()
	}
	return rand.Text()
}

var _ signer = (*oauth1Signer)(nil)
