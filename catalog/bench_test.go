package catalog

import (
	"testing"
	"testing/fstest"
)

func BenchmarkLoad(b *testing.B) {
	overlay := fstest.MapFS{"a.yaml": {Data: []byte(minimal)}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(overlay); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList is what the first Builtin of a process does besides.
func BenchmarkList(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := listShipped(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuiltin(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Builtin(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFirstProvider(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		e := &entry{file: "providers/g/github.yaml"}
		if e.load(); e.err != nil {
			b.Fatal(e.err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	data, err := builtin.ReadFile("providers/s/salesforce.yaml")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("salesforce.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProvider(b *testing.B) {
	c, err := Builtin()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Provider("github"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFillHeader(b *testing.B) {
	v := mustValue(b, "Bearer {token.access_token}")
	e := env("token.access_token", "gho_0123456789012345678901234567890123456789")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.FillHeader("authorization", e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFillURL(b *testing.B) {
	u := mustURL(b, "https://{conn.subdomain}.zendesk.com/api")
	e := env("conn.subdomain", "acme")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Fill(e); err != nil {
			b.Fatal(err)
		}
	}
}
