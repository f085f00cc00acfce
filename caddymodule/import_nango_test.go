package caddymodule

import (
	"encoding/json"
	"testing"

	"github.com/keycaddy/keycaddy/caddymodule/nangodb"
)

func TestNangosCredentialsBecomeWhatTheAPITakes(t *testing.T) {
	for _, test := range []struct{ credentials, config, want string }{
		{`{"type":"OAUTH2","access_token":"a","refresh_token":"r","expires_at":"2030-01-01T00:00:00Z","raw":{"x":1},"config_override":{"client_id":"c"}}`, `{}`,
			`{"access_token":"a","config_override":{"client_id":"c"},"expires_at":"2030-01-01T00:00:00Z","refresh_token":"r","type":"OAUTH2"}`},
		{`{"type":"OAUTH2","access_token":"a","refresh_token":"","expires_at":null}`, `{}`, `{"access_token":"a","type":"OAUTH2"}`},
		{`{"type":"OAUTH2_CC","token":"t","client_id":"i","client_secret":"s","raw":{}}`, `{}`, `{"client_id":"i","client_secret":"s","token":"t","type":"OAUTH2_CC"}`},
		{`{"type":"APP","access_token":"a","raw":{}}`, `{"installation_id":"7","app_id":42}`, `{"app_id":"42","installation_id":"7","type":"APP"}`},
		{`{"type":"TWO_STEP","user":"u","pass":"p","token":"t","raw":{"a":1}}`, `{}`, `{"pass":"p","token":"t","type":"TWO_STEP","user":"u"}`},
		{`{"type":"BILL","username":"u","password":"p","organization_id":"o","dev_key":"d"}`, `{}`, `{"dev_key":"d","organization_id":"o","password":"p","type":"TWO_STEP","username":"u"}`},
		{`{"type":"SIGNATURE","username":"u","password":"p"}`, `{}`, `{"password":"p","type":"SIGNATURE","username":"u"}`},
		{`{}`, `{}`, `{"type":"NONE"}`},
	} {
		c := nangodb.Connection{}
		if err := json.Unmarshal([]byte(test.credentials), &c.Credentials); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(test.config), &c.Config); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(credentialsOf(&c)); err != nil || string(got) != test.want {
			t.Errorf("%s: got %s, want %s", test.credentials, got, test.want)
		}
	}
	c := nangodb.Connection{Config: map[string]json.RawMessage{"oauth_scopes_override": json.RawMessage(`["a","b"]`), "n": json.RawMessage(`7`), "nested": json.RawMessage(`{"a":1}`), "none": json.RawMessage(`null`)}}
	if got, err := json.Marshal(connectionOf(&c)["connection_config"]); err != nil || string(got) != `{"n":7,"oauth_scopes_override":"a,b"}` {
		t.Errorf("got %s, %v", got, err)
	}
}
