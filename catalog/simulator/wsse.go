package simulator

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"time"
)

var wsseForm = regexp.MustCompile(`^UsernameToken Username="([^"]*)", ?PasswordDigest="([^"]*)", ?Nonce="([^"]*)", ?Created="([^"]*)"$`)

// wsseUnmet checks a UsernameToken. The digest is the one that the vendor of the
// only such entry describes: the hexadecimal SHA-1 of nonce, time and secret,
// in base64.
func (v *Vendor) wsseUnmet(x *exchange) []string {
	s := v.facts.SignRequest
	m := wsseForm.FindStringSubmatch(x.r.Header.Get(s.Header))
	if m == nil {
		return []string{"the header " + s.Header + " is no UsernameToken"}
	}
	user, err1 := v.fill(x, s.Username.String())
	password, err2 := v.fill(x, s.Password.String())
	var out []string
	if err1 != nil || err2 != nil || m[1] != user {
		out = append(out, "the user is "+quote(m[1])+", not "+quote(user))
	}
	at, err := time.Parse(time.RFC3339, m[4])
	if err != nil || x.now.Sub(at).Abs() > 5*time.Minute {
		out = append(out, "Created is not the present")
	}
	if other, used := v.spent["wsse "+m[3]]; len(m[3]) < 16 || used && other != x.r {
		out = append(out, "the nonce is short or was used before")
	}
	v.spent["wsse "+m[3]] = x.r
	sum := sha1.Sum([]byte(m[3] + m[4] + password))
	if m[2] != base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(sum[:]))) {
		out = append(out, "the digest is wrong")
	}
	return out
}
