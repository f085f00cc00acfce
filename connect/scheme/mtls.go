package scheme

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect/egress"
)

// The fields of a client certificate, in PEM.
const (
	certificateField = "client_certificate"
	certificateKey   = "client_private_key"
)

// usesCertificate tells whether the provider wants to see a certificate of the
// end user's, at its token endpoint and at its API (RFC 8705).
func (b base) usesCertificate() bool { return b.provider.Token != nil && b.provider.Token.MTLS }

// certificate reads the certificate of a grant; nil if none is used. Errors are
// FieldErrors: there is no way around a certificate that doesn't do (S40).
func (b base) certificate(g Grant) (*tls.Certificate, error) {
	if !b.usesCertificate() {
		return nil, nil
	}
	chain, err := pemText(g.Fields[certificateField].Reveal(), "CERTIFICATE")
	if err != nil {
		return nil, FieldErrors{certificateField: "is not a certificate in PEM"}
	}
	key, err := privateKey(g.Fields[certificateKey].Reveal())
	if err != nil {
		return nil, FieldErrors{certificateKey: "is not a private key in PEM, without a passphrase"}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, FieldErrors{certificateKey: "is of a kind that can't be used"}
	}
	pair, err := tls.X509KeyPair(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		return nil, FieldErrors{certificateKey: "does not belong to the certificate"}
	}
	return &pair, nil
}

func expired(cert *tls.Certificate) bool { return time.Now().After(cert.Leaf.NotAfter) }

// pemText puts the line breaks back that a form has cost a text in PEM.
func pemText(s, kind string) ([]byte, error) {
	s = strings.ReplaceAll(s, `\n`, "\n")
	var out []byte
	for _, m := range pemForm.FindAllStringSubmatch(s, -1) {
		if m[1] != kind {
			continue
		}
		block, _ := pem.Decode([]byte("-----BEGIN " + kind + "-----\n" + strings.Join(strings.Fields(m[2]), "\n") + "\n-----END " + kind + "-----\n"))
		if block == nil {
			return nil, errors.New("not PEM")
		}
		out = append(out, pem.EncodeToMemory(block)...)
	}
	if out == nil {
		return nil, errors.New("not PEM")
	}
	return out, nil
}

// clientFor returns the client for a grant's requests to its provider. One with
// a certificate keeps no connections: there are few requests, and none of its
// connections may serve another grant (S128).
func (b base) clientFor(g Grant) (*http.Client, error) {
	cert, err := b.certificate(g)
	if cert == nil || err != nil {
		return b.client, err
	}
	if expired(cert) {
		return nil, &TokenError{Class: Revoked, Code: "certificate_expired", Description: "the client certificate has expired"}
	}
	transport, err := egress.WithCertificate(b.client.Transport, *cert)
	if err != nil {
		return nil, err
	}
	client := *b.client
	client.Transport = closing{transport}
	return &client, nil
}

// closing ends the connection of each request with its answer.
type closing struct{ next http.RoundTripper }

func (c closing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Close = true
	return c.next.RoundTrip(r)
}
