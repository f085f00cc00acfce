package scheme

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func full() Credential {
	return Credential{
		Fields: map[string]Secret{"api_key": userKey}, AccessToken: accessToken, RefreshToken: refreshToken, Previous: code,
		Raw: `{"access_token":"` + accessToken + `"}`, Scopes: []string{"a"},
		Issued: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Expires: time.Date(2026, 1, 2, 4, 4, 5, 6, time.UTC),
	}
}

func TestS52SecretsAreNeverPrinted(t *testing.T) {
	cred := full()
	app := App{ClientID: "id", ClientSecret: clientSecret}
	s, err := For(oauth(t, "https://api.example", ""), app, client())
	must(t, err)
	b, err := s.Bind(Grant{Credential: cred})
	must(t, err)
	te := &TokenError{Class: Revoked, Code: "invalid_grant", Description: "gone", err: errors.New("x")}
	for name, v := range map[string]any{
		"credential": cred, "pointer to one": &cred, "grant": Grant{Credential: cred}, "app": app, "flow": Flow{Verifier: verifier},
		"scheme": s, "binding": *b, "pointer to a binding": b, "error": te, "secret": Secret(userKey), "list": []Secret{userKey}, "map": map[string]Secret{"a": userKey},
		"nested": struct{ A, B, C, D any }{&cred, b, &app, &Flow{Verifier: verifier}}, "bound": struct{ *Binding }{b},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			clear(t, name+" as "+verb, fmt.Sprintf(verb, v))
		}
		if data, err := json.Marshal(v); err == nil {
			clear(t, name+" as JSON", string(data))
		}
	}
	if text, _ := Secret(userKey).MarshalText(); string(text) != redacted || Secret("x").GoString() != redacted || Secret("x").String() != redacted {
		t.Error("a secret tells itself")
	}
}

func TestCredentialIsStoredWhole(t *testing.T) {
	for name, c := range map[string]Credential{"full": full(), "empty": {}, "key": {Fields: map[string]Secret{"k": "ä\n\x00"}}} {
		data, err := c.Encode()
		must(t, err)
		got, err := DecodeCredential(data)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: got back something else, %v", name, err)
		}
	}
	for name, data := range map[string]string{
		"nothing": "", "not JSON": userKey, "cut": `{"v":1,"access_token":"` + accessToken, "no version": `{"access_token":"` + accessToken + `"}`,
		"next version": `{"v":2,"access_token":"` + accessToken + `"}`, "wrong type": `{"v":1,"fields":"` + userKey + `"}`,
	} {
		c, err := DecodeCredential([]byte(data))
		if err == nil || !reflect.DeepEqual(c, Credential{}) {
			t.Errorf("%s: read", name)
		}
		clear(t, name, err)
	}
}

// TestStoredFormatIsKept reads what earlier versions wrote.
func TestStoredFormatIsKept(t *testing.T) {
	const data = `{"v":1,"fields":{"api_key":"k"},"access_token":"a","refresh_token":"r","previous_refresh_token":"p","raw":"{}","scopes":["s"],"issued":"2026-01-02T03:04:05Z","expires":"2026-01-02T04:04:05Z"}`
	c, err := DecodeCredential([]byte(data))
	must(t, err)
	again, err := c.Encode()
	if err != nil || string(again) != data {
		t.Errorf("got %s, %v", again, err)
	}
}

func TestTextFromOutsideIsCleaned(t *testing.T) {
	for in, want := range map[string]string{
		"plain text": "plain text", " a\r\nb\tc ": "a  b c", "a\x1b[31mb\x00": "a[31mb", "\u202eevil\u200b": "evil", "a\xffb": "ab",
		strings.Repeat("ä", 300): strings.Repeat("ä", 200), "": "",
	} {
		if got := clean(in); got != want {
			t.Errorf("%.20q: got %q, want %q", in, got, want)
		}
	}
}

func TestClassesOfErrors(t *testing.T) {
	for code, want := range map[string]Class{
		"invalid_grant": Revoked, "INVALID_GRANT": Revoked, "bad_refresh_token": Revoked, "token_revoked": Revoked,
		"invalid_client": Misconfigured, "unauthorized_client": Misconfigured, "invalid_scope": Misconfigured,
		"server_error": Transient, "temporarily_unavailable": Transient, "http_400": Transient, "": Transient, "slow_down": Transient,
	} {
		if got := classify(code); got != want {
			t.Errorf("%q is %v, want %v", code, got, want)
		}
	}
}
