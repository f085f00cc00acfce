package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// request is one as it arrives, looked at at a time.
func arrived(v *Vendor, at time.Time, method, address, body string, header ...string) *exchange {
	r := httptest.NewRequest(method, address, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	x := v.exchange(r, []byte(body))
	x.scope.now = at
	return x
}

// The signatures of the AWS Signature Version 4 test suite are taken, and
// none of them for a request that differs from its own.
func TestSignatureVersion4Vectors(t *testing.T) {
	const (
		id, secret = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
		credential = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
	)
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		method, address, body, signed, signature string
		header                                   []string
	}{
		"get-vanilla":                      {"GET", "https://example.amazonaws.com/", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", nil},
		"get-vanilla-query-order-key-case": {"GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1", "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500", nil},
		"post-vanilla":                     {"POST", "https://example.amazonaws.com/", "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b", nil},
		"post-x-www-form-urlencoded":       {"POST", "https://example.amazonaws.com/", "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a", []string{"Content-Type", "application/x-www-form-urlencoded"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := play(t, signedEntry)
			header := append([]string{"X-Amz-Date", "20150830T123600Z", "Authorization", credential + "SignedHeaders=" + c.signed + ", Signature=" + c.signature}, c.header...)
			if out := checkSigV4(arrived(v, at, c.method, c.address, c.body, header...), id, secret, "", "us-east-1", "service"); len(out) > 0 {
				t.Error(out)
			}
			for what, x := range map[string]*exchange{
				"another body":   arrived(v, at, c.method, c.address, c.body+"x", header...),
				"another path":   arrived(v, at, c.method, strings.Replace(c.address, ".com/", ".com/x", 1), c.body, header...),
				"another method": arrived(v, at, "PATCH", c.address, c.body, header...),
				"another host":   arrived(v, at, c.method, strings.Replace(c.address, "example.a", "other.a", 1), c.body, header...),
				"an hour later":  arrived(v, at.Add(time.Hour), c.method, c.address, c.body, header...),
			} {
				if out := checkSigV4(x, id, secret, "", "us-east-1", "service"); len(out) == 0 {
					t.Error(what + " was taken")
				}
			}
			if out := checkSigV4(arrived(v, at, c.method, c.address, c.body, header...), id, secret+"x", "", "us-east-1", "service"); len(out) == 0 {
				t.Error("another secret was taken")
			}
		})
	}
}

const signedEntry = `
auth_scheme: api_key
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: 'https://api.vendor.example', headers: {authorization: 'Bearer {cred.api_key}'}}
`

// The signatures of RFC 5849 section 1.2 are taken, once.
func TestOAuth1Vectors(t *testing.T) {
	for name, c := range map[string]struct {
		at                          int64
		method, address, header     string
		token, tokenSecret, nonceOf string
	}{
		"token": {137131201, "POST", "https://photos.example.net/token",
			`OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03", oauth_token="hh5s93j4hdidpola", oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131201", oauth_nonce="walatlh", oauth_verifier="hfdp7dh39dks9884", oauth_signature="gKgrFCywp7rO0OXSjdot%2FIHF7IU%3D"`,
			"hh5s93j4hdidpola", "hdhd0244k9j7ao03", "walatlh"},
		"resource": {137131202, "GET", "http://photos.example.net/photos?file=vacation.jpg&size=original",
			`OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03", oauth_token="nnch734d00sl2jdk", oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131202", oauth_nonce="chapoH", oauth_signature="MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D"`,
			"nnch734d00sl2jdk", "pfkkdhi9sl3r4s00", "chapoH"},
	} {
		t.Run(name, func(t *testing.T) {
			v := play(t, signedEntry)
			try := func(at int64, method, address, header string) []string {
				x := arrived(v, time.Unix(at, 0), method, address, "", "Authorization", header)
				return readOAuth1(x.r).unmet(x, "dpf43f3p2l4k3l03", "kd94hf93k423kf44", c.token, c.tokenSecret, "HMAC-SHA1")
			}
			if out := try(c.at, c.method, c.address, c.header); len(out) > 0 {
				t.Error(out)
			}
			if out := try(c.at, c.method, c.address, c.header); len(out) == 0 {
				t.Error("the same nonce was taken twice: a replay has to be signed anew")
			}
			again := strings.Replace(c.header, c.nonceOf, c.nonceOf+"2", 1)
			if out := try(c.at, c.method, c.address, again); len(out) == 0 {
				t.Error("a signature over another nonce was taken")
			}
			if out := try(c.at, c.method, c.address+"x", strings.Replace(c.header, c.nonceOf, c.nonceOf+"3", 1)); len(out) == 0 {
				t.Error("another address was taken")
			}
		})
	}
}

const assertionEntry = `
auth_scheme: jwt_bearer
cred_fields: [{name: private_key, required: true, secret: true}, {name: issuer, required: true}]
signed: {kind: jwt, alg: ES256, key: '{cred.private_key}', lifetime_s: 600, header: {kid: k1}, claims: {iss: '{cred.issuer}', aud: vendor, scope: ['a', 'b']}}
request: {base_url: 'https://api.vendor.example', headers: {authorization: 'Bearer {token.access_token}'}}
`

// An assertion that isn't signed by the account's key, by the entry's algorithm,
// or that says something else, is refused.
func TestAssertionsRefused(t *testing.T) {
	v := play(t, assertionEntry)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, c := range map[string]struct {
		change func(token *jwt.Token, claims jwt.MapClaims)
		method jwt.SigningMethod
		key    any
		fault  string
	}{
		"good":           {nil, jwt.SigningMethodES256, ecKey(), ""},
		"another key":    {nil, jwt.SigningMethodES256, other, "signature is invalid"},
		"no signature":   {nil, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "signing method"},
		"a shared key":   {nil, jwt.SigningMethodHS256, []byte(v.account.Cred["private_key"]), "signing method"},
		"another issuer": {func(_ *jwt.Token, c jwt.MapClaims) { c["iss"] = "x" }, jwt.SigningMethodES256, ecKey(), "iss is"},
		"no audience":    {func(_ *jwt.Token, c jwt.MapClaims) { delete(c, "aud") }, jwt.SigningMethodES256, ecKey(), "aud is missing"},
		"fewer scopes":   {func(_ *jwt.Token, c jwt.MapClaims) { c["scope"] = []string{"a"} }, jwt.SigningMethodES256, ecKey(), "scope"},
		"one claim more": {func(_ *jwt.Token, c jwt.MapClaims) { c["admin"] = true }, jwt.SigningMethodES256, ecKey(), "nobody asked for"},
		"no key id":      {func(token *jwt.Token, _ jwt.MapClaims) { delete(token.Header, "kid") }, jwt.SigningMethodES256, ecKey(), "kid is missing"},
		"ended":          {func(_ *jwt.Token, c jwt.MapClaims) { c["exp"] = now.Add(-time.Minute).Unix() }, jwt.SigningMethodES256, ecKey(), "expired"},
		"never ends":     {func(_ *jwt.Token, c jwt.MapClaims) { delete(c, "exp") }, jwt.SigningMethodES256, ecKey(), "exp claim is required"},
		"lives too long": {func(_ *jwt.Token, c jwt.MapClaims) { c["exp"] = now.Add(time.Hour).Unix() }, jwt.SigningMethodES256, ecKey(), "lives for"},
		"from tomorrow":  {func(_ *jwt.Token, c jwt.MapClaims) { c["iat"] = now.Add(time.Hour).Unix() }, jwt.SigningMethodES256, ecKey(), "used before issued"},
	} {
		t.Run(name, func(t *testing.T) {
			claims := jwt.MapClaims{"iss": v.account.Cred["issuer"], "aud": "vendor", "scope": []string{"a", "b"}, "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
			token := jwt.NewWithClaims(c.method, claims)
			token.Header["kid"] = "k1"
			if c.change != nil {
				c.change(token, claims)
			}
			signed, err := token.SignedString(c.key)
			if err != nil {
				t.Fatal(err)
			}
			status, _, faults := ask(t, v, "GET", "https://api.vendor.example/x", "", "Authorization", "Bearer "+signed)
			if c.fault == "" && (status != http.StatusOK || faults != "") || c.fault != "" && (status == http.StatusOK || !strings.Contains(faults, c.fault)) {
				t.Fatalf("%d %s", status, faults)
			}
		})
	}
}
