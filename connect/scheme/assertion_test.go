package scheme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Keys of the tests, made once.
var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return k
	})
	ecKey = sync.OnceValue(func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
)

func pemOf(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	must(t, err)
	return b
}

// checkJWS verifies a compact JWS by RFC 7515 section 5.2 and RFC 7518 section
// 3, apart from the library that signs, and returns header and payload.
func checkJWS(t testing.TB, token string, key any) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token %q", token)
	}
	must(t, json.Unmarshal(unbase64(t, parts[0]), &header))
	must(t, json.Unmarshal(unbase64(t, parts[1]), &claims))
	sum, sig := sha256.Sum256([]byte(parts[0]+"."+parts[1])), unbase64(t, parts[2])
	ok := false
	switch alg := header["alg"]; alg {
	case "HS256":
		mac := hmac.New(sha256.New, key.([]byte))
		mac.Write([]byte(parts[0] + "." + parts[1]))
		ok = hmac.Equal(mac.Sum(nil), sig)
	case "RS256":
		ok = rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), crypto.SHA256, sum[:], sig) == nil
	case "PS256":
		ok = rsa.VerifyPSS(key.(*rsa.PublicKey), crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case "ES256":
		ok = len(sig) == 64 && ecdsa.Verify(key.(*ecdsa.PublicKey), sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	}
	if !ok {
		t.Errorf("the signature of %v is wrong", header)
	}
	return header, claims
}

// The examples of RFC 7515 appendices A.1 and A.3 show that the check is right.
func TestRFC7515Examples(t *testing.T) {
	const payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	checkJWS(t, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."+payload+".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		unbase64(t, "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"))
	checkJWS(t, "eyJhbGciOiJFUzI1NiJ9."+payload+".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
		&ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(unbase64(t, "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")), Y: new(big.Int).SetBytes(unbase64(t, "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"))})
}

func TestSelfSignedTokensOfEveryAlgorithm(t *testing.T) {
	jwk, err := json.Marshal(map[string]string{
		"kty": "RSA", "kid": "key-7", "n": base64.RawURLEncoding.EncodeToString(rsaKey().N.Bytes()), "e": "AQAB", "d": base64.RawURLEncoding.EncodeToString(rsaKey().D.Bytes()),
		"p": base64.RawURLEncoding.EncodeToString(rsaKey().Primes[0].Bytes()), "q": base64.RawURLEncoding.EncodeToString(rsaKey().Primes[1].Bytes()),
	})
	must(t, err)
	raw := "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	hexed, err := hex.DecodeString(raw)
	must(t, err)
	tests := map[string]struct {
		signed, key string
		public      any
		kid         string
	}{
		"RS256":       {"alg: RS256, key: '{cred.key}', header: {kid: '{cred.id}'}", pemOf(t, rsaKey()), &rsaKey().PublicKey, "the-id"},
		"PS256":       {"alg: PS256, key: '{cred.key}'", pemOf(t, rsaKey()), &rsaKey().PublicKey, ""},
		"ES256":       {"alg: ES256, key: '{cred.key}'", pemOf(t, ecKey()), &ecKey().PublicKey, ""},
		"HS256 hex":   {"alg: HS256, key: '{cred.key}', key_encoding: hex", raw, hexed, ""},
		"HS256 parts": {"alg: HS256, key: '{cred.secret}', key_encoding: hex, header: {kid: '{cred.kid}'}, split: {field: key, on: ':', into: [kid, secret]}", "abc:" + raw, hexed, "abc"},
		"HS256 text":  {"alg: HS256, key: '{cred.id}||{cred.key}', key_encoding: utf8", "secret-of-32-characters-or-more!!", []byte("the-id||secret-of-32-characters-or-more!!"), ""},
		"JWK":         {"alg: RS256, key: '{cred.key}', key_format: jwk", string(jwk), &rsaKey().PublicKey, "key-7"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := forTest(t, provider(t, "https://api.example", `
auth_scheme: jwt_bearer
signed: {kind: jwt, lifetime_s: 600, claims: {iss: '{cred.id}', aud: /admin/, scope: ['{conn.scope}'], jti: '{uuid()}'}, `+test.signed+`}
conn_fields: [{name: scope}]
cred_fields: [{name: id, required: true}, {name: key, required: true, secret: true}]
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`))
			g, err := s.(Prompter).Accept(t.Context(), map[string]string{"id": "the-id", "key": test.key})
			must(t, err)
			header, claims := checkJWS(t, g.AccessToken.Reveal(), test.public)
			kid, _ := header["kid"].(string)
			iat, exp := claims["iat"].(float64), claims["exp"].(float64)
			if kid != test.kid || header["typ"] != "JWT" || claims["iss"] != "the-id" || claims["aud"] != "/admin/" || claims["scope"] != nil || exp-iat != 600 || len(claims["jti"].(string)) != 36 {
				t.Errorf("%v %v", header, claims)
			}
			// S80: a provider whose clock is behind takes it too.
			if now := float64(time.Now().Unix()); iat > now-20 || !g.Expires.Before(time.Unix(int64(exp), 1)) {
				t.Errorf("issued %v before now, ends at %v", now-iat, g.Expires)
			}
			fresh, err := s.(Renewer).Renew(t.Context(), g)
			must(t, err)
			if b, err := s.Bind(fresh); err != nil || !b.Renewable || fresh.AccessToken == g.AccessToken {
				t.Errorf("renewed: %v", err)
			}
		})
	}
	for name, key := range map[string]string{
		"nothing of a key": "hello", "a public key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "of another kind": pemOf(t, ecKey()),
		"encrypted": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
	} {
		s := forTest(t, provider(t, "https://api.example", "auth_scheme: jwt_bearer\nsigned: {kind: jwt, lifetime_s: 600, alg: RS256, key: '{cred.key}'}\ncred_fields: [{name: key, required: true, secret: true}]\nrequest: {base_url: 'BASE'}\n"))
		var fe FieldErrors
		if _, err := s.(Prompter).Accept(t.Context(), map[string]string{"key": key}); !errors.As(err, &fe) || fe["key"] == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysAreReadInTheFormsTheyArePastedIn(t *testing.T) {
	der, err := x509.MarshalECPrivateKey(ecKey())
	must(t, err)
	pkcs8 := pemOf(t, rsaKey())
	for name, text := range map[string]string{
		"PKCS 8": pkcs8, "without line breaks": strings.ReplaceAll(pkcs8, "\n", " "), "with \\n": strings.ReplaceAll(pkcs8, "\n", `\n`),
		"in base64":    base64.StdEncoding.EncodeToString([]byte(pkcs8)),
		"PKCS 1":       string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())})),
		"SEC 1":        string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})),
		"base64 alone": base64.StdEncoding.EncodeToString(der),
		"with spaces":  "\r\n  " + pkcs8 + "\n\n",
	} {
		if k, err := privateKey(text); err != nil || k == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// RFC 7523 section 2.1, 2.2 and 3.
func TestAssertionsInTokenRequests(t *testing.T) {
	e := newEndpoint(t, nil)
	seen := map[string]bool{}
	var claims map[string]any
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		_, form := e.form(t)
		assertion := form.Get("assertion")
		if assertion == "" {
			assertion = form.Get("client_assertion")
			if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Has("client_secret") || r.Header.Get("Authorization") != "" {
				t.Errorf("form %v", form)
			}
		} else if form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			t.Errorf("form %v", form)
		}
		_, claims = checkJWS(t, assertion, &rsaKey().PublicKey)
		if jti, _ := claims["jti"].(string); seen[jti] || jti == "" {
			t.Error("S39: jti is used twice")
		} else {
			seen[jti] = true
		}
		say(200, good)(w, r)
	}
	const signed = "signed: {kind: KIND, alg: RS256, key: '{KEY}', lifetime_s: 300, claims: {iss: '{ISS}', sub: me, aud: '{flow.token_url}', jti: '{uuid()}'}}\n"
	entry := func(kind, key, iss string) string {
		return strings.NewReplacer("KIND", kind, "KEY", key, "ISS", iss).Replace(signed)
	}
	bearer := forTest(t, provider(t, e.URL, "auth_scheme: two_step\ntoken: {url: 'BASE/token', client_auth: none, params: {grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: '{signed.assertion}'}}\ncred_fields: [{name: id, required: true}, {name: key, required: true, secret: true}]\nrequest: {base_url: 'BASE'}\n"+entry("jwt", "cred.key", "cred.id")))
	g, err := bearer.(Prompter).Accept(t.Context(), map[string]string{"id": "svc", "key": pemOf(t, rsaKey())})
	must(t, err)
	if claims["iss"] != "svc" || claims["aud"] != e.URL+"/token" || g.Assertion != "" || len(g.Fields) != 2 {
		t.Errorf("claims %v", claims)
	}
	_, err = bearer.(Renewer).Renew(t.Context(), g)
	must(t, err)

	cc := forTest(t, provider(t, e.URL, "auth_scheme: oauth2_client_credentials\ntoken: {url: 'BASE/token', client_auth: private_key_jwt}\nscopes: {from: conn.scopes}\nconn_fields: [{name: scopes}]\ncred_fields: [{name: client_id, required: true}, {name: key, required: true, secret: true}]\nrequest: {base_url: 'BASE'}\n"+entry("client_assertion", "cred.key", "cred.client_id")))
	_, err = cc.(Prompter).Accept(t.Context(), map[string]string{"client_id": "theirs", "key": pemOf(t, rsaKey()), "scopes": "a b"})
	must(t, err)
	if _, form := e.form(t); form.Get("scope") != "a b" || form.Get("client_id") != "theirs" || claims["iss"] != "theirs" {
		t.Errorf("form %v", form)
	}

	// The operator's key; the issuer is the callback's host.
	p := oauth(t, e.URL, "token: {url: 'BASE/token', client_auth: private_key_jwt, no_redirect_uri: true, no_client_id: true}\nsigned: {kind: client_assertion, alg: RS256, key: '{app.client_secret}', lifetime_s: 300, claims: {iss: '{host_of(flow.redirect_uri)}', sub: '{app.client_id}', aud: a, jti: '{uuid()}'}}\n")
	s, err := For(p, App{ClientID: "mine", ClientSecret: Secret(pemOf(t, rsaKey())), RedirectURL: "https://k.example/cb"}, client())
	must(t, err)
	g, err = s.(Redirector).Exchange(t.Context(), Flow{Verifier: verifier, RedirectURL: "https://k.example/cb"}, url.Values{"code": {code}})
	must(t, err)
	if _, form := e.form(t); form.Has("client_id") || form.Has("redirect_uri") || claims["iss"] != "k.example" || claims["sub"] != "mine" {
		t.Errorf("%v, claims %v", form, claims)
	}
	g.RefreshToken = refreshToken
	_, err = s.(Renewer).Renew(t.Context(), g)
	must(t, err)
	if claims["iss"] != "k.example" {
		t.Errorf("claims %v", claims)
	}
}

func TestKeysThatAreNeededOnceAreNotKept(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	const entry = "auth_scheme: two_step\ntoken: {url: 'BASE/token', client_auth: none, params: {client_assertion: '{signed.assertion}'}}\nsigned: {kind: jwt, alg: ES256, key: '{cred.key}', lifetime_s: SECONDS, claims: {iss: '{cred.id}'}}\ncred_fields: [{name: id, required: true}, {name: key, required: true, secret: true, ephemeral: true}]\nrequest: {base_url: 'BASE'}\n"
	for seconds, kept := range map[string]bool{"15552000": true, "3600": false} {
		s := forTest(t, provider(t, e.URL, strings.Replace(entry, "SECONDS", seconds, 1)))
		g, err := s.(Prompter).Accept(t.Context(), map[string]string{"id": "x", "key": pemOf(t, ecKey())})
		must(t, err)
		if _, there := g.Fields["key"]; there == kept || (g.Assertion != "") != kept {
			t.Errorf("%s s: the key is there %v, the assertion %q", seconds, there, g.Assertion.Reveal())
		}
		_, form := e.form(t)
		first := form.Get("client_assertion")
		if _, err := s.(Renewer).Renew(t.Context(), g); err != nil {
			t.Error(err)
		}
		if _, form := e.form(t); (form.Get("client_assertion") == first) != kept {
			t.Errorf("%s s: renewed with another assertion: %v", seconds, kept)
		}
	}
}

// What a SAML assertion says is checked by taking it apart as text, its
// signature by XML Signature's rules: the digest is over the assertion without
// its Signature element, the signature over SignedInfo as it stands there with
// its namespace declared.
func TestSAMLBearerAssertions(t *testing.T) {
	e := newEndpoint(t, say(200, good))
	s := forTest(t, provider(t, e.URL, `
auth_scheme: two_step
token: {url: 'BASE/oauth/token', client_auth: none, params: {grant_type: 'urn:ietf:params:oauth:grant-type:saml2-bearer', assertion: '{signed.assertion}', new_token: true}}
signed: {kind: saml2_bearer, alg: rsa-sha256, key: '{cred.key}', lifetime_s: 600, issuer: www.sf.example, audience: www.sf.example, recipient: 'https://{conn.server}/oauth/token', name_id: '{cred.user}', session_index: '{uuid()}', attributes: {api_key: '{cred.api_key}', use_username: true}}
conn_fields: [{name: server, required: true}]
cred_fields: [{name: user, required: true}, {name: api_key, required: true, secret: true}, {name: key, required: true, secret: true}]
request: {base_url: 'BASE'}
`))
	_, err := s.(Prompter).Accept(t.Context(), map[string]string{"server": "api.sf.example", "user": `jo<"&>hn`, "api_key": userKey, "key": pemOf(t, rsaKey())})
	must(t, err)
	_, form := e.form(t)
	raw, err := base64.StdEncoding.DecodeString(form.Get("assertion"))
	must(t, err)
	doc := string(raw)
	between := func(open, end string) string {
		_, rest, ok := strings.Cut(doc, open)
		in, _, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("no %s in %s", open, doc)
		}
		return in
	}
	signature := "<ds:Signature" + between("<ds:Signature", "</ds:Signature>") + "</ds:Signature>"
	digest := sha256.Sum256([]byte(strings.Replace(doc, signature, "", 1)))
	info := `<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` + between("<ds:SignedInfo>", "</ds:SignedInfo>") + "</ds:SignedInfo>"
	sum := sha256.Sum256([]byte(info))
	sig, err := base64.StdEncoding.DecodeString(between("<ds:SignatureValue>", "<"))
	must(t, err)
	id := regexp.MustCompile(` ID="(_[0-9a-f]{32})"`).FindStringSubmatch(doc)
	if between("<ds:DigestValue>", "<") != base64.StdEncoding.EncodeToString(digest[:]) || rsa.VerifyPKCS1v15(&rsaKey().PublicKey, crypto.SHA256, sum[:], sig) != nil || id == nil || !strings.Contains(info, `URI="#`+id[1]+`"`) {
		t.Errorf("signature of %s", doc)
	}
	root, err := parseXML(raw)
	must(t, err)
	d := document{root: root}
	for path, want := range map[string]string{
		"Assertion.Issuer": "www.sf.example", "Assertion.Subject.NameID": `jo<"&>hn`, "Assertion.Conditions.AudienceRestriction.Audience": "www.sf.example",
		"Assertion.AttributeStatement.Attribute.0.AttributeValue": userKey, "Assertion.AttributeStatement.Attribute.1.AttributeValue": "true",
	} {
		if got, _ := d.text(path); got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
	if !strings.Contains(doc, `Recipient="https://api.sf.example/oauth/token"`) || form.Get("new_token") != "true" {
		t.Error(doc)
	}
}

// certificate makes a client certificate for a key.
func certificate(t testing.TB, ends time.Time) (cert, key string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: ends}, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}}, &rsaKey().PublicKey, rsaKey())
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), pemOf(t, rsaKey())
}

func TestS40MutualTLS(t *testing.T) {
	var shown []string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = append(shown, fmt.Sprint(len(r.TLS.PeerCertificates))+r.URL.Path)
		say(200, good)(w, r)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c := (&endpoint{Server: srv}).named()
	s, err := For(provider(t, "https://vendor.example", `
auth_scheme: oauth2_client_credentials
token: {url: 'BASE/token', mtls: true}
cred_fields: [{name: client_id, required: true}, {name: client_secret, required: true, secret: true}, {name: client_certificate, required: true, secret: true}, {name: client_private_key, required: true, secret: true}]
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
verify: {paths: [/me]}
`), App{}, c)
	must(t, err)
	cert, key := certificate(t, time.Now().Add(time.Hour))
	answers := map[string]string{"client_id": "x", "client_secret": userKey, "client_certificate": strings.ReplaceAll(cert, "\n", " "), "client_private_key": key}
	g, err := s.(Prompter).Accept(t.Context(), answers)
	must(t, err)
	if status, err := s.Verify(t.Context(), g); status != 0 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	b, err := s.Bind(g)
	must(t, err)
	if !reflect.DeepEqual(shown, []string{"1/token", "1/me"}) || b.Certificate == nil || !bytes.Equal(b.Certificate.Leaf.Raw, b.Certificate.Certificate[0]) {
		t.Errorf("shown %v", shown)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	old, _ := certificate(t, time.Now().Add(-time.Minute))
	for name, test := range map[string][3]string{
		"key of another": {cert, pemOf(t, other), "client_private_key"}, "no certificate": {key, key, "client_certificate"}, "no key": {cert, cert, "client_private_key"}, "expired": {old, key, "client_certificate"},
	} {
		answers["client_certificate"], answers["client_private_key"] = test[0], test[1]
		var fe FieldErrors
		if _, err := s.(Prompter).Accept(t.Context(), answers); !errors.As(err, &fe) || fe[test[2]] == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	g.Fields = map[string]Secret{"client_id": "x", "client_secret": userKey, "client_certificate": Secret(old), "client_private_key": Secret(key)}
	var te *TokenError
	if _, err := s.(Renewer).Renew(t.Context(), g); !errors.As(err, &te) || te.Class != Revoked || te.Code != "certificate_expired" {
		t.Errorf("renewing with an expired one: %v", err)
	}
	// A transport that can't show it sends nothing.
	c.Transport = struct{ http.RoundTripper }{c.Transport}
	answers["client_certificate"], answers["client_private_key"] = cert, key
	if _, err := s.(Prompter).Accept(t.Context(), answers); err == nil || len(shown) != 2 {
		t.Errorf("without the certificate: %v, %v", err, shown)
	}
}
