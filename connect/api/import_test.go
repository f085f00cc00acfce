package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func (s *service) post(target, body string) answer {
	s.t.Helper()
	return s.call("POST", target, "", body)
}

func (s *service) patch(target, body string) answer {
	s.t.Helper()
	return s.call("PATCH", target, "", body)
}

func TestConnectionsOfEveryTypeAreImported(t *testing.T) {
	s := newService(t)
	const head = `{"id":1,"connection_id":"<UUIDV4>","provider_config_key":"KEY","provider":"KEY","errors":[],"end_user":null,"tags":{},"metadata":{},"status":"active","connection_config":{},"webhook_url_override":null,"created_at":"<ISO_MS_Z>","updated_at":"<ISO_MS_Z>","last_fetched_at":"<ISO_MS_Z>","credentials":`
	for n, c := range []struct{ key, credentials, answer string }{
		{"g-oauth2", `{"type":"OAUTH2","access_token":"at","refresh_token":"rt","expires_at":"2030-01-01T00:00:00Z"}`, `{"type":"OAUTH2","access_token":"at","refresh_token":"rt","expires_at":"<ISO_MS_Z>","raw":{"type":"OAUTH2","access_token":"at","refresh_token":"rt","expires_at":"<ISO_MS_Z>"}}`},
		{"g-cc", `{"type":"OAUTH2_CC","token":"t","client_id":"a","client_secret":"b"}`, `{"type":"OAUTH2_CC","token":"t","client_id":"a","client_secret":"b","raw":{"type":"OAUTH2_CC","token":"t","client_id":"a","client_secret":"b"}}`},
		{"g-apikey", `{"type":"API_KEY","apiKey":"some-key"}`, `{"type":"API_KEY","apiKey":"some-key"}`},
		{"g-basic", `{"type":"BASIC","username":"u","password":"p"}`, `{"type":"BASIC","username":"u","password":"p"}`},
		{"g-none", `{"type":"NONE"}`, `{}`},
	} {
		a := s.post("/connections", `{"provider_config_key":"`+c.key+`","credentials":`+c.credentials+`}`)
		want := strings.ReplaceAll(head, "KEY", c.key) + c.answer + `}`
		want = strings.Replace(want, `"id":1`, fmt.Sprintf(`"id":%d`, n+1), 1)
		if c.key == "g-none" {
			want = strings.Replace(want, `"last_fetched_at":"<ISO_MS_Z>"`, `"last_fetched_at":null`, 1)
		}
		a.expect(t, 201, want)
	}
	if has, err := s.store.HasBlobs(t.Context()); !has || err != nil {
		t.Errorf("nothing is in the vault, %v", err)
	}
}

func TestAnImportIsWhatAConnectWouldHaveBeen(t *testing.T) {
	s := newService(t)
	s.post("/connections", `{"provider_config_key":"g-oauth2","connection_id":"o","credentials":{"type":"OAUTH2","access_token":"old","refresh_token":"rt","expires_at":"2020-01-01T00:00:00Z"},
		"metadata":{"m":1},"connection_config":{"tenant":"t1","foo":"bar","n":5,"oauth_scopes_override":["a","b"]},"tags":{"Src":"import"},"end_user":{"id":"u","email":"u@example.com"},"webhook_url_override":"https://app.example/hook"}`)
	a := s.get("/connections/o?provider_config_key=g-oauth2") // renewed, since it has ended
	a.expect(t, 200, `{"id":1,"connection_id":"o","provider_config_key":"g-oauth2","provider":"g-oauth2","errors":[],"end_user":{"id":"u","display_name":null,"email":"u@example.com","tags":null,"organization":null},"tags":{"src":"import","end_user_id":"u","end_user_email":"u@example.com"},"metadata":{"m":1},"status":"active","connection_config":{"tenant":"t1","foo":"bar","n":"5","oauth_scopes_override":"a,b"},"webhook_url_override":"https://app.example/hook","created_at":"<ISO_MS_OFFSET>","updated_at":"<ISO_MS_OFFSET>","last_fetched_at":"<ISO_MS_OFFSET>","credentials":{"type":"OAUTH2","access_token":"canary-access","expires_at":"<ISO_MS_Z>","raw":{"access_token":"canary-access","expires_in":3600,"big":12345678901234567890,"nested":[{}]}}}`)
	// One that exists gets all of what is imported, and nothing else stays.
	before, err := s.store.Connection(t.Context(), connect.ID{Integration: "g-oauth2", Connection: "o"})
	must(t, err)
	s.post("/connections", `{"provider_config_key":"g-oauth2","connection_id":"o","credentials":{"type":"OAUTH2","access_token":"second"}}`)
	after, err := s.store.Connection(t.Context(), before.ID)
	must(t, err)
	if after.UID != before.UID || after.Version <= before.Version || after.EndUser != nil || len(after.Tags) > 0 || after.Metadata != nil || after.WebhookURL != "" {
		t.Errorf("got %+v", after)
	}
	if a := s.get("/connections/o?provider_config_key=g-oauth2&force_refresh=true"); a.status != 200 || !strings.Contains(a.body, `"access_token":"second"`) {
		t.Errorf("there is nothing to renew it with: %d %s", a.status, a.body)
	}
}

func TestATokenOfAnotherClientIsRenewedWithThatClient(t *testing.T) {
	s := newService(t)
	var id, secret string
	s.token = func(w http.ResponseWriter, r *http.Request) {
		if id, secret, _ = r.BasicAuth(); id == "" {
			id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
		}
		w.Write([]byte(`{"access_token":"next"}`))
	}
	s.post("/connections", `{"provider_config_key":"g-oauth2","connection_id":"o","credentials":{"type":"OAUTH2","access_token":"at","refresh_token":"rt","config_override":{"client_id":"theirs","client_secret":"canary-own"}}}`)
	a := s.get("/connections/o?provider_config_key=g-oauth2&force_refresh=true")
	if a.status != 200 || id != "theirs" || secret != "canary-own" || !strings.Contains(a.body, `"config_override":{"client_id":"theirs","client_secret":"canary-own"}`) {
		t.Errorf("asked as %q: %d %s", id, a.status, a.body)
	}
}

func TestImportsAreChecked(t *testing.T) {
	s := newService(t)
	fails := func(body, code string, status int, paths ...string) {
		t.Helper()
		s.post("/connections", body).fails(t, status, code, paths...)
	}
	fails(`{"provider_config_key":"nope","credentials":{"type":"API_KEY","apiKey":"x"}}`, "not_found", 404)
	fails(`{"provider_config_key":"g-apikey"}`, "invalid_body", 400, "invalid_type:credentials")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"ZZZ"}}`, "invalid_body", 400, "invalid_union:credentials.type")
	fails(`{"provider_config_key":"g-apikey","credentials":{}}`, "invalid_body", 400, "invalid_union:credentials.type")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY"}}`, "invalid_body", 400, "invalid_type:credentials.apiKey")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY","apiKey":"k","x":1}}`, "invalid_body", 400, "unrecognized_keys:credentials")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"BASIC","username":"u","password":"p"}}`, "invalid_body", 400)
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY","apiKey":"NOT ALLOWED"}}`, "invalid_body", 400, "custom:credentials.api_key")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY","apiKey":"k"},"end_user":{"id":"u","organization":{"id":"o"}}}`, "invalid_body", 400, "unrecognized_keys:end_user")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY","apiKey":"k"},"metadata":{"a":"`+strings.Repeat("x", connect.MaxMetadata)+`"}}`, "invalid_body", 400, "too_big:metadata")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY","apiKey":"k"},"metadata":{"a":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}}`, "invalid_body", 400, "custom:metadata")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY","apiKey":"k"},"metadata":{"a":1e999}}`, "invalid_body", 400, "custom:metadata.a")
	fails(`{"provider_config_key":"g-apikey","credentials":{"type":"API_KEY","apiKey":"k"},"metadata":{"a":"\u0000"}}`, "invalid_body", 400, "custom:metadata.a")
	if has, err := s.store.HasBlobs(t.Context()); has || err != nil {
		t.Errorf("something was stored, %v", err)
	}
}

func TestOlderSDKsImport(t *testing.T) {
	s := newService(t)
	s.post("/connection", `{"provider_config_key":"g-apikey","connection_id":"k","api_key":"legacy-key"}`).expect(t, 201, `{"provider_config_key":"g-apikey","connection_id":"k","api_key":"legacy-key"}`)
	s.post("/connection", `{"provider_config_key":"g-oauth2","access_token":"at","refresh_token":"rt","expires_in":600,"metadata":{"a":1}}`).expect(t, 201, `{"provider_config_key":"g-oauth2","connection_id":"<UUIDV4>","access_token":"at","refresh_token":"rt","expires_in":600,"metadata":{"a":1}}`)
	s.post("/connection", `{"provider_config_key":"g-basic","connection_id":"b","username":"u","password":"p"}`).expect(t, 201, `{"provider_config_key":"g-basic","connection_id":"b","username":"u","password":"p"}`)
	if a := s.get("/connection/k?provider_config_key=g-apikey"); a.status != 200 || !strings.Contains(a.body, `"apiKey":"legacy-key"`) {
		t.Errorf("got %d %s", a.status, a.body)
	}
	s.post("/connection", `{"provider_config_key":"g-apikey"}`).fails(t, 400, "invalid_body", "invalid_type:api_key")
	s.post("/connection", `{"provider_config_key":"nope","api_key":"x"}`).fails(t, 404, "not_found")
	s.call("DELETE", "/connection/k?provider_config_key=g-apikey", "", "").expect(t, 200, `{"success":true}`)
}

func TestConnectionsAreChanged(t *testing.T) {
	s := newService(t)
	c := s.connect("g-apikey", "a/b", &connect.EndUser{ID: "u1"}, map[string]string{"api_key": "some-key"})
	at := "/connections/" + url.PathEscape(c.ID.Connection) + "?provider_config_key=g-apikey"
	is := func(what string, ok func(connect.Connection) bool) {
		t.Helper()
		got, err := s.store.Connection(t.Context(), c.ID)
		must(t, err)
		if !ok(got) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	s.patch(at, `{"tags":{"A":"b"}}`).expect(t, 200, `{"success":true}`)
	is("tags", func(c connect.Connection) bool { return len(c.Tags) == 1 && c.Tags["a"] == "b" && c.EndUser.ID == "u1" })
	s.patch(at, `{"end_user":{"id":"u77","email":"u77@example.com"}}`).expect(t, 200, `{"success":true}`)
	is("user", func(c connect.Connection) bool {
		return len(c.Tags) == 2 && c.Tags["end_user_id"] == "u77" && c.EndUser.Email == "u77@example.com"
	})
	s.patch(at, `{"webhook_url_override":"https://app.example/x"}`).expect(t, 200, `{"success":true}`)
	is("webhook", func(c connect.Connection) bool { return c.WebhookURL == "https://app.example/x" && len(c.Tags) == 2 })
	s.patch(at, `{"webhook_url_override":""}`).expect(t, 200, `{"success":true}`)
	is("webhook", func(c connect.Connection) bool { return c.WebhookURL == "" })
	s.patch(at, `{"disabled":true}`).expect(t, 200, `{"success":true}`)
	s.get(at).fails(t, 403, "connection_disabled")
	s.patch(at, `{"disabled":false}`).expect(t, 200, `{"success":true}`)
	if a := s.get(at); a.status != 200 {
		t.Errorf("on again: %d %s", a.status, a.body)
	}
	s.patch(at, `{"zzz":1}`).fails(t, 400, "invalid_body", "unrecognized_keys:")
	s.patch(at, `{"webhook_url_override":"javascript:x"}`).fails(t, 400, "invalid_body", "invalid_format:webhook_url_override")
	s.patch(at, `{"tags":{"end_user_email":"x"}}`).fails(t, 400, "invalid_body", "invalid_format:tags.end_user_email")
	s.patch("/connections/nope?provider_config_key=g-apikey", `{"tags":{"a":"b"}}`).fails(t, 404, "not_found")
	s.patch("/connections/nope?provider_config_key=nope", `{"tags":{"a":"b"}}`).fails(t, 400, "unknown_provider_config")
}

func TestMetadata(t *testing.T) {
	s := newService(t)
	for _, id := range []string{"one", "two"} {
		s.connect("g-apikey", id, nil, map[string]string{"api_key": "some-key"})
	}
	has := func(id, want string) {
		t.Helper()
		if a := s.get("/connections/" + id + "?provider_config_key=g-apikey"); !strings.Contains(a.body, `"metadata":`+want+`,`) {
			t.Errorf("%s: want %s in %s", id, want, a.body)
		}
	}
	body := func(id, metadata string) string {
		return `{"connection_id":` + id + `,"provider_config_key":"g-apikey","metadata":` + metadata + `}`
	}
	for _, path := range []string{"/connections/metadata", "/connection/metadata"} {
		s.post(path, body(`"one"`, `{"a":1,"n":{"x":1}}`)).expect(t, 201, body(`"one"`, `{"a":1,"n":{"x":1}}`))
		has("one", `{"a":1,"n":{"x":1}}`)
		s.patch(path, body(`"one"`, `{"b":2,"n":{"y":2}}`)).expect(t, 200, body(`"one"`, `{"b":2,"n":{"y":2}}`))
		has("one", `{"a":1,"b":2,"n":{"y":2}}`)
	}
	s.post("/connections/metadata", body(`["one","two"]`, `{"z":1}`)).expect(t, 201, body(`["one","two"]`, `{"z":1}`))
	has("one", `{"z":1}`)
	has("two", `{"z":1}`)
	s.post("/connections/metadata", body(`["one","nope"]`, `{"z":2}`)).fails(t, 404, "unknown_connection")
	has("one", `{"z":1}`)
	s.post("/connections/metadata", body(`"nope"`, `{}`)).fails(t, 404, "unknown_connection")
	s.post("/connections/metadata", `{"metadata":{}}`).fails(t, 400, "invalid_body", "invalid_union:connection_id", "invalid_type:provider_config_key")
	s.post("/connections/metadata", body(`["one","one"]`, `{}`)).fails(t, 400, "invalid_body", "custom:connection_id")
	s.post("/connections/metadata", body(`"one"`, `[]`)).fails(t, 400, "invalid_body", "invalid_type:metadata")
	half := strings.Repeat("x", connect.MaxMetadata/2)
	if a := s.patch("/connections/metadata", body(`"one"`, `{"a":"`+half+`"}`)); a.status != 200 {
		t.Errorf("half: %d", a.status)
	}
	s.patch("/connections/metadata", body(`"one"`, `{"b":"`+half+`"}`)).fails(t, 400, "invalid_body", "too_big:metadata")
	s.post("/connection/one/metadata?provider_config_key=g-apikey", `{"legacy":1}`).expect(t, 201, `{"legacy":1}`)
	a := s.call("PATCH", "/connection/one/metadata", "", `{"more":2}`, "Provider-Config-Key", "g-apikey")
	a.expect(t, 200, `{"more":2}`)
	has("one", `{"legacy":1,"more":2}`)
}

func TestTokensThatAreValidForLongEnough(t *testing.T) {
	s := newService(t)
	calls := 0
	s.token = func(w http.ResponseWriter, _ *http.Request) {
		calls++
		fmt.Fprintf(w, `{"access_token":"at-%d","refresh_token":"rt-%d","expires_in":600}`, calls, calls)
	}
	s.post("/connections", `{"provider_config_key":"g-oauth2","connection_id":"o","credentials":{"type":"OAUTH2","access_token":"at","refresh_token":"rt","expires_at":"`+time.Now().Add(5*time.Minute).Format(time.RFC3339)+`"}}`)
	fetch := func(seconds, want string) {
		t.Helper()
		if a := s.get("/connections/o?provider_config_key=g-oauth2&min_validity=" + seconds); a.status != 200 || !strings.Contains(a.body, `"access_token":"`+want+`"`) {
			t.Errorf("%s s: want %s, got %d %s", seconds, want, a.status, a.body)
		}
	}
	fetch("60", "at")
	fetch("299", "at")
	s.post("/connections/refresh", `{"connection_id":"o","provider_config_key":"g-oauth2"}`).expect(t, 200, `{"success":true,"renewed":true,"expires_at":"<ISO_MS_Z>"}`)
	fetch("550", "at-1")
	if calls != 1 {
		t.Errorf("%d tokens were asked for", calls)
	}
	// No token of this provider's lives that long: none is spent on it.
	s.get("/connections/o?provider_config_key=g-oauth2&min_validity=700").fails(t, 400, "invalid_query_params", "too_big:min_validity")
	s.get("/connections/o?provider_config_key=g-oauth2&min_validity=-1").fails(t, 400, "invalid_query_params", "too_small:min_validity")
	if calls != 1 {
		t.Errorf("%d tokens were asked for", calls)
	}
	s.connect("g-apikey", "k", nil, map[string]string{"api_key": "some-key"})
	s.post("/connections/refresh", `{"connection_id":"k","provider_config_key":"g-apikey"}`).expect(t, 200, `{"success":true,"renewed":false,"expires_at":null}`)
	s.post("/connections/refresh", `{"connection_id":"nope","provider_config_key":"g-apikey"}`).fails(t, 404, "not_found")
}

func TestPartsThatKeycaddyHasNot(t *testing.T) {
	s := newService(t)
	for _, target := range []string{"POST /sync/trigger", "GET /sync/status?syncs=*", "GET /records?model=x", "POST /action/trigger", "GET /scripts/config", "POST /functions/x", "GET /integrations/g-none/functions"} {
		method, path, _ := strings.Cut(target, " ")
		s.call(method, path, "", "").fails(t, 501, "not_implemented")
		s.call(method, path, "-", "").fails(t, 401, "missing_auth_header")
	}
	s.get("/environment-variables").expect(t, 200, `[]`)
	s.get("/providers/g-none/templates").expect(t, 200, `{"data":[]}`)
	s.get("/providers/nope/templates").fails(t, 404, "not_found")
}
