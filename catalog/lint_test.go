package catalog

import (
	"strings"
	"testing"
	"testing/fstest"
)

// sound is an entry without fault. The tests break it, one rule at a time.
const sound = `id: acme
display_name: Acme
vendor: acme
categories:
  - crm
auth_scheme: api_key

conn_fields:
  - name: subdomain
    required: true
    regex: '^[a-z]+$'
    example: hooli

cred_fields:
  - name: api_key
    help: Made under Settings, API keys.
    required: true
    regex: '^ak_[a-z0-9]{20}$'
    example: ak_********************
    secret: true

request:
  base_url: https://{conn.subdomain}.acme.example
  headers:
    authorization: Bearer {cred.api_key}

verify:
  paths:
    - /me

docs:
  reference: https://acme.example/docs
`

const soundOAuth = `id: acme
display_name: Acme
vendor: acme
categories: [crm]
auth_scheme: oauth2_code
authorize:
  url: https://acme.example/authorize
  pkce: true
  capture_callback_params: {region: region}
token:
  url: https://{conn.region}.acme.example/token
conn_fields:
  - name: region
    regex: '^(eu|us)$'
    source: callback
request:
  base_url: https://{conn.region}.acme.example
  headers:
    authorization: Bearer {token.access_token}
docs:
  reference: https://acme.example/docs
`

func TestLintSaysFileLineAndWhatToDo(t *testing.T) {
	for name, c := range map[string]struct{ from, old, new, want string }{
		"http upstream":      {sound, "https://{conn.subdomain}.acme", "http://{conn.subdomain}.acme", "acme.yaml:23: http://{conn.subdomain}.acme.example must begin with https:// (https)"},
		"http documentation": {sound, "https://acme.example/docs", "http://acme.example/docs", `acme.yaml:32: the link "http://acme.example/docs" must begin with https:// (https)`},
		"operator's scheme": {
			sound, "request:\n  base_url: https://{conn.subdomain}.acme.example", "app_fields:\n  - name: base_url\nrequest:\n  base_url: '{app.base_url}'",
			"acme.yaml:25: {app.base_url} leaves the scheme to the operator; give the field a regex that begins with ^https:// (https)",
		},
		"no documentation":  {sound, "docs:\n  reference: https://acme.example/docs\n", "", "acme.yaml:1: docs has no link; name the vendor's page about its API as docs.reference, or at least its site as docs.host (docs)"},
		"example":           {sound, "example: hooli", "example: Hooli", `acme.yaml:12: field subdomain: its own example "Hooli" is refused; mend the example or the rule (example)`},
		"masked example":    {sound, "example: ak_", "example: bk_", `acme.yaml:19: field api_key: no value that looks like its own example "bk_********************" matches its regex (example)`},
		"secret in example": {sound, "ak_********************", "ak_0123456789abcdef0123456789", "acme.yaml:19: field api_key: the example of a secret must be masked with * (example)"},
		"default":           {sound, "example: hooli", "default: Hooli", `acme.yaml:12: field subdomain: its own default "Hooli" is refused; mend the default or the rule (example)`},
		"unmarked secret":   {sound, "    secret: true\n", "", "acme.yaml:15: field api_key must be marked secret: true (secret)"},
		"secret in clear":   {sound, "example: hooli", "secret: true", "acme.yaml:9: field subdomain is a secret and conn_fields are stored as they are; move it to cred_fields (secret)"},
		"label":             {sound, "help: Made", "label: Key.\n    help: Made", "acme.yaml:16: field api_key: a label is a few words without a full stop (label)"},
		"help":              {sound, "API keys.", "API keys", "acme.yaml:16: field api_key: help is a sentence or two of up to 200 characters (label)"},
		"display name":      {sound, "display_name: Acme", "display_name: ' Acme'", "acme.yaml:2: display_name must be 1 to 80 characters without spaces around them (label)"},
		"category":          {sound, "- crm", "- CRM", `acme.yaml:5: category "CRM": lower-case letters, digits and single hyphens (label)`},
		"no category":       {sound, "categories:\n  - crm", "categories: []", "acme.yaml:4: categories is empty; name one, such as crm (label)"},
		"field nobody uses": {sound, "\nrequest:", "  - name: pin\n\nrequest:", "acme.yaml:21: field pin is asked for, but nothing uses {cred.pin}; use it or remove it (unused)"},
		"no credential": {
			sound, "authorization: Bearer {cred.api_key}", "accept: text/plain",
			"acme.yaml:23: nothing of the credential is put on a request; add a header such as authorization: Bearer {token.access_token} (credential)",
		},
		"no token URL": {
			sound, "auth_scheme: api_key\n", "auth_scheme: two_step\ntoken:\n  params: {key: '{cred.api_key}'}\n",
			"acme.yaml:8: token.url is missing; name the address that gives out tokens (url)",
		},
		"callback": {
			soundOAuth, "    regex: '^(eu|us)$'\n", "",
			"acme.yaml:11: conn.region comes from the callback, which anyone can forge, and token.url is made of it; hold it to a regex or an enum in conn_fields (callback)",
		},
		"nothing to try it": {sound, "verify:\n  paths:\n    - /me\n", "", "acme.yaml:6: verify is missing; name a cheap request that proves the key works (verify)"},
	} {
		broken := strings.Replace(c.from, c.old, c.new, 1)
		if broken == c.from {
			t.Fatalf("%s: nothing to replace", name)
		}
		p, err := Parse("acme.yaml", []byte(broken))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var found []string
		for _, problem := range Lint(p) {
			found = append(found, problem.String())
		}
		if !strings.Contains(strings.Join(found, "\n")+"\n", c.want+"\n") {
			t.Errorf("%s:\n got %s\nwant %s", name, strings.Join(found, "\n     "), c.want)
		}
	}
	for _, whole := range []string{sound, soundOAuth} {
		p, err := Parse("acme.yaml", []byte(whole))
		if err != nil {
			t.Fatal(err)
		}
		if found := Lint(p); len(found) != 0 {
			t.Error(found)
		}
	}
}

func TestLintFolderReportsUnreadableFilesToo(t *testing.T) {
	problems, files, err := LintFolder(fstest.MapFS{
		"acme.yaml":  {Data: []byte(sound)},
		"b/two.yaml": {Data: []byte("id: two\nx: 1\ny: 2\n")},
		"own.yaml":   {Data: []byte(strings.NewReplacer("id: acme", "id: own", "Acme", "' Own'").Replace(sound))},
		"README.md":  {Data: []byte("not a provider")},
	})
	if err != nil || files != 3 {
		t.Errorf("%d files, %v", files, err)
	}
	var all []string
	for _, p := range problems {
		all = append(all, p.String())
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{
		`b/two.yaml:2: unknown key "x" in provider`, `b/two.yaml:3: unknown key "y" in provider`,
		"own.yaml:2: display_name must be 1 to 80 characters without spaces around them (label)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	if strings.Contains(text, "acme.yaml") {
		t.Error(text)
	}
}

func TestMaskedExamplesCanMatch(t *testing.T) {
	for _, c := range []struct {
		expr, masked string
		want         bool
	}{
		{"^sk-[a-z]{4}$", "sk-****", true},
		{"^sk-[a-z]{4}$", "sk-**", true},
		{"^sk-[a-z]{4}$", "sk-*9", false},
		{"^sk-[a-z]{4}$", "pk-****", false},
		{"^[a-f0-9]{8}(-[a-f0-9]{4}){3}$", "0a***-****-*0b", true},
		{"(ab|cd)+", "*c*", true},
		{"(ab|cd)+", "*a", false},
		{"^$", "*", true},
	} {
		if got := couldMatch(c.expr, c.masked); got != c.want {
			t.Errorf("%s and %s: %v", c.expr, c.masked, got)
		}
	}
}
