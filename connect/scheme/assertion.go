package scheme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keycaddy/keycaddy/catalog"
)

const (
	// assertionSkew is how far back an assertion is dated, for providers whose
	// clock is behind. Its lifetime is counted from there, so that none is
	// longer than a provider allows (S80).
	assertionSkew = 30 * time.Second
	// longLived is how long an assertion has to work for its key not to be
	// needed again.
	longLived = 24 * time.Hour
)

// KeyError is a key that can't sign.
type KeyError struct {
	Field  string // as in the entry: cred.private_key
	Reason string
}

func (e *KeyError) Error() string { return e.Field + " " + e.Reason }

// signed makes the entry's assertion: a JWT (RFC 7519; RFC 7523 where it is one
// of OAuth) or a SAML assertion (RFC 7522). One that was kept serves as it is.
// Errors: *KeyError, and what the templates lack.
func (b base) signed(g Grant, extra lookup) (string, error) {
	if g.Assertion != "" {
		return g.Assertion.Reveal(), nil
	}
	s := b.provider.Signed
	fields, err := splitField(s.Split, g.Fields)
	if err != nil {
		return "", err
	}
	g.Fields = fields
	now := time.Now()
	env := b.env(g, extra)
	env.Now = now
	key, err := s.Key.Fill(env)
	if err != nil {
		return "", fmt.Errorf("signing key of provider %s: %w", b.provider.ID, err)
	}
	var out string
	if s.Kind == "saml2_bearer" {
		out, err = samlAssertion(s, key, env, now)
	} else {
		out, err = signJWT(s, key, env, now)
	}
	var bad *KeyError
	if errors.As(err, &bad) && len(s.Key.Refs()) > 0 {
		bad.Field = s.Key.Refs()[0].String()
		return "", bad
	}
	if err != nil {
		return "", fmt.Errorf("assertion of provider %s: %w", b.provider.ID, err)
	}
	return out, nil
}

// splitField cuts a field into those that the entry's assertion is made of.
func splitField(s *catalog.Split, fields map[string]Secret) (map[string]Secret, error) {
	if s == nil {
		return fields, nil
	}
	parts := strings.SplitN(fields[s.Field].Reveal(), s.On, len(s.Into))
	if len(parts) != len(s.Into) {
		return nil, &KeyError{Field: "cred." + s.Field, Reason: fmt.Sprintf("must have %d parts, with %q between them", len(s.Into), s.On)}
	}
	out := make(map[string]Secret, len(fields)+len(parts))
	for k, v := range fields {
		out[k] = v
	}
	for i, name := range s.Into {
		out[name] = Secret(parts[i])
	}
	return out, nil
}

func signJWT(s *catalog.Signed, key string, env *catalog.Env, now time.Time) (string, error) {
	signing, kid, err := signingKey(s, key)
	if err != nil {
		return "", err
	}
	claims, err := s.Claims.FillPresent(env)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	for name, v := range claims {
		if list, ok := v.([]any); ok && len(list) == 0 {
			delete(claims, name)
		}
	}
	issued := now.Add(-assertionSkew)
	claims["iat"], claims["exp"] = issued.Unix(), issued.Add(time.Duration(s.LifetimeS)*time.Second).Unix()
	header, err := s.Header.FillPresent(env)
	if err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	options := new(jose.SignerOptions).WithType("JWT")
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	for name, v := range header {
		options.WithHeader(jose.HeaderKey(name), v)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(s.Alg), Key: signing}, options)
	if err != nil {
		return "", &KeyError{Reason: "does not fit the algorithm " + s.Alg}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	signature, err := signer.Sign(payload)
	if err != nil {
		return "", &KeyError{Reason: "can't sign with " + s.Alg}
	}
	return signature.CompactSerialize()
}

// signingKey reads the key of an assertion, and its id if it tells.
func signingKey(s *catalog.Signed, key string) (signing any, kid string, err error) {
	switch {
	case s.KeyFormat == "jwk":
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON([]byte(key)); err != nil || k.IsPublic() || !k.Valid() {
			return nil, "", &KeyError{Reason: "is not a private key as a JSON Web Key"}
		}
		return k.Key, k.KeyID, nil
	case s.KeyEncoding == "hex":
		raw, err := hex.DecodeString(key)
		if err != nil {
			return nil, "", &KeyError{Reason: "is not hexadecimal"}
		}
		return raw, "", nil
	case strings.HasPrefix(s.Alg, "HS"):
		return []byte(key), "", nil
	}
	signing, err = privateKey(key)
	if err != nil {
		return nil, "", err
	}
	switch signing.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(s.Alg, "RS") || strings.HasPrefix(s.Alg, "PS") {
			return signing, "", nil
		}
	case *ecdsa.PrivateKey:
		if strings.HasPrefix(s.Alg, "ES") {
			return signing, "", nil
		}
	}
	return nil, "", &KeyError{Reason: "is not a key for " + s.Alg}
}

var pemForm = regexp.MustCompile(`-----BEGIN ([A-Z0-9 ]+)-----([^-]*)-----END ([A-Z0-9 ]+)-----`)

// privateKey reads a private key in PEM (PKCS 8, PKCS 1, SEC 1), or base64 of
// one or of its DER. Forms and environment variables cost keys their line
// breaks, or turn them into \n; both are taken.
func privateKey(s string) (crypto.Signer, error) {
	s = strings.TrimSpace(strings.ReplaceAll(s, `\n`, "\n"))
	if m := pemForm.FindStringSubmatch(s); m != nil {
		if strings.Contains(m[1], "ENCRYPTED") {
			return nil, &KeyError{Reason: "is encrypted with a passphrase; export it without one"}
		}
		s = m[2]
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		return nil, &KeyError{Reason: "is not a private key in PEM"}
	}
	if m := pemForm.FindSubmatch(der); m != nil {
		return privateKey(string(der))
	}
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := k.(crypto.Signer); ok {
			return signer, nil
		}
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	return nil, &KeyError{Reason: "is not a private key in PEM"}
}

// keepsAssertion tells whether the assertion is stored in place of its key.
func (b base) keepsAssertion() bool {
	s := b.provider.Signed
	if s == nil || time.Duration(s.LifetimeS)*time.Second < longLived {
		return false
	}
	for i := range b.provider.CredFields {
		if b.provider.CredFields[i].Ephemeral {
			return true
		}
	}
	return false
}

// withoutEphemeral drops the fields that were needed once.
func (b base) withoutEphemeral(g Grant) Grant {
	fields := make(map[string]Secret, len(g.Fields))
	for name, v := range g.Fields {
		if f, ok := b.provider.Field("cred", name); !ok || !f.Ephemeral {
			fields[name] = v
		}
	}
	g.Fields = fields
	return g
}
