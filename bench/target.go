package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const apiKey = "3c5b7a4e-1f0d-4c5b-9a57-0d9a3d3f1a11"

// target is a proxy to be measured.
type target struct {
	name  string
	ports map[string]int // by upstream
	cmd   *exec.Cmd
	// connected: it has connections, which weren't called before.
	connected bool
}

// address is where the target takes a scenario's calls; empty: it doesn't.
func (t *target) address(s scenario) string {
	port, ok := t.ports[s.upstream]
	if !ok {
		return ""
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func (t *target) stop() {
	_ = t.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { _ = t.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = t.cmd.Process.Kill()
	}
}

// pooled is the same for both Caddys: as many connections to the upstream are
// kept as there are clients.
const pooled = `keepalive_idle_conns 512
			keepalive_idle_conns_per_host 512`

// startTargets starts the proxies, each alone on the first core.
func startTargets(ctx context.Context, dir, caddy, stock string, ups *upstreams) ([]*target, error) {
	if err := writeEntries(dir, ups); err != nil {
		return nil, err
	}
	trust := fmt.Sprintf("tls_trust_pool file %s", ups.cert)
	ports, err := freePorts(6)
	if err != nil {
		return nil, err
	}
	global := "admin off\n\tauto_https off\n\tpersist_config off\n\tlog {\n\t\tlevel ERROR\n\t}\n"
	plain := fmt.Sprintf("{\n\t%[1]s}\n"+
		"http://127.0.0.1:%[2]d {\n\treverse_proxy %[3]s {\n\t\theader_up Authorization \"Bearer upstream-static\"\n\t\ttransport http {\n\t\t\t%[6]s\n\t\t}\n\t}\n}\n"+
		"http://127.0.0.1:%[4]d {\n\treverse_proxy https://%[5]s {\n\t\theader_up Authorization \"Bearer upstream-static\"\n\t\ttransport http {\n\t\t\t%[6]s\n\t\t\t%[7]s\n\t\t}\n\t}\n}\n"+
		"http://127.0.0.1:%[8]d {\n\treverse_proxy https://%[9]s {\n\t\theader_up Authorization \"Bearer upstream-static\"\n\t\ttransport http {\n\t\t\t%[6]s\n\t\t\t%[7]s\n\t\t}\n\t}\n}\n",
		global, ports[0], ups.addr["plain"], ports[1], ups.addr["h2"], pooled, trust, ports[5], ups.addr["tls"])
	site := func(port int, options string) string {
		return fmt.Sprintf("http://127.0.0.1:%d {\n\tkeycaddy {\n\t\t%s\n\t\ttransport http {\n\t\t\t%s\n\t\t\t%s\n\t\t}\n\t}\n}\n", port, options, pooled, trust)
	}
	own := fmt.Sprintf("{\n\t%[1]s\tkeycaddy {\n\t\tstore sqlite %[2]s/keycaddy.db\n\t\tvault sealed %[2]s/vault.key\n\t\tapi_key %[3]s\n\t\tcatalog %[2]s\n"+
		"\t\tegress {\n\t\t\tallow 127.0.0.0/8\n\t\t}\n\t\tintegration key\n\t\tintegration tls\n\t\tintegration h2\n\t\tintegration sigv4\n"+
		"\t\tintegration oauth {\n\t\t\tclient_id bench\n\t\t\tclient_secret bench\n\t\t}\n\t}\n}\n", global, dir, apiKey) +
		site(ports[2], "") + site(ports[3], "redact redact")
	a, err := startCaddy(ctx, dir, stock, "stock", plain)
	if err != nil {
		return nil, err
	}
	b, err := startCaddy(ctx, dir, caddy, "keycaddy", own)
	if err != nil {
		return nil, err
	}
	all := []*target{
		{"reverse_proxy", map[string]int{"plain": ports[0], "h2": ports[1], "tls": ports[5]}, a, false},
		{"keycaddy", map[string]int{"plain": ports[2], "h2": ports[2], "tls": ports[2]}, b, true},
		{"keycaddy, redact", map[string]int{"plain": ports[3], "h2": ports[3], "tls": ports[3]}, b, false},
	}
	if nginx, err := exec.LookPath("nginx"); err == nil {
		n, err := startNginx(ctx, dir, nginx, ports[4], ups)
		if err != nil {
			return nil, err
		}
		all = append(all, &target{"nginx", map[string]int{"plain": ports[4]}, n, false})
	}
	for _, t := range all {
		for _, port := range t.ports {
			if err := listens(port); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	return all, nil
}

// writeEntries writes keycaddy's catalog: an entry for each upstream with a key,
// and others for the plain one.
func writeEntries(dir string, ups *upstreams) error {
	const head = "id: %[1]s\ndisplay_name: %[1]s\nvendor: bench\nvendor_domain: vendor.example\ncategories: [test]\ndocs: {reference: https://vendor.example/docs}\n"
	const key = "auth_scheme: api_key\ncred_fields: [{name: key, required: true, secret: true}]\n" +
		"request: {base_url: '%[2]s', headers: {authorization: 'Bearer {cred.key}'}}\n"
	const oauth = "auth_scheme: oauth2_code\nauthorize: {url: 'https://vendor.example/authorize', pkce: true}\ntoken: {url: 'https://vendor.example/token'}\n" +
		"request: {base_url: '%[2]s', headers: {authorization: 'Bearer {token.access_token}'}}\n"
	const sigv4 = "auth_scheme: aws_sigv4\ncred_fields: [{name: id, required: true}, {name: key, required: true, secret: true}]\n" +
		"sign_request: {kind: aws_sigv4, access_key_id: '{cred.id}', secret_access_key: '{cred.key}', region: us-east-1, service: bench, host: 'vendor.example'}\n" +
		"request: {base_url: '%[2]s'}\n"
	for id, e := range map[string]struct{ rest, base string }{
		"key": {key, "http://" + ups.addr["plain"]}, "tls": {key, "https://" + ups.addr["tls"]}, "h2": {key, "https://" + ups.addr["h2"]},
		"oauth": {oauth, "http://" + ups.addr["plain"]}, "sigv4": {sigv4, "http://" + ups.addr["plain"]},
	} {
		if err := os.WriteFile(filepath.Join(dir, id+".yaml"), fmt.Appendf(nil, head+e.rest, id, e.base), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// dying processes end when this one does, however that is.
var dying = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

// alone is a command on the first core, if there are two.
func alone(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	if os.Getenv("BENCH_PINNED") != "" {
		cmd = exec.CommandContext(ctx, "taskset", append([]string{"-c", "0", name}, args...)...)
	}
	cmd.SysProcAttr = dying
	return cmd
}

func startCaddy(ctx context.Context, dir, caddy, name, config string) (*exec.Cmd, error) {
	file := filepath.Join(dir, name+".Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := alone(ctx, caddy, "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+dir)
	cmd.Stderr = os.Stderr
	return cmd, cmd.Start()
}

func startNginx(ctx context.Context, dir, nginx string, port int, ups *upstreams) (*exec.Cmd, error) {
	file := filepath.Join(dir, "nginx.conf")
	config := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	keepalive_requests 1000000000;
	upstream api { server %[2]s; keepalive 512; keepalive_requests 1000000000; }
	server {
		listen 127.0.0.1:%[3]d;
		location / {
			proxy_pass http://api;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Authorization "Bearer upstream-static";
		}
	}
}
`, dir, ups.addr["plain"], port)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := alone(ctx, nginx, "-p", dir, "-c", file)
	cmd.Stderr = os.Stderr
	return cmd, cmd.Start()
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func listens(port int) error {
	var err error
	for range 300 {
		var conn net.Conn
		if conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return conn.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// used is the processor time, in clock ticks, and the memory, in bytes, that
// the process has used so far. (taskset becomes the program that it starts.)
func (t *target) used() (ticks, memory int, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	pages, err3 := strconv.Atoi(fields[21])
	return user + system, pages * os.Getpagesize(), errors.Join(err1, err2, err3)
}
