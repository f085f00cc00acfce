package api_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCallersAreKnownByTheirKey(t *testing.T) {
	s := newService(t)
	// Codes as Nango's.
	for auth, code := range map[string]string{
		"-": "missing_auth_header", "Bearer": "invalid_secret_key_format", "Bearer ": "invalid_secret_key_format", "Basic abc": "invalid_secret_key_format",
		"Bearer abc": "invalid_secret_key_format", "Bearer 00000000-0000-4000-8000-000000000000": "unknown_account",
		"Bearer " + key + "x": "invalid_secret_key_format", "Bearer 00000000-0000-1000-8000-000000000000": "invalid_secret_key_format",
		"Bearer " + strings.ToUpper(key): "unknown_account",
	} {
		a := s.call("GET", "/integrations", auth, "")
		a.fails(t, 401, code)
		if len(auth) > 20 && strings.Contains(a.body, auth[7:]) {
			t.Errorf("the key is quoted: %s", a.body)
		}
	}
	for _, auth := range []string{"Bearer " + key, key, "bearer Bearer " + key} {
		if a := s.call("GET", "/connections", auth, ""); a.status != 200 {
			t.Errorf("%q: %d %s", auth, a.status, a.body)
		}
	}
	for _, target := range []string{
		"GET /providers", "GET /providers/g-none", "GET /integrations", "GET /integrations/g-none", "POST /connect/sessions", "POST /connect/sessions/reconnect",
		"GET /connections", "GET /connections/x?provider_config_key=g-none", "DELETE /connections/x?provider_config_key=g-none", "POST /explain",
	} {
		method, path, _ := strings.Cut(target, " ")
		s.call(method, path, "-", "").fails(t, 401, "missing_auth_header")
	}
	s.api.Trusted = true
	if a := s.call("GET", "/connections", "-", ""); a.status != 200 {
		t.Errorf("trusted: %d", a.status)
	}
}

func TestHealthNeedsNoKeyAndTellsWhatIsOutOfReach(t *testing.T) {
	s := newService(t)
	s.call("GET", "/health", "-", "").expect(t, 200, `{"result":"ok"}`)
	s.call("GET", "/health/live", "-", "").expect(t, 200, `{"result":"live"}`)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.connector.Refresher.Run(ctx) })
	defer running.Wait()
	defer stop()
	must(t, s.store.Close())
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		a := s.call("GET", "/health/ready", "-", "")
		if a.status == 200 && strings.HasPrefix(a.body, `{"result":"degraded","degraded":[`) && strings.Contains(a.body, `{"part":"store","since":"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %d %s", a.status, a.body)
		}
	}
	s.call("GET", "/health/live", "-", "").expect(t, 200, `{"result":"live"}`)
}

func TestBodiesAreReadStrictly(t *testing.T) {
	s := newService(t)
	post := func(kind, body string) answer {
		t.Helper()
		return s.call("POST", "/connect/sessions", "", body, "Content-Type", kind)
	}
	const good = `{"end_user":{"id":"u"}}`
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", ";"} {
		a := post(kind, good)
		a.fails(t, 415, "invalid_content_type")
		if !strings.Contains(a.body, "Content-Type header must be application/json") {
			t.Errorf("got %s", a.body)
		}
	}
	for _, body := range []string{"x", "{", good + "{}", good + "x", `{"end_user":{"id":"u"}`, "\xff", `'x'`} {
		post("application/json", body).fails(t, 400, "invalid_json")
	}
	post("application/json; charset=utf-8", `{"end_user":{"id":"u"},"bogus":true}`).fails(t, 400, "invalid_body", "unrecognized_keys:")
	post("application/json", `{"end_user":{"id":"u","bogus":1}}`).fails(t, 400, "invalid_body", "unrecognized_keys:end_user")
	post("application/json", `{"end_user":{"id":1}}`).fails(t, 400, "invalid_body", "invalid_type:end_user.id")
	post("application/json", `{"tags":{"a":"`+strings.Repeat("x", 1<<20)+`"}}`).fails(t, 413, "request_too_large")
	if a := post("APPLICATION/JSON", good); a.status != 201 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestUnknownCallsAreNotFound(t *testing.T) {
	s := newService(t)
	for _, target := range []string{"GET /", "GET /nope", "PUT /connections", "POST /nope", "PATCH /health"} {
		method, path, _ := strings.Cut(target, " ")
		s.call(method, path, "", "").fails(t, 404, "not_found")
	}
}

func TestProvidersAndIntegrations(t *testing.T) {
	s := newService(t)
	a := s.get("/integrations/g-apikey")
	a.expect(t, 200, `{"data":{"unique_key":"g-apikey","provider":"g-apikey","display_name":"Name of g-apikey","logo":"https://connect.example/images/template-logos/g-apikey.svg","forward_webhooks":false,"created_at":"<ISO_MS_Z>","updated_at":"<ISO_MS_Z>"}}`)
	s.get("/integrations/nope").expect(t, 404, `{"error":{"code":"not_found","message":"Integration \"nope\" does not exist","retryable":false,"action":"fix_request","request_id":"req1"}}`)
	s.get("/integrations/g-apikey?zzz=1").fails(t, 400, "invalid_query_params", "unrecognized_keys:")
	if a := s.get("/integrations"); strings.Count(a.body, `"unique_key"`) != len(entries) || strings.Contains(a.body, "canary") {
		t.Errorf("got %s", a.body)
	}
	a = s.get("/providers/g-apikey")
	for _, want := range []string{`"auth_mode":"API_KEY"`, `"docs":"https://docs.example"`, `"api_key":{"type":"string","title":"The key","description":"Made in the settings of your Name of g-apikey account; it may be shown only once.","secret":true,"pattern":"^[a-z-]+$","example":"abc","docs":"https://docs.example"}`,
		`"guide":{"steps":["Sign in to Name of g-apikey.","Find or make there: The key.","Copy each value whole, and enter it here."],"links":[{"text":"Documentation","url":"https://docs.example"}]}`, `/bot{cred.api_key}"`} {
		if a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s isn't in %s", want, a.body)
		}
	}
	s.get("/providers/nope").fails(t, 404, "not_found")
	if a := s.get("/providers/g-oauth2"); !strings.Contains(a.body, `"setup":{"steps":["Register an OAuth app with Name of g-oauth2.","Give it the redirect URL https://connect.example/oauth/callback."`) {
		t.Error(a.body)
	}
	if a := s.get("/providers?search=G-APIKEY"); strings.Count(a.body, `"auth_mode"`) != 1 || strings.Contains(a.body, `"guide"`) {
		t.Errorf("search: %s", a.body)
	}
	s.get("/providers?zzz=1").fails(t, 400, "invalid_query_params", "unrecognized_keys:")
	if a := s.get("/providers?search=zzzzzzz"); a.body != `{"data":[]}` {
		t.Errorf("none: %s", a.body)
	}
	a = s.call("GET", "/images/template-logos/g-apikey.svg", "-", "")
	if a.status != 200 || a.header.Get("Content-Type") != "image/svg+xml" || !strings.HasPrefix(a.body, "<svg ") || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("logo: %d %v %s", a.status, a.header, a.body)
	}
	for _, file := range []string{"nope.svg", "g-apikey.png", "g-apikey", "G-APIKEY.svg", "x%00.svg"} {
		if a := s.call("GET", "/images/template-logos/"+file, "-", ""); a.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", file, a.status, a.body)
		}
	}
}
