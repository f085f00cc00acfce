package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

func TestConnectionsAreListed(t *testing.T) {
	s := newService(t)
	s.get("/connections").expect(t, 200, `{"connections":[]}`)
	ada := &connect.EndUser{ID: "u1", Email: "ada@example.com"}
	s.connect("g-apikey", "", ada, map[string]string{"api_key": "canary-key"})
	s.connect("g-none", "two", &connect.EndUser{ID: "u2", Organization: &connect.Organization{ID: "o1"}}, nil)
	s.connect("g-basic", "Three", nil, map[string]string{"username": "u", "password": "canary-password"})
	const (
		one   = `{"id":1,"connection_id":"<UUIDV4>","provider_config_key":"g-apikey","provider":"g-apikey","errors":[],"end_user":{"id":"u1","display_name":null,"email":"ada@example.com","tags":null,"organization":null},"tags":{"end_user_id":"u1"},"metadata":{},"created":"<ISO_MS_OFFSET>","status":"active"}`
		two   = `{"id":2,"connection_id":"two","provider_config_key":"g-none","provider":"g-none","errors":[],"end_user":{"id":"u2","display_name":null,"email":null,"tags":null,"organization":{"id":"o1","display_name":null}},"tags":{"end_user_id":"u2"},"metadata":{},"created":"<ISO_MS_OFFSET>","status":"active"}`
		three = `{"id":3,"connection_id":"Three","provider_config_key":"g-basic","provider":"g-basic","errors":[],"end_user":null,"tags":{},"metadata":{},"created":"<ISO_MS_OFFSET>","status":"active"}`
	)
	for query, want := range map[string]string{
		"": three + "," + two + "," + one, "limit=2": three + "," + two, "limit=2&page=1": one, "page=0": three + "," + two + "," + one, "limit=2&page=2": "",
		"endUserId=u1": one, "endUserOrganizationId=o1": two, "integrationId=g-none": two, "integrationId=g-none,g-basic": three + "," + two,
		"connectionId=two": two, "search=ADA@": one, "search=thr": three, "search=%25": "", "tags[end_user_id]=u1": one, "tags[END_USER_ID]=u1": one,
		"tags[end_user_id]=nobody": "", "integrationId=nope": "",
	} {
		s.get("/connections?"+query).expect(t, 200, `{"connections":[`+want+`]}`)
	}
	for query, path := range map[string]string{
		"limit=0": "too_small:limit", "limit=2001": "too_big:limit", "limit=x": "invalid_type:limit", "limit=1e3": "invalid_type:limit", "page=-1": "too_small:page",
		"zzz=1": "unrecognized_keys:", "search=a&search=b": "custom:search", "tags=x": "unrecognized_keys:", "tags[a": "unrecognized_keys:",
	} {
		s.get("/connections?"+query).fails(t, 400, "invalid_query_params", path)
	}
}

func TestConnectionIsFetchedWithItsCredential(t *testing.T) {
	s := newService(t)
	get := func(integration, query string, answers map[string]string, credentials string) {
		t.Helper()
		c := s.connect(integration, integration+"-1", nil, answers)
		config := "{}"
		if integration == "g-oauth2" {
			config = `{"tenant":"t1"}`
		}
		s.get("/connections/"+c.ID.Connection+"?provider_config_key="+integration+query).expect(t, 200, `{"id":`+serial(c)+`,"connection_id":"`+integration+`-1","provider_config_key":"`+integration+`","provider":"`+integration+`","errors":[],"end_user":null,"tags":{},"metadata":{},"status":"active","connection_config":`+config+`,"webhook_url_override":null,"created_at":"<ISO_MS_OFFSET>","updated_at":"<ISO_MS_OFFSET>","last_fetched_at":"<ISO_MS_OFFSET>","credentials":`+credentials+`}`)
	}
	get("g-apikey", "", map[string]string{"api_key": "some-key"}, `{"type":"API_KEY","apiKey":"some-key"}`)
	get("g-basic", "", map[string]string{"username": "u", "password": "p"}, `{"type":"BASIC","username":"u","password":"p"}`)
	get("g-none", "", nil, `{}`)
	tenant := map[string]string{"tenant": "t1"}
	const without = `{"access_token":"canary-access","expires_in":3600,"big":12345678901234567890,"nested":[{}]}`
	get("g-oauth2", "", tenant, `{"type":"OAUTH2","access_token":"canary-access","expires_at":"<ISO_MS_Z>","raw":`+without+`}`)
	get("g-oauth2", "&refresh_token=false", tenant, `{"type":"OAUTH2","access_token":"canary-access","expires_at":"<ISO_MS_Z>","raw":`+without+`}`)
	get("g-oauth2", "&refresh_token=true", tenant, `{"type":"OAUTH2","access_token":"canary-access","refresh_token":"canary-refresh","expires_at":"<ISO_MS_Z>","raw":{"access_token":"canary-access","refresh_token":"canary-refresh","expires_in":3600,"big":12345678901234567890,"nested":[{"refresh_token":"canary-refresh","rt":"canary-refresh"}]}}`)
	get("g-cc", "", map[string]string{"client_id": "i", "client_secret": "s"}, `{"type":"OAUTH2_CC","token":"canary-access","client_id":"i","client_secret":"s","expires_at":"<ISO_MS_Z>","raw":`+without+`}`)
	if body := s.get("/connections/g-oauth2-1?provider_config_key=g-oauth2").body; !strings.Contains(body, `"big":12345678901234567890`) {
		t.Errorf("a number has lost digits: %s", body)
	}
	for _, e := range s.logs.All() {
		if line := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(line, "canary") {
			t.Errorf("S52: the log tells a secret: %s", line)
		}
	}
}

func serial(c connect.Connection) string { return strconv.FormatInt(c.Serial, 10) }

func TestConnectionThatIsNotThere(t *testing.T) {
	s := newService(t)
	c := s.connect("g-apikey", "a/b c", nil, map[string]string{"api_key": "some-key"})
	path := "/connections/" + url.PathEscape(c.ID.Connection)
	s.get(path).fails(t, 400, "invalid_query_params", "invalid_type:provider_config_key")
	s.get(path+"?provider_config_key=g-apikey&force_refresh=maybe").fails(t, 400, "invalid_query_params", "invalid_value:force_refresh")
	s.get(path+"?provider_config_key=g-apikey&refresh_token=maybe").fails(t, 400, "invalid_query_params", "invalid_value:refresh_token")
	s.get(path+"?provider_config_key=g-apikey&provider_config_key=g-none").fails(t, 400, "invalid_query_params", "custom:provider_config_key")
	const notFound = `{"error":{"code":"not_found","message":"Failed to find connection","retryable":false,"action":"fix_request","request_id":"req1"}}`
	s.get("/connections/nope?provider_config_key=g-apikey").expect(t, 404, notFound)
	s.get(path+"?provider_config_key=g-basic").expect(t, 404, notFound)
	s.get(path+"?provider_config_key=nope").expect(t, 400, `{"error":{"code":"unknown_provider_config","message":"Provider does not exists","retryable":false,"action":"fix_request","request_id":"req1"}}`)
	if a := s.get(path + "?provider_config_key=g-apikey"); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	s.call("DELETE", path, "", "").fails(t, 400, "invalid_query_params", "invalid_type:provider_config_key")
	s.call("DELETE", "/connections/nope?provider_config_key=g-apikey", "", "").fails(t, 400, "unknown_connection")
	s.call("DELETE", path+"?provider_config_key=nope", "", "").fails(t, 400, "unknown_connection")
	s.call("DELETE", path+"?provider_config_key=g-apikey", "", "").expect(t, 200, `{"success":true}`)
	s.call("DELETE", path+"?provider_config_key=g-apikey", "", "").fails(t, 400, "unknown_connection")
	s.get(path+"?provider_config_key=g-apikey").expect(t, 404, notFound)
	if has, err := s.store.HasBlobs(t.Context()); has || err != nil {
		t.Errorf("the vault has something left, %v", err)
	}
}

func TestForcedRefresh(t *testing.T) {
	s := newService(t)
	s.connect("g-oauth2", "o", nil, nil)
	s.connect("g-apikey", "k", nil, map[string]string{"api_key": "some-key"})
	calls := 0
	s.token = func(w http.ResponseWriter, _ *http.Request) {
		calls++
		fmt.Fprintf(w, `{"access_token":"next-%d"}`, calls)
	}
	if a := s.get("/connections/o?provider_config_key=g-oauth2&force_refresh=true"); a.status != 200 || !strings.Contains(a.body, `"access_token":"next-1"`) || calls != 1 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := s.get("/connections/k?provider_config_key=g-apikey&force_refresh=true"); a.status != 200 {
		t.Errorf("a key: %d %s", a.status, a.body)
	}
	s.token = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	s.get("/connections/o?provider_config_key=g-oauth2&force_refresh=1").fails(t, 400, "invalid_credentials")
	s.connect("g-none", "n", nil, nil)
	// Refused for good: the list says so, with the type that Nango uses.
	s.token = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		w.Write([]byte(`{"error":"invalid_grant"}`))
	}
	s.connector.Refresher.Forget(connect.ID{Integration: "g-oauth2", Connection: "o"}) // and with it the backoff
	s.get("/connections/o?provider_config_key=g-oauth2&force_refresh=true").fails(t, 424, "invalid_credentials")
	if a := s.get("/connections?connectionId=o"); !strings.Contains(a.body, `"errors":[{"type":"auth","log_id":"","cause":"invalid_grant"}]`) {
		t.Errorf("got %s", a.body)
	}
}

func TestExplainTellsNamesAndNoValues(t *testing.T) {
	s := newService(t)
	s.connect("g-oauth2", "o", nil, map[string]string{"tenant": "canary-tenant"})
	s.connect("g-apikey", "k", nil, map[string]string{"api_key": "canary-key"})
	explain := func(integration, id string) answer {
		t.Helper()
		a := s.call("POST", "/explain", "", `{"provider_config_key":"`+integration+`","connection_id":"`+id+`"}`)
		if a.status != 200 || strings.Contains(a.body, "canary") {
			t.Errorf("S52: %d %s", a.status, a.body)
		}
		return a
	}
	a := explain("g-oauth2", "o")
	for _, want := range []string{`"allowed":true`, `"headers":["Authorization","X-Version"]`, `"query":["tenant"]`, `"credential_version":1`, `"renewable":true`, `"base_url":"http://127.0.0.1:`, `"expires_at":"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s isn't in %s", want, a.body)
		}
	}
	if a := explain("g-apikey", "k"); !strings.Contains(a.body, "/bot{cred.api_key}") || !strings.Contains(a.body, `"headers":["X-Api-Key"]`) || !strings.Contains(a.body, `"renewable":false`) {
		t.Errorf("a key in the address: %s", a.body)
	}
	if a := explain("g-oauth2", "nope"); !strings.Contains(a.body, `"allowed":false`) || !strings.Contains(a.body, `"code":"unknown_connection"`) {
		t.Errorf("got %s", a.body)
	}
	if a := explain("nope", "o"); !strings.Contains(a.body, `"code":"unknown_provider_config"`) {
		t.Errorf("got %s", a.body)
	}
	s.call("POST", "/explain", "", `{"zzz":1}`).fails(t, 400, "invalid_body", "unrecognized_keys:")
}

func TestStoreThatIsDownIsUnavailable(t *testing.T) {
	s := newService(t)
	must(t, s.store.Close())
	for _, target := range []string{"/connections", "/connections/x?provider_config_key=g-none"} {
		if a := s.get(target); a.status < 500 || strings.Contains(a.body, "sql") {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	if s.logs.FilterMessage("answering a call").Len() != 2 {
		t.Error("the failures aren't in the log")
	}
}
