package catalog

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func mustURL(t testing.TB, src ...string) URL {
	t.Helper()
	u, err := ParseURL(src...)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestURLsFill(t *testing.T) {
	e := env("conn.sub", "ACME", "conn.d", "a.b.example.com", "conn.id", "a/b c?d#e%2f", "conn.port", "8443",
		"conn.url", "https://x.my.example.com:8443/base/", "app.url", "http://127.0.0.1:9091", "app.six", "http://[::1]:80",
		"app.link", "https://a.example.com/x?y=1", "conn.colon", "bot1:x&y=z")
	for _, c := range []struct{ src, want string }{
		{"https://api.example.com", "https://api.example.com"},
		{"https://api.example.com:8443/", "https://api.example.com:8443/"},
		{"https://{conn.sub}.zendesk.com/oauth", "https://acme.zendesk.com/oauth"},
		{"https://{conn.d}/x", "https://a.b.example.com/x"},
		{"https://api-{conn.sub}.example.com:{conn.port}/x", "https://api-acme.example.com:8443/x"},
		{"https://a.com/v1/{conn.id}/y?q={conn.id}&z=1", "https://a.com/v1/a%2Fb%20c%3Fd%23e%252f/y?q=a%2Fb+c%3Fd%23e%252f&z=1"},
		{"https://a.com/{conn.colon}/x", "https://a.com/bot1:x&y=z/x"},
		{"https://a.com?x={conn.sub}", "https://a.com?x=ACME"},
		{"{conn.url}", "https://x.my.example.com:8443/base/"},
		{"{conn.url}/x", "https://x.my.example.com:8443/base/x"},
		{"{app.url}/api", "http://127.0.0.1:9091/api"},
		{"{app.six}/api", "http://[::1]:80/api"},
		{"{app.link}", "https://a.example.com/x?y=1"},
	} {
		got, err := mustURL(t, c.src).Fill(e)
		if err != nil || got.String() != c.want {
			t.Errorf("%s: got %v, %v; want %s", c.src, got, err, c.want)
		}
	}
}

func TestRelativeURLsJoinTheBase(t *testing.T) {
	p, err := Parse("a.yaml", []byte(minimal+`
cred_fields: [{name: api_key, secret: true}]
request: {base_url: 'https://a.com'}
verify: {paths: [/me, v1/models, '/x?k={cred.api_key}', '?a=b', 'https://other.com/y']}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{"https://a.com/api", "https://a.com/api/"} {
		b, _ := url.Parse(base)
		for i, want := range []string{"https://a.com/api/me", "https://a.com/api/v1/models", "https://a.com/api/x?k=%26", base + "?a=b", "https://other.com/y"} {
			got, err := p.Verify.Paths[i].Under(b, env("cred.api_key", "&"))
			if err != nil || got.String() != want {
				t.Errorf("%s: got %v, %v; want %s", p.Verify.Paths[i], got, err, want)
			}
		}
		if b.String() != base {
			t.Error("the base was changed")
		}
	}
	if _, err := p.Verify.Paths[0].Fill(nil); err == nil {
		t.Error("a relative URL without a base must fail")
	}
}

var hostile = []string{
	"evil.com/", "evil.com/x", "a@b", "a:b@evil.com", "x:80@evil", "x#", "x?", "evil.com#", "evil.com?", "..", ".", "a..b", "a.", ".a",
	"evil.com:80", "evil.com%2f", "%2e%2e", "%00", "evil\\", "evil.com\\@x", "a b", " a", "a ", "a\tb", "a\r\nb", "a\x00", "",
	"bücher", "ｅvil", "evil。com", "a\u200bb", "[::1]", "::1", "[::1]:80", "127.0.0.1/", "-a", "a-", "a_b", "a*b", "a,b", "a;b", "a'b", "a\"b", "{conn.x}",
	"http://evil.com", "https://evil.com/", "//evil.com", strings.Repeat("a", 64), strings.Repeat("a.", 200) + "a",
}

func TestS27HostileConnectionFieldsNeverChangeTheHost(t *testing.T) {
	inside := mustURL(t, "https://{conn.subdomain}.zendesk.com/x")
	for _, v := range hostile {
		u, err := inside.Fill(env("conn.subdomain", v))
		if err == nil {
			t.Errorf("%q was taken: %s", v, u)
		} else if v != "" && !errors.Is(err, ErrUnsafe) {
			t.Errorf("%q: %v is not ErrUnsafe", v, err)
		} else if len(v) > 2 && strings.Contains(err.Error(), v) {
			t.Errorf("the error tells the value: %v", err)
		}
	}
	// A hostile value must not fall through to the next alternative either.
	if u, err := mustURL(t, "https://{conn.a}.x.com", "https://x.com").Fill(env("conn.a", "evil.com/")); err == nil {
		t.Errorf("fell through to %s", u)
	}
}

func TestS27WholeHostsAreNamesNotAddresses(t *testing.T) {
	whole := mustURL(t, "https://{conn.domain}/x")
	bad := append([]string{"127.0.0.1", "127.1", "0", "2130706433", "0x7f000001", "0X7F.1", "017700000001", "0177.0.0.1", "169.254.169.254", "1.2.3.4.5", "0x", "a.0x1", "a.1"}, hostile...)
	for _, v := range bad {
		if v == "https://evil.com/" {
			continue // the scheme that the template has anyway, then a host
		}
		if u, err := whole.Fill(env("conn.domain", v)); err == nil {
			t.Errorf("%q was taken: %s", v, u)
		}
	}
}

func TestS27PortAndPathOnlyWhereTheFieldShowsThem(t *testing.T) {
	p, err := Parse("a.yaml", []byte(minimal+`
conn_fields:
  - {name: bare, regex: '[a-z.]+'}
  - {name: both, example: 'acme.example.com:8000/main'}
  - {name: only, enum: [api.example.com/b2b]}
request: {base_url: 'https://{conn.bare}', headers: {}}
verify:
  paths: ['https://{conn.both}/x', 'https://{conn.only}', 'https://{conn.both}.example.com']
`))
	if err != nil {
		t.Fatal(err)
	}
	both, only := p.Verify.Paths[0], p.Verify.Paths[1]
	for v, want := range map[string]string{
		"a.com":                 "https://a.com/x",
		"https://a.com/":        "https://a.com/x",
		"a.com:8443":            "https://a.com:8443/x",
		"a.com/m/n/":            "https://a.com/m/n/x",
		"a.com:8000/m":          "https://a.com:8000/m/x",
		"a.com:0/m":             "",
		"a.com:8/..":            "",
		"a.com/../m":            "",
		"a.com/m//n":            "",
		"a.com/m?x":             "",
		"a.com/m#x":             "",
		"a.com/%2e%2e":          "",
		"a.com:80@evil":         "",
		"a.com:080":             "",
		"127.0.0.1/m":           "",
		"a.com/m\\n":            "",
		"https://https://a.com": "",
	} {
		got, err := both.Fill(env("conn.both", v))
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%q: got %v, %v; want %q", v, got, err, want)
		}
	}
	if got, err := only.Fill(env("conn.only", "api.example.com/b2b")); err != nil || got.String() != "https://api.example.com/b2b" {
		t.Error(got, err)
	}
	for ref, u := range map[string]URL{"conn.bare": p.Request.BaseURL, "conn.only": only, "conn.both": p.Verify.Paths[2]} {
		if got, err := u.Fill(env(ref, "api.example.com/other")); err == nil {
			t.Errorf("%s: %s", ref, got)
		}
	}
}

func TestS27HostileAbsoluteURLs(t *testing.T) {
	u := mustURL(t, "{conn.url}/x")
	for _, v := range []string{
		"", "evil.com", "//evil.com", "/x", "ftp://a.com", "javascript:alert(1)", "https:a.com", "https:///x", "https://", "https://u@a.com", "https://u:p@a.com",
		"https://a.com#", "https://a.com#x", "https://a.com?", "https://a.com?x", "https://a.com/..", "https://a.com/x/../y", "https://a.com/%2e%2e/",
		"https://127.0.0.1", "https://2130706433", "https://0x7f.1", "https://[::1]", "https://[fe80::1%25eth0]", "https://a.com:", "https://a.com:0", "https://a.com:99999",
		"https://a.com\\@b.com", "https://a b.com", "https://a.com\r\n", "https://bücher.de", "https://a..com", "https://a.com.", "https://a_b.com", " https://a.com", "https://a.com:08",
	} {
		if got, err := u.Fill(env("conn.url", v)); err == nil {
			t.Errorf("%q was taken: %s", v, got)
		}
	}
	for _, v := range []string{"http://127.1", "http://0x7f000001", "http://[::ffff:127.0.0.1%25x]", "http://u@127.0.0.1"} {
		if got, err := mustURL(t, "{app.url}").Fill(env("app.url", v)); err == nil {
			t.Errorf("%q was taken: %s", v, got)
		}
	}
}

func TestS27PathReferencesStayInTheirSegment(t *testing.T) {
	u := mustURL(t, "https://a.com/v1/{conn.id}/end")
	for _, v := range []string{".", "..", "../x", "x/..", "x/../y", "..\\x", "a\r\n", "\x00", "./x"} {
		if got, err := u.Fill(env("conn.id", v)); err == nil {
			t.Errorf("%q was taken: %s", v, got)
		}
	}
	if got, err := mustURL(t, "https://a.com/.{conn.id}").Fill(env("conn.id", ".x")); err != nil {
		t.Error(got, err)
	}
	for _, v := range []string{"x/y", "x?y", "x#y", "%2e%2e", "é", "a;b", "..."} {
		got, err := u.Fill(env("conn.id", v))
		if err != nil || strings.Count(got.EscapedPath(), "/") != 3 || got.RawQuery != "" || got.Fragment != "" {
			t.Errorf("%q: %v, %v", v, got, err)
		}
	}
}

func TestBadURLTemplates(t *testing.T) {
	for _, src := range []string{
		"", "api.example.com", "ftp://a.com", "//a.com", "/x", "https://", "https:///x", "https://u@a.com", "https://a.com#x", "https://a.com/{conn.x}#y", "https://a b.com",
		"https://a.com\\x", "https://a..com", "https://127.0.0.1/", "https://a.com:x/", "https://a.com:99999", "https://a.com:{conn.a}{conn.b}/", "{conn.a}x", "{conn.a}{conn.b}",
		"{conn.a}://b.com", "https://a.com/../x", "https://a.com/%zz", "https://{conn.a}@b.com", "https://{conn.a}_b.com", "https://é.com",
	} {
		if u, err := ParseURL(src); err == nil {
			t.Errorf("%q was taken: %v", src, u)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, v := range append(hostile, "acme", "https://a.com", "127.1", "a.com:80/x") {
		f.Add(v, v)
	}
	inside := mustURL(f, "https://{conn.a}.zendesk.com:8443/v1/{conn.b}/y?q={conn.b}")
	whole := mustURL(f, "https://{conn.a}/v1/{conn.b}")
	fixed := mustURL(f, "https://api.example.com/{conn.a}/{conn.b}?x={conn.a}")
	base := mustURL(f, "{conn.a}/v1/{conn.b}")
	f.Fuzz(func(t *testing.T, a, b string) {
		e := env("conn.a", a, "conn.b", b)
		for _, u := range []URL{inside, whole, fixed, base} {
			got, err := u.Fill(e)
			if err != nil {
				continue
			}
			again, err := url.Parse(got.String())
			if err != nil || again.Host != got.Host || again.User != nil || again.Fragment != "" || again.EscapedPath() != got.EscapedPath() {
				t.Fatalf("%q %q: %v is read as %v, %v", a, b, got, again, err)
			}
			host := again.Hostname()
			if _, err := netip.ParseAddr(host); err == nil || checkHost(host) != nil {
				t.Fatalf("%q: host %q", a, host)
			}
			switch u.String() {
			case inside.String():
				rest, ok := strings.CutSuffix(again.Host, ".zendesk.com:8443")
				if !ok || rest == "" || rest != strings.ToLower(a) || strings.Count(again.EscapedPath(), "/") != 3 {
					t.Fatalf("%q %q: %s", a, b, again)
				}
			case fixed.String():
				if again.Host != "api.example.com" || strings.Count(again.EscapedPath(), "/") != 2 {
					t.Fatalf("%q %q: %s", a, b, again)
				}
			case whole.String():
				if again.Host != strings.ToLower(strings.TrimPrefix(a, "https://")) || strings.Count(again.EscapedPath(), "/") != 2 {
					t.Fatalf("%q %q: %s", a, b, again)
				}
			}
			for s := range strings.SplitSeq(again.Path, "/") {
				if s == "." || s == ".." {
					t.Fatalf("%q %q: dot segment in %s", a, b, again)
				}
			}
		}
	})
}
