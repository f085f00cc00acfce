package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// secrets of the kinds that there are: a token, one with what URLs and JSON
// escape, one with what HTML escapes, a JWT, the shortest.
var secrets = map[string]string{
	"token":    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
	"symbols":  `p@ss/w+rd=&"q" 'x'<y>\z%`,
	"unicode":  "pässwörd-\u20ac-\u2028-secret",
	"jwt":      "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
	"shortest": "s3cr3t-8",
}

func quoteJSON(t testing.TB, s string) string {
	t.Helper()
	b, err := json.Marshal(map[string]string{"k": s})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// echoes are answers with the secret in them, made as servers make them.
func echoes(t testing.TB, s string) map[string]string {
	t.Helper()
	all := map[string]string{
		"as it is":    `{"headers":{"x-api-key":"` + s + `"}}`,
		"JSON":        quoteJSON(t, s),
		"query":       "https://a.example/?key=" + url.QueryEscape(s) + "&b=c",
		"path":        "https://a.example/x/" + url.PathEscape(s) + "/y",
		"lower query": "https://a.example/?key=" + lowerEscapes(url.QueryEscape(s)) + "&b=c",
		"HTML":        `<td title="` + html.EscapeString(s) + `">`,
		"hex":         "key: " + hex.EncodeToString([]byte(s)) + "\n",
		"HEX":         "key: " + strings.ToUpper(hex.EncodeToString([]byte(s))) + "\n",
		"percent":     "?key=" + percent(s) + "&x",
		"basic":       "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+s)) + "\r\n",
	}
	for before := range 3 {
		for after := range 3 {
			inner := []byte(strings.Repeat("<", before) + s + strings.Repeat(">", after))
			for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding, "raw": base64.RawStdEncoding} {
				all[fmt.Sprintf("base64 %s %d %d", name, before, after)] = `{"data":"` + e.EncodeToString(inner) + `"}`
			}
		}
	}
	return all
}

// naive finds the secrets as slowly as can be, and without any cleverness.
func naive(r *Redactor, data string) string {
	out := []byte(data)
	for _, p := range r.patterns {
		for i := range data {
			if strings.HasPrefix(data[i:], string(p)) {
				erase(out[i : i+len(p)])
			}
		}
	}
	return string(out)
}

// split reads a text in the pieces that end where it is told.
func split(data string, at ...int) io.Reader {
	var readers []io.Reader
	from := 0
	for _, to := range append(at, len(data)) {
		readers = append(readers, strings.NewReader(data[from:to]))
		from = to
	}
	return io.MultiReader(readers...)
}

// Every encoding is found, wherever the stream is cut into pieces: what passes
// has its length, is the same around the secret, and has no more of it than
// the few bytes that can't be told from anything else.
func TestS105EveryEncodingAtEveryBoundary(t *testing.T) {
	t.Parallel()
	for kind, s := range secrets {
		r := New([]string{s})
		for name, data := range echoes(t, s) {
			want := naive(r, data)
			if want == data {
				t.Errorf("%s, %s: not found in %q", kind, name, data)
				continue
			}
			check := func(how string, src io.Reader) {
				t.Helper()
				found := 0
				got, err := io.ReadAll(r.NewReader(src, Blot, func() { found++ }))
				if err != nil || len(got) != len(want) || found != 1 {
					t.Fatalf("%s, %s, %s: %q, %v, found %d times", kind, name, how, got, err, found)
				}
				leaked := 0
				for i := range got {
					switch {
					case got[i] == want[i]:
					case want[i] == blot && got[i] == data[i]:
						leaked++
					default:
						t.Fatalf("%s, %s, %s: %q instead of %q", kind, name, how, got, want)
					}
				}
				if leaked >= held {
					t.Fatalf("%s, %s, %s: %q has %d bytes of the secret", kind, name, how, got, leaked)
				}
			}
			for at := range len(data) {
				check(fmt.Sprint("cut at ", at), split(data, at))
			}
			check("one byte at a time", iotest.OneByteReader(strings.NewReader(data)))
			check("whole", strings.NewReader(data))
			check("with the end", iotest.DataErrReader(strings.NewReader(data)))
			if got, ok := r.String(data); !ok || got != want {
				t.Errorf("%s, %s: in a header: %q", kind, name, got)
			}
		}
	}
}

// Whatever is cut into whatever pieces, nothing but the secrets is changed.
func FuzzReader(f *testing.F) {
	f.Add("ab", "xxabxx", uint64(1))
	f.Add("12345678", "1234567812345678 123456781234", uint64(2))
	f.Add("aaaaaaaa", strings.Repeat("a", 50), uint64(3))
	f.Add("ghp_16C7e42F292c6912", base64.StdEncoding.EncodeToString([]byte(" ghp_16C7e42F292c6912 ")), uint64(4))
	f.Fuzz(func(t *testing.T, secret, data string, seed uint64) {
		if len(secret) > 200 || len(data) > 4000 {
			return // naive takes too long
		}
		r := New([]string{secret, secret + "-more", "another1"})
		want := naive(r, data)
		rnd := rand.New(rand.NewPCG(seed, 0))
		cuts := make([]int, rnd.IntN(5))
		for i := range cuts {
			cuts[i] = rnd.IntN(len(data) + 1)
		}
		slices.Sort(cuts)
		got, err := io.ReadAll(r.NewReader(split(data, cuts...), Blot, nil))
		if err != nil || len(got) != len(data) {
			t.Fatalf("%q, %v", got, err)
		}
		if whole, _ := io.ReadAll(r.NewReader(strings.NewReader(data), Blot, nil)); string(whole) != want {
			t.Fatalf("in one piece: %q instead of %q", whole, want)
		}
		for i := range got {
			if got[i] != want[i] && got[i] != data[i] {
				t.Fatalf("%q instead of %q", got, want)
			}
		}
		if s, _ := r.String(data); s != want {
			t.Fatalf("in a header: %q instead of %q", s, want)
		}
	})
}

// What only looks like a secret's beginning doesn't keep a stream waiting.
func TestNothingElseIsHeldBack(t *testing.T) {
	t.Parallel()
	r := New([]string{"ghp_16C7e42F292c6912E7710c838347Ae178B4a"})
	for _, piece := range []string{"data: 1\n\n", "ghp", "x ghp", "g", "data: {\"a\":\"ghp_1 6\"}\n\n", strings.Repeat("x", chunk+7)} {
		pr, pw := io.Pipe()
		d := r.NewReader(pr, Blot, nil)
		go func() { _, _ = io.WriteString(pw, piece) }()
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(d, got); err != nil || string(got) != piece {
			t.Errorf("%q, %v", got, err)
		}
		pw.Close()
	}
}

// The modes differ in what becomes of the stream only.
func TestModes(t *testing.T) {
	t.Parallel()
	const secret = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
	data := strings.Repeat("a", 3*chunk) + secret + "bbb"
	for mode, want := range map[Mode]string{Report: data, Blot: strings.ReplaceAll(data, secret, strings.Repeat("*", len(secret)))} {
		found := 0
		got, err := io.ReadAll(New([]string{secret}).NewReader(strings.NewReader(data), mode, func() { found++ }))
		if string(got) != want || err != nil || found != 1 {
			t.Errorf("mode %d: %d bytes, %v, found %d times", mode, len(got), err, found)
		}
	}
	got, err := io.ReadAll(New([]string{secret}).NewReader(strings.NewReader(data), Stop, nil))
	if !errors.Is(err, ErrFound) || bytes.Contains(got, []byte(secret[:held])) || len(got) < chunk {
		t.Errorf("stopped after %d bytes with %v", len(got), err)
	}
}

// What is too short to mean anything is not looked for.
func TestShortSecrets(t *testing.T) {
	t.Parallel()
	if New([]string{"", "x", "1234567"}) != nil {
		t.Error("a short secret is looked for")
	}
	if r := New([]string{"short", "long enough"}); r == nil || r.Finds("short") || !r.Finds("a long enough one") {
		t.Error("the long one is not looked for alone")
	}
}

// BenchmarkRandom is a MiB of random bytes each time, in which nothing may be
// found: -benchtime 1024x makes it a GiB.
func BenchmarkRandom(b *testing.B) {
	var all []string
	for _, s := range secrets {
		all = append(all, s)
	}
	r := New(all)
	rnd := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		b.StopTimer()
		_, _ = rnd.Read(data)
		b.StartTimer()
		if _, err := io.Copy(io.Discard, r.NewReader(bytes.NewReader(data), Stop, nil)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReader is what an answer costs, by its size.
func BenchmarkReader(b *testing.B) {
	r := New([]string{secrets["token"]})
	text := strings.Repeat(`{"id":1296269,"name":"Hello-World","full_name":"octocat/Hello-World","private":false},`, 1<<20/86)
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := []byte(text[:min(size, len(text))])
			buf := make([]byte, chunk)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				d := r.NewReader(bytes.NewReader(data), Blot, nil)
				for {
					if _, err := d.Read(buf); err != nil {
						break
					}
				}
			}
		})
	}
}

// BenchmarkNew is what a credential costs, once.
func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		New([]string{secrets["token"]})
	}
}

// BenchmarkString is a header's value.
func BenchmarkString(b *testing.B) {
	r := New([]string{secrets["token"]})
	b.ReportAllocs()
	for b.Loop() {
		if r.Finds("max-age=0, private, must-revalidate") {
			b.Fatal("found")
		}
	}
}
