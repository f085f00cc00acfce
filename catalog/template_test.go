package catalog

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"
)

func env(pairs ...string) *Env {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return &Env{
		Lookup: func(ns, path string) (string, bool) { v, ok := m[ns+"."+path]; return v, ok },
		Now:    time.Date(2025, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3600)),
	}
}

func mustValue(t testing.TB, src ...string) Value {
	t.Helper()
	v, err := ParseValue(src...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTemplatesFill(t *testing.T) {
	seed := ed25519.NewKeyFromSeed(make([]byte, 32))
	der, _ := x509.MarshalPKCS8PrivateKey(seed)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	jwt := "x." + base64.RawURLEncoding.EncodeToString([]byte(`{"tid":"t-1","n":7,"o":{}}`)) + ".x"
	e := env("conn.a", "Añb", "cred.user", "u", "cred.pass", "", "token.access_token", jwt, "cred.key", key,
		"flow.redirect_uri", "https://cb.example.com:8443/x", "req.method", "GET", "resp.a.b-c.$x", "deep")

	for _, c := range []struct{ src, want string }{
		{"", ""},
		{"plain", "plain"},
		{"{{a}} {conn.a}", "{a} Añb"},
		{"query{{organization{{id}}}}", "query{organization{id}}"},
		{"{resp.a.b-c.$x}", "deep"},
		{"Basic {base64(cred.user, ':', cred.pass)}", "Basic dTo="},
		{"{base64( cred.user,':' )}", "dTo="},
		{`{'it\'s \\ \n'}`, "it's \\ \n"},
		{"{time('iso')}", "2025-01-02T02:04:05.678Z"},
		{"{time('iso_seconds')}", "2025-01-02T02:04:05"},
		{"{time('basic')}", "20250102T020405Z"},
		{"{time('rfc2822')}", "Thu, 02 Jan 2025 02:04:05 +0000"},
		{"{time('unix')}", "1735783445"},
		{"{time('unix_ms')}", "1735783445678"},
		{"{time('date', '+7d')}", "2025-01-09"},
		{"{time('unix', '+1m')}", "1735783505"},
		{"{time('unix', '-1h')}", "1735779845"},
		{"{sha256_hex('a', 'bc')}", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"{sha256_base64('abc')}", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
		{"{hmac_sha1_hex('key', 'The quick brown fox ', 'jumps over the lazy dog')}", "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9"},
		{"{hmac_sha256_hex('key', 'The quick brown fox jumps over the lazy dog')}", "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"},
		{"{left(conn.a, '2')}", "Añ"},
		{"{left(conn.a, '9')}", "Añb"},
		{"{upper(replace('a-b', '-', '_'))}", "A_B"},
		{"{host_of(flow.redirect_uri)}", "cb.example.com"},
		{"{jwt_claim(token.access_token, 'tid')}{jwt_claim(token.access_token, 'n')}", "t-17"},
		{"{urlencode('a b', '&')}", "a+b%26"},
		{`{json('<"a">')}`, `"<\"a\">"`},
	} {
		got, err := mustValue(t, c.src).Fill(e)
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.src, got, err, c.want)
		}
	}

	sig, err := mustValue(t, "{ed25519_sign_base64(cred.key, 'a', 'b')}").Fill(e)
	raw, _ := base64.StdEncoding.DecodeString(sig)
	if err != nil || !ed25519.Verify(seed.Public().(ed25519.PublicKey), []byte("ab"), raw) {
		t.Errorf("signature %q, %v does not verify", sig, err)
	}
	if fp, err := mustValue(t, "{key_fingerprint(cred.key)}").Fill(e); err != nil || !strings.HasPrefix(fp, "SHA256:") || len(fp) != 51 {
		t.Errorf("fingerprint %q, %v", fp, err)
	}
}

func TestBadTemplatesSayWhatToDo(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"a } b", "write }} for the character itself"},
		{"{", "{ must be followed by a reference"},
		{"{ conn.a }", "{ must be followed by a reference"},
		{"{conn.a", "missing } after {conn.a"},
		{"{conn.}", "ends in a dot"},
		{"{conn}", `a reference has a namespace, such as conn.conn`},
		{"{con.a}", `unknown namespace "con"; did you mean "conn"?`},
		{"{step0.a}", `unknown namespace "step0"; did you mean "step1"?`},
		{"{bas64(conn.a)}", `unknown function "bas64"; did you mean "base64"?`},
		{"{uuid}", "uuid is a function; write uuid(...)"},
		{"{uuid('x')}", "uuid takes 0 arguments, not 1"},
		{"{base64()}", "base64 needs 1 or more arguments, not 0"},
		{"{time()}", "time takes 1 to 2 arguments, not 0"},
		{"{time('iso8601')}", "time has the layouts"},
		{"{time(conn.a)}", "time has the layouts"},
		{"{time('iso', '7d')}", "the offset of time"},
		{"{left(conn.a, 'x')}", "left takes a text and a quoted number"},
		{"{base64('a)}", "quoted text without an end"},
		{`{base64('\t')}`, "unknown escape"},
		{"{base64('a' 'b')}", "missing , or ) in the call of base64"},
		{"{" + strings.Repeat("upper(", 20) + "'a'", "nested deeper than 8"},
		{"{base64(" + strings.Repeat("'a',", maxArgs) + "'a')}", "more than 64 arguments"},
		{strings.Repeat("x", maxTemplate+1), "template longer"},
	} {
		_, err := ParseValue(c.src)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: error %v, want %q", c.src, err, c.want)
		}
	}
}

func TestAlternativesAndMissingValues(t *testing.T) {
	v := mustValue(t, "{conn.version}", "2022-11-28")
	if got, err := v.Fill(env("conn.version", "2024-01-01")); got != "2024-01-01" || err != nil {
		t.Error(got, err)
	}
	for _, e := range []*Env{nil, {}, env("conn.version", "")} {
		if got, err := v.Fill(e); got != "2022-11-28" || err != nil {
			t.Error(got, err)
		}
	}
	_, err := mustValue(t, "{conn.a}", "x{conn.subdomain}").Fill(env("conn.a", ""))
	if !errors.Is(err, ErrMissing) || err.Error() != "conn.subdomain is missing or empty" {
		t.Errorf("the last error must count and name the reference: %v", err)
	}
	// A fault that is not a missing value never falls through.
	if _, err := mustValue(t, "{key_fingerprint(conn.a)}", "x").Fill(env("conn.a", "SECRET")); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("error %v", err)
	}
	if _, err := mustValue(t, "{jwt_claim(conn.a, 'x')}").Fill(env("conn.a", "a.e30.c")); !errors.Is(err, ErrMissing) {
		t.Errorf("an absent claim is a missing value: %v", err)
	}
}

func TestValuesTellWhatTheyDependOn(t *testing.T) {
	for src, want := range map[string]bool{
		"{conn.a}": false, "{base64(cred.a)}": false, "{req.body}": true, "{base64(uuid())}": true, "{time('unix')}": true,
	} {
		if got := mustValue(t, src).PerRequest(); got != want {
			t.Errorf("%s: PerRequest %v", src, got)
		}
	}
	refs := mustValue(t, "{conn.a}{base64(cred.b, conn.a)}", "{app.c}").Refs()
	if len(refs) != 3 || refs[1] != (Ref{"cred", "b"}) {
		t.Error(refs)
	}
}

func TestOneEnvGivesOneUUIDAndTime(t *testing.T) {
	e := &Env{}
	a, _ := mustValue(t, "{uuid()} {time('unix_ms')}").Fill(e)
	time.Sleep(2 * time.Millisecond)
	b, _ := mustValue(t, "{uuid()} {time('unix_ms')}").Fill(e)
	c, _ := mustValue(t, "{uuid()} {time('unix_ms')}").Fill(&Env{})
	if a != b || a == c || !uuidForm.MatchString(a[:36]) || a[14] != '4' {
		t.Error(a, b, c)
	}
}

func TestS126OutputIsLimited(t *testing.T) {
	e := env("conn.a", strings.Repeat("a", maxOutput), "conn.b", strings.Repeat("a", maxOutput+1))
	for _, src := range []string{"{conn.a}x", "{conn.b}", "{base64(conn.a)}", "{base64(conn.a, conn.a)}", "{replace(conn.a, 'a', conn.a)}"} {
		if _, err := mustValue(t, src).Fill(e); !errors.Is(err, errTooLong) {
			t.Errorf("%s: %v", src, err)
		}
	}
}

func TestS88NoHeaderInjection(t *testing.T) {
	for _, bad := range []string{"a\r\nx: y", "a\nb", "a\rb", "a\x00b", "\x7f", "\x1b[0m"} {
		_, err := Headers{"x-key": mustValue(t, "{cred.api_key}")}.Fill(env("cred.api_key", bad))
		var u *UnsafeError
		if !errors.As(err, &u) || !errors.Is(err, ErrUnsafe) || strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	got, err := Headers{"x-key": mustValue(t, "{cred.a}"), "x-gone": mustValue(t, "{cred.b}")}.Fill(env("cred.a", "a\tb é"))
	if err != nil || len(got) != 1 || got["X-Key"] != "a\tb é" {
		t.Error(got, err)
	}
	// Nor by the file itself.
	for _, h := range []string{"host: evil", "content-length: 1", "transfer-encoding: chunked", "connection: x", `"a b": x`, `x: "a\r\nb"`, "Authorization: x"} {
		if _, err := Parse("a.yaml", []byte(minimal+"request: {base_url: 'https://a.com', headers: {"+h+"}}\n")); err == nil {
			t.Errorf("header %s was taken", h)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{a}} {conn.a}", "{base64(cred.u, ':', cred.p)}", `{'\\\'\n'}`, "{time('unix', '+1m')}", "{left(upper(app.x), '3')}", "}", "{"} {
		f.Add(s, "value")
	}
	f.Fuzz(func(t *testing.T, src, value string) {
		v, err := ParseValue(src)
		if err != nil {
			return
		}
		again, err := ParseValue(v.String())
		if err != nil || again.String() != v.String() {
			t.Fatalf("%q became %q, %v", src, again.String(), err)
		}
		e := &Env{Lookup: func(_, _ string) (string, bool) { return value, true }, Now: time.Unix(1, 0)}
		a, errA := v.Fill(e)
		b, errB := again.Fill(e)
		if a != b || (errA == nil) != (errB == nil) || len(a) > maxOutput {
			t.Fatalf("%q fills to %q, %q: %q", src, v.String(), a, b)
		}
	})
}
