package scheme

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// samlAssertion makes a signed SAML 2.0 bearer assertion (RFC 7522 section 3;
// XML Signature with RSA-SHA256), as base64 of its XML.
//
// The XML is written in the form that exclusive canonicalization gives, so that
// what is signed is what is there: namespaces are declared where they are first
// used, attributes are in order, and nothing stands between the elements.
func samlAssertion(s *catalog.Signed, key string, env *catalog.Env, now time.Time) (string, error) {
	signer, err := privateKey(key)
	if err != nil {
		return "", err
	}
	rsaKey, ok := signer.(*rsa.PrivateKey)
	if !ok {
		return "", &KeyError{Reason: "is not an RSA key"}
	}
	var failed error
	fill := func(v catalog.Value) string {
		if v.IsZero() {
			return ""
		}
		text, err := v.Fill(env)
		if err != nil && failed == nil {
			failed = err
		}
		return text
	}
	const layout = "2006-01-02T15:04:05Z"
	issued := now.Add(-assertionSkew).UTC()
	ends := issued.Add(time.Duration(s.LifetimeS) * time.Second).Format(layout)
	id := make([]byte, 16)
	rand.Read(id) // never fails: crypto/rand crashes the program instead
	a := assertionParts{
		id: "_" + hex.EncodeToString(id), issued: issued.Format(layout), ends: ends,
		issuer: fill(s.Issuer), audience: fill(s.Audience), recipient: fill(s.Recipient),
		nameID: fill(s.NameID), session: fill(s.SessionIndex),
	}
	for _, p := range s.Attributes {
		text, err := p.Value.Text(env)
		if err != nil {
			return "", fmt.Errorf("attribute %s: %w", p.Name, err)
		}
		a.attributes = append(a.attributes, [2]string{p.Name, text})
	}
	if failed != nil {
		return "", failed
	}
	digest := sha256.Sum256([]byte(a.xml("")))
	info := signedInfo(a.id, base64.StdEncoding.EncodeToString(digest[:]))
	sum := sha256.Sum256([]byte(info))
	signature, err := rsa.SignPKCS1v15(nil, rsaKey, crypto.SHA256, sum[:])
	if err != nil {
		return "", &KeyError{Reason: "can't sign with " + s.Alg}
	}
	// SignedInfo's own declaration is the one it was digested with; beneath
	// Signature it would be left out, so it is kept by being written again.
	block := `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` +
		strings.Replace(info, ` xmlns:ds="http://www.w3.org/2000/09/xmldsig#"`, "", 1) +
		`<ds:SignatureValue>` + base64.StdEncoding.EncodeToString(signature) + `</ds:SignatureValue></ds:Signature>`
	return base64.StdEncoding.EncodeToString([]byte(a.xml(block))), nil
}

// assertionParts are what an assertion says.
type assertionParts struct {
	id, issued, ends, issuer, audience, recipient, nameID, session string
	attributes                                                     [][2]string
}

// xml writes the assertion, with the signature where SAML has it.
func (a *assertionParts) xml(signature string) string {
	var b strings.Builder
	// Attributes in canonical order: without a namespace, by name.
	fmt.Fprintf(&b, `<saml2:Assertion xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion" ID="%s" IssueInstant="%s" Version="2.0">`, a.id, a.issued)
	fmt.Fprintf(&b, `<saml2:Issuer>%s</saml2:Issuer>%s`, inText(a.issuer), signature)
	fmt.Fprintf(&b, `<saml2:Subject><saml2:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified">%s</saml2:NameID>`, inText(a.nameID))
	fmt.Fprintf(&b, `<saml2:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml2:SubjectConfirmationData NotOnOrAfter="%s" Recipient="%s"></saml2:SubjectConfirmationData></saml2:SubjectConfirmation></saml2:Subject>`, a.ends, inAttribute(a.recipient))
	fmt.Fprintf(&b, `<saml2:Conditions NotBefore="%s" NotOnOrAfter="%s"><saml2:AudienceRestriction><saml2:Audience>%s</saml2:Audience></saml2:AudienceRestriction></saml2:Conditions>`, a.issued, a.ends, inText(a.audience))
	session := ""
	if a.session != "" {
		session = fmt.Sprintf(` SessionIndex="%s"`, inAttribute(a.session))
	}
	fmt.Fprintf(&b, `<saml2:AuthnStatement AuthnInstant="%s"%s><saml2:AuthnContext><saml2:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml2:AuthnContextClassRef></saml2:AuthnContext></saml2:AuthnStatement>`, a.issued, session)
	if len(a.attributes) > 0 {
		b.WriteString(`<saml2:AttributeStatement>`)
		for _, attr := range a.attributes {
			fmt.Fprintf(&b, `<saml2:Attribute Name="%s"><saml2:AttributeValue>%s</saml2:AttributeValue></saml2:Attribute>`, inAttribute(attr[0]), inText(attr[1]))
		}
		b.WriteString(`</saml2:AttributeStatement>`)
	}
	b.WriteString(`</saml2:Assertion>`)
	return b.String()
}

// signedInfo is what is signed of a signature, canonical by itself.
func signedInfo(id, digest string) string {
	return `<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` +
		`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod>` +
		`<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></ds:SignatureMethod>` +
		`<ds:Reference URI="#` + id + `"><ds:Transforms>` +
		`<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform>` +
		`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms>` +
		`<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod>` +
		`<ds:DigestValue>` + digest + `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
}

// inText and inAttribute escape as canonical XML does (section 2.3). Characters
// that XML can't carry are replaced.
func inText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;").Replace(carried(s))
}

func inAttribute(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;").Replace(carried(s))
}

func carried(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
