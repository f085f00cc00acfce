package simulator

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keycaddy/keycaddy/catalog"
)

// selfSigned tells whether the client makes its access tokens itself.
func (v *Vendor) selfSigned() bool {
	return v.facts.Signed != nil && v.facts.Token == nil
}

// selfCredentialed is allowed for tokens that the client signs: what stands in
// the place of the access token is the assertion.
func (v *Vendor) selfCredentialed(x *exchange, own map[string]any, service string) []string {
	x.grant = &grant{self: true, live: true}
	token := ""
	for name, value := range v.facts.Request.Headers {
		before, after, ok := strings.Cut(value.String(), "{token.access_token}")
		if s := x.r.Header.Get(name); ok && strings.HasPrefix(s, before) && strings.HasSuffix(s, after) {
			token = strings.TrimSuffix(strings.TrimPrefix(s, before), after)
		}
	}
	if token == "" {
		return []string{"there is no token that the client has signed"}
	}
	if err := x.assertion(token); err != nil {
		return []string{"the token that the client has signed: " + err.Error()}
	}
	x.grant.access = token
	if !slices.ContainsFunc(v.grants, func(g *grant) bool { return g.access == token }) {
		g := *x.grant
		g.told, g.extra = expiryOf(token), map[string]string{}
		v.grants = append(v.grants, &g)
	}
	if out := v.credentialed(x, own, service); len(out) > 0 {
		return out
	}
	if v.refuseOnce {
		v.refuseOnce = false
		return []string{tokenEnded}
	}
	return nil
}

func expiryOf(token string) time.Time {
	claims, err := unverifiedClaims(token)
	if err != nil {
		return time.Time{}
	}
	exp, _ := claims["exp"].(float64)
	return time.Unix(int64(exp), 0)
}

func unsignedJWT(claims map[string]any) string {
	enc := func(v any) string { return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v))) }
	return enc(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + enc(claims) + "." + base64.RawURLEncoding.EncodeToString([]byte(random(32)))
}

// assertion checks what the client has signed by the entry's signed block.
func (x *exchange) assertion(token string) error {
	s := x.v.facts.Signed
	if s == nil {
		return errors.New("the entry has none")
	}
	if s.Kind == "saml2_bearer" {
		return x.saml(token)
	}
	claims := jwt.MapClaims{}
	parsed, err := jwt.NewParser(
		jwt.WithValidMethods([]string{s.Alg}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(5*time.Second), jwt.WithStrictDecoding(),
	).ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return x.verificationKey(s) })
	if err != nil {
		return err
	}
	return errors.Join(x.jwtHeader(parsed.Header), x.claims(s, claims))
}

func (x *exchange) jwtHeader(header map[string]any) error {
	want := maps.Clone(x.v.facts.tree("signed", "header"))
	for name, value := range want {
		got, present := header[name]
		if err := x.one(value, got, present, true); err != nil {
			return fmt.Errorf("its header's %s %w", name, err)
		}
	}
	if typ, ok := header["typ"]; ok && typ != "JWT" {
		return fmt.Errorf("its type is %v", typ)
	}
	return nil
}

// claims checks the claims and the times (RFC 7519 section 4.1).
func (x *exchange) claims(s *catalog.Signed, claims map[string]any) error {
	want := plain(x.v.facts.tree("signed", "claims"))
	for _, name := range []string{"nbf", "jti"} {
		if _, ok := want[name]; !ok {
			want[name] = optional{free{}}
		}
	}
	want["iat"], want["exp"] = free{}, free{}
	attempt := *x
	attempt.scope = &scope{lookup: x.lookup, made: map[string]string{}, now: x.now, assertion: x.scope.assertion}
	if diffs := attempt.differs("claims", want, claims, true); len(diffs) > 0 {
		return errors.New(strings.Join(diffs, ", "))
	}
	iat, ok1 := claims["iat"].(float64)
	exp, ok2 := claims["exp"].(float64)
	switch {
	case !ok1 || !ok2:
		return errors.New("iat or exp is missing, or no number")
	case exp-iat > float64(s.LifetimeS)+65:
		return fmt.Errorf("it lives for %v seconds; the vendor takes %d", exp-iat, s.LifetimeS)
	}
	if jti, ok := claims["jti"].(string); ok && s.SingleUse {
		if other, used := x.v.spent["jti "+jti]; used && other != x.r {
			return errors.New("it was used before")
		}
		x.v.spent["jti "+jti] = x.r
	}
	return nil
}

// verificationKey is the half of the account's key that the vendor has.
func (x *exchange) verificationKey(s *catalog.Signed) (any, error) {
	text, err := x.choose(source(s.Key))
	if err != nil {
		return nil, err
	}
	key, err := x.text(text)
	switch {
	case err != nil:
		return nil, err
	case s.Alg == "HS256" && s.KeyEncoding == "hex":
		return hex.DecodeString(key)
	case s.Alg == "HS256":
		return []byte(key), nil
	case s.KeyFormat == "jwk":
		return rsaKey().Public(), nil
	}
	private, err := privateKey(key)
	return publicOf(private), err
}
