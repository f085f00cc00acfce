package page

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

// serveCallback takes what the provider sends the browser back with. Whatever
// comes of it, the browser goes on to an address that has no code in it (S21);
// only where it can't be told whose sign-in this was, the page is shown here.
func (h *Handler) serveCallback(w http.ResponseWriter, r *http.Request) {
	var flow, token string
	at := h.connector.Setup.PublicURL.String() + r.URL.EscapedPath()
	a, err := h.connector.Arrive(r.Context(), at, r.URL.Query(), func(id string) (binding string) {
		flow = id
		binding, token = h.boundFlow(r, id)
		return binding
	})
	if flow != "" {
		h.unbindFlow(w, flow)
	}
	if flow == "" || token == "" || errors.Is(err, connect.ErrOtherBrowser) {
		if err == nil { // can't be: without its cookie no flow goes on
			err = connect.ErrOtherBrowser
		}
		h.failWith(w, r, err)
		return
	}
	if err != nil {
		seeOther(w, donePath+"?"+sessionQuery(token, "flow", flow))
		return
	}
	if a.Flow.Opener == "" || a.Waiting.ReturnURL != "" {
		h.wait(w, a.Flow.ID, token, a.Waiting)
		return
	}
	// The app's own page has started it, in this very browser.
	evidence := connect.Evidence{By: connect.ByOpener, Origin: a.Flow.Opener, Token: token}
	if _, err := h.connector.Confirm(r.Context(), a.Waiting.Key, evidence); err != nil {
		h.logger.Debug("an attempt that the app's page has started failed", zap.Error(err)) // logged with its reason, and shown
	}
	seeOther(w, donePath+"?"+sessionQuery(token, "flow", flow))
}

type doneView struct {
	Steps     []step
	Name      string
	Tile      tile
	Reconnect bool
	Failure   *failure // nil: it worked
	Detail    string   // the provider's own words
	Code      string
	Missing   string // permissions that were asked for and not given
	Again     string // the form's address; empty if the session has ended

	Origins []string // of the app's pages, which are told
	Result  connect.Result
}

func (h *Handler) serveDone(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	token := q.Get("session_token")
	if id := q.Get("flow"); id != "" {
		h.showFlow(w, r, token, id)
		return
	}
	v, in, err := h.visit(r, token, q.Get("integration"))
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	h = h.dressed(r, &v.Session, in)
	view := doneView{Steps: h.steps(stepDone, len(v.Integrations) > 1), Reconnect: v.Reconnect, Origins: in.Trust.AppOrigins, Tile: tileFor(in)}
	if v.Result != nil && v.Result.Integration == in.Key {
		view.Result = *v.Result
		h.lacking(r, v, in.Key, v.Result.Connection, &view)
	}
	h.showDone(w, in.DisplayName, view)
}

// showFlow shows how an authorization ended, to whoever has the token of the
// session that it belongs to, even when the app has closed the session since.
func (h *Handler) showFlow(w http.ResponseWriter, r *http.Request, token, id string) {
	f, err := h.connector.Flow(r.Context(), id)
	digest := connect.DigestOf(token)
	if errors.Is(err, connect.ErrFlowExpired) || err == nil && subtle.ConstantTimeCompare(digest[:], f.Session[:]) != 1 {
		err = connect.ErrSessionExpired
	}
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	view := doneView{Again: formLink(f.Integration, token)}
	var name string
	v, in, err := h.visit(r, token, f.Integration)
	switch {
	case err == nil:
		h = h.dressed(r, &v.Session, in)
		name, view.Reconnect, view.Origins, view.Tile = in.DisplayName, v.Reconnect, in.Trust.AppOrigins, tileFor(in)
		view.Steps = h.steps(stepDone, len(v.Integrations) > 1)
	case errors.Is(err, connect.ErrSessionExpired), errors.Is(err, connect.ErrNotAllowed):
		view.Again = ""
		name = h.nameOf(f.Integration)
	default:
		h.failWith(w, r, err)
		return
	}
	outcome := connect.Outcome{Code: codeUnfinished}
	if f.Outcome != nil {
		outcome = *f.Outcome
	}
	view.Result = connect.Result{Status: connect.Connected, Integration: f.Integration, Connection: outcome.Connection}
	if outcome.Code != "" {
		view.Result = connect.Result{Status: connect.Failed, Integration: f.Integration, Code: outcome.Code}
	}
	if outcome.Code == "" && v != nil {
		h.lacking(r, v, f.Integration, outcome.Connection, &view)
	}
	if outcome.Code == "link_user_mismatch" {
		view.Again = "" // by the same link it would come to the same
	}
	if outcome.Code != "" {
		reason := h.text.failure(outcome.Code, name)
		view.Steps = nil
		view.Failure, view.Code, view.Detail = &reason, outcome.Code, outcome.Detail
	}
	h.showDone(w, name, view)
}

// lacking fills in which permissions a connection hasn't got. To give them later
// is offered where it is this connection that is connected again, and not another
// one that is made.
func (h *Handler) lacking(r *http.Request, v *connect.Visit, integration, connection string, view *doneView) {
	view.Missing = strings.Join(h.connector.MissingScopes(r.Context(), connect.ID{Integration: integration, Connection: connection}), ", ")
	if view.Missing != "" && v.Connection != "" {
		view.Again = formLink(integration, r.URL.Query().Get("session_token"))
	}
}

func (h *Handler) showDone(w http.ResponseWriter, name string, v doneView) {
	if v.Name = name; v.Tile.Initials == "" {
		v.Tile = tileOf(name)
	}
	if v.Failure == nil {
		h.render(w, http.StatusOK, "done", page{Title: h.text.doneTitle(name), Data: v})
		return
	}
	h.render(w, http.StatusBadRequest, "done", page{Title: h.text.failedTitle(name), Data: v})
}
