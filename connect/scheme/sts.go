package scheme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// assumedRole is awsSigV4 with the keys of a role that the end user lets the
// operator assume. They come from AWS STS, asked with the operator's own keys,
// or from an endpoint of the operator's that asks in its own way.
//
// Operators set sts_mode: builtin, with aws_access_key_id and
// aws_secret_access_key; or custom, with sts_endpoint_url, which is sent
//
//	POST {"role_arn": "…", "role_session_name": "…", "duration_seconds": 3600, "region": "…"}
//
// and answers with the members of STS's own Credentials: AccessKeyId,
// SecretAccessKey, SessionToken and Expiration, at the top, under Credentials
// or under AssumeRoleResult.Credentials, in this or in snake_case.
type assumedRole struct{ awsSigV4 }

const (
	roleDuration = time.Hour // the longest that every role allows
	roleSession  = "keycaddy"
)

// checkSTS tells what the operator has left out.
func (s awsSigV4) checkSTS() error {
	needed := []string{"aws_access_key_id", "aws_secret_access_key"}
	if s.field("sts_mode") == "custom" {
		needed = []string{"sts_endpoint_url"}
		switch s.field("sts_auth_type") {
		case "api_key":
			needed = append(needed, "sts_api_key")
		case "basic":
			needed = append(needed, "sts_auth_username", "sts_auth_password")
		}
	}
	for _, name := range needed {
		if s.field(name) == "" {
			return fmt.Errorf("%s is missing: set it for provider %s", name, s.provider.ID)
		}
	}
	return nil
}

// field returns the operator's value, or the entry's default.
func (b base) field(name string) string {
	if v := b.app.Fields[name]; v != "" {
		return v
	}
	if f, ok := b.provider.Field("app", name); ok {
		return f.Default
	}
	return ""
}

// Accept assumes the role, which proves that it may be.
func (s assumedRole) Accept(ctx context.Context, answers map[string]string) (Grant, error) {
	g, err := s.accept(answers)
	if err != nil {
		return Grant{}, err
	}
	return s.assume(ctx, g)
}

// Renew assumes it again.
func (s assumedRole) Renew(ctx context.Context, g Grant) (Grant, error) { return s.assume(ctx, g) }

// Bind also says that the grant can be renewed.
func (s assumedRole) Bind(g Grant) (*Binding, error) {
	b, err := s.awsSigV4.Bind(g)
	if err != nil {
		return nil, err
	}
	b.Renewable = true
	return b, nil
}

// assume fetches keys of the role.
func (s assumedRole) assume(ctx context.Context, g Grant) (Grant, error) {
	role, err := s.provider.SignRequest.RoleARN.Fill(s.env(g, nil))
	if err != nil {
		return Grant{}, fmt.Errorf("role of provider %s: %w", s.provider.ID, err)
	}
	if f := strings.Split(role, ":"); len(f) != 6 || f[0] != "arn" || f[2] != "iam" || !strings.HasPrefix(f[5], "role/") {
		return Grant{}, FieldErrors{"role_arn": "must be the ARN of a role, such as arn:aws:iam::123456789012:role/name"}
	}
	var req *http.Request
	if s.field("sts_mode") == "custom" {
		req, err = s.customSTS(ctx, role, g.Config["region"])
	} else {
		req, err = s.awsSTS(ctx, role, g.Config["region"])
	}
	if err != nil {
		return Grant{}, err
	}
	now := time.Now()
	doc, err := s.fetch(req, g, false)
	if err != nil {
		return Grant{}, s.stsError(err, g)
	}
	session, ends, err := readSession(doc, now)
	if err != nil {
		return Grant{}, err
	}
	raw, err := json.Marshal(session)
	if err != nil {
		return Grant{}, fmt.Errorf("keeping the role's keys: %w", err)
	}
	g.AccessToken, g.Raw, g.Issued, g.Expires = Secret(session["session_token"]), Secret(raw), now, ends
	return g, nil
}

// regionForm is part of a host name (S27).
var regionForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// awsSTS is a request for AWS STS (API version 2011-06-15), which is asked in
// the connection's region and partition, or at its global endpoint.
func (s assumedRole) awsSTS(ctx context.Context, role, region string) (*http.Request, error) {
	form := url.Values{
		"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "RoleArn": {role}, "RoleSessionName": {roleSession},
		"DurationSeconds": {fmt.Sprint(int(roleDuration / time.Second))},
	}
	host := "sts.amazonaws.com"
	if region == "" {
		region = "us-east-1"
	} else {
		host = "sts." + region + ".amazonaws.com"
	}
	if !regionForm.MatchString(region) {
		return nil, FieldErrors{"region": "is not a region of AWS, such as eu-west-1"}
	}
	if strings.HasPrefix(role, "arn:aws-cn:") {
		host += ".cn"
	}
	body := form.Encode()
	u := &url.URL{Scheme: "https", Host: host, Path: "/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking AWS STS: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", userAgent)
	sign := &awsSigner{
		credentials: aws.Credentials{AccessKeyID: s.field("aws_access_key_id"), SecretAccessKey: s.field("aws_secret_access_key")},
		service:     "sts", region: region, signer: v4.NewSigner(),
	}
	return req, sign.sign(req, &held{bytes: []byte(body), whole: true})
}

// customSTS is a request for the operator's own endpoint.
func (s assumedRole) customSTS(ctx context.Context, role, region string) (*http.Request, error) {
	body, err := json.Marshal(map[string]any{
		"role_arn": role, "role_session_name": roleSession, "duration_seconds": int(roleDuration / time.Second), "region": region,
	})
	if err != nil {
		return nil, fmt.Errorf("asking for a role: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.field("sts_endpoint_url"), strings.NewReader(string(body)))
	if err != nil {
		return nil, fmt.Errorf("sts_endpoint_url of provider %s is unusable", s.provider.ID)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	switch s.field("sts_auth_type") {
	case "api_key":
		req.Header.Set(s.field("sts_auth_header"), s.field("sts_api_key"))
	case "basic":
		req.SetBasicAuth(s.field("sts_auth_username"), s.field("sts_auth_password"))
	}
	return req, nil
}

// stsError says who can mend a refusal: the end user, if the role may not be
// assumed; the operator, if his own keys are refused.
func (s assumedRole) stsError(err error, g Grant) error {
	var te *TokenError
	if errors.As(err, &te) {
		switch te.Code {
		case "AccessDenied":
			te.Class = Revoked
		case "InvalidClientTokenId", "SignatureDoesNotMatch", "IncompleteSignature", "UnrecognizedClientException":
			te.Class = Misconfigured
		}
	}
	return scrubbed(err, s.secrets(g))
}

// readSession reads the keys of an assumed role.
func readSession(doc document, now time.Time) (map[string]string, time.Time, error) {
	find := func(names ...string) string {
		for _, root := range []string{"AssumeRoleResponse.AssumeRoleResult.Credentials.", "AssumeRoleResult.Credentials.", "Credentials.", "credentials.", ""} {
			for _, name := range names {
				if v, ok := doc.text(root + name); ok && v != "" {
					return v
				}
			}
		}
		return ""
	}
	session := map[string]string{
		"access_key_id":     find("AccessKeyId", "access_key_id", "accessKeyId"),
		"secret_access_key": find("SecretAccessKey", "secret_access_key", "secretAccessKey"),
		"session_token":     find("SessionToken", "session_token", "sessionToken"),
	}
	for name, v := range session {
		if v == "" || !usableToken(v) {
			return nil, time.Time{}, &TokenError{Class: Transient, Code: "no_access_token", Description: "the answer has no " + name + " in it"}
		}
	}
	ends, ok := parseTime(find("Expiration", "expiration", "expires_at", "expiresAt"), now)
	if !ok || !ends.After(now) {
		ends = now.Add(roleDuration)
	}
	return session, clampTime(ends, now), nil
}

// sessionOf returns the keys that readSession has read.
func sessionOf(g Grant) aws.Credentials {
	var session map[string]string
	if json.Unmarshal([]byte(g.Raw.Reveal()), &session) != nil {
		return aws.Credentials{}
	}
	return aws.Credentials{AccessKeyID: session["access_key_id"], SecretAccessKey: session["secret_access_key"], SessionToken: session["session_token"]}
}

var (
	_ Prompter = assumedRole{}
	_ Renewer  = assumedRole{}
)
