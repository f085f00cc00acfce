package api_test

import (
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
)

const (
	ofBasic = "0a0b0c0d-2222-4222-8333-000000000001" // g-basic
	ofOne   = "0a0b0c0d-2222-4222-8333-000000000002" // the connection mine
	ofAda   = "0a0b0c0d-2222-4222-8333-000000000003" // the end user ada
	ofTeam  = "0a0b0c0d-2222-4222-8333-000000000004" // the tag team=a
	ofCalls = "0a0b0c0d-2222-4222-8333-000000000005" // GET /x
)

// limited are keys that are good for some connections, or calls.
func limited() []connect.APIKey {
	var all []connect.APIKey
	for key, limits := range map[string]policy.Limits{
		ofBasic: {Integrations: []string{"g-basic"}}, ofOne: {Connections: []string{"mine"}}, ofAda: {EndUsers: []string{"ada"}},
		ofTeam: {Tags: map[string]string{"team": "a"}}, ofCalls: {Calls: []string{"GET /x"}},
	} {
		all = append(all, connect.APIKey{Name: "limited " + key[len(key)-2:], Key: connect.DigestOf(key), Scopes: policy.AllScopes, Limits: limits})
	}
	return all
}

// What a key isn't good for is, to it, not there; and it can make nothing that
// it isn't good for (S99).
func TestS99ACallerReachesWhatItsLimitsSay(t *testing.T) {
	s := newService(t)
	basic := map[string]string{"username": "a", "password": "secret"}
	s.connect("g-basic", "mine", &connect.EndUser{ID: "ada"}, basic)
	s.patch("/connections/mine?provider_config_key=g-basic", `{"tags":{"team":"a"},"end_user":{"id":"ada"}}`).expect(t, 200, `{"success":true}`)
	s.connect("g-none", "other", &connect.EndUser{ID: "bob"}, nil)
	for _, key := range []string{ofBasic, ofOne, ofAda, ofTeam} {
		auth := "Bearer " + key
		call := func(target, body string) answer {
			t.Helper()
			method, path, _ := strings.Cut(target, " ")
			return s.call(method, path, auth, body)
		}
		if a := call("GET /connections", ""); a.status != 200 || !strings.Contains(a.body, `"mine"`) || strings.Contains(a.body, `"other"`) {
			t.Errorf("list: %d %s", a.status, a.body)
		}
		if a := call("GET /connections?connectionId=other&integrationId=g-none&endUserId=bob", ""); !strings.Contains(a.body, `"connections":[]`) {
			t.Errorf("list of others: %d %s", a.status, a.body)
		}
		if a := call("GET /connections/mine?provider_config_key=g-basic", ""); a.status != 200 || !strings.Contains(a.body, "secret") {
			t.Errorf("read: %d %s", a.status, a.body)
		}
		call("GET /connections/other?provider_config_key=g-none", "").fails(t, 404, "not_found")
		call("PATCH /connections/other?provider_config_key=g-none", `{"disabled":true}`).fails(t, 404, "not_found")
		call("DELETE /connections/other?provider_config_key=g-none", "").fails(t, 400, "unknown_connection")
		call("POST /connections/refresh", `{"connection_id":"other","provider_config_key":"g-none"}`).fails(t, 404, "not_found")
		call("POST /connections/metadata", `{"connection_id":["mine","other"],"provider_config_key":"g-none","metadata":{"a":1}}`).fails(t, 404, "unknown_connection")
		call("POST /connections/metadata", `{"connection_id":"mine","provider_config_key":"g-basic","metadata":{"a":1}}`).expect(t, 201, `{"connection_id":"mine","provider_config_key":"g-basic","metadata":{"a":1}}`)
		if a := call("POST /explain", `{"connection_id":"other","provider_config_key":"g-none"}`); !strings.Contains(a.body, `"allowed":false`) {
			t.Errorf("explain: %s", a.body)
		}
		call("POST /connect/sessions/reconnect", `{"connection_id":"other","integration_id":"g-none"}`).fails(t, 400, "invalid_body")
		call("POST /connect/sessions", `{"end_user":{"id":"bob"},"allowed_integrations":["g-none"]}`).fails(t, 403, "forbidden")
		call("POST /connections", `{"provider_config_key":"g-none","connection_id":"other","credentials":{"type":"NONE"}}`).fails(t, 403, "forbidden")
		if a := call("POST /connect/sessions", `{"end_user":{"id":"ada"},"tags":{"team":"a"},"allowed_integrations":["g-basic"],"connection_id":"mine"}`); a.status != 201 {
			t.Errorf("a session within: %d %s", a.status, a.body)
		}
		if a := call("POST /connect/sessions/reconnect", `{"connection_id":"mine","integration_id":"g-basic"}`); a.status != 201 {
			t.Errorf("a reconnection within: %d %s", a.status, a.body)
		}
		if a := call("POST /connections", `{"provider_config_key":"g-basic","connection_id":"mine","end_user":{"id":"ada"},"tags":{"team":"a"},"credentials":{"type":"BASIC","username":"a","password":"secret"}}`); a.status != 201 {
			t.Errorf("an import within: %d %s", a.status, a.body)
		}
		for _, target := range []string{"GET /keys", "GET /logs", "GET /statistics", "GET /webhooks", "POST /integrations", "DELETE /integrations/g-basic", "POST /connect/sessions/confirm"} {
			call(target, "{}").fails(t, 403, "forbidden")
		}
	}
	// Whose a connection is can't be changed by who reaches it for that.
	for _, key := range []string{ofAda, ofTeam} {
		for _, body := range []string{`{"end_user":{"id":"bob"}}`, `{"tags":{"team":"b"}}`} {
			s.call("PATCH", "/connections/mine?provider_config_key=g-basic", "Bearer "+key, body).fails(t, 403, "forbidden")
			s.call("POST", "/connect/sessions/reconnect", "Bearer "+key, `{"connection_id":"mine","integration_id":"g-basic",`+body[1:]).fails(t, 403, "forbidden")
		}
	}
	s.call("POST", "/connect/sessions", "Bearer "+ofBasic, `{"end_user":{"id":"x"}}`).fails(t, 403, "forbidden")
	if a := s.call("GET", "/integrations", "Bearer "+ofBasic, ""); strings.Count(a.body, "unique_key") != 1 {
		t.Errorf("integrations: %s", a.body)
	}
	s.call("GET", "/integrations/g-none", "Bearer "+ofBasic, "").fails(t, 404, "not_found")
	if a := s.call("GET", "/integrations/g-oauth2?include=credentials", "Bearer "+ofOne, ""); strings.Contains(a.body, "canary") {
		t.Errorf("an integration's client: %s", a.body)
	}
	// Who may make some calls only doesn't get what all can be made with.
	if a := s.call("GET", "/connections/mine?provider_config_key=g-basic", "Bearer "+ofCalls, ""); a.status != 200 || strings.Contains(a.body, "secret") {
		t.Errorf("some calls only: %d %s", a.status, a.body)
	}
	all := s.get("/connections").body
	if strings.Count(all, `"connection_id"`) != 2 {
		t.Errorf("left: %s", all)
	}
}

func TestExplainSaysWhatAKeysCallWouldGet(t *testing.T) {
	s := newService(t)
	s.connect("g-basic", "mine", &connect.EndUser{ID: "ada"}, map[string]string{"username": "a", "password": "secret"})
	ask := func(auth, more string) answer {
		t.Helper()
		a := s.call("POST", "/explain", auth, `{"provider_config_key":"g-basic","connection_id":"mine"`+more+`}`)
		if strings.Contains(a.body, "secret") {
			t.Errorf("a value is shown: %s", a.body)
		}
		return a
	}
	calls := `,"key":"limited 05"`
	for more, want := range map[string][]string{
		``:                                     {`"allowed":true`, `"caller":"app"`, `"headers":["Authorization"]`},
		`,"method":"GET","path":"/x?a=b"`:      {`"allowed":true`, `/x?a=b"`},
		calls + `,"method":"GET","path":"/x"`:  {`"allowed":true`, `"caller":"limited 05"`, `"rule":"GET /x"`, `/x"`},
		calls + `,"method":"POST","path":"/x"`: {`"allowed":false`, `"code":"forbidden"`, `"caller":"limited 05"`},
		`,"key":"limited 03"`:                  {`"allowed":true`}, // ada's
		`,"key":"limited 04"`:                  {`"allowed":false`, `"code":"unknown_connection"`},
		`,"key":"proxy"`:                       {`"allowed":false`, `"code":"forbidden"`},
		`,"key":"powerless"`:                   {`"allowed":false`, `"code":"forbidden"`, "environment:proxy"},
	} {
		a := ask("", more)
		for _, part := range want {
			if a.status != 200 || !strings.Contains(a.body, part) {
				t.Errorf("%s: got %d %s, want %s", more, a.status, a.body, part)
			}
		}
	}
	ask("", `,"key":"nobody"`).fails(t, 400, "invalid_body", "custom:key")
	ask("Bearer "+ofAda, `,"key":"app"`).fails(t, 403, "forbidden")
	if a := ask("Bearer "+ofAda, ""); !strings.Contains(a.body, `"caller":"limited 03"`) || !strings.Contains(a.body, `"allowed":true`) {
		t.Errorf("its own: %s", a.body)
	}
}
