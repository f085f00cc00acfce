package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/identity"
	"github.com/keycaddy/keycaddy/connect/policy"
)

const (
	issuer   = "https://login.example"
	audience = "keycaddy"
	apiKey   = "0a0b0c0d-1111-4222-8333-444455556666"
)

// issuing is an issuer with one key, which it shows.
type issuing struct {
	*httptest.Server
	key     *rsa.PrivateKey
	fetches atomic.Int32
}

func newIssuer(t *testing.T) *issuing {
	t.Helper()
	i := &issuing{}
	var err error
	i.key, err = rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		w.Write(i.jwks())
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuing) jwks() json.RawMessage {
	b := base64.RawURLEncoding.EncodeToString
	return fmt.Appendf(nil, `{"keys":[{"kty":"RSA","kid":"one","use":"sig","alg":"RS256","n":%q,"e":"AQAB"}]}`, b(i.key.N.Bytes()))
}

// sign makes a token that is right but for the changes; a nil value takes a
// claim out.
func (i *issuing) sign(t *testing.T, method jwt.SigningMethod, key any, kid string, changes map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": issuer, "aud": audience, "sub": "worker", "exp": time.Now().Add(time.Hour).Unix()}
	for name, v := range changes {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = kid
	text, err := token.SignedString(key)
	must(t, err)
	return text
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func who(c *identity.Callers, token string) (*connect.Caller, error) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return c.Who(r, time.Now())
}

func keyring() *connect.Keyring {
	return connect.NewKeyring([]connect.APIKey{{Name: "app", Key: connect.DigestOf(apiKey), Scopes: policy.AllScopes}}, nil)
}

func callersOf(t *testing.T, i *issuing, change func(*identity.Tokens)) *identity.Callers {
	t.Helper()
	tokens := &identity.Tokens{Name: "workers", Issuer: issuer, Audience: audience, KeysURL: i.URL, Client: i.Client(), Context: t.Context(), Scopes: policy.DefaultScopes}
	if change != nil {
		change(tokens)
	}
	return &identity.Callers{Keys: keyring(), Tokens: []*identity.Tokens{tokens}}
}

func TestATokenOfItsIssuerLetsItsCallerIn(t *testing.T) {
	i := newIssuer(t)
	c := callersOf(t, i, func(k *identity.Tokens) {
		k.Limits, k.EndUser, k.Connections = policy.Limits{Calls: []string{"GET /**"}, Rate: "2/1h"}, "user", "conns"
	})
	token := i.sign(t, jwt.SigningMethodRS256, i.key, "one", map[string]any{"user": "ada", "conns": []string{"a", "b"}, "aud": []string{"x", audience}})
	caller, err := who(c, token)
	must(t, err)
	limits := caller.Rules.Limits()
	if caller.Name != "workers:worker" || fmt.Sprint(limits.EndUsers, limits.Connections, limits.Calls) != "[ada] [a b] [GET /**]" || caller.Needs(policy.ProxyCall) != nil || caller.Needs(policy.KeysCreate) == nil {
		t.Errorf("got %s with %+v", caller.Name, limits)
	}
	// Another token of the same is the same caller, whose rate goes on.
	must(t, caller.Count(time.Now()))
	again, err := who(c, i.sign(t, jwt.SigningMethodRS256, i.key, "one", map[string]any{"user": "ada", "conns": []string{"a", "b"}, "jti": "2"}))
	must(t, err)
	must(t, again.Count(time.Now()))
	if err := again.Count(time.Now()); err == nil {
		t.Error("a second token has a rate of its own")
	}
	for range 20 {
		if same, err := who(c, token); err != nil || same != caller {
			t.Fatal("a token that was seen is another caller's", err)
		}
	}
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	if app, err := who(c, apiKey); err != nil || app.Name != "app" {
		t.Errorf("an API key: %v, %v", app, err)
	}
	past := httptest.NewRequest("GET", "/", nil)
	past.Header.Set("Authorization", "Bearer "+token)
	if _, err := c.Who(past, time.Now().Add(2*time.Hour)); !isRefused(err) {
		t.Errorf("a token that was seen and has ended: %v", err)
	}
}

func isRefused(err error) bool {
	var auth *connect.AuthError
	return errors.As(err, &auth) && auth.Code == "invalid_token"
}

// RFC 8725, and what each of the claims is for.
func TestTokensThatAreNotItsIssuersAreRefused(t *testing.T) {
	i := newIssuer(t)
	c := callersOf(t, i, func(k *identity.Tokens) { k.EndUser = "user" })
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(&i.key.PublicKey)
	must(t, err)
	user := map[string]any{"user": "ada"}
	with := func(name string, v any) map[string]any { return map[string]any{"user": "ada", name: v} }
	good := i.sign(t, jwt.SigningMethodRS256, i.key, "one", user)
	if _, err := who(c, good); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"another key":            i.sign(t, jwt.SigningMethodRS256, other, "one", user),
		"another key's id":       i.sign(t, jwt.SigningMethodRS256, other, "two", user),
		"a curve under its name": i.sign(t, jwt.SigningMethodES256, curve, "one", user),
		"no signature":           i.sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "one", user),
		"the public key's HMAC":  i.sign(t, jwt.SigningMethodHS256, public, "one", user),
		"expired":                i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("exp", time.Now().Add(-time.Minute).Unix())),
		"without an end":         i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("exp", nil)),
		"not yet":                i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("nbf", time.Now().Add(time.Hour).Unix())),
		"another audience":       i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("aud", "other")),
		"no audience":            i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("aud", nil)),
		"another issuer":         i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("iss", issuer+"/")),
		"no issuer":              i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("iss", nil)),
		"no end user":            i.sign(t, jwt.SigningMethodRS256, i.key, "one", nil),
		"an empty end user":      i.sign(t, jwt.SigningMethodRS256, i.key, "one", map[string]any{"user": ""}),
		"an end user of numbers": i.sign(t, jwt.SigningMethodRS256, i.key, "one", map[string]any{"user": 7}),
		"changed":                parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+issuer+`","aud":"keycaddy","exp":9999999999,"user":"bob"}`)) + "." + parts[2],
		"cut":                    good[:len(good)-4] + "AAAA",
		"nonsense":               "a.b.c",
		"long":                   i.sign(t, jwt.SigningMethodRS256, i.key, "one", with("x", strings.Repeat("x", 9000))),
	} {
		if caller, err := who(c, token); !isRefused(err) || caller != nil {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.(*connect.AuthError).Message, "ada") {
			t.Errorf("%s: the answer has a claim: %v", name, err)
		}
	}
	// Keys that nobody has can't make it ask more often than it would.
	for n := range 50 {
		_, _ = who(c, i.sign(t, jwt.SigningMethodRS256, other, fmt.Sprint(n), user))
	}
	if n := i.fetches.Load(); n > 3 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestClaimsNarrowWhatIsConfigured(t *testing.T) {
	i := newIssuer(t)
	c := callersOf(t, i, func(k *identity.Tokens) {
		k.Integrations, k.Limits = "ints", policy.Limits{Integrations: []string{"github", "slack"}}
	})
	caller, err := who(c, i.sign(t, jwt.SigningMethodRS256, i.key, "one", map[string]any{"ints": []string{"slack", "stripe"}}))
	must(t, err)
	if got := caller.Rules.Limits().Integrations; fmt.Sprint(got) != "[slack]" {
		t.Errorf("got %v", got)
	}
	if _, err := who(c, i.sign(t, jwt.SigningMethodRS256, i.key, "one", map[string]any{"ints": "stripe"})); !isRefused(err) {
		t.Errorf("an integration that isn't configured: %v", err)
	}
}

func TestAnIssuerThatIsAwayIsAskedAgainLater(t *testing.T) {
	i := newIssuer(t)
	token := i.sign(t, jwt.SigningMethodRS256, i.key, "one", nil)
	i.Close()
	c := callersOf(t, i, nil)
	if _, err := who(c, token); !errors.Is(err, connect.ErrStoreUnavailable) {
		t.Errorf("got %v", err)
	}
	fixed := callersOf(t, i, func(k *identity.Tokens) { k.Keys, k.KeysURL = i.jwks(), "" })
	if _, err := who(fixed, token); err != nil {
		t.Errorf("with keys from a file: %v", err)
	}
}
