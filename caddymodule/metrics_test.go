package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// What is counted is shown by Caddy's own metrics handler, survives a reload,
// and has no label that a caller or a user could make (S125).
func TestS125MetricsAreBoundedAndSurviveReloads(t *testing.T) {
	l := newLifecycle(t)
	port := freePort(t)
	page := "http://127.0.0.1:" + port + " {\nbind 127.0.0.1\nmetrics /metrics\n}\n"
	if err := l.load("a", "", page); err != nil {
		t.Fatal(err)
	}
	call := func(connection string) {
		t.Helper()
		res, err := l.get(l.port, "/proxy/secret-path?secret-query", http.Header{
			"Authorization": {"Bearer " + testKey}, "Provider-Config-Key": {"secret-integration"}, "Connection-Id": {connection},
		})
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	read := func() map[string]string {
		t.Helper()
		res, err := l.get(port, "/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		own := map[string]string{}
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(name, "keycaddy_") {
				own[name] = value
			}
			if strings.Contains(lines.Text(), "secret") {
				t.Errorf("a caller has made a label: %s", lines.Text())
			}
		}
		return own
	}
	const refused = `keycaddy_calls_total{outcome="unknown_provider_config",provider="unknown"}`
	call("secret-connection")
	call("secret-connection-2")
	if got := read(); got[refused] != "2" || got["keycaddy_calls_in_flight"] != "0" || got["keycaddy_call_duration_seconds_count"] != "2" {
		t.Errorf("got %v", got)
	}
	if err := l.load("a", "egress {\nallow 127.0.0.1\n}", page); err != nil {
		t.Fatal(err)
	}
	call("secret-connection")
	if got := read(); got[refused] != "3" {
		t.Errorf("after a reload: %v", got)
	}
}

// The alert rules are ones that Prometheus takes, and are about metrics that
// there are.
func TestAlertRules(t *testing.T) {
	out, err := exec.Command("promtool", "check", "rules", "../docs/alerts.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	file, err := os.Open("../docs/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rules, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.FieldsFunc(string(rules), func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
		name, ok := strings.CutPrefix(word, "keycaddy_")
		if !ok {
			continue
		}
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if !strings.Contains(string(known), `"`+name+`"`) {
			t.Errorf("there is no metric keycaddy_%s", name)
		}
	}
}

// The dashboard asks for metrics that there are, in queries that Prometheus can
// read, and shows all of them.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	var asked strings.Builder
	for i, p := range board.Panels {
		for j, target := range p.Targets {
			asked.WriteString(target.Expr + "\n")
			rules += fmt.Sprintf("      - record: panel:%d_%d\n        expr: %q\n", i, j, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	known := prometheus.NewRegistry()
	m := newMetrics()
	if err := m.register(known); err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`fqName: "([a-z_]+)"`)
	all := make(chan *prometheus.Desc, 100)
	known.Describe(all)
	close(all)
	left := asked.String()
	for d := range all {
		name := names.FindStringSubmatch(d.String())[1]
		if !strings.Contains(left, name) {
			t.Errorf("the dashboard doesn't show %s", name)
		}
		left = strings.ReplaceAll(left, name, "")
	}
	if strings.Contains(left, "keycaddy_") {
		t.Errorf("there is no such metric: %s", left)
	}
}
