package simulator

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// saml checks a SAML 2.0 assertion that is used as a grant (RFC 7522 section 3):
// its signature (XML-DSig, enveloped), and that it says what the entry has it
// say, about the present and the right recipient.
func (x *exchange) saml(token string) error {
	data, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		if data, err = base64.RawURLEncoding.DecodeString(token); err != nil {
			return errors.New("it is not in base64")
		}
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(data); err != nil || doc.Root() == nil || doc.Root().Tag != "Assertion" {
		return errors.New("it is no SAML assertion")
	}
	s := x.v.facts.Signed
	cert, err := x.samlCertificate()
	if err != nil {
		return err
	}
	// What the signature covers, and nothing else, is looked at.
	root, err := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{cert}}).Validate(doc.Root())
	if err != nil {
		return fmt.Errorf("its signature: %w", err)
	}
	var errs []error
	text := func(path string) string {
		e := root.FindElement(path)
		if e == nil {
			return ""
		}
		return e.Text()
	}
	attr := func(path, name string) string {
		e := root.FindElement(path)
		if e == nil {
			return ""
		}
		return e.SelectAttrValue(name, "")
	}
	want := func(what, got string, template interface{ String() string }) {
		expected, err := x.v.fill(x, template.String())
		if err == nil && got != expected {
			errs = append(errs, fmt.Errorf("its %s is %q, not %q", what, got, expected))
		}
	}
	want("issuer", text("./Issuer"), s.Issuer)
	want("audience", text("./Conditions/AudienceRestriction/Audience"), s.Audience)
	want("recipient", attr("./Subject/SubjectConfirmation/SubjectConfirmationData", "Recipient"), s.Recipient)
	want("subject", text("./Subject/NameID"), s.NameID)
	if method := attr("./Subject/SubjectConfirmation", "Method"); method != "urn:oasis:names:tc:SAML:2.0:cm:bearer" {
		errs = append(errs, fmt.Errorf("its confirmation method is %q", method))
	}
	if root.SelectAttrValue("Version", "") != "2.0" || root.SelectAttrValue("ID", "") == "" {
		errs = append(errs, errors.New("its version or id is missing"))
	}
	for what, at := range map[string]string{
		"NotOnOrAfter of its conditions":   attr("./Conditions", "NotOnOrAfter"),
		"NotOnOrAfter of its confirmation": attr("./Subject/SubjectConfirmation/SubjectConfirmationData", "NotOnOrAfter"),
	} {
		longest := time.Duration(s.LifetimeS)*time.Second + time.Minute
		if t, err := time.Parse(time.RFC3339, at); err != nil || t.Before(time.Now()) || time.Until(t) > longest {
			errs = append(errs, fmt.Errorf("%s is %q", what, at))
		}
	}
	if t, err := time.Parse(time.RFC3339, attr("./Conditions", "NotBefore")); err != nil || t.After(time.Now().Add(5*time.Second)) {
		errs = append(errs, errors.New("NotBefore of its conditions is missing or in the future"))
	}
	if attr("./AuthnStatement", "SessionIndex") == "" && !s.SessionIndex.IsZero() {
		errs = append(errs, errors.New("its session index is missing"))
	}
	return errors.Join(append(errs, x.samlAttributes(root)...)...)
}

func (x *exchange) samlAttributes(root *etree.Element) []error {
	var errs []error
	want := x.v.facts.tree("signed", "attributes")
	for _, name := range slices.Sorted(maps.Keys(want)) {
		e := root.FindElement("./AttributeStatement/Attribute[@Name='" + name + "']/AttributeValue")
		text := ""
		if e != nil {
			text = e.Text()
		}
		if err := x.one(want[name], text, e != nil, false); err != nil {
			errs = append(errs, fmt.Errorf("its attribute %s %w", name, err))
		}
	}
	return errs
}

// samlCertificate is what the vendor was given: the public half of the key, in
// a certificate.
func (x *exchange) samlCertificate() (*x509.Certificate, error) {
	key, err := x.v.fill(x, x.v.facts.Signed.Key.String())
	if err != nil {
		return nil, err
	}
	private, err := privateKey(key)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "acme"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, publicOf(private), private)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
