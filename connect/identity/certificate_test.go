package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/identity"
	"github.com/keycaddy/keycaddy/connect/policy"
)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, from *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a := &authority{key: key, cert: &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}}
	if from == nil {
		from = a
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, from.cert, &key.PublicKey, from.key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	return a
}

func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	spiffe, err := url.Parse("spiffe://prod/worker")
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "boss.internal"}, DNSNames: []string{"worker.internal"}, URIs: []*url.URL{spiffe},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func TestAClientCertificateLetsItsCallerIn(t *testing.T) {
	root, stranger := newAuthority(t, nil), newAuthority(t, nil)
	between := newAuthority(t, root)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	c := &identity.Callers{Keys: keyring(), Certificates: []*identity.Certificates{{Name: "mesh", Roots: pool, Names: []string{"spiffe://prod/worker", "api.internal"}, Scopes: policy.DefaultScopes, Limits: policy.Limits{Integrations: []string{"github"}}}}}
	who := func(authorization string, chain ...*x509.Certificate) (*connect.Caller, error) {
		r := httptest.NewRequest("GET", "/", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: chain}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		return c.Who(r, time.Now())
	}
	good := root.issue(t, nil)
	for range 2 {
		caller, err := who("", good)
		if err != nil || caller.Name != "mesh:spiffe://prod/worker" || caller.Rules.Limits().Integrations[0] != "github" {
			t.Fatalf("got %+v, %v", caller, err)
		}
	}
	if caller, err := who("", between.issue(t, nil), between.cert); err != nil || caller.Name != "mesh:spiffe://prod/worker" {
		t.Errorf("by an intermediate: %v", err)
	}
	if caller, err := who("Bearer "+apiKey, good); err != nil || caller.Name != "app" {
		t.Errorf("with a key too: %+v, %v", caller, err)
	}
	var auth *connect.AuthError
	for name, chain := range map[string][]*x509.Certificate{
		"another authority":       {stranger.issue(t, nil)},
		"itself beside it":        {stranger.issue(t, nil), stranger.cert},
		"without the one between": {between.issue(t, nil)},
		"another name":            {root.issue(t, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"other.internal"} })},
		"the common name": {root.issue(t, func(c *x509.Certificate) {
			c.URIs, c.DNSNames, c.Subject.CommonName = nil, nil, "api.internal"
		})},
		"for servers": {root.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })},
		"expired":     {root.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })},
		"not yet":     {root.issue(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Second) })},
	} {
		if caller, err := who("", chain...); caller != nil || !errors.As(err, &auth) || auth.Code != "unknown_certificate" {
			t.Errorf("%s: %+v, %v", name, caller, err)
		}
	}
	if _, err := who(""); !errors.As(err, &auth) || auth.Code != "missing_auth_header" {
		t.Errorf("without either: %v", err)
	}
	if _, err := who("Bearer x", good); !errors.As(err, &auth) || auth.Code != "invalid_secret_key_format" {
		t.Errorf("a wrong key beside a good certificate: %v", err)
	}
}
