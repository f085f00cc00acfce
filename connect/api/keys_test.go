package api_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestKeysAreMadeRotatedAndRevoked(t *testing.T) {
	s := newService(t)
	a := s.call("POST", "/keys", "", `{"name":"reports","scopes":["environment:proxy"],"limits":{"integrations":["g-apikey"],"calls":["GET /x/**"],"rate":"10/1m"},"expires_at":"2100-01-01T00:00:00Z"}`)
	var made struct{ Data struct{ Key string } }
	must(t, json.Unmarshal([]byte(a.body), &made))
	a.expect(t, 201, `{"data":{"name":"reports","scopes":["environment:proxy"],"limits":{"integrations":["g-apikey"],"calls":["GET /x/**"],"rate":"10/1m"},"created_at":"<ISO_MS_Z>","expires_at":"<ISO_MS_Z>","key":"<UUIDV4>"}}`)
	s.call("GET", "/connections", "Bearer "+made.Data.Key, "").fails(t, 403, "forbidden")

	a = s.call("POST", "/keys", "", `{"name":"plain"}`)
	must(t, json.Unmarshal([]byte(a.body), &made))
	plain := made.Data.Key
	if a := s.call("GET", "/connections", "Bearer "+plain, ""); a.status != 200 {
		t.Errorf("a new key: %d %s", a.status, a.body)
	}
	s.call("GET", "/keys", "Bearer "+plain, "").fails(t, 403, "forbidden")

	a = s.call("POST", "/keys/plain/rotate", "", `{"overlap_seconds":3600}`)
	must(t, json.Unmarshal([]byte(a.body), &made))
	for _, key := range []string{plain, made.Data.Key} {
		if a := s.call("GET", "/connections", "Bearer "+key, ""); a.status != 200 {
			t.Errorf("after a rotation: %d %s", a.status, a.body)
		}
	}
	a = s.get("/keys")
	for _, secret := range []string{key, plain, made.Data.Key} {
		if strings.Contains(a.body, secret) {
			t.Errorf("the list shows a key: %s", a.body)
		}
	}
	for _, want := range []string{`{"name":"app","scopes":["environment:*"],"limits":{},"config":true}`, `"former_key_until":"`, `"name":"reports"`} {
		if a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s isn't in %s", want, a.body)
		}
	}
	a = s.call("PATCH", "/keys/plain", "", `{"scopes":["environment:connections:read"],"expires_at":""}`)
	if a.status != 200 || !strings.Contains(a.body, `"scopes":["environment:connections:read"]`) {
		t.Errorf("changed: %d %s", a.status, a.body)
	}
	s.call("GET", "/connections", "Bearer "+plain, "").fails(t, 403, "forbidden")
	s.call("DELETE", "/keys/plain", "", "").expect(t, 200, `{"success":true}`)
	s.call("GET", "/connections", "Bearer "+plain, "").fails(t, 401, "unknown_account")
	s.call("DELETE", "/keys/plain", "", "").fails(t, 404, "not_found")
	for _, change := range []string{"DELETE /keys/app", "POST /keys/app/rotate", "PATCH /keys/app"} {
		method, path, _ := strings.Cut(change, " ")
		s.call(method, path, "", "{}").fails(t, 409, "conflict")
	}
	for _, e := range s.logs.All() {
		for _, v := range e.ContextMap() {
			if text, ok := v.(string); ok && (strings.Contains(text, plain) || strings.Contains(text, made.Data.Key)) {
				t.Errorf("a key is in the log: %v", e)
			}
		}
	}
}

func TestWhatAKeyCantBeIsNamed(t *testing.T) {
	s := newService(t)
	for body, at := range map[string]string{
		`{}`: "invalid_type:name", `{"name":"/"}`: "custom:name", `{"name":"a","key":"abc"}`: "custom:key", `{"name":"a","scopes":["nope"]}`: "custom:scopes",
		`{"name":"a","limits":{"calls":["x"]}}`: "custom:limits.calls", `{"name":"a","limits":{"rate":"x"}}`: "custom:limits.rate", `{"name":"a","expires_at":"soon"}`: "custom:expires_at",
		`{"name":"a","limits":{"zzz":1}}`: "unrecognized_keys:limits", `{"name":"app"}`: "custom:name", `{"name":"a","scopes":"x"}`: "invalid_type:scopes",
	} {
		s.call("POST", "/keys", "", body).fails(t, 400, "invalid_body", at)
	}
	if a := s.call("POST", "/keys", "", `{"name":"a"}`); a.status != 201 {
		t.Fatal(a.body)
	}
	s.call("POST", "/keys", "", `{"name":"a"}`).fails(t, 400, "invalid_body", "custom:name")
	s.call("PATCH", "/keys/a", "", `{"name":"b"}`).fails(t, 400, "invalid_body", "unrecognized_keys:")
	s.call("PATCH", "/keys/a", "", `{"limits":{"rate":"x"}}`).fails(t, 400, "invalid_body", "custom:limits.rate")
	s.call("POST", "/keys/a/rotate", "", `{"overlap_seconds":-1}`).fails(t, 400, "invalid_body", "too_small:overlap_seconds")
	s.call("POST", "/keys/a/rotate", "", `{"key":"x"}`).fails(t, 400, "invalid_body", "custom:key")
}

func TestAKeyGivesNoMoreThanItHas(t *testing.T) {
	s := newService(t)
	var made struct{ Data struct{ Key string } }
	a := s.call("POST", "/keys", "", `{"name":"maker","scopes":["environment:keys:*","environment:proxy"],"limits":{"rate":"100/1m"}}`)
	must(t, json.Unmarshal([]byte(a.body), &made))
	maker := "Bearer " + made.Data.Key
	refused := func(a answer, missing string) {
		t.Helper()
		a.fails(t, 403, "forbidden")
		if !strings.Contains(a.body, missing) {
			t.Errorf("%s isn't in %s", missing, a.body)
		}
	}
	refused(s.call("POST", "/keys", maker, `{"name":"x","limits":{"rate":"1/1m"}}`), "Required: environment:integrations:list")
	refused(s.call("POST", "/keys", maker, `{"name":"x","scopes":["environment:connections:read_credentials"],"limits":{"rate":"1/1m"}}`), "read_credentials")
	refused(s.call("POST", "/keys", maker, `{"name":"x","scopes":["environment:proxy"]}`), "limits")
	if a := s.call("POST", "/keys", maker, `{"name":"x","scopes":["environment:proxy"],"limits":{"rate":"1/1m"}}`); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Nor does it take a better one over, or make its own better.
	if a := s.call("POST", "/keys", "", `{"name":"mighty","scopes":["environment:*"],"limits":{"rate":"1/1m"}}`); a.status != 201 {
		t.Fatal(a.body)
	}
	refused(s.call("POST", "/keys/mighty/rotate", maker, `{}`), "Required: ")
	refused(s.call("PATCH", "/keys/mighty", maker, `{"scopes":["environment:proxy"]}`), "Required: ")
	refused(s.call("PATCH", "/keys/maker", maker, `{"scopes":["environment:*"]}`), "Required: ")
	refused(s.call("PATCH", "/keys/maker", maker, `{"limits":{}}`), "limits")
}

func TestTheRateOfAKeyHoldsForTheAPI(t *testing.T) {
	s := newService(t)
	var made struct{ Data struct{ Key string } }
	a := s.call("POST", "/keys", "", `{"name":"slow","limits":{"rate":"2/1h"}}`)
	must(t, json.Unmarshal([]byte(a.body), &made))
	for range 2 {
		if a := s.call("GET", "/connections", "Bearer "+made.Data.Key, ""); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	a = s.call("GET", "/connections", "Bearer "+made.Data.Key, "")
	a.fails(t, 429, "too_many_request")
	if after := a.header.Get("Retry-After"); after != "1800" {
		t.Errorf("Retry-After: %s", after)
	}
}
