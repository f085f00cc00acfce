package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

func TestS90AddressesThatCallsMayName(t *testing.T) {
	base, err := url.Parse("https://api.example/v1")
	if err != nil {
		t.Fatal(err)
	}
	var allowed []*url.URL
	for _, raw := range []string{"https://eu.api.example/v1", "https://uploads.example"} {
		u, err := ParseBaseURL(raw)
		if err != nil {
			t.Fatal(err)
		}
		allowed = append(allowed, u)
	}
	for _, raw := range []string{"eu.api.example", "ftp://a.example", "https://", "https://u@a.example", "https://a.example?x", "https://a.example/#x", "https://a.example/a/../b", "https://a.example/a%2Fb", "//a.example", ""} {
		if _, err := ParseBaseURL(raw); err == nil {
			t.Errorf("%q is taken", raw)
		}
	}
	c := Compat{BaseURLs: map[string][]*url.URL{"some": allowed}}
	for override, want := range map[string]string{
		"": "https://api.example/v1", "https://eu.api.example/v1": "https://eu.api.example/v1", "https://EU.api.example/v1/sub/": "https://eu.api.example/v1/sub/",
		"https://uploads.example/any": "https://uploads.example/any",
		"http://eu.api.example/v1":    "base_url_override_not_allowed", "https://eu.api.example/v12": "base_url_override_not_allowed", "https://eu.api.example": "base_url_override_not_allowed",
		"https://eu.api.example:8443/v1": "base_url_override_not_allowed", "https://uploads.example.evil.example": "base_url_override_not_allowed",
		"https://uploads.example@evil.example": "invalid_headers", "https://eu.api.example/v1/../v2": "invalid_headers", "https://eu.api.example/v1/%2e%2e/v2": "invalid_headers",
		"evil": "invalid_headers", "http://169.254.169.254/": "base_url_override_not_allowed",
	} {
		call := &Call{Caller: testCaller, Auth: bind(t, base.String(), bearerRequest, "new")}
		call.ID.Integration = "some"
		h := http.Header{headerBaseURL: {override}}
		got, err := c.base(h, call)
		var p *problem.Problem
		switch {
		case errors.As(err, &p):
			if p.Code != want {
				t.Errorf("%q: got %s, want %s", override, p.Code, want)
			}
		case err != nil || got.String() != want:
			t.Errorf("%q: got %v, %v, want %s", override, got, err, want)
		}
		call.ID.Integration = "other"
		if _, err := c.base(h, call); override != "" && (!errors.As(err, &p) || p.Code != "base_url_override_disabled") {
			t.Errorf("another integration's %q: got %v", override, err)
		}
		// What a key is limited to is below the provider's own address.
		call.ID.Integration, call.Caller = "some", limitedCaller(t, policy.Limits{Calls: []string{"GET /**"}})
		var ce *policy.CallError
		if _, err := c.base(h, call); strings.HasPrefix(want, "https:") && override != "" && !errors.As(err, &ce) {
			t.Errorf("a limited key's %q: got %v", override, err)
		}
	}
}

func TestPlaceholdersInACallsPath(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, report)
	with := func(sub string) {
		g.old = boundTo(t, &g.new.Binding, connect.Connection{
			ID: testID, UID: "u", Config: map[string]string{"sub": sub, "account_id": "7"}, Metadata: []byte(`{"list":"l&x=1","n":5,"o":{}}`),
		}, "new")
	}
	with("a/../b c")
	const path = "/x/${connectionConfig.sub}/%24%7BconnectionConfig.accountId%7D?l=${metadata.list}&n=${metadata.n}"
	call := func(path string) (int, string) {
		res, body := raw(t, g.front, "GET "+path+" HTTP/1.1\nHost: keycaddy.example\nConnection: close\n\n")
		if res.StatusCode != 200 {
			return res.StatusCode, res.Header.Get(problem.Header)
		}
		line, _, _ := strings.Cut(body, "\n")
		return 200, line
	}
	if status, line := call("/y?l=${metadata.list}"); status == 200 && !strings.Contains(line, "${metadata.list}") && !strings.Contains(line, "$%7B") {
		t.Errorf("without the switch: %s", line)
	}
	g.proxy.Compat.EndpointTemplates = true
	// What is filled in stays one segment, which is refused where it could be read
	// as more, and one value.
	if status, code := call(path); status != 400 || code != "invalid_path" {
		t.Errorf("got %d %s", status, code)
	}
	with("b c")
	if status, line := call(path); status != 200 || !strings.Contains(line, "/x/b%20c/7?l=l%26x%3D1&n=5") {
		t.Errorf("got %d %s", status, line)
	}
	for _, name := range []string{"connectionConfig.none", "metadata.o", "metadata.none", "nothing", "credentials.none"} {
		if status, code := call("/x/${" + name + "}"); status != 400 || code != "invalid_endpoint" {
			t.Errorf("%s: got %d %s", name, status, code)
		}
	}
}

func TestS86OnlyASwitchLetsACallReplaceTheCredential(t *testing.T) {
	for allowed, want := range map[bool]string{false: "Bearer new", true: "Bearer mine"} {
		g := newRig(t, bearerRequest, report)
		g.old = g.new
		g.proxy.Compat.CallerHeaders = allowed
		g.proxy.Provision()
		res, body := raw(t, g.front, "GET /x HTTP/1.1\nHost: keycaddy.example\nNango-Proxy-Authorization: Bearer mine\nNango-Proxy-X-Own: 1\nNango-Proxy-Host: evil.example\nNango-Proxy-Connection: x\nNango-Proxy-Retries: 3\nConnection: close\n\n")
		for _, line := range []string{"authorization: " + want, "x-own: 1"} {
			if res.StatusCode != 200 || !strings.Contains(body, line) {
				t.Errorf("no %s in %d %s", line, res.StatusCode, body)
			}
		}
		for _, not := range []string{"nango", "evil", "retries"} {
			if strings.Contains(body, not) {
				t.Errorf("%s in %s", not, body)
			}
		}
	}
}
