package identity

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
)

// Certificates are client certificates of an authority. That the caller has
// their key, TLS has proved; the chain is checked here, whatever the server asks
// for.
type Certificates struct {
	// Name is what their callers are called in logs, before the certificate's
	// name.
	Name  string
	Roots *x509.CertPool
	// Names are those that may call: DNS names, addresses (URI, e-mail) of the
	// certificate. Empty: all of the authority's.
	Names []string

	Scopes policy.Scopes
	Limits policy.Limits

	known known
}

// who returns the caller that a chain of certificates is of.
func (c *Certificates) who(chain []*x509.Certificate, now time.Time) (*connect.Caller, bool) {
	leaf := chain[0]
	digest := connect.DigestOf(string(leaf.Raw))
	if caller, ok := c.known.get(digest, now); ok {
		return caller, true
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: c.Roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, false
	}
	names := namesOf(leaf)
	name := ""
	if i := slices.IndexFunc(names, func(n string) bool { return len(c.Names) == 0 || slices.Contains(c.Names, n) }); i >= 0 {
		name = names[i]
	} else if len(c.Names) > 0 {
		return nil, false
	}
	return c.known.add(digest, leaf.NotAfter, name, func() *connect.Caller {
		return connect.NewCaller(c.Name+":"+name, c.Scopes, c.Limits)
	}), true
}

// namesOf are a certificate's subject alternative names. Its common name is none:
// authorities don't vouch for what is in it.
func namesOf(cert *x509.Certificate) []string {
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}
