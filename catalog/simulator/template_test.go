package simulator

import (
	"strings"
	"testing"
	"time"
)

func scopeOf(values map[string]string) *scope {
	return &scope{
		lookup: func(ref string) (string, bool) { v, ok := values[ref]; return v, ok },
		made:   map[string]string{}, now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
	}
}

func TestTemplatesMatchWhatTheyMake(t *testing.T) {
	values := map[string]string{"cred.user": "ada", "cred.password": `p"ä`, "conn.region": "eu", "conn.empty": "", "token.access_token": "e30.eyJ0aWQiOiJ0MSJ9.x"}
	for _, c := range []struct{ template, value, fault string }{
		{"Bearer {cred.user}", "Bearer ada", ""},
		{"Bearer {cred.user}", "Bearer bob", "not"},
		{"Bearer {cred.user}", "Bearer adab", "not"},
		{"{{{cred.user}}}", "{ada}", ""},
		{"{base64(cred.user, ':', conn.empty)}", "YWRhOg==", ""},
		{"{json(cred.password)}", `"p\"ä"`, ""},
		{"{urlencode('a b')}", "a+b", ""},
		{"{left(cred.user, '2')}{upper(conn.region)}{replace('a-b', '-', '_')}", "adEUa_b", ""},
		{"{host_of('https://h.example:1/x')}", "h.example", ""},
		{"{jwt_claim(token.access_token, 'tid')}", "t1", ""},
		{"{sha256_hex('abc')}", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", ""},
		{"{hmac_sha1_hex('key', 'The quick brown fox ', 'jumps over the lazy dog')}", "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9", ""},
		{"{uuid()}", "0d8a63ba-9f8a-4a5e-8b6e-000000000000", ""},
		{"{uuid()}", "0d8a63ba", "not"},
		{"{time('iso')}", "2026-03-04T05:06:08.123Z", ""},
		{"{time('iso')}", "2026-03-04T06:06:08.123Z", "off"},
		{"{time('unix', '+1m')}", "1772600827", ""},
		{"{time('date', '+7d')}", "2026-03-11", ""},
		{"{time('rfc2822')}", "Wed, 04 Mar 2026 05:06:09 +0000", ""},
	} {
		s := scopeOf(values)
		parsed, err := s.choose([]string{c.template})
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		err = s.match(parsed, c.value)
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s and %s: %v", c.template, c.value, err)
		}
	}
}

func TestFirstAlternativeThatIsThereCounts(t *testing.T) {
	s := scopeOf(map[string]string{"conn.b": "x", "conn.empty": ""})
	for _, c := range []struct {
		alternatives []string
		want         string
	}{
		{[]string{"1{conn.a}", "2{conn.b}", "3"}, "2x"},
		{[]string{"1{conn.empty}", "2"}, "2"},
		{[]string{"1{base64(conn.empty)}", "2"}, "1"},
	} {
		parsed, err := s.choose(c.alternatives)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.text(parsed); err != nil || got != c.want {
			t.Errorf("%v: %q, %v", c.alternatives, got, err)
		}
	}
	if _, err := s.choose([]string{"{conn.a}"}); err == nil {
		t.Error("a value that isn't there was found")
	}
}

// What is made for each request is the same all over it.
func TestOneRequestHasOneUUID(t *testing.T) {
	s := scopeOf(nil)
	plain, _ := s.choose([]string{"{uuid()}"})
	hashed, _ := s.choose([]string{"{sha256_hex(uuid())}"})
	const id = "00000000-0000-4000-8000-000000000000"
	if err := s.match(hashed, strings.Repeat("0", 64)); err == nil {
		t.Error("a digest of a value that nobody has seen was taken")
	}
	if err := s.match(plain, id); err != nil {
		t.Fatal(err)
	}
	digest, _ := call("sha256_hex", []string{id})
	if err := s.match(hashed, digest); err != nil {
		t.Error(err)
	}
	if err := s.match(plain, strings.Replace(id, "0", "1", 1)); err == nil {
		t.Error("a second UUID was taken")
	}
}
