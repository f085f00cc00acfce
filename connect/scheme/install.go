package scheme

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"
)

// install is an app that is installed at the vendor, by the vendor's own page:
// the browser comes back with the name of the installation and no code. Where
// the entry has a token request, the installation's token is fetched with what
// the operator has (a key of the app, GitHub's way); where it has none, the
// operator's own credential is used for all installations (Crisp's way).
type install struct{ base }

func newInstall(b base) (Scheme, error) {
	p := b.provider
	if p.Authorize == nil || p.Authorize.URL.IsZero() {
		return nil, fmt.Errorf("provider %s: authorize.url is needed for %s", p.ID, p.Mode)
	}
	if len(p.Authorize.CaptureCallbackParams) == 0 {
		return nil, fmt.Errorf("provider %s: authorize.capture_callback_params must name the installation", p.ID)
	}
	if err := b.checkOwnKey(); err != nil {
		return nil, err
	}
	return install{b}, nil
}

// checkOwnKey tells at once if the operator's key can't sign.
func (b base) checkOwnKey() error {
	s := b.provider.Signed
	if s == nil || len(s.Key.Refs()) == 0 || s.Key.Refs()[0].Namespace != "app" {
		return nil
	}
	key, err := s.Key.Fill(b.env(Grant{}, nil))
	if err != nil {
		return fmt.Errorf("signing key of provider %s: %w", b.provider.ID, err)
	}
	if _, _, err := signingKey(s, key); err != nil {
		return fmt.Errorf("%s of provider %s %w", s.Key.Refs()[0], b.provider.ID, err)
	}
	return nil
}

// AuthURL is the vendor's page. Of OAuth's parameters it takes only the state.
func (s install) AuthURL(f Flow) (string, error) { return s.installURL(f) }

func (b base) installURL(f Flow) (string, error) {
	a := b.provider.Authorize
	env := b.env(f.grant(), b.flowValues(f))
	u, err := a.URL.Fill(env)
	if err != nil {
		return "", fmt.Errorf("installation page of provider %s: %w", b.provider.ID, err)
	}
	params, err := a.Params.FormPresent(env)
	if err != nil {
		return "", fmt.Errorf("installation page of provider %s: %w", b.provider.ID, err)
	}
	params.Set(StateParam(b.provider), f.State)
	addTo(u, params)
	return u.String(), nil
}

// Check finds out whether the callback names the installation.
func (s install) Check(_ Flow, callback url.Values) error { return s.checkInstall(callback) }

func (b base) checkInstall(callback url.Values) error {
	if err := refusedCallback(callback); err != nil {
		return err
	}
	for _, param := range slices.Sorted(maps.Values(b.provider.Authorize.CaptureCallbackParams)) {
		if callback.Get(param) == "" {
			if callback.Get("setup_action") == "request" { // GitHub: the organization's owner has to approve it
				return &CallbackError{Code: "approval_pending"}
			}
			return &CallbackError{Code: "missing_code"}
		}
	}
	return nil
}

// Exchange fetches the installation's token, if it has one.
func (s install) Exchange(ctx context.Context, f Flow, callback url.Values) (Grant, error) {
	if err := s.Check(f, callback); err != nil {
		return Grant{}, err
	}
	config, err := s.captureCallback(f.Config, callback)
	if err != nil {
		return Grant{}, err
	}
	f.Config = config
	g := f.grant()
	if s.provider.Token == nil {
		g.Issued = time.Now()
		return g, nil
	}
	call := s.newTokenCall(g, s.flowValues(f))
	if err := call.run(ctx, nil, ""); err != nil {
		return Grant{}, err
	}
	return call.answer.grant(g, time.Now()), nil
}

// Renew fetches the token again: the installation is all that is needed.
func (s install) Renew(ctx context.Context, g Grant) (Grant, error) {
	if s.provider.Token == nil {
		return Grant{}, ErrNotRenewable
	}
	call := s.newRenewal(g, s.grantValues(g))
	if err := call.run(ctx, nil, ""); err != nil {
		return Grant{}, uninstalled(err)
	}
	return call.answer.grant(g, time.Now()), nil
}

// uninstalled says who can mend a refusal: if the installation isn't there any
// more, only the end user.
func uninstalled(err error) error {
	if te, ok := err.(*TokenError); ok && (te.Status == 404 || te.Status == 410) {
		te.Class = Revoked
	}
	return err
}

// Bind also says whether the grant can be renewed.
func (s install) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	b.Renewable = s.provider.Token != nil
	return b, nil
}

var (
	_ Redirector = install{}
	_ Renewer    = install{}
)
