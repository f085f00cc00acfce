package scheme

import (
	"crypto/subtle"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// checkIssuer compares iss as it came, after nothing but the decoding of the
// query: a slash more or a port is another issuer (RFC 9207 section 2.4).
func (b base) checkIssuer(f Flow, callback url.Values) error {
	a := b.provider.Authorize
	if a.Issuer.IsZero() {
		return nil
	}
	issuer, err := a.Issuer.Fill(b.env(f.grant(), nil))
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
func (b base) signsIn(f Flow) bool {
	return f.Nonce != "" && slices.Contains(strings.FieldsFunc(b.scopes(f.Scopes, f.Config), func(r rune) bool { return r == ' ' || r == ',' }), "openid")
}

// checkNonce refuses an ID token that was made for another flow: the code has
// been put into this one (section 3.1.3.7, rule 11). The token came over TLS
// from its issuer, which stands for its signature (rule 6).
func (b base) checkNonce(f Flow, a *answer) error {
	if !b.signsIn(f) {
		return nil
	}
	var body struct {
		IDToken string `json:"id_token"`
	}
	if json.Unmarshal(a.raw, &body) != nil || body.IDToken == "" {
		return nil
	}
	nonce, ok := jwtClaim(body.IDToken, "nonce")
	if !ok || subtle.ConstantTimeCompare([]byte(nonce), []byte(f.Nonce)) != 1 {
		return &CallbackError{Code: "nonce_mismatch"}
	}
	return nil
}
