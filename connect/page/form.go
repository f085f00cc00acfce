package page

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

type formView struct {
	Who        *who
	Steps      []step
	Name       string
	Domain     string // where the visitor is sent to, or whose account it is
	Tile       tile
	Redirects  bool
	Reconnect  bool
	Checked    bool     // the provider is asked before anything is stored
	Guide      []string // what to do at the vendor, in sentences
	Pledge     bool     // sending the form is the proof that it is meant so
	App        string
	Fields     []*fieldView
	Folded     []*fieldView // not needed, and out of the way
	Links      []link
	Alert      *notice
	FocusAlert bool
	Action     string
	Token      string
	Key        string
	Back       string // to the choice; empty if there is none
}

// attempt is what a visitor has entered before, and what was wrong with it.
type attempt struct {
	answers map[string]string
	bad     scheme.FieldErrors
	alert   *notice
}

func (h *Handler) serveForm(w http.ResponseWriter, r *http.Request, key string) {
	h.showForm(w, r, http.StatusOK, key, r.URL.Query().Get("session_token"), attempt{})
}

// showForm shows the form of an integration, for the first time or again.
func (h *Handler) showForm(w http.ResponseWriter, r *http.Request, status int, key, token string, a attempt) {
	v, err := h.connector.Visit(r.Context(), token)
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	in, err := v.Integration(key)
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	h = h.dressed(r, &v.Session, in)
	_, redirects := in.Scheme.(scheme.Redirector)
	several := len(v.Integrations) > 1
	title := h.text.formTitle(in.DisplayName, v.Reconnect)
	view := formView{
		Who: whoOf(&v.Session), Steps: h.steps(stepConnect, several),
		Name: in.DisplayName, Domain: in.Provider.VendorDomain, Tile: tileFor(in),
		Pledge: !redirects && in.Trust.Accepts(connect.ByPerson) && in.Trust.ReturnURL(&v.Session) == "",
		App:    h.connector.Setup.AppName, Redirects: redirects, Reconnect: v.Reconnect, Checked: checked(in),
		Fields: h.fields(in.Provider, v.Fields(in), a), Links: h.links(in, redirects, v.Overrides[key].DocsConnect), Alert: a.alert,
		Action: withPath + url.PathEscape(key), Token: token, Key: formKey(h.visitor(w, r), token),
	}
	view.fold()
	if several {
		view.Back = choosePath + "?" + sessionQuery(token)
	}
	if len(view.Fields)+len(view.Folded) == 0 {
		view.Links = nil
	}
	view.Guide = guide(in.Provider, view.Fields)
	h.focus(&view)
	p := page{Title: title, Data: view}
	if status != http.StatusOK {
		p.Title = h.text.ErrorTitle + title
	}
	if redirects {
		p.formAction = h.leavingPolicy(strings.HasPrefix(in.Provider.Authorize.URL.String(), "http://"))
	} else if to, err := url.Parse(in.Trust.ReturnURL(&v.Session)); err == nil && to.Host != "" {
		p.formAction = "'self' " + to.Scheme + "://" + to.Host
	}
	h.render(w, status, "form", p)
}

// checked tells whether what is entered is tried before it is stored.
func checked(in *connect.Integration) bool {
	v := in.Provider.Verify
	return in.Provider.Mode == catalog.ModeClientCredentials || v != nil && len(v.Paths) > 0
}

// fold puts what need not be answered out of the way, unless that is all there
// is, or something was entered or is wrong there.
func (v *formView) fold() {
	var needed, folded []*fieldView
	for _, f := range v.Fields {
		if f.Required || f.When != "" || f.Error != "" || f.Value != "" || f.Steers {
			needed = append(needed, f)
		} else {
			folded = append(folded, f)
		}
	}
	if len(needed) > 0 && len(folded) > 0 {
		v.Fields, v.Folded = needed, folded
	}
}

// focus puts the cursor where the visitor has something to do.
func (h *Handler) focus(v *formView) {
	for _, f := range v.Fields {
		if f.Error != "" {
			f.Focus = true
			return
		}
	}
	v.FocusAlert = v.Alert != nil
}

func (h *Handler) serveSubmit(w http.ResponseWriter, r *http.Request, key string) {
	if !h.readForm(w, r) {
		return
	}
	token := r.PostForm.Get("session_token")
	if !h.ownForm(r, token, r.PostForm.Get("csrf")) {
		h.logger.Warn("refused a form without its cookie", zap.String("integration", key))
		h.fail(w, r, http.StatusForbidden, h.text.ForeignForm)
		return
	}
	v, in, err := h.visit(r, token, key)
	if err != nil {
		h.failWith(w, r, err)
		return
	}
	h = h.dressed(r, &v.Session, in)
	answers := make(map[string]string)
	for _, f := range v.Fields(in) {
		answers[f.Name] = entered(f, r.PostForm.Get(fieldName(f.Name)))
	}
	to, err := h.connector.Submit(r.Context(), token, key, answers)
	switch {
	case err != nil:
		h.refuse(w, r, in, v.Fields(in), token, answers, err)
	case to.Redirect != "":
		h.bindFlow(w, to.Flow, to.Binding, token, connect.FlowTTL)
		seeOther(w, to.Redirect)
	case to.Waiting != nil:
		h.wait(w, to.Flow, token, to.Waiting)
	default:
		seeOther(w, donePath+"?"+sessionQuery(token, "integration", key))
	}
}

// readForm reads a form that comes from our own pages, or answers that it won't
// do.
func (h *Handler) readForm(w http.ResponseWriter, r *http.Request) bool {
	if err := h.cross.Check(r); err != nil {
		h.logger.Warn("refused a form from another site", zap.String("path", r.URL.Path), zap.Error(err))
		h.fail(w, r, http.StatusForbidden, h.text.ForeignForm)
		return false
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		h.fail(w, r, http.StatusUnsupportedMediaType, h.text.ForeignForm)
		return false
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			h.fail(w, r, http.StatusRequestEntityTooLarge, h.text.TooLarge)
			return false
		}
		h.fail(w, r, http.StatusBadRequest, h.text.ForeignForm)
		return false
	}
	return true
}

func (h *Handler) visit(r *http.Request, token, key string) (*connect.Visit, *connect.Integration, error) {
	v, err := h.connector.Visit(r.Context(), token)
	if err != nil {
		return nil, nil, err
	}
	in, err := v.Integration(key)
	return v, in, err
}

// entered is what a visitor has typed, without what is pasted along with it by
// mistake. Line ends of a key in PEM come as a form sends them, as CR LF.
func entered(f *catalog.Field, value string) string {
	if multiline(f) {
		return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", "\n"))
	}
	if f.Secret {
		return value
	}
	return f.Clean(value)
}

// refuse shows the form again with what kept it from being accepted. Nothing
// was stored.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, in *connect.Integration, fields []*catalog.Field, token string, answers map[string]string, err error) {
	a := attempt{answers: answers, bad: scheme.FieldErrors{}}
	status := http.StatusUnprocessableEntity
	var (
		bad      scheme.FieldErrors
		provider *scheme.TokenError
		refused  *connect.VerifyError
		unsafe   *catalog.UnsafeError
		missing  *catalog.MissingError
		notYet   *scheme.UnsupportedError
		typed    = scheme.FieldErrors{}
		known    = make(map[string]bool)
		elsewise = make([]string, 0)
	)
	for _, f := range fields {
		known[f.Name] = true
	}
	switch {
	case errors.As(err, &bad):
		for name, msg := range bad {
			typed[name] = msg
		}
	case errors.As(err, &unsafe):
		typed[bareName(unsafe.Where)] = unsafe.Reason
	case errors.As(err, &missing):
		typed[missing.Ref.Path] = h.text.Missing
	case errors.As(err, &provider):
		var n notice
		n, status = h.text.tokenAlert(in, provider)
		a.alert = &n
	case errors.As(err, &refused) && refused.Status != 0:
		n := h.text.refusedAlert(in, refused.Status)
		a.alert = &n
	case errors.As(err, &notYet):
		n := h.text.notYetAlert(in)
		a.alert, status = &n, http.StatusBadGateway
	case errors.Is(err, connect.ErrOtherAccount), errors.Is(err, connect.ErrAccountUnknown):
		n := h.text.accountAlert(in, err)
		a.alert = &n
	case refused != nil:
		n := h.text.unreachableAlert(in)
		a.alert, status = &n, http.StatusBadGateway
	default:
		h.failWith(w, r, err)
		return
	}
	for name, msg := range typed {
		if known[name] {
			a.bad[name] = msg
		} else {
			elsewise = append(elsewise, name)
		}
	}
	if len(elsewise) > 0 { // the app's own value; nothing that the visitor could mend
		n := h.text.presetAlert(in, elsewise)
		a.alert = &n
	} else if len(a.bad) > 0 {
		n := h.text.fieldsAlert(len(a.bad))
		a.alert = &n
	}
	h.showForm(w, r, status, in.Key, token, a)
}

// bareName takes the namespace off a template's reference: conn.subdomain.
func bareName(ref string) string {
	if ns, name, ok := strings.Cut(ref, "."); ok && (ns == "conn" || ns == "cred") {
		return name
	}
	return ref
}
