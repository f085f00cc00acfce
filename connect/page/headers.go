package page

import (
	"net/http"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
)

// setHeaders puts on every answer, redirects too, what keeps it from being
// stored, framed, guessed at or told to the next site (S20, S21).
func (h *Handler) setHeaders(head http.Header) {
	head.Set("Cache-Control", "no-store")
	head.Set("Content-Security-Policy", h.policy("", "'self'"))
	head.Set("Cross-Origin-Opener-Policy", h.opener)
	head.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	head.Set("Referrer-Policy", h.referrerPolicy())
	head.Set("X-Content-Type-Options", "nosniff")
	if len(h.connector.Setup.Embedders) == 0 {
		head.Set("X-Frame-Options", "DENY") // it can name no origin; the policy does
	}
	head.Set("X-Robots-Tag", "noindex, nofollow")
}

// openerPolicy cuts these pages off from whoever has opened them, unless one of
// the app's may have to answer for who is there (S1).
func openerPolicy(s *connect.Setup) string {
	if len(s.Embedders) > 0 {
		return "unsafe-none"
	}
	for _, in := range s.Integrations() {
		if in.Trust.Accepts(connect.ByOpener) {
			return "unsafe-none"
		}
	}
	return "same-origin-allow-popups"
}

// referrerPolicy is no-referrer. With it, forms are sent with "Origin: null",
// and what tells one's own form from a foreign one is Sec-Fetch-Site, which
// browsers send to https and localhost only. A plain http address in a local
// network therefore needs the origin; it still tells other sites nothing.
func (h *Handler) referrerPolicy() string {
	if h.secure {
		return "no-referrer"
	}
	return "same-origin"
}

// policy is the Content-Security-Policy of a page whose one style sheet and one
// script carry the nonce.
func (h *Handler) policy(nonce, formAction string) string {
	ancestors := "'none'"
	if e := h.connector.Setup.Embedders; len(e) > 0 {
		ancestors = strings.Join(e, " ")
	}
	p := "default-src 'none'; base-uri 'none'; frame-ancestors " + ancestors + "; form-action " + formAction
	if nonce != "" {
		p += "; img-src 'self' data:; style-src 'nonce-" + nonce + "'; script-src 'nonce-" + nonce + "'"
	}
	return p
}

// leavingPolicy is the form-action of a form that is answered with a redirect to
// the provider. Browsers hold the whole chain of redirects that follow a form
// against it, and providers send visitors on to hosts that nobody can list here
// (accounts.…, login.…). So it names schemes: https, and plain http only if
// these pages, or the provider, are served so.
func (h *Handler) leavingPolicy(plainProvider bool) string {
	if h.secure && !plainProvider {
		return "'self' https:"
	}
	return "'self' https: http:"
}
