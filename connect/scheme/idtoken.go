package scheme

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
)

// idTokenLeeway is how far the clock of an ID token's issuer may be apart.
const idTokenLeeway = 5 * time.Minute

// IDTokenError says why an ID token tells nothing. It holds no part of it.
type IDTokenError struct{ Reason string }

func (e *IDTokenError) Error() string { return "the ID token can't be believed: " + e.Reason }

// idToken returns the claims of the ID token that came with the grant, of which
// there are none if the entry doesn't say whose it has to be, or no such token
// came. What is checked is what OpenID Connect Core 1.0 section 3.1.3.7 asks of
// a client that has the token straight from the token endpoint: TLS stands for
// the signature (rule 6), and the nonce is compared when the code is redeemed.
func (b base) idToken(g Grant) (document, error) {
	spec := b.provider.Account.Issuer
	token, ok := responseValue([]byte(g.Raw.Reveal()), "id_token")
	if spec.IsZero() || !ok || token == "" {
		return document{}, nil
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 { // five of an encrypted one, which nobody has asked for
		return document{}, &IDTokenError{"it is no signed JWT"}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return document{}, &IDTokenError{"it is no signed JWT"}
	}
	claims, err := parseDocument(payload, asJSON)
	if err != nil {
		return document{}, &IDTokenError{"its claims can't be read"}
	}
	issuer, err := spec.Fill(b.env(g, func(ns, path string) (string, bool) {
		if ns != "claim" {
			return "", false
		}
		return claims.text(path)
	}))
	if err != nil {
		return document{}, fmt.Errorf("issuer of provider %s: %w", b.provider.ID, err)
	}
	if reason := wrongIDToken(claims, issuer, b.app.ClientID, time.Now()); reason != "" {
		return document{}, &IDTokenError{reason}
	}
	return claims, nil
}

// wrongIDToken returns what is wrong with the claims, or "".
func wrongIDToken(claims document, issuer, client string, now time.Time) string {
	if iss, _ := claims.text("iss"); iss == "" || iss != issuer {
		return "another issuer has made it"
	}
	var audience []string
	switch aud := claims.at("aud").(type) {
	case string:
		audience = []string{aud}
	case []any:
		for _, a := range aud {
			s, _ := a.(string)
			audience = append(audience, s)
		}
	}
	azp, named := claims.text("azp")
	switch {
	case client == "" || !slices.Contains(audience, client):
		return "it is for another client"
	case len(audience) > 1 && !named, named && azp != client: // rules 4 and 5
		return "it was given to another client"
	}
	if sub, _ := claims.text("sub"); sub == "" {
		return "it has no subject"
	}
	exp, _ := claims.text("exp")
	if end, ok := parseTime(exp, now); !ok || now.After(end.Add(idTokenLeeway)) {
		return "it has ended"
	}
	return ""
}
