package simulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// AWS Signature Version 4, as the AWS IAM User Guide describes it ("Create a
// signed AWS API request"), from the server's side.

// awsSession is what AssumeRole has given.
type awsSession struct {
	id, secret, token string
	ends              time.Time
	ended             bool
}

var sigv4Form = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$`)

func (v *Vendor) sigv4Unmet(x *exchange, service string) []string {
	s := v.facts.SignRequest
	fill := func(t interface{ String() string }) string {
		out, err := v.fill(x, t.String())
		if err != nil {
			return ""
		}
		return out
	}
	id, secret, token := fill(s.AccessKeyID), fill(s.SecretAccessKey), ""
	if s.Credentials == "assume_role" {
		if v.session == nil {
			return []string{"no role has been assumed yet"}
		}
		if v.session.ended {
			return []string{tokenEnded}
		}
		id, secret, token = v.session.id, v.session.secret, v.session.token
	}
	region := fill(s.Region)
	if service == "" {
		service = fill(s.Service)
	}
	if host, _, _ := strings.Cut(x.url.Host, "."); host == "sts" {
		region = "us-east-1" // the global endpoint is there
	}
	return checkSigV4(x, id, secret, token, region, service)
}

func checkSigV4(x *exchange, id, secret, token, region, service string) []string {
	m := sigv4Form.FindStringSubmatch(x.r.Header.Get("Authorization"))
	if m == nil {
		return []string{"there is no signature of version 4: " + quote(x.r.Header.Get("Authorization"))}
	}
	var out []string
	expect := func(what, got, want string) {
		if got != want {
			out = append(out, fmt.Sprintf("%s is %s, not %s", what, quote(got), quote(want)))
		}
	}
	expect("the access key", m[1], id)
	expect("the region", m[3], region)
	expect("the service", m[4], service)
	date := x.r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", date)
	if err != nil || x.now.Sub(at).Abs() > 5*time.Minute || !strings.HasPrefix(date, m[2]) {
		out = append(out, "X-Amz-Date is not the present, or not the date of the credential")
	}
	expect("the session token", x.r.Header.Get("X-Amz-Security-Token"), token)
	signed := strings.Split(m[5], ";")
	if !slices.Contains(signed, "host") || !slices.Contains(signed, "x-amz-date") || token != "" && !slices.Contains(signed, "x-amz-security-token") {
		out = append(out, "host, x-amz-date and the session token have to be signed, and are not: "+m[5])
	}
	if !slices.IsSorted(signed) {
		out = append(out, "the signed headers are in no order")
	}
	hash := hexSum(x.body)
	if declared := x.r.Header.Get("X-Amz-Content-Sha256"); declared != "" && declared != "UNSIGNED-PAYLOAD" && declared != hash {
		out = append(out, "X-Amz-Content-Sha256 is not the body's digest")
	} else if declared == "UNSIGNED-PAYLOAD" {
		if service != "s3" {
			out = append(out, "the body is not signed")
		}
		hash = declared
	}
	scope := m[2] + "/" + m[3] + "/" + m[4] + "/aws4_request"
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", date, scope, hexSum([]byte(canonicalRequest(x, signed, hash, service)))}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{m[2], m[3], m[4], "aws4_request"} {
		key = mac256(key, part)
	}
	if hex.EncodeToString(mac256(key, toSign)) != m[6] {
		out = append(out, "the signature is wrong")
	}
	return out
}

func hexSum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

func mac256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func canonicalRequest(x *exchange, signed []string, hash, service string) string {
	path := x.url.EscapedPath()
	if path == "" {
		path = "/"
	}
	if service != "s3" { // everywhere else each segment is encoded twice
		segments := strings.Split(path, "/")
		for i, s := range segments {
			segments[i] = percent(s)
		}
		path = strings.Join(segments, "/")
	}
	var headers strings.Builder
	for _, name := range signed {
		values := x.r.Header[http.CanonicalHeaderKey(name)]
		value := strings.Join(values, ",")
		switch name {
		case "host":
			if value = x.r.Host; value == "" {
				value = x.url.Host
			}
		case "content-length":
			value = fmt.Sprint(x.r.ContentLength)
		}
		headers.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	return strings.Join([]string{x.r.Method, path, canonicalParams(x.url.RawQuery), headers.String(), strings.Join(signed, ";"), hash}, "\n")
}

// assumeRole is the token service that gives sessions of a role.
func (v *Vendor) assumeRole(x *exchange) *endpoint {
	s := v.facts.SignRequest
	if s == nil || s.Credentials != "assume_role" {
		return nil
	}
	region, _ := x.value("conn.region")
	host := strings.ToLower(x.url.Host)
	if host != "sts.amazonaws.com" && host != "sts."+region+".amazonaws.com" {
		return nil
	}
	if host == "sts.amazonaws.com" {
		region = "us-east-1"
	}
	return &endpoint{
		name: "AssumeRole", url: &url.URL{Scheme: "https", Host: host, Path: "/"},
		check: func(x *exchange) []string {
			form, err := url.ParseQuery(string(x.body))
			if err != nil {
				return []string{"the body is no form"}
			}
			for k, list := range x.url.Query() {
				form[k] = list
			}
			var out []string
			role, _ := v.fill(x, s.RoleARN.String())
			for name, want := range map[string]string{"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": role} {
				if form.Get(name) != want {
					out = append(out, fmt.Sprintf("%s is %s, not %s", name, quote(form.Get(name)), quote(want)))
				}
			}
			if !regexp.MustCompile(`^[\w+=,.@-]{2,64}$`).MatchString(form.Get("RoleSessionName")) {
				out = append(out, "RoleSessionName is not of the form that the API wants")
			}
			id, _ := x.value("app.aws_access_key_id")
			secret, _ := x.value("app.aws_secret_access_key")
			return append(out, checkSigV4(x, id, secret, "", region, "sts")...)
		},
		respond: func(w http.ResponseWriter, _ *exchange) {
			v.counts.Tokens++
			n := &awsSession{id: "ASIA" + strings.ToUpper(random(16)), secret: random(20) + "/+" + random(18), token: "FwoG" + random(40) + "+/=", ends: time.Now().Add(lifetime).Truncate(time.Second)}
			v.session = n
			v.grants = append(v.grants, &grant{access: n.token, secret: n.secret, live: true, told: n.ends, extra: map[string]string{}})
			var b strings.Builder
			writeXML(&b, map[string]any{"AssumeRoleResponse": map[string]any{"AssumeRoleResult": map[string]any{"Credentials": map[string]any{
				"AccessKeyId": n.id, "SecretAccessKey": n.secret, "SessionToken": n.token, "Expiration": n.ends.UTC().Format(time.RFC3339),
			}}}})
			w.Header().Set("Content-Type", "text/xml")
			_, _ = w.Write([]byte(b.String()))
		},
	}
}
