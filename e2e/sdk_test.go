package e2e

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// An app that was written for Nango changes the host, and nothing else: its SDK's
// methods do what they did there, and are refused as they were.
func TestNangosSDKWorksAsItIs(t *testing.T) {
	t.Parallel()
	const narrow = "7f0e2c64-8b1d-4e8f-9a3c-51d2b6e4f702"
	dir, port := t.TempDir(), freePort(t)
	d := startDemo(t, demo.Options{RedirectURIs: []string{callbackAt(port)}})
	c := startCaddy(t, dir, port, caddyfile(dir, port, demoIntegration(d, "demo")+"\n\t\tapi_key "+narrow+" {\n\t\t\tscopes environment:connections:read environment:proxy\n\t\t}\n", "keycaddy"))
	newVisitor(t).connect(c.link("demo", "alice"))
	cpu := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	cmd := exec.Command("oidc/node_modules/node-linux-"+cpu+"/bin/node", "sdk/drive.mjs")
	cmd.Env = append(os.Environ(), "HOST="+c.URL, "KEY="+apiKey, "NARROW="+narrow)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
