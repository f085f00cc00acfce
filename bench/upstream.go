package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// upstreams are a provider's servers: plain HTTP/1.1, the same over TLS, and
// HTTP/2 over TLS.
type upstreams struct {
	cmd  *exec.Cmd
	addr map[string]string
	cert string // the file that proxies trust
}

// startUpstreams starts this program once more.
func startUpstreams(ctx context.Context, dir string) (*upstreams, error) {
	u := &upstreams{cmd: exec.CommandContext(ctx, os.Args[0], "upstream", dir), addr: map[string]string{}, cert: filepath.Join(dir, "cert.pem")}
	u.cmd.Stderr = os.Stderr
	u.cmd.SysProcAttr = dying
	stdout, err := u.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := u.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("starting the upstream: %w", err)
	}
	addrs := strings.Fields(line)
	for i, name := range []string{"plain", "tls", "h2"} { // under a name, since catalog entries have one
		u.addr[name] = strings.Replace(addrs[i], "127.0.0.1", "localhost", 1)
	}
	return u, nil
}

func (u *upstreams) stop() {
	_ = u.cmd.Process.Kill()
	_ = u.cmd.Wait()
}

// serveUpstream answers until the process is ended. It prints its addresses.
func serveUpstream(dir string) error {
	bodies := map[string][]byte{"1k": bytes.Repeat([]byte(`{"id":1296269,"name":"Hello"}`+"\n"), 1<<20/30)}
	bodies["1m"] = bodies["1k"][:1<<20-1<<20%30]
	bodies["1k"] = bodies["1k"][:1<<10]
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := bodies[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		auth := r.Header.Get("Authorization")
		if body == nil || !strings.HasPrefix(auth, "Bearer upstream-") && !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=UPSTREAM/") {
			http.Error(w, "no such thing, or no credential", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Ratelimit-Remaining", "4999")
		_, _ = w.Write(body)
	})
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h2, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	cert, err := certificate(filepath.Join(dir, "cert.pem"))
	if err != nil {
		return err
	}
	fmt.Println(plain.Addr(), secure.Addr(), h2.Addr())
	ended := make(chan error, 3)
	go func() { ended <- (&http.Server{Handler: handler}).Serve(plain) }()
	for l, protocol := range map[net.Listener]func(*http.Protocols, bool){secure: (*http.Protocols).SetHTTP1, h2: (*http.Protocols).SetHTTP2} {
		s := &http.Server{Handler: handler, Protocols: new(http.Protocols), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
		protocol(s.Protocols, true)
		go func() { ended <- s.ServeTLS(l, "", "") }()
	}
	return <-ended
}

// certificate makes one for loopback and writes it to a file.
func certificate(file string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	err = os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
