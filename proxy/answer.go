package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// Answers says what of a provider's answer reaches the caller. A provider's
// answers come from keycaddy's origin, so that what a provider says to browsers
// about its own would be taken to be about that (S106): cookies, cross-origin
// rules, transport security, caching, scripts. Such headers are held back.
type Answers struct {
	// Pass names headers, in canonical form, that pass all the same, as the
	// provider sends them; Access-Control-* stands for all of these.
	Pass map[string]bool
}

// Passing makes Answers that let the named headers pass. The error is about the
// first name that can't be meant: of a header that isn't held back.
func Passing(names []string) (Answers, error) {
	a := Answers{Pass: make(map[string]bool, len(names))}
	for _, name := range names {
		name = http.CanonicalHeaderKey(name)
		switch name {
		case "Cache-Control", "Content-Security-Policy", "Content-Disposition", "Access-Control-*":
		default:
			if !originHeader(name) {
				return a, fmt.Errorf("the header %q isn't held back", name)
			}
		}
		a.Pass[name] = true
	}
	return a, nil
}

// originHeader tells whether a header, by its canonical name, is about the
// origin that the answer comes from, or for the servers on its way.
func originHeader(name string) bool {
	switch name {
	case "Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Set-Login", "Activate-Storage-Access",
		"Strict-Transport-Security", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Expect-Ct", "Alt-Svc",
		"Service-Worker-Allowed", "Refresh", "Speculation-Rules", "Origin-Agent-Cluster", "Accept-Ch", "Critical-Ch",
		"Nel", "Report-To", "Reporting-Endpoints", "Content-Security-Policy-Report-Only",
		"Surrogate-Control", "Cdn-Cache-Control", "X-Sendfile":
		return true
	}
	return strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "X-Accel-") || strings.HasSuffix(name, "-Cdn-Cache-Control")
}

func (a Answers) holdsBack(name string) bool {
	return originHeader(name) && !a.Pass[name] && !(a.Pass["Access-Control-*"] && strings.HasPrefix(name, "Access-Control-"))
}

// What answers have instead of what is held back. The values are shared and are
// not changed by whoever copies them.
var (
	// Nobody but the caller may keep an answer that was made with a credential
	// (RFC 9111 section 3.5; S107).
	uncached = []string{"private, no-store"}
	// If a provider lets answers be cached, they differ by these.
	varies = "Authorization, " + HeaderConnection + ", " + HeaderIntegration
	// Nothing of an answer runs in a browser as part of keycaddy's origin (S108).
	sandboxed = []string{"sandbox; default-src 'none'; frame-ancestors 'none'"}
	nosniff   = []string{"nosniff"}
)

// guard makes an answer one that does no harm on keycaddy's origin. Own are the
// headers that the caller gets beside the answer's.
func (a Answers) guard(res *http.Response, own http.Header) {
	h := res.Header
	delete(h, problem.Header) // it marks keycaddy's own answers (S109)
	for name := range h {
		if a.holdsBack(name) {
			delete(h, name)
		}
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	if a.Pass["Cache-Control"] {
		h.Add("Vary", varies)
	} else {
		delete(h, "Cache-Control")
		own["Cache-Control"] = uncached
	}
	if !a.Pass["Content-Security-Policy"] {
		delete(h, "Content-Security-Policy")
		own["Content-Security-Policy"] = sandboxed
	}
	delete(h, "X-Content-Type-Options")
	own["X-Content-Type-Options"] = nosniff
	if !a.Pass["Content-Disposition"] && active(h["Content-Type"]) {
		h["Content-Disposition"] = []string{attachment(h.Get("Content-Disposition"))}
	}
	if res.ContentLength < 0 {
		res.Body = &trailers{ReadCloser: res.Body, res: res, answers: a}
	}
}

// earlyWriter is the caller's side of a call: it sees to what comes before the
// answer (103 and its like), which ReverseProxy hands on as it is.
type earlyWriter struct {
	http.ResponseWriter
	proxy *Proxy
	call  *Call
}

func (w *earlyWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if status == http.StatusContinue {
		return // the server sends one by itself when the body is read, which it now is
	}
	h := w.Header()
	delete(h, problem.Header)
	for name := range h {
		if w.proxy.Answers.holdsBack(name) {
			delete(h, name)
		}
	}
	if w.proxy.Redaction != RedactOff {
		if r := w.proxy.redactors.of(w.call.Auth); r != nil && w.proxy.redactHeader(w.call, r, h, "early header") != nil {
			clear(h)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *earlyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// active tells whether browsers run what is in such an answer.
func active(contentType []string) bool {
	for _, v := range contentType {
		kind, _, _ := strings.Cut(v, ";")
		switch kind = strings.ToLower(strings.TrimSpace(kind)); {
		case kind == "text/html", kind == "text/xml", kind == "application/xml", kind == "text/xsl", strings.HasSuffix(kind, "+xml"), kind == "multipart/x-mixed-replace":
			return true
		}
	}
	return false
}

// attachment is a Content-Disposition that keeps a browser from showing the
// answer, with the file's name if the provider has one.
func attachment(disposition string) string {
	if _, params, err := mime.ParseMediaType(disposition); err == nil && params["filename"] != "" {
		if v := mime.FormatMediaType("attachment", map[string]string{"filename": params["filename"]}); v != "" {
			return v
		}
	}
	return "attachment"
}

// AnswerError is an answer that doesn't reach the caller.
type AnswerError struct{ Reason string }

func (e *AnswerError) Error() string { return "the provider's answer: " + e.Reason }

// Problem is what the caller is told.
func (e *AnswerError) Problem() *problem.Problem {
	return &problem.Problem{Status: http.StatusBadGateway, Code: "invalid_answer", Message: "The provider's answer was refused: " + e.Reason + ".", Action: "contact_operator"}
}

// checkSwitch tells whether a switch to WebSocket is one: the provider has to
// prove that it has understood the request (RFC 6455 section 4.1). That it is
// a switch to what was asked for, ReverseProxy sees to. Errors: *AnswerError.
func checkSwitch(res *http.Response) error {
	if res.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		return nil
	}
	proof := sha1.Sum([]byte(res.Request.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if res.Header.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(proof[:]) {
		return &AnswerError{"it switches to WebSocket without the proof that it knows it (Sec-WebSocket-Accept)"}
	}
	return nil
}

// trailers is the body of an answer that may have trailers, which are there once
// it has been read. They are held back like headers.
type trailers struct {
	io.ReadCloser
	res     *http.Response
	answers Answers
}

func (t *trailers) Close() error {
	err := t.ReadCloser.Close()
	for name := range t.res.Trailer {
		if name == problem.Header || t.answers.holdsBack(name) {
			delete(t.res.Trailer, name)
		}
	}
	return err
}
