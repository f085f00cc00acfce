// Package page is what end users see: the hosted pages on which an account is
// connected, and the address that OAuth providers send browsers back to.
//
//	GET  /connect                       choose an integration
//	GET  /connect/with/{integration}    what is asked for, and the button
//	POST /connect/with/{integration}    the answers
//	GET  /oauth/callback[/{integration}]  back from the provider
//	GET  /connect/confirm               who is there? (before anything is redeemed)
//	POST /connect/confirm               the proof, or a no
//	GET  /connect/done                  how it went
//	GET  /connect/result                the same, for the app's page
//	GET  /connect.js                    opens all of it from the app's page
//	GET  /oauth/connect/{integration}   the popup of Nango's SDK for browsers
//	GET  /  (WebSocket)                 tells that SDK how it went
//
// The session token of the link is the only thing that lets a visitor in. It
// never becomes a cookie by opening a link: a cookie that ties the browser to
// an authorization is set in answer to the form, and holds for that one
// authorization. The pages need no script; they load nothing from elsewhere.
//
// The package may import connect, connect/scheme, connect/problem, catalog, the
// standard library, a WebSocket library and zap. It knows nothing of Caddy, stores or vaults.
package page

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

const (
	choosePath   = "/connect"
	withPath     = "/connect/with/"
	confirmPath  = "/connect/confirm"
	donePath     = "/connect/done"
	resultPath   = "/connect/result"
	callbackPath = "/oauth/callback"
	clientPath   = "/connect.js"
	typesPath    = "/connect.d.ts"
	logoPath     = "/connect/logo/"

	// maxForm bounds what a visitor may send (S25).
	maxForm = 64 << 10
)

// Handler serves the pages. Make it with New.
type Handler struct {
	connector *connect.Connector
	logger    *zap.Logger
	cross     *http.CrossOriginProtection
	secure    bool // the public origin is https
	opener    string
	text      *messages
	look      connect.Look
	sockets   *sockets
	framed    bool // the page is for a frame
}

// New returns the pages of a connector. They live on the public origin of its
// setup, and answer at no other.
func New(c *connect.Connector, logger *zap.Logger) *Handler {
	if logger == nil {
		logger = zap.NewNop()
	}
	h := &Handler{
		connector: c, logger: logger, text: &english,
		cross:   http.NewCrossOriginProtection(),
		secure:  c.Setup.PublicURL.Scheme == "https",
		opener:  openerPolicy(c.Setup),
		sockets: &sockets{connector: c, logger: logger, waiting: make(map[connect.Digest]chan connect.Flow)},
	}
	origin := c.Setup.PublicURL.Scheme + "://" + c.Setup.PublicURL.Host
	if err := h.cross.AddTrustedOrigin(origin); err != nil {
		logger.Error("the public URL is no origin", zap.String("origin", origin), zap.Error(err))
	}
	return h
}

// Handles tells whether a request's path belongs to the pages.
func (h *Handler) Handles(r *http.Request) bool {
	switch p := r.URL.Path; p {
	case choosePath, choosePath + "/", confirmPath, donePath, resultPath, callbackPath, clientPath, typesPath:
		return true
	default:
		return isSocket(r) || strings.HasPrefix(p, startPath) || strings.HasPrefix(p, withPath) || strings.HasPrefix(p, logoPath) || strings.HasPrefix(p, callbackPath+"/")
	}
}

// ServeHTTP serves the pages.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h = h.dressed(r, nil, nil)
	h.framed = r.Header.Get("Sec-Fetch-Dest") == "iframe"
	h.setHeaders(w.Header())
	if !h.ours(r) {
		h.fail(w, r, http.StatusMisdirectedRequest, h.text.WrongHost)
		return
	}
	switch p := r.URL.Path; {
	case isSocket(r):
		h.only(w, r, h.serveSocket, http.MethodGet)
	case p == choosePath || p == choosePath+"/":
		h.only(w, r, h.serveChoose, http.MethodGet, http.MethodHead)
	case p == donePath:
		h.only(w, r, h.serveDone, http.MethodGet, http.MethodHead)
	case p == clientPath || p == typesPath:
		h.only(w, r, h.serveClient, http.MethodGet, http.MethodHead)
	case strings.HasPrefix(p, logoPath):
		h.only(w, r, h.serveLogo, http.MethodGet, http.MethodHead)
	case p == resultPath:
		h.only(w, r, h.serveResult, http.MethodGet, http.MethodOptions)
	case p == confirmPath && r.Method == http.MethodPost:
		h.serveConfirm(w, r)
	case p == confirmPath:
		h.only(w, r, h.showConfirm, http.MethodGet, http.MethodHead, http.MethodPost)
	case p == callbackPath || strings.HasPrefix(p, callbackPath+"/"):
		// Not HEAD: whatever looks at a link before it is followed must not
		// spend the code that is in it.
		h.only(w, r, h.serveCallback, http.MethodGet)
	case strings.HasPrefix(p, startPath):
		key, ok := keyAfter(r, startPath)
		if !ok {
			h.fail(w, r, http.StatusNotFound, h.text.NotFound)
			return
		}
		h.only(w, r, func(w http.ResponseWriter, r *http.Request) { h.serveStart(w, r, key) }, http.MethodGet)
	case strings.HasPrefix(p, withPath):
		key, ok := keyAfter(r, withPath)
		if !ok {
			h.fail(w, r, http.StatusNotFound, h.text.NotFound)
			return
		}
		serve := h.serveForm
		if r.Method == http.MethodPost {
			serve = h.serveSubmit
		}
		h.only(w, r, func(w http.ResponseWriter, r *http.Request) { serve(w, r, key) },
			http.MethodGet, http.MethodHead, http.MethodPost)
	default:
		h.fail(w, r, http.StatusNotFound, h.text.NotFound)
	}
}

// keyAfter is the integration that the rest of a path names.
func keyAfter(r *http.Request, prefix string) (string, bool) {
	key, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), prefix))
	return key, err == nil && key != ""
}

// ours tells whether a request was sent to the public origin's host. No address
// is ever made of the Host header; at another host, cookies and addresses would
// be of no use (S19).
func (h *Handler) ours(r *http.Request) bool {
	bare := func(host string) string {
		port := map[bool]string{true: ":443", false: ":80"}[h.secure]
		return strings.TrimSuffix(strings.ToLower(host), port)
	}
	return bare(r.Host) == bare(h.connector.Setup.PublicURL.Host)
}

// only calls serve if the request's method is one of the allowed.
func (h *Handler) only(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc, allowed ...string) {
	for _, m := range allowed {
		if r.Method == m {
			serve(w, r)
			return
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	h.fail(w, r, http.StatusMethodNotAllowed, h.text.NotFound)
}

// formLink is the address of an integration's form.
func formLink(key, token string) string {
	return withPath + url.PathEscape(key) + "?" + url.Values{"session_token": {token}}.Encode()
}

// seeOther sends the browser on with 303, the only redirect that turns a form
// into a plain GET everywhere (S22).
func seeOther(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// fail shows a page that leads nowhere.
func (h *Handler) fail(w http.ResponseWriter, _ *http.Request, status int, n notice) {
	h.render(w, status, "notice", page{Title: n.Title, Data: n})
}

// failWith shows the page that belongs to an error. An unknown link and one
// that has expired look alike (S28).
func (h *Handler) failWith(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, connect.ErrSessionExpired):
		h.fail(w, r, http.StatusGone, h.text.LinkExpired)
	case errors.Is(err, connect.ErrNotAllowed):
		h.fail(w, r, http.StatusNotFound, h.text.NotOffered)
	case errors.Is(err, connect.ErrConnectionGone):
		h.fail(w, r, http.StatusGone, h.text.ConnectionGone)
	case errors.Is(err, connect.ErrFlowExpired):
		h.fail(w, r, http.StatusBadRequest, h.text.FlowExpired)
	case errors.Is(err, connect.ErrOtherCallback):
		h.fail(w, r, http.StatusBadRequest, h.text.OtherBrowser)
	case errors.Is(err, connect.ErrOtherBrowser):
		h.fail(w, r, http.StatusBadRequest, h.text.OtherBrowser)
	case problem.Of(err).Code == problem.Unavailable:
		h.logger.Error("showing a page", zap.String("path", r.URL.Path), zap.Error(err))
		w.Header().Set("Retry-After", "30")
		h.fail(w, r, http.StatusServiceUnavailable, h.text.Unavailable)
	default:
		h.logger.Error("showing a page", zap.String("path", r.URL.Path), zap.Error(err))
		h.fail(w, r, http.StatusInternalServerError, h.text.Broken)
	}
}
