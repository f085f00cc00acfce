package api_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

func TestIntegrationsAreMadeChangedAndRemoved(t *testing.T) {
	s := newService(t)
	const made = `{"data":{"unique_key":"mine","provider":"g-oauth2","display_name":"My OAuth2","logo":"https://connect.example/images/template-logos/g-oauth2.svg","forward_webhooks":true,"created_at":"<ISO_MS_Z>","updated_at":"<ISO_MS_Z>"}}`
	s.post("/integrations", `{"provider":"g-oauth2","unique_key":"mine","display_name":"My OAuth2","credentials":{"type":"OAUTH2","client_id":"cid","client_secret":"csecret","scopes":"read,write"}}`).expect(t, 200, made)
	s.get("/integrations/mine").expect(t, 200, made)
	s.get("/config/mine").expect(t, 200, made)
	credentials := func(want string) {
		t.Helper()
		if a := s.get("/integrations/mine?include=credentials"); a.status != 200 || !strings.Contains(a.body, `"credentials":`+want+`}`) {
			t.Errorf("want %s in %s", want, a.body)
		}
	}
	credentials(`{"client_id":"cid","client_secret":"csecret","scopes":"read,write","type":"OAUTH2","webhook_secret":null}`)
	if a := s.get("/integrations/mine?include[]=webhook&include[]=credentials"); !strings.Contains(a.body, `"webhook_url":null,"credentials":{`) {
		t.Error(a.body)
	}
	// Who may not see it isn't told.
	if a := s.call("GET", "/integrations/mine?include=credentials", "Bearer "+modest, ""); a.status != 200 || strings.Contains(a.body, "credentials") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	s.patch("/integrations/mine", `{"credentials":{"type":"OAUTH2","client_id":"cid2","client_secret":"csecret2","webhook_secret":"whs"},"forward_webhooks":false}`).expect(t, 200, strings.Replace(made, "true", "false", 1))
	credentials(`{"client_id":"cid2","client_secret":"csecret2","scopes":null,"type":"OAUTH2","webhook_secret":"whs"}`)
	s.patch("/integrations/mine", `{}`).expect(t, 200, strings.Replace(made, "true", "false", 1))
	s.connect("mine", "c", nil, map[string]string{"tenant": "t"})
	s.patch("/integrations/mine", `{"unique_key":"other"}`).fails(t, 400, "invalid_body", "custom:unique_key")
	s.call("DELETE", "/integrations/mine", "", "").expect(t, 200, `{"success":true}`)
	s.get("/integrations/mine").fails(t, 404, "not_found")
	s.get("/connections/c?provider_config_key=mine").fails(t, 400, "unknown_provider_config")
	s.get("/connections").expect(t, 200, `{"connections":[]}`)
	s.call("DELETE", "/integrations/mine", "", "").fails(t, 404, "not_found")
	if has, err := s.store.HasBlobs(t.Context()); has || err != nil {
		t.Errorf("the vault has something left, %v", err)
	}
	s.post("/integrations", `{"provider":"g-none","unique_key":"del"}`)
	if a := s.patch("/integrations/del", `{"unique_key":"del2"}`); a.status != 200 || !strings.Contains(a.body, `"unique_key":"del2"`) {
		t.Errorf("renamed: %d %s", a.status, a.body)
	}
	s.get("/integrations/del").fails(t, 404, "not_found")
}

func TestIntegrationsAreChecked(t *testing.T) {
	s := newService(t)
	fails := func(body string, paths ...string) {
		t.Helper()
		s.post("/integrations", body).fails(t, 400, "invalid_body", paths...)
	}
	fails(`{}`, "invalid_type:provider", "invalid_type:unique_key")
	fails(`{"provider":"nope","unique_key":"x"}`, "invalid_string:provider")
	fails(`{"provider":"g-apikey","unique_key":"bad/key"}`, "invalid_format:unique_key")
	fails(`{"provider":"g-apikey","unique_key":"x","bogus":1}`, "unrecognized_keys:")
	fails(`{"provider":"g-apikey","unique_key":"g-apikey"}`, "invalid_string:uniqueKey") // the configuration's
	fails(`{"provider":"g-oauth2","unique_key":"x"}`)
	fails(`{"provider":"g-oauth2","unique_key":"x","credentials":{"type":"APP","app_id":"1","app_link":"https://x.example/a","private_key":"-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----"}}`)
	fails(`{"provider":"g-oauth2","unique_key":"x","credentials":{"type":"OAUTH2","client_id":"a","client_secret":"b","scopes":"a b"}}`, "invalid_format:credentials.scopes")
	fails(`{"provider":"g-oauth2","unique_key":"x","credentials":{"type":"OAUTH2","client_id":"a","client_secret":"b"},"integration_config":{"nope":"x"}}`, "unrecognized_keys:integration_config")
	fails(`{"provider":"github-app","unique_key":"x","credentials":{"type":"APP","app_id":"1","app_link":"https://x.example/a","private_key":"nonsense"}}`)
	s.post("/integrations/quickstart", `{"provider":"g-oauth2","unique_key":"x"}`).fails(t, 400, "invalid_body")
	s.patch("/integrations/g-oauth2", `{"display_name":"x"}`).fails(t, 409, "integration_in_configuration")
	s.call("DELETE", "/integrations/g-oauth2", "", "").fails(t, 409, "integration_in_configuration")
	s.patch("/integrations/nope", `{"display_name":"x"}`).fails(t, 404, "not_found")
	if a := s.get("/integrations"); strings.Count(a.body, `"unique_key"`) != len(entries) {
		t.Errorf("got %s", a.body)
	}
}

func TestAClientIsCheckedWithItsProvider(t *testing.T) {
	s := newService(t)
	for answer, want := range map[string]string{
		`401 {"error":"invalid_client"}`:  `{"accepted":false,"code":"invalid_client","message":`,
		`400 {"error":"invalid_grant"}`:   `{"accepted":true,"code":"invalid_grant","message":`,
		`400 {"error":"invalid_request"}`: `{"accepted":null,"code":"invalid_request","message":`,
		`503 {}`:                          `{"accepted":null,"code":"http_503","message":`,
	} {
		s.token = func(w http.ResponseWriter, r *http.Request) {
			status, body, _ := strings.Cut(answer, " ")
			w.Header().Set("Content-Type", "application/json")
			code, _ := strconv.Atoi(status)
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
		if a := s.post("/integrations/g-oauth2/check", ""); a.status != 200 || !strings.HasPrefix(a.body, want) {
			t.Errorf("%s: got %d %s", answer, a.status, a.body)
		}
	}
	if a := s.post("/integrations/g-apikey/check", ""); a.status != 200 || !strings.Contains(a.body, `"accepted":null`) {
		t.Errorf("without a client: %d %s", a.status, a.body)
	}
	s.post("/integrations/nope/check", "").fails(t, 404, "not_found")
}
