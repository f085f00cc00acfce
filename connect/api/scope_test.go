package api_test

import (
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

func TestACallNeedsTheScopeOfItsOperation(t *testing.T) {
	s := newService(t)
	for target, scope := range map[string]string{
		"GET /integrations": "integrations:list", "GET /integrations/g-none": "integrations:read",
		"POST /connect/sessions": "connect_sessions:write", "POST /connect/sessions/reconnect": "connect_sessions:write", "POST /connect/sessions/confirm": "connect_sessions:write",
		"GET /connections": "connections:list", "GET /connections/x?provider_config_key=g-none": "connections:read",
		"DELETE /connections/x?provider_config_key=g-none": "connections:delete", "POST /explain": "explain",
	} {
		method, path, _ := strings.Cut(target, " ")
		a := s.call(method, path, "Bearer "+powerless, "")
		a.fails(t, 403, "forbidden")
		if !strings.Contains(a.body, `"message":"Insufficient scope. Required: environment:`+scope+`"`) {
			t.Errorf("%s: %s", target, a.body)
		}
		if a := s.call(method, path, "Bearer "+modest, ""); a.status == 403 {
			t.Errorf("%s, with the scopes of a new key: %s", target, a.body)
		}
	}
	if a := s.call("GET", "/providers/g-none", "Bearer "+powerless, ""); a.status != 200 {
		t.Errorf("the catalog is for every key: %d %s", a.status, a.body)
	}
}

func TestCredentialsAreReadWithAScopeOfTheirOwn(t *testing.T) {
	s := newService(t)
	s.connect("g-oauth2", "c", &connect.EndUser{ID: "u"}, map[string]string{"tenant": "t"})
	const path = "/connections/c?provider_config_key=g-oauth2"
	if a := s.get(path); a.status != 200 || !strings.Contains(a.body, "canary-access") {
		t.Fatalf("with the scope: %d %s", a.status, a.body)
	}
	fetched := s.logs.FilterMessage("credential fetched by the app").Len()
	if a := s.call("GET", path, "Bearer "+modest, ""); a.status != 200 || !strings.Contains(a.body, `"credentials":{}`) || strings.Contains(a.body, "canary") {
		t.Errorf("without the scope: %d %s", a.status, a.body)
	}
	for _, more := range []string{"&refresh_token=true", "&force_refresh=true"} {
		a := s.call("GET", path+more, "Bearer "+modest, "")
		a.fails(t, 403, "forbidden")
		if !strings.Contains(a.body, "Required: environment:connections:read_credentials") {
			t.Errorf("%s: %s", more, a.body)
		}
	}
	if n := s.logs.FilterMessage("credential fetched by the app").Len(); fetched != 1 || n != 1 {
		t.Errorf("logged %d, then %d fetches, want 1 and 1", fetched, n)
	}
}
