package simulator

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"regexp/syntax"
	"strings"
	"sync"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// valueFor makes a value that a field takes and that fits where it is used:
// from its choices, its example, its expression or its format.
func (f *facts) valueFor(field *catalog.Field, ref string) (string, error) {
	if field.Source == "" && field.Hidden {
		return field.Default, nil
	}
	for _, v := range f.candidates(field, ref) {
		if v != "" && field.Check(v) == nil {
			return v, nil
		}
	}
	return "", fmt.Errorf("no value could be made for the field %s", ref)
}

func (f *facts) candidates(field *catalog.Field, ref string) []string {
	var out []string
	if k := f.keyFor(ref); k != "" {
		return []string{k}
	}
	if n := len(field.Enum); n > 0 {
		if field.Default != "" {
			return []string{field.Default}
		}
		return []string{field.Enum[n-1], field.Enum[0]}
	}
	p := f.placeOf(ref)
	if !field.Secret && field.Example != "" && !strings.Contains(field.Example, "*") {
		out = append(out, field.Example)
	}
	if field.Regexp == nil || p != placeNone {
		out = append(out, madeUp(field, p))
	}
	if field.Regexp != nil {
		for i := range 8 {
			out = append(out, generate(field.Regexp.String(), i))
		}
	}
	return append(out, field.Example, field.Default)
}

func madeUp(field *catalog.Field, p place) string {
	id := random(6)
	switch {
	case field.Format == "uuid":
		return fmt.Sprintf("%s-%s-4%s-8%s-%s", random(8), random(4), random(3), random(3), random(12))
	case field.Format == "email":
		return "ada." + id + "@acme.example"
	case p == placeBase || field.Format == "uri":
		return "https://" + id + ".vendor.example"
	case p == placeHost || field.Format == "hostname":
		return id + ".vendor.example"
	case p == placeLabel:
		return "acme" + id
	case p == placePort:
		return "8443"
	case field.Name == "client_id" || field.Name == "client_secret":
		// Vendors differ in whether Basic is made of encoded values (RFC 6749
		// section 2.3.1): nothing to encode in these.
		return field.Name + "-" + random(20)
	case field.Secret:
		return "s." + random(16) + `+/=&%:~ "'#?x` // whatever has to be encoded somewhere
	case strings.Contains(field.Name, "user") || strings.Contains(field.Name, "mail"):
		return "ada+" + id + "@acme.example"
	}
	return "v-" + id
}

// random returns hex digits.
func random(n int) string {
	b := make([]byte, (n+1)/2)
	_, _ = rand.Read(b) // never fails: crypto/rand stops the program instead
	return hex.EncodeToString(b)[:n]
}

// generate makes a text that a regular expression matches. Attempts differ in
// what they choose.
func generate(src string, attempt int) string {
	re, err := syntax.Parse(src, syntax.Perl)
	if err != nil {
		return ""
	}
	var b strings.Builder
	g := generator{out: &b, attempt: attempt}
	g.make(re)
	return b.String()
}

type generator struct {
	out     *strings.Builder
	attempt int
	n       int
}

// pick varies from attempt to attempt and from place to place.
func (g *generator) pick(n int) int {
	g.n++
	b := []byte{0}
	_, _ = rand.Read(b)
	return (int(b[0]) + g.attempt) % n
}

func (g *generator) make(re *syntax.Regexp) {
	repeat := func(low, high, usual int) {
		n := max(low, usual)
		if high >= 0 {
			n = min(n, high)
		}
		for range n {
			g.make(re.Sub[0])
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		g.out.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		g.out.WriteRune(g.fromClass(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		g.out.WriteByte("abcdefghij0123456789"[g.pick(20)])
	case syntax.OpStar:
		repeat(0, -1, g.attempt%4)
	case syntax.OpPlus:
		repeat(1, -1, 12-g.attempt)
	case syntax.OpQuest:
		repeat(0, 1, (g.attempt+1)%2)
	case syntax.OpRepeat:
		repeat(re.Min, re.Max, re.Min+g.attempt)
	case syntax.OpAlternate:
		g.make(re.Sub[g.attempt%len(re.Sub)])
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range re.Sub {
			g.make(sub)
		}
	}
}

// fromClass chooses a letter or digit if there is one, and else a printable
// character.
func (g *generator) fromClass(ranges []rune) rune {
	var good, other []rune
	for i := 0; i < len(ranges); i += 2 {
		for r := max(ranges[i], '!'); r <= min(ranges[i+1], '~'); r++ {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
				good = append(good, r)
			} else {
				other = append(other, r)
			}
		}
	}
	switch {
	case len(good) > 0:
		return good[g.pick(len(good))]
	case len(other) > 0:
		return other[g.pick(len(other))]
	}
	return ranges[0]
}

// Keys are made once for the process: making an RSA key takes a while, and
// nothing that is shown depends on them being different.
var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	edKey  = sync.OnceValue(func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return must(k, err)
	})
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

// otherKey is a key of the same kind that isn't the account's.
func otherKey(key string) string {
	switch k, _ := privateKey(key); k.(type) {
	case *rsa.PrivateKey:
		return pemOf(otherRSA())
	case *ecdsa.PrivateKey:
		return pemOf(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	case ed25519.PrivateKey:
		_, other, err := ed25519.GenerateKey(rand.Reader)
		return pemOf(must(other, err))
	}
	return ""
}

func must[T any](v T, err error) T {
	if err != nil {
		panic("simulator: " + err.Error()) // the system has no randomness, or a key made here can't be written
	}
	return v
}

func pemOf(key any) string {
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})))
}

// certificate is the account's own, for vendors that want one in TLS.
var certificate = sync.OnceValue(func() []byte {
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "acme"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	return must(x509.CreateCertificate(rand.Reader, t, t, ecKey().Public(), ecKey()))
})

// keyFor returns a key if the value is one that the entry signs with, or a
// certificate.
func (f *facts) keyFor(ref string) string {
	if t := f.Token; t != nil && t.MTLS {
		switch ref {
		case "cred.client_certificate":
			return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate()})))
		case "cred.client_private_key":
			return pemOf(ecKey())
		}
	}
	hole := "{" + ref + "}"
	if s := f.Signed; s != nil && strings.Contains(s.Key.String(), hole) && s.Key.String() == hole {
		switch {
		case s.KeyFormat == "jwk":
			return jwkOf(rsaKey())
		case s.Alg == "ES256":
			return pemOf(ecKey())
		case s.Alg == "HS256" && s.KeyEncoding == "hex":
			return random(64)
		case s.Alg != "HS256":
			return pemOf(rsaKey())
		}
	}
	if s := f.Signed; s != nil && s.Split != nil && ref == "cred."+s.Split.Field {
		return random(24) + s.Split.On + random(64)
	}
	found := ""
	f.templatesOf(func(_, s string) {
		if strings.Contains(s, "ed25519_sign_base64("+ref) {
			found = pemOf(edKey())
		}
	})
	return found
}

func jwkOf(k *rsa.PrivateKey) string {
	enc := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	data, err := json.Marshal(map[string]string{
		"kty": "RSA", "kid": "sim-key", "alg": "RS256", "use": "sig",
		"n": enc(k.N), "e": enc(big.NewInt(int64(k.E))), "d": enc(k.D),
		"p": enc(k.Primes[0]), "q": enc(k.Primes[1]),
		"dp": enc(k.Precomputed.Dp), "dq": enc(k.Precomputed.Dq), "qi": enc(k.Precomputed.Qinv),
	})
	return string(must(data, err))
}

func publicOf(key any) any {
	if k, ok := key.(interface{ Public() any }); ok {
		return k.Public()
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return k.Public()
	case *ecdsa.PrivateKey:
		return k.Public()
	case ed25519.PrivateKey:
		return k.Public()
	}
	return nil
}
