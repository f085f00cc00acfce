package simulate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
)

// wire is a transport that hands requests to a handler in this process.
type wire struct {
	http.Handler
	state *tls.ConnectionState // what a server would know of the connection
}

// Certified returns a wire over which a client certificate is shown.
func (t wire) Certified(cert tls.Certificate) (http.RoundTripper, error) {
	state := &tls.ConnectionState{HandshakeComplete: true}
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		state.PeerCertificates = append(state.PeerCertificates, c)
	}
	return wire{t.Handler, state}, nil
}

func (t wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := context.Cause(r.Context()); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	in.TLS = t.state
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	w := &recorder{header: http.Header{}}
	t.ServeHTTP(w, in)
	// A handler that answers without reading leaves a body that nobody sends.
	_, _ = io.Copy(io.Discard, in.Body)
	return &http.Response{
		Status: http.StatusText(w.code()), StatusCode: w.code(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(bytes.NewReader(w.body.Bytes())), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// recorder keeps what a handler answers.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *recorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
