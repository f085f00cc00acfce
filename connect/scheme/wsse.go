package scheme

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// wsse is the UsernameToken of WS-Security in a header, made anew for each
// request. The digest is that of Emarsys, which documents it as the base64 of
// the hexadecimal SHA-1 of nonce, time and secret.
type wsse struct{ base }

func newWSSE(b base) (Scheme, error) {
	p := b.provider
	if p.SignRequest == nil || p.SignRequest.Kind != "wsse_username_token" {
		return nil, fmt.Errorf("provider %s: sign_request of kind wsse_username_token is needed for %s", p.ID, p.Mode)
	}
	return wsse{b}, nil
}

// Accept takes the answers as they are.
func (s wsse) Accept(_ context.Context, answers map[string]string) (Grant, error) {
	return s.accept(answers)
}

// Bind also prepares the signer.
func (s wsse) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	spec, env := s.provider.SignRequest, s.env(g, nil)
	user, err := spec.Username.Fill(env)
	if err != nil {
		return nil, fmt.Errorf("user name of provider %s: %w", s.provider.ID, err)
	}
	password, err := spec.Password.Fill(env)
	if err != nil {
		return nil, fmt.Errorf("password of provider %s: %w", s.provider.ID, err)
	}
	if strings.ContainsAny(user, "\"\\\r\n") {
		return nil, FieldErrors{"username": "has a character that can't be sent"}
	}
	header := "X-WSSE"
	if spec.Header != "" {
		header = spec.Header
	}
	b.signer = &wsseSigner{header: http.CanonicalHeaderKey(header), user: user, password: password}
	return b, nil
}

// Verify sends the entry's request, signed.
func (s wsse) Verify(ctx context.Context, g Grant) (int, error) {
	return s.verify(ctx, g, func() (*Binding, error) { return s.Bind(g) })
}

type wsseSigner struct{ header, user, password string }

func (s *wsseSigner) names() []string { return []string{s.header} }

func (s *wsseSigner) sign(r *http.Request, _ *held) error {
	var raw [16]byte
	rand.Read(raw[:]) // never fails: crypto/rand crashes the program instead
	nonce, created := hex.EncodeToString(raw[:]), time.Now().UTC().Format("2006-01-02T15:04:05Z")
	sum := sha1.Sum([]byte(nonce + created + s.password))
	digest := base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(sum[:])))
	r.Header[s.header] = []string{fmt.Sprintf(`UsernameToken Username="%s", PasswordDigest="%s", Nonce="%s", Created="%s"`, s.user, digest, nonce, created)}
	return nil
}

var (
	_ Prompter = wsse{}
	_ signer   = (*wsseSigner)(nil)
)
