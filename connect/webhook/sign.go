package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// sign puts the signatures on a request: X-Nango-Hmac-Sha256, the HMAC of the
// body in hexadecimal, and X-Nango-Signature, an older one that has been kept;
// and those of Standard Webhooks (standardwebhooks.com), which cover the event's
// id and the time as well, so that an old request can't be played again.
func sign(h http.Header, id string, at time.Time, body []byte, secrets []scheme.Secret) {
	first := []byte(secrets[0].Reveal())
	h.Set("X-Nango-Hmac-Sha256", hex.EncodeToString(mac(first, body)))
	plain := sha256.New()
	plain.Write(first)
	plain.Write(body)
	h.Set("X-Nango-Signature", hex.EncodeToString(plain.Sum(nil)))

	stamp := strconv.FormatInt(at.Unix(), 10)
	var all []string
	for _, s := range secrets {
		signed := mac(key(s), []byte(id+"."+stamp+"."), body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(signed))
	}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	h.Set("Webhook-Signature", strings.Join(all, " "))
}

// key is what Standard Webhooks signs with: after whsec_ the key in base64. Any
// other secret is the key itself.
func key(s scheme.Secret) []byte {
	value := s.Reveal()
	if encoded, ok := strings.CutPrefix(value, "whsec_"); ok {
		if k, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			return k
		}
	}
	return []byte(value)
}

func mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}
