package scheme

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// Check finds out whether the callback brings a code (RFC 6749 section 4.1.2). A
// parameter that comes twice makes it invalid (section 3.1). Whose answer it is
// comes before what it says: an error that another server has sent is neither
// shown nor acted upon (RFC 9207 section 2.4).
func (s oauth2Code) Check(f Flow, callback url.Values) error {
	for name, values := range callback {
		if len(values) > 1 {
			return &CallbackError{Code: "duplicate_parameter", Description: clean(name)}
		}
	}
	if err := s.checkIssuer(f, callback); err != nil {
		return err
	}
	if code := callback.Get("error"); code != "" {
		return &CallbackError{Code: cleanCode(code), Description: clean(callback.Get("error_description"))}
	}
	if callback.Get(s.codeParam()) == "" {
		return &CallbackError{Code: "missing_code"}
	}
	return nil
}

func (s oauth2Code) codeParam() string {
	if p := s.provider.Authorize.CodeParam; p != "" {
		return p
	}
	return "code"
}

// checkIssuer compares iss as it came, after nothing but the decoding of the
// query: a slash more or a port is another issuer (RFC 9207 section 2.4).
func (s oauth2Code) checkIssuer(f Flow, callback url.Values) error {
	a := s.provider.Authorize
	if a.Issuer.IsZero() {
		return nil
	}
	issuer, err := a.Issuer.Fill(s.env(Grant{Config: f.Config}, nil))
	if err != nil {
		return &CallbackError{Code: "iss_mismatch"}
	}
	if !callback.Has("iss") && !a.IssuerSent {
		return nil
	}
	if subtle.ConstantTimeCompare([]byte(issuer), []byte(callback.Get("iss"))) != 1 {
		return &CallbackError{Code: "iss_mismatch"}
	}
	return nil
}

// signsIn tells whether an ID token is asked for, which is then bound to the
// flow by a nonce (OpenID Connect Core 1.0 section 3.1.2.1).
func (s oauth2Code) signsIn(f Flow) bool {
	return f.Nonce != "" && slices.Contains(strings.FieldsFunc(s.scopes(f.Scopes), func(r rune) bool { return r == ' ' || r == ',' }), "openid")
}

// checkNonce refuses an ID token that was made for another flow: the code has
// been put into this one (section 3.1.3.7, rule 11). The token came over TLS
// from its issuer, which stands for its signature (rule 6).
func (s oauth2Code) checkNonce(f Flow, a *answer) error {
	if !s.signsIn(f) {
		return nil
	}
	var body struct {
		IDToken string `json:"id_token"`
	}
	if json.Unmarshal(a.raw, &body) != nil || body.IDToken == "" {
		return nil
	}
	var claims struct {
		Nonce string `json:"nonce"`
	}
	if !jwtClaims(body.IDToken, &claims) || subtle.ConstantTimeCompare([]byte(claims.Nonce), []byte(f.Nonce)) != 1 {
		return &CallbackError{Code: "nonce_mismatch"}
	}
	return nil
}

// jwtClaims reads the payload of a JWT, whose signature isn't checked.
func jwtClaims(token string, into any) bool {
	_, rest, ok := strings.Cut(token, ".")
	payload, _, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 {
		return false
	}
	data, err := base64.RawURLEncoding.DecodeString(payload)
	return err == nil && json.Unmarshal(data, into) == nil
}
