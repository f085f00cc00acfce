package page

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// startPath is where Nango's SDK for browsers leads the popup that it has opened.
const startPath = "/oauth/connect/"

// serveStart sends a popup on to the provider, without a page of ours before it:
// the app's own page has shown what is going on. What is still to be known can
// only come from its parameters.
func (h *Handler) serveStart(w http.ResponseWriter, r *http.Request, key string) {
	q := r.URL.Query()
	token := q.Get("connect_session_token")
	by := connect.Opener{Origin: startedBy(r), Waiter: q.Get("ws_client_id"), Popup: true}
	v, in, err := h.visit(r, token, key)
	if v == nil { // whoever waits can't be told by way of the session
		h.sockets.tell(by.Waiter, connect.Flow{Integration: key, Outcome: &connect.Outcome{Code: "session_expired"}})
		h.failWith(w, r, err)
		return
	}
	answers := make(map[string]string)
	for name, values := range q {
		if field, ok := strings.CutPrefix(name, "params["); ok && strings.HasSuffix(field, "]") {
			answers[strings.TrimSuffix(field, "]")] = values[0]
		}
	}
	if in != nil {
		h = h.dressed(r, &v.Session, in)
		answers = in.Provider.Named(answers)
	}
	to, err := h.connector.Start(r.Context(), token, key, answers, by)
	var bad scheme.FieldErrors
	switch {
	case errors.As(err, &bad): // the page did not ask for them; ours does
		h.refuse(w, r, in, v.Fields(in), token, answers, err)
	case err != nil:
		h.failWith(w, r, err)
	default:
		h.bindFlow(w, to.Flow, to.Binding, token, connect.FlowTTL)
		seeOther(w, to.Redirect)
	}
}

// startedBy is the origin of the page whose script has led this window here, or
// empty. Browsers alone write these headers: a page of another origin can't put
// its victim's window here in this one's name, and a link that somebody has left
// on the app's page is followed by a click, which Sec-Fetch-User tells (S1, S20).
func startedBy(r *http.Request) string {
	head := r.Header
	if head.Get("Sec-Fetch-Mode") != "navigate" || head.Get("Sec-Fetch-Dest") != "document" || head.Get("Sec-Fetch-User") != "" {
		return ""
	}
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host == "" {
		return ""
	}
	return from.Scheme + "://" + from.Host
}
