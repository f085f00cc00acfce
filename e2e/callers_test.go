package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// Callers without an API key: a client certificate, and a token of an issuer.
// Each reaches what it is configured for.
func TestCallersProveThemselvesWithoutAnAPIKey(t *testing.T) {
	t.Parallel()
	dir, port, files := t.TempDir(), freePort(t), t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost", "worker.internal"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := file("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	private := file("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	public, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	b := base64.RawURLEncoding.EncodeToString
	jwks := file("jwks.json", fmt.Appendf(nil, `{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":%q,"y":%q}]}`, b(public[1:33]), b(public[33:])))
	sign := func(user string) string {
		t.Helper()
		token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": "https://login.example", "aud": "keycaddy", "sub": user, "exp": time.Now().Add(time.Minute).Unix()})
		token.Header["kid"] = "k"
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}

	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}})
	config := caddyfile(dir, port, demoIntegration(d, "demo")+fmt.Sprintf(`
		caller mesh {
			certificate {
				ca %[1]s
				names worker.internal
			}
			call GET /me
		}
		caller people {
			jwt {
				issuer https://login.example
				audience keycaddy
				jwks_file %[2]s
				end_user sub
			}
		}
`, cert, jwks), "keycaddy")
	secure := freePort(t)
	config += fmt.Sprintf("https://localhost:%d {\n\tbind 127.0.0.1\n\ttls %s %s {\n\t\tclient_auth {\n\t\t\tmode request\n\t\t}\n\t}\n\tkeycaddy\n}\n", secure, cert, private)
	c := startCaddy(t, dir, port, config)
	newVisitor(t).connect(c.link("demo", "alice")) // of the end user u1

	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	client := func(certificates ...tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates}}}
	}
	mesh := client(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	call := func(client *http.Client, at, path, bearer string) (int, string) {
		t.Helper()
		req, err := http.NewRequest("GET", at+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Provider-Config-Key", "demo")
		req.Header.Set("Connection-Id", "alice")
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header.Get("Keycaddy-Error") + " " + string(bytes.TrimSpace(body))
	}
	tlsAt := fmt.Sprintf("https://localhost:%d", secure)
	for name, test := range map[string]struct {
		client           *http.Client
		at, path, bearer string
		status           int
		says             string
	}{
		"certificate":                     {mesh, tlsAt, "/proxy/me", "", 200, ""},
		"certificate, another call":       {mesh, tlsAt, "/proxy/echo", "", 403, "forbidden"},
		"certificate, credentials":        {mesh, tlsAt, "/connections/alice?provider_config_key=demo", "", 200, `"credentials":{}`},
		"no certificate":                  {client(), tlsAt, "/proxy/me", "", 401, "missing_auth_header"},
		"token":                           {client(), c.URL, "/proxy/me", sign("u1"), 200, ""},
		"token, list":                     {client(), c.URL, "/connections", sign("u1"), 200, `"alice"`},
		"another's token":                 {client(), c.URL, "/proxy/me", sign("u2"), 404, "unknown_connection"},
		"another's token, list":           {client(), c.URL, "/connections", sign("u2"), 200, `"connections":[]`},
		"changed token":                   {client(), c.URL, "/proxy/me", sign("u1") + "x", 401, "invalid_token"},
		"an API key over the same socket": {mesh, tlsAt, "/proxy/echo", apiKey, 200, ""},
	} {
		if status, body := call(test.client, test.at, test.path, test.bearer); status != test.status || !strings.Contains(body, test.says) {
			t.Errorf("%s: got %d %s", name, status, body)
		}
	}
}
