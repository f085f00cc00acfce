//go:build unix

package torture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// policies of the nodes: the one of docs/vault.md, and one without rights.
const (
	policy = `path "secret/data/keycaddy/*" { capabilities = ["create", "read", "update"] }
path "secret/metadata/keycaddy/*" { capabilities = ["delete"] }`
	noPolicy = `path "secret/data/keycaddy/*" { capabilities = ["deny"] }`
)

// vaultServer is a HashiCorp Vault of the harness's own, and a proxy before it
// through which the nodes get at it.
type vaultServer struct {
	program, folder, address string
	log                      io.Writer
	process                  *process
	root, key, token         string // token is the nodes'

	front  *http.Server
	url    string       // of the proxy
	refuse atomic.Int64 // the status that the proxy answers with; 0: Vault's own
}

// newVault makes a Vault in a folder, initialised, unsealed and set up.
func newVault(program, folder string, log io.Writer) (*vaultServer, error) {
	port, err := unusedPort()
	if err != nil {
		return nil, err
	}
	v := &vaultServer{program: program, folder: folder, address: fmt.Sprintf("127.0.0.1:%d", port), log: log}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"storage":       map[string]any{"file": map[string]string{"path": filepath.Join(folder, "data")}},
		"listener":      map[string]any{"tcp": map[string]any{"address": v.address, "tls_disable": true}},
		"api_addr":      "http://" + v.address,
		"disable_mlock": true,
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "config.json"), config, 0o600); err != nil {
		return nil, err
	}
	if err := v.start(); err != nil {
		return nil, err
	}
	var made struct {
		Keys []string
		Root string `json:"root_token"`
	}
	if err := v.do("PUT", "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &made); err != nil {
		return v, err
	}
	v.root, v.key = made.Root, made.Keys[0]
	if err := v.unseal(); err != nil {
		return v, err
	}
	if err := v.do("POST", "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}, nil); err != nil {
		return v, err
	}
	if err := eventually(time.Minute, func() error { return v.do("GET", "secret/config", nil, nil) }); err != nil {
		return v, err
	}
	if err := v.permit(policy); err != nil {
		return v, err
	}
	var token struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	if err := v.do("POST", "auth/token/create", map[string]any{"policies": []string{"keycaddy"}, "period": "24h"}, &token); err != nil {
		return v, err
	}
	v.token = token.Auth.ClientToken
	return v, v.stand()
}

// stand starts the proxy.
func (v *vaultServer) stand() error {
	to, err := url.Parse("http://" + v.address)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	pass := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // as Vault would drop it
		ErrorLog:     quiet,
	}
	v.url = "http://" + listener.Addr().String()
	v.front = &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := v.refuse.Load(); status != 0 {
			http.Error(w, `{"errors":["not now"]}`, int(status))
			return
		}
		pass.ServeHTTP(w, r)
	})}
	go v.front.Serve(listener)
	return nil
}

func (v *vaultServer) start() error {
	cmd := exec.Command(v.program, "server", "-config="+filepath.Join(v.folder, "config.json"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = v.folder, v.log, v.log
	var err error
	if v.process, err = start(cmd, nil); err != nil {
		return fmt.Errorf("starting Vault: %w", err)
	}
	err = eventually(time.Minute, func() error {
		select {
		case <-v.process.ended:
			return fmt.Errorf("%s has ended", v.program)
		default:
			return v.do("GET", "sys/seal-status", nil, nil)
		}
	})
	if err != nil {
		return fmt.Errorf("waiting for Vault to answer: %w", err)
	}
	return nil
}

func (v *vaultServer) seal() error { return v.do("PUT", "sys/seal", nil, nil) }

// unseal unseals and waits until Vault is ready.
func (v *vaultServer) unseal() error {
	if err := v.do("PUT", "sys/unseal", map[string]string{"key": v.key}, nil); err != nil {
		return err
	}
	return eventually(time.Minute, func() error { return v.do("GET", "sys/health", nil, nil) })
}

// kill ends the Vault as a power failure would; comeBack starts it again on what
// it has on its disk.
func (v *vaultServer) kill() { v.process.end(syscall.SIGKILL) }

func (v *vaultServer) comeBack() error {
	if err := v.start(); err != nil {
		return err
	}
	return v.unseal()
}

func (v *vaultServer) permit(policy string) error {
	return v.do("PUT", "sys/policies/acl/keycaddy", map[string]string{"policy": policy}, nil)
}

// do is a request of root's, past the proxy.
func (v *vaultServer) do(method, path string, body, into any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://"+v.address+"/v1/"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", v.root)
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking Vault for %s: %w", path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("asking Vault for %s: %w", path, err)
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("asking Vault for %s: status %d", path, res.StatusCode)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

func (v *vaultServer) close() {
	if v.front != nil {
		v.front.Close()
	}
	if v.process != nil {
		v.process.end(syscall.SIGKILL)
	}
}
