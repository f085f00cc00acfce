package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// echo is what the played API answers.
type echo struct{ Simulated, Method, Path, Query, Body string }

// calls makes a few calls, and sees that they have arrived as they were.
func (r *run) calls() error {
	if r.provider.Request == nil {
		return nil
	}
	err := r.arrive()
	if err != nil || !r.selfSigned() {
		return err
	}
	// Only now has the vendor seen a token, and knows when it ends.
	conn, err := r.store.Connection(r.ctx, r.id)
	if err != nil {
		return err
	}
	return r.expiryKnown(conn)
}

func (r *run) arrive() error {
	return errors.Join(
		r.arrives(http.MethodGet, "/simulated/things/a%20b", "page=2&q=a%20b", "", ""),
		r.arrives(http.MethodPost, "/simulated/things", "", `{"name":"thing","n":1}`, jsonType),
		r.arrives(http.MethodPut, "/simulated/things/1", "dry=1", "name=a+b&x=1", formType),
		r.arrives(http.MethodDelete, "/simulated/things/1", "", "", ""),
	)
}

func (r *run) arrives(method, path, query, body, contentType string) error {
	if contentType == formType && (r.signs("req.body") || r.nests()) || contentType == jsonType && r.signs("req.canonical_params") {
		return nil // the vendor's signature is over bodies of the other type
	}
	a, err := r.call(method, path, query, body, contentType)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return r.echoes(a, method, path, query, body)
}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

// nests tells whether what goes into bodies is more than a form can carry.
func (r *run) nests() bool {
	return slices.ContainsFunc(r.provider.Request.Body, func(p catalog.Pair) bool { return len(p.Value.Pairs()) > 0 })
}

// signs tells whether a header is made of a part of the request.
func (r *run) signs(ref string) bool {
	for _, v := range r.provider.Request.Headers {
		if strings.Contains(v.String(), ref) {
			return true
		}
	}
	return false
}

func (r *run) echoes(a answer, method, path, query, body string) error {
	var e echo
	if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &e) != nil || e.Simulated != r.provider.ID {
		return fmt.Errorf("%s: the answer is %d %.200s", method, a.status, a.body)
	}
	var errs []error
	if e.Method != method || !strings.HasSuffix(e.Path, path) {
		errs = append(errs, fmt.Errorf("%s %s arrived as %s %s", method, path, e.Method, e.Path))
	}
	for part := range strings.SplitSeq(query, "&") {
		if part != "" && !slices.Contains(strings.Split(e.Query, "&"), part) {
			errs = append(errs, fmt.Errorf("%s: the query's %s has not arrived", method, part))
		}
	}
	if len(r.provider.Request.Body) == 0 && e.Body != body {
		errs = append(errs, fmt.Errorf("%s: the body has not arrived as it was", method))
	}
	return errors.Join(errs...)
}

// renewable tells whether the entry's credential can be renewed without the
// user: by the entry, and by what the vendor has given.
func (r *run) renewable() bool {
	p := r.provider
	switch {
	case !r.vendor.UsesToken():
		return false
	case p.SignRequest != nil:
		return p.SignRequest.Credentials == "assume_role"
	case r.selfSigned():
		return true
	case p.Refresh != nil && p.Refresh.Mode == catalog.RefreshReissue && p.Refresh.URL.IsZero() && takesCode(p):
		return false // repeating the token request takes another code
	case p.Refresh != nil && p.Refresh.Mode != catalog.RefreshByToken:
		return p.Refresh.Mode != catalog.RefreshNone
	}
	_, refreshable := r.vendor.Ends()
	return refreshable
}

// takesCode tells whether the token request redeems a code, which works once.
func takesCode(p *catalog.Provider) bool {
	return (p.Mode == catalog.ModeOAuth2Code || p.Mode == catalog.ModeGitHubAppOAuth) && !p.Token.NoCode
}

// selfSigned tells whether the client makes the access tokens itself.
func (r *run) selfSigned() bool { return r.provider.Token == nil && r.provider.Signed != nil }

// replays has the vendor refuse the token, in every way that the entry knows.
// The call has to succeed all the same, with its body, and the vendor has to be
// asked for a token once.
func (r *run) replays() error {
	if !r.vendor.UsesToken() {
		return nil // a credential that doesn't end
	}
	for _, status := range append([]int{http.StatusUnauthorized}, r.provider.Request.ExpiredStatuses...) {
		before := r.vendor.Counts()
		r.vendor.Expire(status)
		const body = `{"name":"again"}`
		a, err := r.call(http.MethodPost, "/simulated/again", "x=1", body, jsonType)
		after := r.vendor.Counts()
		switch {
		case err != nil:
			return err
		case !r.renewable():
			if a.status != status || after.Expired != before.Expired+1 {
				return fmt.Errorf("the vendor's own refusal of a token that can't be renewed is %d, and the caller gets %d", status, a.status)
			}
			return nil
		case !a.replayed || after.Expired != before.Expired+1:
			return fmt.Errorf("the call was not sent again after a refusal with %d: the answer is %d", status, a.status)
		}
		if err := r.echoes(a, http.MethodPost, "/simulated/again", "x=1", body); err != nil {
			return err
		}
		if n := after.Renewals() - before.Renewals(); n != 1 && r.provider.Token != nil && r.provider.Mode != catalog.ModeOAuth1 {
			return fmt.Errorf("the vendor was asked for a token %d times", n)
		}
	}
	return nil
}

// expires moves the connection into the past, so that its token has ended when
// it is used next. It has to be renewed before the vendor sees the call.
func (r *run) expires() error {
	if !r.renewable() {
		return nil
	}
	aged, err := r.age()
	if err != nil || !aged {
		return err
	}
	before := r.vendor.Counts()
	if !r.selfSigned() { // whose tokens end by what is written in them
		r.vendor.Expire(http.StatusUnauthorized)
	}
	a, err := r.call(http.MethodGet, "/simulated/later", "", "", "")
	if err != nil {
		return err
	}
	if err := r.echoes(a, http.MethodGet, "/simulated/later", "", ""); err != nil {
		return err
	}
	if after := r.vendor.Counts(); after.Expired != before.Expired {
		return errors.New("the vendor was called with a token that had ended")
	}
	return nil
}

// age makes the stored credential one that has just ended.
func (r *run) age() (bool, error) {
	conn, err := r.store.Connection(r.ctx, r.id)
	if err != nil {
		return false, err
	}
	entry, err := r.vault.Read(r.ctx, conn.VaultName())
	if err != nil {
		return false, err
	}
	cred, err := scheme.DecodeCredential(entry.Value)
	if err != nil || cred.Expires.IsZero() {
		return false, err
	}
	past := time.Until(cred.Expires) + time.Second
	cred.Expires, cred.Issued = cred.Expires.Add(-past), cred.Issued.Add(-past)
	value, err := cred.Encode()
	if err != nil {
		return false, err
	}
	if _, err := r.vault.Write(r.ctx, conn.VaultName(), value, entry.Version); err != nil {
		return false, err
	}
	r.connector.Refresher.Forget(r.id)
	return true, nil
}

// withdrawn has the user withdraw the consent at the vendor. A refresh token
// that isn't taken any more is for the user to mend, and nothing else.
func (r *run) withdrawn() error {
	_, refreshable := r.vendor.Ends()
	if !refreshable || !r.renewable() {
		return nil
	}
	r.vendor.Withdraw()
	a, err := r.call(http.MethodGet, "/simulated/gone", "", "", "")
	var reauth *connect.NeedsReauthError
	if !errors.As(err, &reauth) {
		return fmt.Errorf("a call gives %d, %v: it should say that the user has to connect again", a.status, err)
	}
	conn, err := r.store.Connection(r.ctx, r.id)
	if err != nil {
		return err
	}
	if conn.Status != connect.StatusNeedsReauth {
		return fmt.Errorf("the connection is %s", conn.Status)
	}
	return nil
}
