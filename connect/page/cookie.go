package page

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

const (
	visitorCookie = "keycaddy-visitor"
	flowCookie    = "keycaddy-flow-" // and the flow's id
)

// cookieName adds the prefix with which browsers take a cookie only from this
// very host, over https, for all of its paths (S23).
func (h *Handler) cookieName(name string) string {
	if h.secure {
		return "__Host-" + name
	}
	return name
}

func (h *Handler) setCookie(w http.ResponseWriter, name, value string, ttl time.Duration) {
	c := &http.Cookie{
		Name: h.cookieName(name), Value: value, Path: "/",
		Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		MaxAge: int(ttl / time.Second),
	}
	// In a frame of another site's page browsers keep no other cookies. They take
	// localhost for as good as https.
	if h.framed && (h.secure || h.connector.Setup.PublicURL.Hostname() == "localhost") {
		c.Secure, c.SameSite, c.Partitioned = true, http.SameSiteNoneMode, true
	}
	if ttl < 0 {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

func (h *Handler) cookie(r *http.Request, name string) string {
	c, err := r.Cookie(h.cookieName(name))
	if err != nil {
		return ""
	}
	return c.Value
}

// visitor returns the random value that the browser is known by while it fills
// in forms, and makes one if it has none. It gives no access to anything.
func (h *Handler) visitor(w http.ResponseWriter, r *http.Request) string {
	value := h.cookie(r, visitorCookie)
	if raw, err := hex.DecodeString(value); err != nil || len(raw) != 32 {
		fresh := make([]byte, 32)
		rand.Read(fresh) // never fails: crypto/rand crashes the program instead
		value = hex.EncodeToString(fresh)
	}
	h.setCookie(w, visitorCookie, value, connect.SessionTTL)
	return value
}

// formKey is what a form carries to prove that this browser was shown it for
// this session. Who can't read the cookie can't make it.
func formKey(visitor, token string) string {
	sum := sha256.Sum256([]byte("connect form\x00" + visitor + "\x00" + token))
	return hex.EncodeToString(sum[:])
}

// ownForm tells whether a form comes from a page that was shown to this browser.
// A window that was opened from a frame doesn't have the frame's cookie: there it
// is enough that the browser says that the form is one of ours.
func (h *Handler) ownForm(r *http.Request, token, key string) bool {
	visitor := h.cookie(r, visitorCookie)
	want := formKey(visitor, token)
	if visitor == "" && len(h.connector.Setup.Embedders) > 0 {
		return r.Header.Get("Sec-Fetch-Site") == "same-origin"
	}
	return visitor != "" && subtle.ConstantTimeCompare([]byte(want), []byte(key)) == 1
}

// bindFlow ties an authorization to this browser. The session token goes along,
// since the provider's redirect doesn't bring it. The binding is another one
// before and after the provider (S23).
func (h *Handler) bindFlow(w http.ResponseWriter, flow, binding, token string, ttl time.Duration) {
	h.setCookie(w, flowCookie+flow, binding+"."+token, ttl)
}

// boundFlow returns what bindFlow has left in this browser.
func (h *Handler) boundFlow(r *http.Request, flow string) (binding, token string) {
	binding, token, _ = strings.Cut(h.cookie(r, flowCookie+flow), ".")
	return binding, token
}

func (h *Handler) unbindFlow(w http.ResponseWriter, flow string) {
	h.setCookie(w, flowCookie+flow, "", -1)
}
