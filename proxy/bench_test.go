package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httputil"
	"testing"

	"go.uber.org/zap"
)

type canned struct{}

func (canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
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

// quiet is a ResponseWriter of nothing.
type quiet struct{ header http.Header }

func (q *quiet) Header() http.Header         { return q.header }
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q *quiet) WriteHeader(int)             {}

// BenchmarkCall is a whole call without a network, and the same through a
// ReverseProxy that sets a header: the difference is what keycaddy adds.
func BenchmarkCall(b *testing.B) {
	g := newRig(b, bearerRequest, echo)
	g.proxy.Base = canned{}
	g.proxy.Provision()
	target := parse(b, g.provider.URL)
	stock := httputil.ReverseProxy{
		Transport: canned{}, BufferPool: &buffers, ErrorLog: zap.NewStdLog(zap.NewNop()),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host, pr.Out.Host = target.Scheme, target.Host, target.Host
			pr.Out.Header["Authorization"] = []string{"Bearer static"}
		},
	}
	setup := testSetup(b)
	for name, serve := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"stock": func(w http.ResponseWriter, r *http.Request) error { stock.ServeHTTP(w, r); return nil },
		"keycaddy": func(w http.ResponseWriter, r *http.Request) error {
			call, err := g.proxy.Resolve(r, testKeys, setup, credentials{g.new})
			if err != nil {
				return err
			}
			return g.proxy.Serve(w, r, r.URL.EscapedPath(), call)
		},
	} {
		b.Run(name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", "http://keycaddy.example/repos/owner/name?page=1", nil)
			if err != nil {
				b.Fatal(err)
			}
			for name, value := range map[string]string{"Accept": "*/*", "User-Agent": "x", "Accept-Encoding": "gzip", HeaderConnection: "c1", HeaderIntegration: "test", "Authorization": "Bearer " + testKey} {
				req.Header.Set(name, value)
			}
			w := &quiet{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				if err := serve(w, req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
