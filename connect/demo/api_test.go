package demo_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

func TestAPIRefuses(t *testing.T) {
	v := newVisit(t, demo.Options{})
	good := v.connect("ada").Access
	tests := map[string]struct {
		authorization []string
		wantError     bool
	}{
		"nothing":        {nil, false},
		"unknown token":  {[]string{"Bearer x"}, true},
		"another scheme": {[]string{"Basic " + good}, true},
		"no scheme":      {[]string{good}, true},
		"two tokens":     {[]string{"Bearer " + good, "Bearer " + good}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/api/me", "/api/echo", "/api/events", "/api/none"} {
				r := httptest.NewRequest("POST", path, strings.NewReader("x"))
				r.Header["Authorization"] = test.authorization
				res := v.send(r)
				var e struct{ Error string }
				decode(t, res, &e)
				c := res.Header.Get("WWW-Authenticate")
				if res.StatusCode != 401 || e.Error != "invalid_token" || !strings.HasPrefix(c, "Bearer ") || strings.Contains(c, `error="invalid_token"`) != test.wantError {
					t.Errorf("%s: got %d %q, challenge %q", path, res.StatusCode, e.Error, c)
				}
			}
		})
	}
	if res := v.api("GET", "/api/none", good); res.StatusCode != 404 {
		t.Errorf("another path: got %d", res.StatusCode)
	}
	if res := v.api("POST", "/api/me", good); res.StatusCode != 405 {
		t.Errorf("another method: got %d", res.StatusCode)
	}
	if s := v.Stats(); s.APICalls[401] != 20 || s.APICalls[404] != 1 || s.APICalls[405] != 1 {
		t.Errorf("got %v", s.APICalls)
	}
}

func TestEcho(t *testing.T) {
	v := newVisit(t, demo.Options{})
	token := v.connect("ada").Access
	content := append(bytes.Repeat([]byte("ö"), 600_000), 0xff)
	r := httptest.NewRequest("PROPFIND", "http://demo.test/api/echo/a%2Fb/..//c?q=1&q=2;x", bytes.NewReader(content))
	r.Header.Set("Authorization", "bearer "+token)
	r.Header.Set("Cookie", "session=secret")
	r.Header.Set("X-Api-Key", "secret")
	r.Header["X-Twice"] = []string{"1", "2"}
	res := v.send(r)
	var got demo.Echo
	decode(t, res, &got)
	sum := sha256.Sum256(content)
	switch {
	case res.StatusCode != 200 || got.Method != "PROPFIND" || got.Path != "/api/echo/a%2Fb/..//c" || got.Query != "q=1&q=2;x" || got.Host != "demo.test":
		t.Errorf("got %d %s %s ? %s at %s", res.StatusCode, got.Method, got.Path, got.Query, got.Host)
	case got.Length != int64(len(content)) || got.SHA256 != hex.EncodeToString(sum[:]) || got.Body != string(content[:1<<20]):
		t.Errorf("the body of %d bytes arrived as %d, %s", len(content), got.Length, got.SHA256)
	case !slices.Equal(got.Headers["X-Twice"], []string{"1", "2"}):
		t.Errorf("X-Twice is %v", got.Headers["X-Twice"])
	}
	for _, name := range []string{"Authorization", "Cookie", "X-Api-Key"} {
		if !slices.Equal(got.Headers[name], []string{"[present]"}) {
			t.Errorf("%s is %v", name, got.Headers[name])
		}
	}
}

func TestKeyAPI(t *testing.T) {
	v := newVisit(t, demo.Options{APIKeys: []string{"demo_onetwothree", "demo_fourfivesix"}})
	call := func(path string, keys ...string) *http.Response {
		r := httptest.NewRequest("GET", path, nil)
		r.Header["X-Api-Key"] = keys
		return v.send(r)
	}
	for _, keys := range [][]string{nil, {""}, {demo.DefaultAPIKey}, {"demo_onetwothree", "demo_onetwothree"}} {
		res := call("/keys/api/whoami", keys...)
		var e struct{ Error string }
		decode(t, res, &e)
		if res.StatusCode != 401 || e.Error != "invalid_api_key" || res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%q: got %d %q", keys, res.StatusCode, e.Error)
		}
	}
	if got := body(t, call("/keys/api/whoami", "demo_fourfivesix")); !strings.Contains(got, `"key_ends_in":"esix"`) || strings.Contains(got, "demo_") {
		t.Errorf("whoami: got %s", got)
	}
	if got := body(t, call("/keys/api/echo?x=1", "demo_onetwothree")); !strings.Contains(got, `"query":"x=1"`) || strings.Contains(got, "demo_") {
		t.Errorf("echo: got %s", got)
	}
	if res := call("/keys/api/", "demo_onetwothree"); res.StatusCode != 404 {
		t.Errorf("another path: got %d", res.StatusCode)
	}
}

func TestEvents(t *testing.T) {
	v := newVisit(t, demo.Options{})
	token := v.connect("ada").Access
	server := httptest.NewServer(v)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type is %q", got)
	}
	events := 0
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if !strings.Contains(data, `"account":"ada"`) {
				t.Errorf("got %s", data)
			}
			if events++; events == 2 {
				v.Close()
				v.Close() // may be called twice
			}
		}
	}
	if events != 2 || lines.Err() != nil {
		t.Errorf("got %d events, then %v", events, lines.Err())
	}
}
