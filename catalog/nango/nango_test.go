package nango_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/catalog/nango"
)

// The package that is compared with, as it is published on npm.
const (
	published = "@nangohq/providers@0.71.10"
	tarball   = "nangohq-providers-0.71.10.tgz"
	integrity = "lXrO4QBLNKxC7EuI+Spaknl2/ied2On0pdwhTQgXNBk6OhpnqF9LUuwbi1vK0xfr0GW/gowVDb8+n4CL0Bwv2Q=="
)

// providersYAML is the file of the package, which npm brings once.
func providersYAML(t *testing.T) []byte {
	t.Helper()
	cache, err := filepath.Abs("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cache, tarball)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(cache, 0o755); err != nil {
			t.Fatal(err)
		}
		fresh := t.TempDir()
		cmd := exec.Command("npm", "pack", "--silent", "--pack-destination", fresh, published)
		cmd.Dir = fresh
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm pack: %v: %s", err, out)
		}
		data, err := os.ReadFile(filepath.Join(fresh, tarball))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".new", data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha512.Sum512(data); base64.StdEncoding.EncodeToString(sum[:]) != integrity {
		t.Fatalf("%s is not the package that was published", file)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("looking for providers.yaml: %v", err)
		}
		if h.Name == "package/providers.yaml" {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
}

// Why entries differ from the built-in ones of the same id, or can't be
// translated.
var reasons = map[string][]string{
	"what the vendor wants of token requests is code there": {
		"absorb-lms", "agiloft", "braintree", "braintree-sandbox", "bullhorn", "clover", "coros", "coros-sandbox", "facebook",
		"figjam", "figma", "followupboss", "heygen", "instagram", "jobber", "mercury", "microsoft-admin", "monday", "posthog-oauth",
		"revolut-business", "salesforce-jwt", "salesmsg", "shopline-oauth", "slack", "stripe-app", "threads",
		"tiktok-accounts", "tiktok-ads", "tiktok-personal", "walmart", "workday-oauth",
	},
	"what is looked up after connecting is code there": {
		"docusign", "docusign-sandbox", "procore", "workable", "zoho", "zoho-bigin", "zoho-books", "zoho-calendar", "zoho-crm",
		"zoho-desk", "zoho-inventory", "zoho-invoice", "zoho-mail", "zoho-people", "zoho-recruit",
	},
	"what is put on calls is code there": {
		"adobe-umapi", "expensify", "lastpass", "linear-mcp", "sage-intacct", "shopvox", "vantage-apparel",
	},
	"ours keeps a secret in the vault, and theirs in the connection": {
		"acumatica", "clari-copilot", "datacandy", "datadog", "elevio", "gem", "jobvite", "mindbody", "ninjaone-saas-backup",
		"nyne-ai", "pipelinecrm", "sap-ariba", "ukg-pro", "unanet", "vincere", "vtex",
	},
	"ours asks the operator, and theirs expects it of each session": {
		"azure-blob-storage", "back-market", "basecamp", "bigcommerce", "fanvue", "float", "github-pat", "google-ads", "harvest",
		"pax8", "paycor", "paycor-sandbox", "private-api-basic", "private-api-bearer", "quickbase", "reapit", "rippling-shop-app", "sage-200",
	},
	"ours follows the vendor's documentation where sources disagree": {
		"apollo", "apollo-oauth", "certn-partner", "e-conomic", "epic-games", "google-gemini", "klicktipp", "metabase", "peopledatalabs",
		"pinterest", "sap-concur", "shopify", "workable-oauth", "zoom",
	},
	"ours has a default":                         {"anthropic"},
	"ours asks for what the vendor doesn't tell": {"stitch-mcp", "veeva-vault", "wildix-pbx"},
	"the scheme is code there": {
		"aws", "aws-iam", "aws-inspector2", "aws-multi-service", "aws-sigv4", "bill", "bill-sandbox", "crisp-plugin-install",
		"emarsys", "github-app", "github-app-oauth", "netsuite-tba", "sentry-oauth", "streamline-ai",
	},
	"an assertion is made by code there": {
		"apple-business-manager", "epic", "microsoft-oauth2-cc-cert", "netsuite-client-credentials", "okta-cc", "sap-success-factors", "workday-adaptive-planning",
	},
	"integration_config is put to use by code there": {"private-api-generic", "stripe-app-sandbox"},
}

func TestThePublishedFileLoadsAndMeansTheSame(t *testing.T) {
	t.Parallel()
	providers, remarks, err := nango.Parse(providersYAML(t))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	reason := map[string]string{}
	for why, ids := range reasons {
		for _, id := range ids {
			if reason[id] != "" {
				t.Errorf("%s is on two lists", id)
			}
			reason[id] = why
		}
	}
	same, other, refused := 0, 0, 0
	explain := func(id, what string) {
		if reason[id] == "" {
			t.Errorf("%s: %s", id, what)
		}
		delete(reason, id)
	}
	for _, p := range providers {
		own, err := ours.Provider(p.ID)
		if err != nil {
			t.Error(err)
			continue
		}
		if d := nango.Differences(p, own); len(d) > 0 {
			other++
			explain(p.ID, strings.Join(d, "; "))
			continue
		}
		same++
	}
	for _, r := range remarks {
		if r.Refused {
			refused++
			explain(r.ID, r.Reason)
		}
	}
	for id, why := range reason {
		t.Errorf("%s means the same now; take it off the list of %q", id, why)
	}
	if same < 880 || same+other+refused < 1013 {
		t.Errorf("%d mean the same", same)
	}
	t.Logf("%d entries: %d mean the same, %d differ and %d are refused for a reason", same+other+refused, same, other, refused)
}

func TestAnOwnEntryIsTranslated(t *testing.T) {
	providers, remarks, err := nango.Parse([]byte(`
base:
  display_name: Base
  categories: [crm, popular]
  auth_mode: OAUTH2
  authorization_url: https://login.example.com/${connectionConfig.tenantID}/authorize
  authorization_params: {response_type: code, access_type: offline}
  token_url: https://login.example.com/token
  refresh_params: {grant_type: refresh_token}
  disable_pkce: true
  scope_separator: ','
  proxy:
    base_url: https://${connectionConfig.region}.example.com || https://example.com
    headers: {X-Plan: '${connectionConfig.plan-name}'}
  connection_config:
    tenantID: {type: string, title: Tenant, pattern: '^[a-z]+$', example: acme}
    region: {type: string, optional: true, enum: [eu, us]}
  redirect_uri_metadata: [plan-name]
  post_connection_script: somePostConnection
own:
  alias: base
  auth_mode: API_KEY
  proxy:
    base_url: https://own.example.com
    headers:
      authorization: 'Basic ${base64(${apiKey}:x)}'
      x-literal: 'a{b}'
signed:
  display_name: Signed
  auth_mode: AWS_SIGV4
`))
	if err != nil || len(providers) != 2 {
		t.Fatalf("%v, %v, %v", providers, remarks, err)
	}
	base, own := providers[0], providers[1]
	env := &catalog.Env{Lookup: func(ns, name string) (string, bool) {
		v, ok := map[string]string{"conn.tenant_id": "acme", "conn.region": "eu", "cred.api_key": "k", "conn.plan_name": "pro"}[ns+"."+name]
		return v, ok
	}}
	if u, err := base.Authorize.URL.Fill(env); err != nil || u.String() != "https://login.example.com/acme/authorize" || base.Authorize.PKCE {
		t.Error(u, err)
	}
	if u, err := base.Request.BaseURL.Fill(env); err != nil || u.String() != "https://eu.example.com" {
		t.Error(u, err)
	}
	if got := base.Authorize.CaptureCallbackParams["plan_name"]; got != "plan-name" || base.Scopes.Separator != "," || !base.Refresh.Declared {
		t.Error(got)
	}
	h, err := own.Request.Headers.Fill(env)
	if err != nil || h["Authorization"] != "Basic azp4" || h["X-Literal"] != "a{b}" {
		t.Error(h, err)
	}
	if len(remarks) != 3 || !remarks[2].Refused || !strings.Contains(remarks[2].String(), `line 28: signed: auth_mode "AWS_SIGV4" is done by code there`) {
		t.Error(remarks)
	}
}

func TestBrokenFilesSayWhere(t *testing.T) {
	for file, want := range map[string]string{
		"[":                            "not valid YAML",
		"- a":                          "is a map from ids to providers",
		"a: 1":                         "line 1: a is not a map",
		"a: {alias: b}":                `line 1: there is no provider "b"`,
		"a: {alias: b}\nb: {alias: a}": "lead in a circle",
	} {
		if _, _, err := nango.Parse([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", file, err)
		}
	}
	_, remarks, err := nango.Parse([]byte("a: {auth_mode: API_KEY, proxy: {base_url: 'https://${nonsense}.com'}}"))
	if err != nil || !slices.ContainsFunc(remarks, func(r nango.Remark) bool {
		return r.Refused && strings.Contains(r.Reason, "the placeholder ${nonsense} is not known")
	}) {
		t.Error(remarks, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("a: {display_name: A, auth_mode: API_KEY, proxy: {base_url: 'https://${connectionConfig.x}.com', headers: {h: '${base64(${apiKey}:)}'}}}"))
	f.Add([]byte("a: {auth_mode: TWO_STEP, token_url: 'https://a.com', token_params: {t: '${now+1:days:X}'}, proxy: {base_url: 'https://a.com'}}"))
	f.Add([]byte("a: {alias: b}\nb: {auth_mode: JWT, token: {signing_key: '${credentials.k.secret}', header: {alg: HS256}, payload: {a: [1]}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		providers, remarks, err := nango.Parse(data)
		if err != nil && len(providers)+len(remarks) > 0 {
			t.Error("an error and a result")
		}
		for _, p := range providers {
			if _, err := catalog.Parse(p.ID+".yaml", p.Source()); err != nil {
				t.Errorf("%s can't be read again: %v", p.ID, err)
			}
		}
	})
}
