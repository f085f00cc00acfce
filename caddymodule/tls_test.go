package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/keycaddy/keycaddy/connect/egress"
)

// A caller that asks before it sends a body waits for the provider a second, and
// all for the answer's begin ten minutes, if the operator doesn't say otherwise.
func TestProvidersHaveASecondToTakeABodyAndTenMinutesToAnswer(t *testing.T) {
	for set, want := range map[caddy.Duration][2]time.Duration{0: {time.Second, 10 * time.Minute}, caddy.Duration(time.Hour): {time.Hour, time.Hour}} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
		h := &reverseproxy.HTTPTransport{ExpectContinueTimeout: set, ResponseHeaderTimeout: set}
		if err := h.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := guard(h, egress.Policy{}); err != nil {
			t.Fatal(err)
		}
		if got := [2]time.Duration{h.Transport.ExpectContinueTimeout, h.Transport.ResponseHeaderTimeout}; got != want {
			t.Errorf("set to %v: %v", time.Duration(set), got)
		}
	}
}

// A provider that can't prove who it is gets no request: whoever answers in its
// place would have the credential.
func TestS94ProvidersHaveToProveThemselves(t *testing.T) {
	trusted, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	issue := func(template, parent *x509.Certificate, key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &trusted.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issue(root, root, trusted)}), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
		change(c)
		return c
	}
	for name, c := range map[string]struct {
		leaf   *x509.Certificate
		signer *ecdsa.PrivateKey
		tls    *tls.Config
		good   bool
	}{
		"good":         {leaf(func(*x509.Certificate) {}), trusted, &tls.Config{}, true},
		"unknown root": {leaf(func(*x509.Certificate) {}), other, &tls.Config{}, false},
		"expired":      {leaf(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), trusted, &tls.Config{}, false},
		"not yet":      {leaf(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), trusted, &tls.Config{}, false},
		"other host":   {leaf(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} }), trusted, &tls.Config{}, false},
		"TLS 1.1":      {leaf(func(*x509.Certificate) {}), trusted, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
	} {
		t.Run(name, func(t *testing.T) {
			seen := false
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen = true }))
			server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are meant to
			server.TLS = c.tls
			server.TLS.Certificates = []tls.Certificate{{Certificate: [][]byte{issue(c.leaf, root, c.signer)}, PrivateKey: trusted}}
			server.StartTLS()
			defer server.Close()

			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			//lint:ignore SA1019 the short form, which Caddyfiles still have
			h := &reverseproxy.HTTPTransport{TLS: &reverseproxy.TLSConfig{RootCAPEMFiles: []string{file}}}
			if err := h.Provision(ctx); err != nil {
				t.Fatal(err)
			}
			base, err := guard(h, egress.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
			if err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequest("GET", server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := base.RoundTrip(req)
			if err == nil {
				res.Body.Close()
			}
			if (err == nil) != c.good || seen != c.good {
				t.Errorf("got %v, the provider saw the request: %v", err, seen)
			}
		})
	}
}
