package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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

// No request can hide another one in it: where one ends must be as clear to
// keycaddy as to the provider (S84).
func TestWireSmuggling(t *testing.T) {
	t.Parallel()
	u, c, _ := startOwn(t, demo.Options{}, "keycaddy")
	var bodies sync.Map // the case's number to the body that came whole
	u.API["/x"] = func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			bodies.Store(r.URL.RawQuery, string(body))
		}
	}
	const hidden = "GET /proxy/hidden HTTP/1.1\nHost: localhost\n\n"
	post := func(headers, body string) string {
		return "POST /proxy/x?CASE HTTP/1.1\n" + named + headers + "\n" + body
	}
	number := 0
	for name, test := range map[string]struct {
		request string
		body    string // the one that the provider may get; "-": none at all
	}{
		"length and chunked":      {post("Content-Length: 5\nTransfer-Encoding: chunked\n", "0\n\n"+hidden), ""},
		"chunked and length":      {post("Transfer-Encoding: chunked\nContent-Length: 50\n", "0\n\n"+hidden), ""},
		"two lengths":             {post("Content-Length: 5\nContent-Length: 6\n", "hello"+hidden), "-"},
		"two lengths in one":      {post("Content-Length: 5, 6\n", "hello"+hidden), "-"},
		"length with a sign":      {post("Content-Length: +5\n", "hello"+hidden), "-"},
		"length below zero":       {post("Content-Length: -5\n", "hello"+hidden), "-"},
		"length in hex":           {post("Content-Length: 0x5\n", "hello"+hidden), "-"},
		"folded header":           {post("Transfer-Encoding:\n chunked\n", "0\n\n"+hidden), ""},
		"folded away":             {post("X-A: b\n Transfer-Encoding: chunked\nContent-Length: 5\n", "hello"), "hello"},
		"space before the colon":  {post("Transfer-Encoding : chunked\n", "0\n\n"+hidden), "-"},
		"tab before the colon":    {post("Content-Length\t: 5\n", "hello"+hidden), "-"},
		"unknown coding":          {post("Transfer-Encoding: xchunked\n", "0\n\n"+hidden), "-"},
		"two codings":             {post("Transfer-Encoding: gzip, chunked\n", "0\n\n"+hidden), "-"},
		"chunked twice":           {post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n", "0\n\n"+hidden), "-"},
		"identity":                {post("Transfer-Encoding: identity\nContent-Length: 5\n", "hello"+hidden), "-"},
		"bad chunk size":          {post("Transfer-Encoding: chunked\n", "5;x\nhello\nzz\n"+hidden), "-"},
		"chunk size with a sign":  {post("Transfer-Encoding: chunked\n", "+5\nhello\n0\n\n"), "-"},
		"no host":                 {"GET /proxy/x HTTP/1.1\n" + strings.ReplaceAll(named, "Host: localhost\n", "") + "\n", "-"},
		"two hosts":               {"GET /proxy/x HTTP/1.1\nHost: a\n" + named + "\n", "-"},
		"upgrade of the protocol": {post("Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\nContent-Length: 0\n", ""), ""},
		"control in a value":      {post("X-A: a\x00b\nContent-Length: 0\n", ""), "-"},
		"line feed in a value":    {post("X-A: a\x0bb\nContent-Length: 0\n", ""), "-"},
		"good":                    {post("Content-Length: 5\n", "hello"), "hello"},
	} {
		// A call that was broken off may reach the provider after its answer
		// reached us, so each is known by its number.
		number++
		id := strconv.Itoa(number)
		w := dial(t, c)
		w.send(t, strings.Replace(test.request, "CASE", id, 1))
		_ = w.SetReadDeadline(time.Now().Add(5 * time.Second))
		var answers []int
		for range 3 {
			res, err := http.ReadResponse(w.in, nil)
			if err != nil {
				break
			}
			_, _ = io.Copy(io.Discard, bufio.NewReader(res.Body))
			answers = append(answers, res.StatusCode)
			if len(answers) == 1 { // another one would be there by now, or soon
				_ = w.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			}
		}
		w.Close()
		var got []string
		for _, call := range u.calls() {
			if strings.Contains(call, "hidden") {
				t.Errorf("%s: the provider saw %q", name, call)
			}
			if strings.HasSuffix(call, "?"+id) {
				got = append(got, call)
			}
		}
		t.Logf("%s: answers %v, the provider saw %v", name, answers, got)
		if len(got) > 1 {
			t.Errorf("%s: the provider saw %q", name, got)
		}
		switch body, whole := bodies.Load(id); {
		case whole && (len(answers) == 0 || answers[0] == 200 && body != test.body):
			t.Errorf("%s: the provider saw the body %q, answers %v", name, body, answers)
		case !whole && len(answers) > 0 && answers[0] == 200:
			t.Errorf("%s: the provider saw nothing, answers %v", name, answers)
		}
		if test.body == "-" && (len(answers) != 1 || answers[0] != 400 && answers[0] != 501) {
			t.Errorf("%s: got %v", name, answers)
		}
	}
}
