package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// torture runs the fault harness and returns its table.
func torture(t *testing.T, args ...string) (table string, err error) {
	t.Helper()
	began := time.Now()
	cmd := exec.Command(caddyBinary, append([]string{"keycaddy", "torture"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var out, progress bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &progress
	err = cmd.Run()
	if err != nil {
		t.Logf("progress:\n%s", tail(progress.String(), 100))
	}
	t.Logf("in %v:\n%s", time.Since(began), out.String())
	return out.String(), err
}

// tableRow finds the numbers of a row: runs, lost, and spent twice or reported.
func tableRow(t *testing.T, table, step, fault string) (numbers []string) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(step) + ` +` + fault + ` +(\d+) +(\d+) +(\d+) `).FindStringSubmatch(table)
	if m == nil {
		t.Fatalf("no row of %s, %s in\n%s", step, fault, table)
	}
	return m[1:]
}

// Real nodes over a real Vault and a real PostgreSQL are killed, and what they
// need is taken away, at each step of a renewal. No connection is lost where
// that could be helped, and no refresh token is spent twice.
func TestS60S62S63S64S65S69S112S117TortureOverVaultAndPostgres(t *testing.T) {
	t.Parallel() // it mostly waits
	vault, err := exec.Command("../vault/hashicorp/vaultserver/build.sh").Output()
	if err != nil {
		t.Fatalf("building a Vault server: %v", err)
	}
	table, err := torture(t, "--vault-program", strings.TrimSpace(string(vault)), "--nodes", "3", "--runs", "1", "--rotations", "30",
		"--only", "*/killed*", "--only", "*/drops*", "--only", "*/429*", "--only", "*/disk full",
		"--only", "*/Postgres*", "--only", "*/Vault s*", "--only", "*/Vault 403*")
	if err != nil {
		t.Error(err)
	}
	for step, fault := range map[string]string{
		"leased": "killed", "read": "killed", "intended": "killed", "asking": "killed", "spooled": "killed", "written": "killed",
		"recorded": "killed", "released": "killed", "at provider": "killed before it rotates", "answered": "Vault sealed, unsealed",
	} {
		if n := tableRow(t, table, step, fault); strings.Join(n, " ") != "1 0 0" {
			t.Errorf("%s, %s: %v", step, fault, n)
		}
	}
	// The honest limit: lost, and reported once.
	for step, fault := range map[string]string{"answered": "killed", "at provider": "drops the answer"} {
		if n := tableRow(t, table, step, fault); strings.Join(n, " ") != "1 1 1" {
			t.Errorf("%s, %s: %v", step, fault, n)
		}
	}
	if n := tableRow(t, table, "any", `killed \(.*\) at random`); n[1] != "0" || n[2] != "0" {
		t.Errorf("in bulk: %v", n)
	}
}

// The same with one node that keeps everything on its own disk.
func TestS62S63S64S65TortureOverSQLite(t *testing.T) {
	t.Parallel() // it mostly waits
	table, err := torture(t, "--store", "sqlite", "--vault", "sealed", "--nodes", "1", "--runs", "1", "--rotations", "30",
		"--only", "*/killed", "--only", "*/disk full", "--only", "asking/clock*")
	if err != nil {
		t.Error(err)
	}
	if n := tableRow(t, table, "answered", "disk full"); strings.Join(n, " ") != "1 0 0" {
		t.Errorf("disk full: %v", n)
	}
	if strings.Contains(table, "Vault") || strings.Contains(table, "Postgres") {
		t.Error("the table has rows of what isn't there")
	}
}

func TestTortureRefusesWhatItCannotRun(t *testing.T) {
	for name, args := range map[string][]string{
		"--vault-program":     {"--vault-program", "/nowhere/vault"},
		"postgres and sqlite": {"--store", "etcd", "--vault", "sealed"},
		"a node":              {"--nodes", "0", "--store", "sqlite", "--vault", "sealed"},
		"--postgres-programs": {"--postgres-programs", "/nowhere", "--vault", "sealed"},
	} {
		out, err := exec.Command(caddyBinary, append([]string{"keycaddy", "torture"}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), name) && !strings.Contains(string(out), strings.TrimPrefix(name, "--")) && !strings.Contains(string(out), "initdb") {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
}
