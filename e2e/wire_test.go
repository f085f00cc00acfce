package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// What keycaddy refuses it says with a typed error of its own, and the provider
// hears nothing of it (S89, S97).
func TestWireBadCalls(t *testing.T) {
	t.Parallel()
	u, c, _ := startOwn(t, demo.Options{}, "keycaddy")
	u.API["/x"] = func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the provider") }
	const (
		key         = "Authorization: Bearer " + apiKey + "\n"
		integration = "Provider-Config-Key: own\n"
		connection  = "Connection-Id: alice\n"
		all         = key + integration + connection
	)
	for name, test := range map[string]struct {
		line, headers string
		status        int
		code          string
	}{
		"unknown connection":   {"GET /proxy/x", key + integration + "Connection-Id: bob\n", 404, "unknown_connection"},
		"unknown integration":  {"GET /proxy/x", key + connection + "Provider-Config-Key: nope\n", 404, "unknown_provider_config"},
		"no key":               {"GET /proxy/x", integration + connection, 401, "missing_auth_header"},
		"no UUID":              {"GET /proxy/x", "Authorization: Bearer x\n" + integration + connection, 401, "invalid_secret_key_format"},
		"wrong key":            {"GET /proxy/x", "Authorization: Bearer 3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a12\n" + integration + connection, 401, "unknown_account"},
		"no connection":        {"GET /proxy/x", key + integration, 400, "invalid_headers"},
		"no integration":       {"GET /proxy/x", key + connection, 400, "invalid_headers"},
		"two connections":      {"GET /proxy/x", all + "connection-id: bob\n", 400, "invalid_headers"},
		"long connection":      {"GET /proxy/x", key + integration + "Connection-Id: " + strings.Repeat("x", 256) + "\n", 400, "invalid_headers"},
		"another base":         {"GET /proxy/x", all + "Base-Url-Override: http://127.0.0.1:1/\n", 400, "base_url_override_disabled"},
		"TRACE":                {"TRACE /proxy/x", all, 405, "method_not_allowed"},
		"up, encoded":          {"GET /proxy/%2e%2e/x", all, 400, "invalid_path"},
		"up, half encoded":     {"GET /proxy/%2E./x", all, 400, "invalid_path"},
		"up, encoded twice":    {"GET /proxy/%252e%252e/x", all, 400, "invalid_path"},
		"up, deeper":           {"GET /proxy/a/../../x", all, 0, ""},
		"up and back":          {"GET /proxy/../proxy/x", all, 400, "invalid_path"},
		"up":                   {"GET /proxy/../admin", all, 0, ""},
		"up with a parameter":  {"GET /proxy/..;/x", all, 400, "invalid_path"},
		"encoded slash":        {"GET /proxy/a%2fb", all, 400, "invalid_path"},
		"backslash":            {`GET /proxy/a\b`, all, 400, "invalid_path"},
		"encoded backslash":    {"GET /proxy/a%5cb", all, 400, "invalid_path"},
		"NUL":                  {"GET /proxy/a%00b", all, 400, "invalid_path"},
		"line end":             {"GET /proxy/a%0d%0ab", all, 400, "invalid_path"},
		"overlong dots":        {"GET /proxy/%c0%ae%c0%ae/x", all, 400, "invalid_path"},
		"two slashes first":    {"GET //proxy/x", all, 400, "invalid_path"},
		"prefix in capitals":   {"GET /PROXY/x", all, 400, "invalid_path"},
		"prefix, encoded":      {"GET /pro%78y/x", all, 400, "invalid_path"},
		"absolute and up":      {"GET http://localhost/proxy/%2e%2e/x", all, 400, "invalid_path"},
		"slash of the prefix":  {"GET /proxy%2fx", all, 0, ""},
		"absolute, other host": {"GET http://evil.example/proxy/x", all, 0, ""},
	} {
		w := dial(t, c)
		w.send(t, test.line+" HTTP/1.1\nHost: localhost\n"+test.headers+"\n")
		res, body := w.answer(t)
		var answer struct {
			Error struct{ Code, Message string }
		}
		_ = json.Unmarshal([]byte(body), &answer)
		code := res.Header.Get("Keycaddy-Error")
		if test.status == 0 { // not the proxy's: it only has to stay away from the provider
			t.Logf("%s: %d %s", name, res.StatusCode, code)
			if strings.Contains(body, "the provider") {
				t.Errorf("%s: got %d %s", name, res.StatusCode, body)
			}
			continue
		}
		if res.StatusCode != test.status || code != test.code || answer.Error.Code != test.code || res.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: got %d %q %s", name, res.StatusCode, code, body)
		}
		if strings.Contains(body, apiKey) {
			t.Errorf("%s: the key is in the answer", name)
		}
	}
	if got := u.calls(); len(got) != 0 {
		t.Errorf("the provider saw %v", got)
	}
	// The absolute form of a good call is good, and goes to the provider.
	w := dial(t, c)
	w.send(t, "GET http://localhost/proxy//x?a;b=%zz HTTP/1.1\nHost: other.example\n"+all+"\n")
	if res, body := w.answer(t); res.StatusCode != 200 || body != "the provider" || !slices.Equal(u.calls(), []string{"GET /own/x?a;b=%zz"}) {
		t.Errorf("absolute form: got %d %s; the provider saw %v", res.StatusCode, body, u.calls())
	}
}
