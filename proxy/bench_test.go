package proxy

import (
	"context"
	"io"
	"net/http"
	"testing"

	"go.uber.org/zap"
)

type canned struct{}

func (canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

// BenchmarkOwnShare is the transport's part of a call alone: no network.
func BenchmarkOwnShare(b *testing.B) {
	g := newRig(b, bearerRequest, echo)
	transport := &Transport{Base: canned{}, ReplayBuffer: testLimit, Logger: zap.NewNop()}
	req := g.request("GET", nil, 0)
	for name, value := range map[string]string{"Accept": "*/*", "User-Agent": "x", "Accept-Encoding": "gzip", "X-Request-Id": "1", "Content-Type": "application/json"} {
		req.Header.Set(name, value)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := transport.RoundTrip(req); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkJoin is the check of a path, plain and with an escape.
func BenchmarkJoin(b *testing.B) {
	base := parse(b, "https://api.example/v1")
	for name, path := range map[string]string{"plain": "/repos/owner/name/issues", "escaped": "/repos/owner/na%20me/issues/v1.0"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (Paths{}).Join(base, path, "page=1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoopback compares a transport alone with keycaddy's around it.
func BenchmarkLoopback(b *testing.B) {
	g := newRig(b, bearerRequest, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	for _, c := range []struct {
		name      string
		transport http.RoundTripper
	}{{"bare", g.proxy.Base}, {"keycaddy", g.transport()}} {
		b.Run(c.name, func(b *testing.B) {
			ctx := context.WithValue(context.Background(), callKey{}, g.call())
			b.ReportAllocs()
			for b.Loop() {
				req := g.request("GET", nil, 0).WithContext(ctx)
				res, err := c.transport.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}
