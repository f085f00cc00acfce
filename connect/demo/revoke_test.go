package demo_test

import (
	"net/url"
	"testing"

	"github.com/keycaddy/keycaddy/connect/demo"
)

func TestRevoke(t *testing.T) {
	v := newVisit(t, demo.Options{Clients: map[string]string{demo.DefaultClientID: demo.DefaultClientSecret, "other": "1"}})
	revoke := func(token, client, secret string) int {
		return v.post("/revoke", url.Values{"token": {token}, "client_id": {client}, "client_secret": {secret}}).StatusCode
	}
	own := func(token string) int { return revoke(token, demo.DefaultClientID, demo.DefaultClientSecret) }

	a := v.connect("ada")
	if got := own("unknown"); got != 200 {
		t.Errorf("unknown: got %d", got)
	}
	if got := own(""); got != 400 {
		t.Errorf("none: got %d", got)
	}
	if got := revoke(a.Refresh, "other", "1"); got != 400 {
		t.Errorf("another client: got %d", got)
	}
	if got := revoke(a.Refresh, "other", "2"); got != 401 {
		t.Errorf("wrong secret: got %d", got)
	}
	if got := own(a.Access); got != 200 || v.opens(a.Access) {
		t.Errorf("access token: got %d, or it is still good", got)
	}
	b := v.refresh(a.Refresh)
	if b.status != 200 {
		t.Fatalf("the refresh token went with its access token: %+v", b)
	}
	if got := own(b.Refresh); got != 200 || v.opens(b.Access) || v.refresh(b.Refresh).status != 400 {
		t.Errorf("refresh token: got %d, or something is still good", got)
	}
	if s := v.Stats(); s.FamiliesRevoked != 1 || s.ReuseDetected != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestIntrospect(t *testing.T) {
	v := newVisit(t, demo.Options{Clients: map[string]string{demo.DefaultClientID: demo.DefaultClientSecret, "other": "1"}})
	type about struct {
		Active    bool
		ClientID  string `json:"client_id"`
		Scope     string
		Sub       string
		TokenType string `json:"token_type"`
		Iat, Exp  int64
	}
	ask := func(token, client, secret string) (got about) {
		t.Helper()
		decode(t, v.post("/introspect", url.Values{"token": {token}, "client_id": {client}, "client_secret": {secret}}), &got)
		return got
	}
	own := func(token string) about { return ask(token, demo.DefaultClientID, demo.DefaultClientSecret) }

	a := v.connect("ada")
	got := own(a.Access)
	if !got.Active || got.ClientID != demo.DefaultClientID || got.Scope != "read write" || got.Sub != "ada" || got.TokenType != "Bearer" || got.Exp-got.Iat != 10 {
		t.Errorf("access token: got %+v", got)
	}
	if got := own(a.Refresh); !got.Active || got.TokenType != "" {
		t.Errorf("refresh token: got %+v", got)
	}
	if got := ask(a.Access, "other", "1"); got != (about{}) {
		t.Errorf("another client: got %+v", got)
	}
	v.refresh(a.Refresh)
	if got := own(a.Refresh); got != (about{}) {
		t.Errorf("spent refresh token: got %+v", got)
	}
	v.RevokeAccess("")
	if got := own(a.Access); got != (about{}) {
		t.Errorf("revoked access token: got %+v", got)
	}
}

func TestRevokeAccess(t *testing.T) {
	v := newVisit(t, demo.Options{})
	ada, grace := v.connect("ada"), v.connect("grace")
	if n := v.RevokeAccess("ada"); n != 1 || v.opens(ada.Access) || !v.opens(grace.Access) {
		t.Errorf("Ada's: %d, or the wrong ones", n)
	}
	again := v.refresh(ada.Refresh)
	if !v.opens(again.Access) {
		t.Error("her refresh token went too")
	}
	if n := v.RevokeAccess(""); n != 2 || v.opens(again.Access) || v.opens(grace.Access) {
		t.Errorf("all: %d, or not all", n)
	}
}
