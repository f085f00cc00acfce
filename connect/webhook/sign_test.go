package webhook

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// The values are those that the Standard Webhooks libraries test themselves
// with, and of `printf '{"test": 2432232314}' | openssl dgst -sha256 -hmac …`.
func TestSignatures(t *testing.T) {
	const body = `{"test": 2432232314}`
	h := http.Header{}
	sign(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(body),
		[]scheme.Secret{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain"})
	for name, want := range map[string]string{
		"Webhook-Id":          "msg_p5jXN8AQM9LWM0D4loKWxJek",
		"Webhook-Timestamp":   "1614265330",
		"X-Nango-Hmac-Sha256": "80ec8a89ce3cd22133a1066caecb4d04fea7467657c8514d717ec42c38a5c94c",
		"X-Nango-Signature":   "c69d7354cb1c0a601943b43f0dd3d7a41f5ee2bb4a963e6147c6b0718007136c",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	all := strings.Split(h.Get("Webhook-Signature"), " ")
	if len(all) != 2 || all[0] != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" || all[1] != "v1,tgOMx2V+ymftc5zrV4Kwy5UOWZAx1XMh0yu4Sm/6/r0=" {
		t.Errorf("signatures %q", all)
	}
}
