package scheme

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// outgoing is a request with a body, as it is before it is signed.
func outgoing(t testing.TB, method, target, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	must(t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// The values are those of AWS's own test suite for Signature Version 4.
func TestS101SigV4TestSuite(t *testing.T) {
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	const unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tests := map[string]struct {
		method, target, body string
		headers              []string
		token                string
		signed, signature    string
	}{
		"get-vanilla":                      {method: "GET", target: "/", signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		"get-vanilla-query-order-key-case": {method: "GET", target: "/?Param2=value2&Param1=value1", signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		"get-vanilla-empty-query-key":      {method: "GET", target: "/?Param1=value1", signature: "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
		"get-vanilla-utf8-query":           {method: "GET", target: "/?%E1%88%B4=bar", signature: "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
		"get-vanilla-query-unreserved":     {method: "GET", target: "/?" + unreserved + "=" + unreserved, signature: "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
		"get-unreserved":                   {method: "GET", target: "/" + unreserved, signature: "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		"get-slashes-unnormalized":         {method: "GET", target: "//example//", signature: "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5"},
		"get-header-value-trim":            {method: "GET", target: "/", headers: []string{"My-Header1", " value1", "My-Header2", ` "a   b   c"`}, signed: "host;my-header1;my-header2;x-amz-date", signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		"get-header-key-duplicate":         {method: "GET", target: "/", headers: []string{"My-Header1", "value2", "My-Header1", "value2", "My-Header1", "value1"}, signed: "host;my-header1;x-amz-date", signature: "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		"post-vanilla-query":               {method: "POST", target: "/?Param1=value1", signature: "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
		"post-header-key-sort":             {method: "POST", target: "/", headers: []string{"My-Header1", "value1"}, signed: "host;my-header1;x-amz-date", signature: "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
		"post-x-www-form-urlencoded":       {method: "POST", target: "/", body: "Param1=value1", headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, signed: "content-type;host;x-amz-date", signature: "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
		"get-vanilla-with-session-token":   {method: "GET", target: "/", token: "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267", signed: "host;x-amz-date;x-amz-security-token", signature: "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := &awsSigner{
				credentials: aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", SessionToken: test.token},
				signer:      v4.NewSigner(), service: "service", region: "us-east-1", now: func() time.Time { return at },
			}
			r := outgoing(t, test.method, "https://example.amazonaws.com"+test.target, test.body, test.headers...)
			r.ContentLength = 0 // the suite signs no length
			must(t, s.sign(r, &held{bytes: []byte(test.body), whole: true}))
			signed := test.signed
			if signed == "" {
				signed = "host;x-amz-date"
			}
			want := "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=" + signed + ", Signature=" + test.signature
			if got := r.Header.Get("Authorization"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// checkSigV4 is AWS's side, written from the documentation of Signature Version
// 4 and apart from the library that signs.
func checkSigV4(r *http.Request, body []byte, secret string) error {
	var scope, signed, signature string
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ", ") {
		name, v, _ := strings.Cut(part, "=")
		switch name {
		case "Credential":
			_, scope, _ = strings.Cut(v, "/")
		case "SignedHeaders":
			signed = v
		case "Signature":
			signature = v
		}
	}
	f := strings.Split(scope, "/")
	if len(f) != 4 || f[3] != "aws4_request" {
		return fmt.Errorf("scope %q", scope)
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > 5*time.Minute || !strings.HasPrefix(r.Header.Get("X-Amz-Date"), f[0]) {
		return fmt.Errorf("date %q", r.Header.Get("X-Amz-Date"))
	}
	if !slices.Contains(strings.Split(signed, ";"), "host") {
		return errors.New("the host isn't signed")
	}
	canonical := r.Method + "\n"
	path := r.URL.EscapedPath()
	if f[2] != "s3" {
		path = strings.ReplaceAll(percentEncode(path), "%2F", "/")
	}
	canonical += path + "\n"
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	var pairs []string
	for name, list := range values {
		for _, v := range list {
			pairs = append(pairs, percentEncode(name)+"="+percentEncode(v))
		}
	}
	slices.Sort(pairs)
	canonical += strings.Join(pairs, "&") + "\n"
	for name := range strings.SplitSeq(signed, ";") {
		v := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			v = r.Host
		case "content-length":
			v = fmt.Sprint(r.ContentLength)
		}
		canonical += name + ":" + strings.Join(strings.Fields(v), " ") + "\n"
	}
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if sum := sha256.Sum256(body); hash == "" || hash != "UNSIGNED-PAYLOAD" {
		if hash != "" && hash != hex.EncodeToString(sum[:]) {
			return errors.New("the body's digest is wrong")
		}
		hash = hex.EncodeToString(sum[:])
	} else if f[2] != "s3" {
		return errors.New("the payload isn't signed")
	}
	canonical += "\n" + signed + "\n" + hash
	sum := sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + secret)
	for _, part := range f {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	if hex.EncodeToString(mac.Sum(nil)) != signature {
		return fmt.Errorf("the signature is wrong; canonical request:\n%s", canonical)
	}
	return nil
}

const awsEntry = `
auth_scheme: aws_sigv4
sign_request: {kind: aws_sigv4, access_key_id: '{cred.username}', secret_access_key: '{cred.password}', region: '{conn.region}', service: SERVICE}
conn_fields: [{name: region, regex: '^[a-z0-9-]+$', required: true}]
cred_fields: [{name: username, required: true}, {name: password, required: true, secret: true}]
request: {base_url: 'http://api.amazonaws.example'}
verify: {base_url: 'http://sts.amazonaws.example', paths: ['/?Action=GetCallerIdentity'], sign_service: sts}
`

func TestS101SigV4IsMadeOverWhatIsSent(t *testing.T) {
	e := newEndpoint(t, nil)
	for _, service := range []string{"athena", "s3"} {
		s, err := For(provider(t, e.URL, strings.ReplaceAll(awsEntry, "SERVICE", service)), App{}, e.named())
		must(t, err)
		g, err := s.(Prompter).Accept(t.Context(), map[string]string{"region": "eu-west-1", "username": "AKIDEXAMPLE", "password": userKey})
		must(t, err)
		b, err := s.Bind(g)
		must(t, err)
		for _, call := range []struct {
			method, target, body string
			stream               bool
		}{
			{"GET", "/", "", false}, {"GET", "/a%20b/c%2Fd?x=1&y=a+b&x=0&z", "", false}, {"GET", "/k?a;b=1", "", false}, {"POST", "/x", `{"a":1}`, false},
			{"PUT", "/big", "streams by", true},
		} {
			var problem error
			e.answer = func(w http.ResponseWriter, r *http.Request) {
				_, body, _ := e.last(t)
				problem = checkSigV4(r, []byte(body), userKey)
			}
			r := outgoing(t, call.method, "http://api.amazonaws.example"+call.target, call.body,
				"Authorization", "mine", "X-Amz-Date", "mine", "X-Amz-Security-Token", "mine", "X-Custom", " a  b ", "User-Agent", "x", "Accept-Encoding", "gzip")
			shared := r.Header["X-Amz-Date"]
			must(t, b.Inject(r))
			err := b.Sign(r, []byte(call.body), !call.stream)
			if call.stream && service != "s3" {
				var be *BodyError
				if !errors.As(err, &be) || !be.TooLarge {
					t.Errorf("%s: a stream to %s: %v", service, call.target, err)
				}
				continue
			}
			must(t, err)
			if shared[0] != "mine" {
				t.Error("signing has written into a header that requests share")
			}
			res, err := e.named().Do(r)
			must(t, err)
			res.Body.Close()
			if problem != nil {
				t.Errorf("%s %s %s: %v", service, call.method, call.target, problem)
			}
		}
	}
}

func TestVerifySignsForTheServiceItAsks(t *testing.T) {
	e := newEndpoint(t, nil)
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/sts/aws4_request") || checkSigV4(r, nil, userKey) != nil {
			w.WriteHeader(403)
		}
	}
	s, err := For(provider(t, e.URL, strings.ReplaceAll(awsEntry, "SERVICE", "iam")), App{}, e.named())
	must(t, err)
	for password, want := range map[string]int{userKey: 0, "wrong": 403} {
		g, err := s.(Prompter).Accept(t.Context(), map[string]string{"region": "eu-west-1", "username": "AKID", "password": password})
		must(t, err)
		if got, err := s.Verify(t.Context(), g); got != want || err != nil {
			t.Errorf("%s: %d, %v", password, got, err)
		}
	}
	sign := &awsSigner{region: "eu-west-1"}
	if sign.regionFor("sts.amazonaws.com") != "us-east-1" || sign.regionFor("sts.eu-west-1.amazonaws.com") != "eu-west-1" {
		t.Error("the global endpoint is in us-east-1")
	}
}

const roleEntry = `
auth_scheme: aws_sigv4
sign_request: {kind: aws_sigv4, region: ['{conn.region}', '{app.default_region}'], service: '{conn.service}', credentials: assume_role, role_arn: '{cred.role_arn}'}
app_fields:
  - {name: service, required: true}
  - {name: default_region}
  - {name: sts_mode, enum: [builtin, custom], default: builtin}
  - {name: aws_access_key_id, secret: true}
  - {name: aws_secret_access_key, secret: true}
  - {name: sts_endpoint_url}
  - {name: sts_auth_type, enum: [none, api_key, basic], default: none}
  - {name: sts_auth_header, default: x-api-key}
  - {name: sts_api_key, secret: true}
conn_fields: [{name: region}, {name: service, automatic: true, source: operator}]
cred_fields: [{name: role_arn, required: true}]
request: {base_url: ['https://{conn.service}.{conn.region}.amazonaws.com', 'https://{conn.service}.{app.default_region}.amazonaws.com']}
`

const roleARN = "arn:aws:iam::123456789012:role/reader"

func TestRoleIsAssumedAndRenewed(t *testing.T) {
	e := newTLSEndpoint(t, nil)
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		_, body, n := e.last(t)
		form, _ := url.ParseQuery(body)
		if err := checkSigV4(r, []byte(body), clientSecret); err != nil || r.Host != "sts.amazonaws.com" || form.Get("Action") != "AssumeRole" || form.Get("RoleArn") != roleARN {
			t.Errorf("%s %v: %v", r.Host, form, err)
		}
		say(200, fmt.Sprintf(`<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			n, userKey, accessToken, time.Now().Add(15*time.Minute).UTC().Format(time.RFC3339)), "Content-Type", "text/xml")(w, r)
	}
	app := App{Fields: map[string]string{"service": "s3", "default_region": "eu-west-1", "aws_access_key_id": "AKIDOPERATOR", "aws_secret_access_key": clientSecret}}
	s, err := For(provider(t, "", roleEntry), app, e.named())
	must(t, err)
	g, err := s.(Prompter).Accept(t.Context(), map[string]string{"role_arn": roleARN})
	must(t, err)
	b, err := s.Bind(g)
	must(t, err)
	if left := time.Until(g.Expires); !b.Renewable || left > 15*time.Minute || left < 14*time.Minute || b.Base.String() != "https://s3.eu-west-1.amazonaws.com" {
		t.Errorf("%s, expires in %v", b.Base, left)
	}
	r := outgoing(t, "GET", b.Base.String()+"/bucket/key", "")
	must(t, b.Sign(r, nil, true))
	r.Host = r.URL.Host
	if err := checkSigV4(r, nil, userKey); err != nil || r.Header.Get("X-Amz-Security-Token") != accessToken || !strings.Contains(r.Header.Get("Authorization"), "Credential=ASIA1/") {
		t.Errorf("%v, %v", err, r.Header)
	}
	if g, err = s.(Renewer).Renew(t.Context(), g); err != nil || sessionOf(g).AccessKeyID != "ASIA2" {
		t.Errorf("renewed: %v", err)
	}
	for code, want := range map[string]Class{"AccessDenied": Revoked, "SignatureDoesNotMatch": Misconfigured, "Throttling": Transient} {
		e.answer = say(403, `<ErrorResponse><Error><Type>Sender</Type><Code>`+code+`</Code><Message>no `+userKey+`</Message></Error></ErrorResponse>`, "Content-Type", "text/xml")
		var te *TokenError
		if _, err := s.(Renewer).Renew(t.Context(), g); !errors.As(err, &te) || te.Class != want || te.Code != code {
			t.Errorf("%s: %v", code, err)
		}
	}
	for _, bad := range []string{"arn:aws:iam::1:user/x", "role", "arn:aws:s3:::bucket"} {
		var fe FieldErrors
		if _, err := s.(Prompter).Accept(t.Context(), map[string]string{"role_arn": bad}); !errors.As(err, &fe) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	var fe FieldErrors
	if _, err := s.(Prompter).Accept(t.Context(), map[string]string{"role_arn": roleARN, "region": "x.evil.example/"}); !errors.As(err, &fe) || fe["region"] == "" {
		t.Errorf("S27: a region that leads elsewhere: %v", err)
	}
	if _, err := For(provider(t, "", roleEntry), App{Fields: map[string]string{"service": "s3"}}, e.named()); err == nil || !strings.Contains(err.Error(), "aws_access_key_id") {
		t.Errorf("without keys: %v", err)
	}
}

func TestRoleFromTheOperatorsOwnEndpoint(t *testing.T) {
	e := newTLSEndpoint(t, nil)
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		_, body, _ := e.last(t)
		var got map[string]any
		if json.Unmarshal([]byte(body), &got) != nil || got["role_arn"] != roleARN || got["region"] != "eu-west-1" || r.Header.Get("X-Api-Key") != clientSecret || r.URL.Path != "/assume" {
			t.Errorf("%s %v: %s", r.URL, r.Header, body)
		}
		say(200, `{"Credentials":{"AccessKeyId":"ASIA","SecretAccessKey":"`+userKey+`","SessionToken":"`+accessToken+`","Expiration":"2099-01-01T00:00:00Z"}}`)(w, r)
	}
	app := App{Fields: map[string]string{"service": "s3", "sts_mode": "custom", "sts_endpoint_url": "https://sts.operator.example/assume", "sts_auth_type": "api_key", "sts_api_key": clientSecret}}
	s, err := For(provider(t, "", roleEntry), app, e.named())
	must(t, err)
	g, err := s.(Prompter).Accept(t.Context(), map[string]string{"role_arn": roleARN, "region": "eu-west-1"})
	if err != nil || sessionOf(g).SecretAccessKey != userKey {
		t.Errorf("got %v", err)
	}
}

// The example is that of RFC 5849 sections 1.2 and 3.4.1.1, and its errata.
func TestOAuth1SignaturesOfRFC5849(t *testing.T) {
	s := &oauth1Signer{
		method: "HMAC-SHA1", realm: "Photos", consumerKey: "dpf43f3p2l4k3l03", consumerSecret: "kd94hf93k423kf44", token: "nnch734d00sl2jdk", tokenSecret: "pfkkdhi9sl3r4s00",
		now: func() time.Time { return time.Unix(137131202, 0) }, nonce: func() string { return "chapoH" },
	}
	// Section 1.2 leaves oauth_version out, which is optional.
	r := outgoing(t, "GET", "http://photos.example.net/photos?file=vacation.jpg&size=original", "")
	params := []pairOf{{"oauth_consumer_key", s.consumerKey}, {"oauth_token", s.token}, {"oauth_signature_method", s.method}, {"oauth_timestamp", s.timestamp()}, {"oauth_nonce", s.newNonce()}}
	got, err := s.signature(r, &held{whole: true}, params)
	if err != nil || got != "MdpQcU8iPSUjWoN/UDMsK2sui9I=" {
		t.Errorf("got %s, %v", got, err)
	}
	r = outgoing(t, "POST", "http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b", "c2&a3=2+q", "Content-Type", "application/x-www-form-urlencoded")
	params = []pairOf{{"oauth_consumer_key", "9djdj82h48djs9d2"}, {"oauth_token", "kkk9d7dh3k39sjv7"}, {"oauth_signature_method", "HMAC-SHA1"}, {"oauth_timestamp", "137131201"}, {"oauth_nonce", "7d8f3e4a"}}
	text, err := baseString(r, &held{bytes: []byte("c2&a3=2+q"), whole: true}, params)
	const want = "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
	if err != nil || text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestS102PlaintextSignaturesNeedHTTPS(t *testing.T) {
	s := &oauth1Signer{method: "PLAINTEXT", consumerKey: "k", consumerSecret: "a&b", token: "t", tokenSecret: "c d"}
	if err := s.sign(outgoing(t, "GET", "http://api.example/", ""), &held{whole: true}); err == nil {
		t.Error("the secrets went out in clear")
	}
	r := outgoing(t, "GET", "https://api.example/", "")
	must(t, s.sign(r, &held{whole: true}))
	if !strings.Contains(r.Header.Get("Authorization"), `oauth_signature="a%2526b%26c%2520d"`) {
		t.Error(r.Header.Get("Authorization"))
	}
}

func TestWSSEIsMadeForEachRequest(t *testing.T) {
	e := newEndpoint(t, nil)
	seen := map[string]bool{}
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		var user, digest, nonce, created string
		rest, ok := strings.CutPrefix(r.Header.Get("X-Wsse"), "UsernameToken ")
		for part := range strings.SplitSeq(rest, ", ") {
			name, v, _ := strings.Cut(part, "=")
			v = strings.Trim(v, `"`)
			switch name {
			case "Username":
				user = v
			case "PasswordDigest":
				digest = v
			case "Nonce":
				nonce = v
			case "Created":
				created = v
			}
		}
		at, err := time.Parse(time.RFC3339, created)
		sum := sha1.Sum([]byte(nonce + created + userKey))
		want := base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%x", sum)))
		if !ok || user != "api001" || digest != want || seen[nonce] || len(nonce) != 32 || err != nil || time.Since(at).Abs() > time.Minute {
			w.WriteHeader(401)
		}
		seen[nonce] = true
	}
	s, err := For(provider(t, vendor, `
auth_scheme: wsse
sign_request: {kind: wsse_username_token, username: '{cred.username}', password: '{cred.password}', header: x-wsse}
cred_fields: [{name: username, required: true}, {name: password, required: true, secret: true}]
request: {base_url: 'BASE'}
verify: {paths: [/settings]}
`), App{}, e.named())
	must(t, err)
	for range 3 {
		g, err := s.(Prompter).Accept(t.Context(), map[string]string{"username": "api001", "password": userKey})
		must(t, err)
		if status, err := s.Verify(t.Context(), g); status != 0 || err != nil {
			t.Errorf("%d, %v", status, err)
		}
	}
}

// The example of RFC 9421 section B.2.6, with the key of section B.1.4: what an
// entry spells out is signed as the standard has it.
func TestRFC9421Ed25519Example(t *testing.T) {
	const key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n"
	s := forTest(t, provider(t, "https://example.com", `
auth_scheme: basic
cred_fields: [{name: username}, {name: password, secret: true}]
request:
  base_url: BASE
  headers:
    signature: 'sig-b26=:{ed25519_sign_base64(cred.password, ''"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@method": '', req.method, ''\n"@path": '', req.path, ''\n"@authority": '', req.host, ''\n"content-type": application/json\n"content-length": 18\n"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="'', cred.username, ''"'')}:'
`))
	b, err := s.Bind(Grant{Credential: Credential{Fields: map[string]Secret{"username": "test-key-ed25519", "password": key}}})
	must(t, err)
	const body = `{"hello": "world"}`
	r := outgoing(t, "POST", "https://example.com/foo", body)
	must(t, b.Inject(r))
	must(t, b.Sign(r, []byte(body), true))
	if got := r.Header.Get("Signature"); got != "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:" {
		t.Errorf("got %s", got)
	}
}

func TestHeadersSignedOverTheBody(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	s := forTest(t, provider(t, "https://api.example", `
auth_scheme: basic
cred_fields: [{name: username}, {name: password, secret: true}]
request:
  base_url: BASE
  headers:
    content-digest: 'sha-256=:{sha256_base64(req.body)}:'
    signature-input: 'sig=("@method" "content-digest");created={time(''unix'')};keyid="{cred.username}"'
    signature: 'sig=:{ed25519_sign_base64(cred.password, ''"@method": '', req.method, ''\n"content-digest": sha-256=:'', sha256_base64(req.body), '':\n"@signature-params": ("@method" "content-digest");created='', time(''unix''), '';keyid="'', cred.username, ''"'')}:'
`))
	b, err := s.Bind(Grant{Credential: Credential{Fields: map[string]Secret{"username": "k1", "password": Secret(key)}}})
	must(t, err)
	const body = `{"a":1}`
	r := outgoing(t, "POST", "https://api.example/x", body)
	must(t, b.Inject(r))
	if r.Header.Get("Signature") != "" {
		t.Error("signed before the end")
	}
	must(t, b.Sign(r, []byte(body), true))
	// RFC 9421 section 2.5, by hand.
	sum := sha256.Sum256([]byte(body))
	digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	_, params, _ := strings.Cut(r.Header.Get("Signature-Input"), "sig=")
	text := "\"@method\": POST\n\"content-digest\": " + digest + "\n\"@signature-params\": " + params
	sig, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Signature"), "sig=:"), ":"))
	if err != nil || !ed25519.Verify(public, []byte(text), sig) || r.Header.Get("Content-Digest") != digest {
		t.Errorf("%v: %v", err, r.Header)
	}
	var be *BodyError
	if err := b.Sign(r, nil, false); !errors.As(err, &be) || !be.TooLarge {
		t.Errorf("a stream: %v", err)
	}
}

func TestS86CredentialsInsideTheBody(t *testing.T) {
	b := bind(t, strings.Replace(keyEntry, "{name: user}", "{name: user}, {name: absent}", 1)+"request: {base_url: 'BASE', body: {key: '{cred.api_key}', auth: {id: '{conn.account}', none: '{cred.absent}'}}}\n")
	tests := map[string]struct {
		method, kind, body string
		whole              bool
		want               string // of the body; "-": *BodyError
	}{
		"JSON":             {"POST", "application/json", `{"a":1.0,"key":"mine","auth":{"id":"mine","x":[1]}}`, true, `{"a":1.0,"auth":{"id":"acme","x":[1]},"key":"` + userKey + `"}`},
		"twice the key":    {"POST", "application/json", `{"key":"mine","key":"mine"}`, true, `{"auth":{"id":"acme"},"key":"` + userKey + `"}`},
		"no body":          {"POST", "", "", true, `{"auth":{"id":"acme"},"key":"` + userKey + `"}`},
		"vendor's JSON":    {"PATCH", "application/vnd.api+json; charset=utf-8", `{}`, true, `{"auth":{"id":"acme"},"key":"` + userKey + `"}`},
		"GET":              {"GET", "", "", true, ""},
		"list":             {"POST", "application/json", `[1]`, true, "-"},
		"not JSON":         {"POST", "application/json", `{"a"`, true, "-"},
		"text":             {"POST", "text/plain", `a`, true, "-"},
		"streams":          {"POST", "application/json", `{}`, false, "-"},
		"streams to a GET": {"GET", "application/json", ``, false, ""},
	}
	for name, test := range tests {
		r := outgoing(t, test.method, "https://api.example/", test.body)
		if test.kind != "" {
			r.Header.Set("Content-Type", test.kind)
		}
		err := b.Sign(r, []byte(test.body), test.whole)
		if test.want == "-" {
			var be *BodyError
			if !errors.As(err, &be) || be.TooLarge == test.whole {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		must(t, err)
		got, err := io.ReadAll(r.Body)
		must(t, err)
		if string(got) != test.want || test.want != "" && r.ContentLength != int64(len(got)) {
			t.Errorf("%s: got %s, %d long", name, got, r.ContentLength)
		}
	}
	form := bind(t, keyEntry+"request: {base_url: 'BASE', body: {key: '{cred.api_key}'}}\n")
	r := outgoing(t, "POST", "https://api.example/", "a=1&key=mine&key=again", "Content-Type", "application/x-www-form-urlencoded")
	must(t, form.Sign(r, []byte("a=1&key=mine&key=again"), true))
	got, _ := io.ReadAll(r.Body)
	if values, err := url.ParseQuery(string(got)); err != nil || !reflect.DeepEqual(values, url.Values{"a": {"1"}, "key": {userKey}}) {
		t.Errorf("form: %s", got)
	}
}
