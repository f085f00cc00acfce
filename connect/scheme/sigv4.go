package scheme

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/keycaddy/keycaddy/catalog"
)

// awsSigV4 signs every request with AWS Signature Version 4: with the end user's
// own keys, or with those of a role that the operator may assume on his behalf
// (AWS STS AssumeRole), which end and are fetched anew.
type awsSigV4 struct{ base }

func newAWSSigV4(b base) (Scheme, error) {
	p := b.provider
	if p.SignRequest == nil || p.SignRequest.Kind != "aws_sigv4" {
		return nil, fmt.Errorf("provider %s: sign_request of kind aws_sigv4 is needed for %s", p.ID, p.Mode)
	}
	s := awsSigV4{b}
	if !s.assumesRole() {
		return s, nil
	}
	if err := s.checkSTS(); err != nil {
		return nil, err
	}
	return assumedRole{s}, nil
}

func (s awsSigV4) assumesRole() bool { return s.provider.SignRequest.Credentials == "assume_role" }

// Accept takes the keys as they are; verifying asks AWS about them.
func (s awsSigV4) Accept(_ context.Context, answers map[string]string) (Grant, error) {
	return s.accept(answers)
}

// Bind also prepares the signer.
func (s awsSigV4) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	b.signer, err = s.signer(g, "")
	return b, err
}

// Verify asks the service that the entry names, which is not that of the calls.
func (s awsSigV4) Verify(ctx context.Context, g Grant) (int, error) {
	return s.verify(ctx, g, func() (*Binding, error) {
		b, err := s.Bind(g)
		if err != nil {
			return nil, err
		}
		b.signer, err = s.signer(g, s.provider.Verify.SignService)
		return b, err
	})
}

// signer fills the entry's templates for signing.
func (s awsSigV4) signer(g Grant, service string) (signer, error) {
	spec, env := s.provider.SignRequest, s.env(g, nil)
	out := &awsSigner{service: service, signer: v4.NewSigner()}
	fill := func(what string, v catalog.Value, to *string) error {
		if *to != "" || v.IsZero() {
			return nil
		}
		text, err := v.Fill(env)
		if err != nil {
			return fmt.Errorf("%s of provider %s: %w", what, s.provider.ID, err)
		}
		*to = text
		return nil
	}
	if spec.Credentials == "assume_role" {
		out.credentials = sessionOf(g)
	}
	for _, f := range []struct {
		what string
		from catalog.Value
		to   *string
	}{
		{"service", spec.Service, &out.service},
		{"region", spec.Region, &out.region},
		{"access_key_id", spec.AccessKeyID, &out.credentials.AccessKeyID},
		{"secret_access_key", spec.SecretAccessKey, &out.credentials.SecretAccessKey},
	} {
		if err := fill(f.what, f.from, f.to); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// awsSigner signs requests for one service in one region.
type awsSigner struct {
	credentials     aws.Credentials
	service, region string
	// signer keeps derived keys by the id of the access key alone: it must not
	// be shared among credentials, or a wrong secret would sign like the right
	// one.
	signer *v4.Signer
	now    func() time.Time // of tests; nil: time.Now
}

// unsignedPayload is what S3 takes in place of a digest for a body that streams.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// v4Headers are set by signing; whatever the caller sent there gives way.
var v4Headers = []string{"Authorization", "X-Amz-Content-Sha256", "X-Amz-Date", "X-Amz-Security-Token"}

func (s *awsSigner) names() []string { return v4Headers }

func (s *awsSigner) sign(r *http.Request, body *held) error {
	for _, name := range v4Headers {
		delete(r.Header, name) // its value is shared: the SDK would write into it
	}
	s3 := s.service == "s3" || strings.HasPrefix(s.service, "s3-")
	var payload string
	switch {
	case body.whole:
		sum := sha256.Sum256(body.bytes)
		payload = hex.EncodeToString(sum[:])
	case s3:
		payload = unsignedPayload
	default:
		return body.err()
	}
	if s3 {
		r.Header["X-Amz-Content-Sha256"] = []string{payload}
	}
	now := time.Now
	if s.now != nil {
		now = s.now
	}
	// SignHTTP writes the query anew and signs that: what it can't read it
	// would leave out.
	r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, ";", "%3B")
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return &BodyError{Reason: "its query can't be read, and so not be signed"}
	}
	err := s.signer.SignHTTP(r.Context(), s.credentials, r, payload, s.service, s.regionFor(r.URL.Hostname()), now(), func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = s3 // S3 encodes paths once, all others twice
	})
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	return nil
}

// regionFor returns the region to sign for. The global endpoints of STS and IAM
// are in us-east-1, wherever the connection's own region is.
func (s *awsSigner) regionFor(host string) string {
	if host == "sts.amazonaws.com" || host == "iam.amazonaws.com" {
		return "us-east-1"
	}
	return s.region
}

var (
	_ Prompter = awsSigV4{}
	_ signer   = (*awsSigner)(nil)
)
