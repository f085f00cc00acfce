package page

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

// wait sends the browser to where it is proved who is at it. What was brought
// can be redeemed with the key alone: it goes to the app in the address, as a
// ticket that works once, or stays in this browser's cookie.
func (h *Handler) wait(w http.ResponseWriter, flow, token string, hold *connect.Waiting) {
	if hold.ReturnURL != "" {
		seeOther(w, withQuery(hold.ReturnURL, "connect_ticket", hold.Key))
		return
	}
	h.bindFlow(w, flow, hold.Key, token, connect.HoldTTL)
	seeOther(w, confirmPath+"?"+url.Values{"flow": {flow}}.Encode())
}

// withQuery adds to the query of an address that is otherwise left as it is.
func withQuery(address, name, value string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	return address + separator + url.QueryEscape(name) + "=" + url.QueryEscape(value)
}

type confirmView struct {
	Steps   []step
	App     string // empty: it has no name
	Name    string
	Tile    tile
	Who     *who
	Person  bool     // may say so herself
	Origins []string // whose pages may say so
	Action  string
	Flow    string
	Key     string
}

// pending finds the flow that a request to confirm is about, by its cookie.
func (h *Handler) pending(r *http.Request, id string) (f connect.Flow, key, token string, err error) {
	key, token = h.boundFlow(r, id)
	if id == "" || key == "" || token == "" {
		return f, "", "", connect.ErrFlowExpired
	}
	f, err = h.connector.Flow(r.Context(), id)
	return f, key, token, err
}

// showConfirm asks who is there, before anything is redeemed (S1).
func (h *Handler) showConfirm(w http.ResponseWriter, r *http.Request) {
	f, key, token, err := h.pending(r, r.URL.Query().Get("flow"))
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	if f.Outcome != nil {
		seeOther(w, donePath+"?"+sessionQuery(token, "flow", f.ID))
		return
	}
	v, in, err := h.visit(r, token, f.Integration)
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	h = h.dressed(r, &v.Session, in)
	view := confirmView{
		Steps: h.steps(stepConnect, len(v.Integrations) > 1), App: h.connector.Setup.AppName,
		Name: in.DisplayName, Tile: tileFor(in), Who: whoOf(&v.Session),
		Person: in.Trust.Accepts(connect.ByPerson),
		Action: confirmPath, Flow: f.ID, Key: confirmKey(key),
	}
	if in.Trust.Accepts(connect.ByOpener) {
		view.Origins = in.Trust.AppOrigins
	}
	h.render(w, http.StatusOK, "confirm", page{Title: h.text.ConfirmTitle, Data: view})
}

// confirmKey is what the form of a flow carries to show that this browser, which
// has its cookie, was asked.
func confirmKey(key string) string { return formKey(key, "confirm") }

// serveConfirm takes the proof, or the no. The session's token comes from the
// page that has opened this one; that it has, and which origin's it is, this
// site's own script tells (S1, S20): another can't send this form.
func (h *Handler) serveConfirm(w http.ResponseWriter, r *http.Request) {
	if !h.readForm(w, r) {
		return
	}
	f, key, token, err := h.pending(r, r.PostForm.Get("flow"))
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	if subtle.ConstantTimeCompare([]byte(confirmKey(key)), []byte(r.PostForm.Get("csrf"))) != 1 {
		h.logger.Warn("refused a proof that this browser wasn't asked for", zap.String("flow", f.ID))
		h.fail(w, r, http.StatusForbidden, h.text.ForeignForm)
		return
	}
	evidence := connect.Evidence{By: connect.ByPerson}
	if origin := r.PostForm.Get("opener"); origin != "" {
		evidence = connect.Evidence{By: connect.ByOpener, Origin: origin, Token: r.PostForm.Get("opener_token")}
	}
	switch r.PostForm.Get("decision") {
	case "yes":
		_, err = h.connector.Confirm(r.Context(), key, evidence)
	case "no":
		_, err = h.connector.Refuse(r.Context(), key)
	default:
		h.fail(w, r, http.StatusBadRequest, h.text.ForeignForm)
		return
	}
	h.unbindFlow(w, f.ID)
	if errors.Is(err, connect.ErrFlowExpired) && f.Outcome == nil { // too late, or a second click on its way
		h.failWith(w, r, err)
		return
	}
	seeOther(w, donePath+"?"+sessionQuery(token, "flow", f.ID))
}

// nameOf is what an integration is called, which may be gone.
func (h *Handler) nameOf(key string) string {
	if in, err := h.connector.Setup.Integration(key); err == nil {
		return in.DisplayName
	}
	return key
}
