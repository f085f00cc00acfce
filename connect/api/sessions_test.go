package api_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

const opened = `{"data":{"token":"<TOKEN>","connect_link":"https://connect.example/connect/?session_token=<TOKEN>","expires_at":"<ISO_MS_Z>"}}`

// session opens a session and returns the header that carries its token.
func (s *service) session(body string) string {
	s.t.Helper()
	a := s.call("POST", "/connect/sessions", "", body)
	a.expect(s.t, 201, opened)
	return bearer(s.t, a)
}

func bearer(t *testing.T, a answer) string {
	t.Helper()
	var got struct{ Data struct{ Token string } }
	must(t, json.Unmarshal([]byte(a.body), &got))
	return "Bearer " + got.Data.Token
}

func TestSessionIsOpenedReadAndEnded(t *testing.T) {
	s := newService(t)
	auth := s.session(`{"end_user":{"id":"u1","email":"u1@example.com","display_name":"User One","tags":{"plan":"pro"}},"organization":{"id":"o1","display_name":"Org"},"allowed_integrations":["g-apikey","g-oauth2"]}`)
	s.call("GET", "/connect/session", auth, "").expect(t, 200, `{"data":{"endUser":{"id":"u1","display_name":"User One","email":"u1@example.com","tags":{"plan":"pro"},"organization":{"id":"o1","display_name":"Org"}},"allowed_integrations":["g-apikey","g-oauth2"],"connectUISettings":{"showWatermark":false,"defaultTheme":"system","theme":{"light":{"primary":"#00B2E3"},"dark":{"primary":"#00B2E3"}}},"websocketsPath":"/"}}`)
	a := s.call("GET", "/integrations", auth, "")
	if a.status != 200 || strings.Count(a.body, `"unique_key"`) != 2 || strings.Contains(a.body, `"g-basic"`) {
		t.Errorf("the session's integrations: %d %s", a.status, a.body)
	}
	// A session's token opens nothing else.
	s.call("GET", "/connections", auth, "").fails(t, 401, "invalid_secret_key_format")
	s.call("DELETE", "/connections/x?provider_config_key=g-none", auth, "").fails(t, 401, "invalid_secret_key_format")
	s.call("POST", "/explain", auth, `{}`).fails(t, 401, "invalid_secret_key_format")
	// Nor does a key open a session.
	s.call("GET", "/connect/session", "", "").fails(t, 401, "invalid_connect_session_token_format")
	s.call("GET", "/connect/session", "-", "").fails(t, 401, "missing_auth_header")
	unknown := "Bearer " + connect.SessionPrefix + strings.Repeat("0", 64)
	for _, method := range []string{"GET", "DELETE"} {
		s.call(method, "/connect/session", unknown, "").fails(t, 401, "unknown_connect_session_token")
	}
	s.call("GET", "/integrations", unknown, "").fails(t, 401, "unknown_connect_session_token")
	s.call("DELETE", "/connect/session", auth, "").expect(t, 204, "")
	s.call("GET", "/connect/session", auth, "").fails(t, 401, "unknown_connect_session_token")
}

func TestSessionOfTagsAlone(t *testing.T) {
	s := newService(t)
	auth := s.session(`{"tags":{"end_user_id":"u2","Team":"X"}}`)
	s.call("GET", "/connect/session", auth, "").expect(t, 200, `{"data":{"endUser":null,"connectUISettings":{"showWatermark":false,"defaultTheme":"system","theme":{"light":{"primary":"#00B2E3"},"dark":{"primary":"#00B2E3"}}},"websocketsPath":"/"}}`)
	v, err := s.connector.Visit(t.Context(), strings.TrimPrefix(auth, "Bearer "))
	if err != nil || v.Tags["team"] != "X" || v.Tags["end_user_id"] != "u2" {
		t.Errorf("got %v, %v", v.Tags, err)
	}
	auth = s.session(`{"end_user":{"id":"u3"},"integrations_config_defaults":{"g-oauth2":{"user_scopes":"a,b c","authorization_params":{"p":"q"},"connection_config":{"tenant":"t"}}}}`)
	v, err = s.connector.Visit(t.Context(), strings.TrimPrefix(auth, "Bearer "))
	must(t, err)
	if d := v.Defaults["g-oauth2"]; strings.Join(d.Scopes, "|") != "a|b|c" || d.AuthorizationParams["p"] != "q" || d.Config["tenant"] != "t" {
		t.Errorf("got %+v", d)
	}
}

func TestSessionsTakeFieldNamesAsAppsWriteThem(t *testing.T) {
	s := newService(t)
	auth := s.session(`{"end_user":{"id":"u4"},"integrations_config_defaults":{"g-apikey":{"connection_config":{"apiKey":"k","other":"o"}}}}`)
	v, err := s.connector.Visit(t.Context(), strings.TrimPrefix(auth, "Bearer "))
	must(t, err)
	if c := v.Defaults["g-apikey"].Config; c["api_key"] != "k" || c["other"] != "o" || len(c) != 2 {
		t.Errorf("got %v", c)
	}
}

func TestSessionsAreChecked(t *testing.T) {
	s := newService(t)
	many := `{"tags":{`
	for i := range 11 {
		many += `"t` + strconv.Itoa(i) + `":"x",`
	}
	many = strings.TrimSuffix(many, ",") + `}}`
	for body, path := range map[string]string{
		`{}`: "invalid_type:end_user",
		`{"end_user":{"id":"u1"},"allowed_integrations":["nope"]}`: "custom:allowed_integrations.0",
		`{"end_user":{"id":"u1","email":"not-mail"}}`:              "invalid_format:end_user.email",
		`{"end_user":{"id":"u1","email":"A <a@example.com>"}}`:     "invalid_format:end_user.email",
		`{"end_user":{"id":""}}`:                                   "too_small:end_user.id",
		`{"end_user":{"id":"` + strings.Repeat("x", 256) + `"}}`:   "too_big:end_user.id",
		`{"tags":{"1bad":"x"}}`:                                    "invalid_key:tags.1bad",
		`{"tags":{"a":""}}`:                                        "too_small:tags.a",
		`{"tags":{"a":"` + strings.Repeat("x", 256) + `"}}`:        "too_big:tags.a",
		many: "too_big:tags",
		`{"end_user":{"id":"u1"},"integrations_config_defaults":{"nope":{}}}`:         "custom:integrations_config_defaults.nope",
		`{"end_user":{"id":"u1"},"integration_id":"g-none"}`:                          "unrecognized_keys:",
		`{"end_user":{"id":"u1"},"connection_id":"a\u0000b"}`:                         "custom:connection_id",
		`{"end_user":{"id":"u1"},"connection_id":"` + strings.Repeat("x", 256) + `"}`: "too_big:connection_id",
	} {
		s.call("POST", "/connect/sessions", "", body).fails(t, 400, "invalid_body", path)
	}
}

func TestReconnectSession(t *testing.T) {
	s := newService(t)
	c := s.connect("g-apikey", "", &connect.EndUser{ID: "u1"}, map[string]string{"api_key": "canary-key"})
	id := c.ID.Connection
	a := s.call("POST", "/connect/sessions/reconnect", "", `{"connection_id":"`+id+`","integration_id":"g-apikey","end_user":{"id":"u1","email":"new@example.com"}}`)
	a.expect(t, 201, opened)
	auth := bearer(t, a)
	s.call("GET", "/connect/session", auth, "").expect(t, 200, `{"data":{"endUser":{"id":"u1","display_name":null,"email":"new@example.com","tags":null,"organization":null},"allowed_integrations":["g-apikey"],"isReconnecting":true,"connectUISettings":{"showWatermark":false,"defaultTheme":"system","theme":{"light":{"primary":"#00B2E3"},"dark":{"primary":"#00B2E3"}}},"websocketsPath":"/"}}`)
	step, err := s.connector.Submit(t.Context(), strings.TrimPrefix(auth, "Bearer "), "g-apikey", map[string]string{"api_key": "other-key"})
	if err != nil || step.Connection.UID != c.UID || step.Connection.EndUser.Email != "new@example.com" {
		t.Errorf("got %+v, %v", step.Connection, err)
	}
	const gone = `{"error":{"code":"invalid_body","message":"ConnectionID or IntegrationId does not exists","retryable":false,"action":"fix_request","request_id":"req1"}}`
	s.call("POST", "/connect/sessions/reconnect", "", `{"connection_id":"nope","integration_id":"g-apikey"}`).expect(t, 400, gone)
	s.call("POST", "/connect/sessions/reconnect", "", `{"connection_id":"`+id+`","integration_id":"nope"}`).expect(t, 400, gone)
	s.call("POST", "/connect/sessions/reconnect", "", `{"connection_id":"`+id+`","integration_id":"g-basic"}`).expect(t, 400, gone)
	s.call("POST", "/connect/sessions/reconnect", "", `{}`).fails(t, 400, "invalid_body", "invalid_type:connection_id", "invalid_type:integration_id")
}
