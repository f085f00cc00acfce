package catalog

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// minimal is an entry that needs nothing else.
const minimal = "id: a\ndisplay_name: A\nvendor: a\ncategories: [x]\nauth_scheme: none\n"

func TestErrorsHaveFileLineAndHint(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"unknown key":      {minimal + "tokn: {}\n", `a.yaml:6: unknown key "tokn" in provider; did you mean "token"?`},
		"unknown inner":    {minimal + "request:\n  base_ulr: https://a.com\n  base_url: https://a.com\n", `a.yaml:7: unknown key "base_ulr" in request; did you mean "base_url"?`},
		"missing key":      {minimal + "request: {headers: {}}\n", "a.yaml:6: base_url is missing in request"},
		"enum":             {strings.Replace(minimal, "none", "oauth2", 1), `a.yaml:5: auth_scheme can't be "oauth2"; did you mean "oauth1"?`},
		"enum list":        {minimal + "token: {url: 'https://a.com', body: yaml}\n", `a.yaml:6: token.body can't be "yaml"; it is one of form, json, query, xml, none`},
		"duplicate":        {minimal + "vendor: b\n", `a.yaml:6: key "vendor" of provider was already given in line 3`},
		"not a bool":       {minimal + "popular: sure\n", "a.yaml:6: popular must be true or false"},
		"not a list":       {minimal + "flags: x\n", `a.yaml:6: flags must be a list: start each line with "- "`},
		"not a map":        {minimal + "docs: x\n", "a.yaml:6: docs must be a map of keys and values"},
		"null":             {minimal + "vendor_domain:\n", `a.yaml:6: vendor_domain has no value; remove the key or write ""`},
		"template":         {minimal + "request:\n  base_url: 'https://a.com'\n  headers:\n    x: '{bas64(cred.k)}'\n", `a.yaml:9: request.headers.x: unknown function "bas64"; did you mean "base64"?`},
		"undeclared":       {minimal + "conn_fields: [{name: subdomain}]\nrequest: {base_url: 'https://{conn.subdomian}.a.com'}\n", `a.yaml:7: request.base_url: conn.subdomian is not declared; add a field "subdomian" to conn_fields; did you mean "subdomain"?`},
		"unknown name":     {minimal + "request: {base_url: 'https://a.com', headers: {x: '{token.acces_token}'}}\n", `a.yaml:6: request.headers.x: there is no token.acces_token; did you mean "access_token"?`},
		"step":             {minimal + "request: {base_url: '{step2.url}'}\n", "a.yaml:6: request.base_url: step2.url refers to the answer of token request 2, but there are 1"},
		"regex":            {minimal + "conn_fields:\n- name: b\n  regex: '(?=x)'\n", "a.yaml:8: conn_fields[0].regex: invalid or unsupported Perl syntax: `(?=`; the syntax is RE2, without look-around"},
		"url":              {minimal + "request: {base_url: 'a.com'}\n", "a.yaml:6: request.base_url: the URL must begin with https:// or with a reference to a whole URL"},
		"file name":        {strings.Replace(minimal, "id: a", "id: b", 1), `a.yaml:1: id "b" and file name differ; name the file b.yaml`},
		"id":               {strings.Replace(minimal, "id: a", "id: A_b", 1), `a.yaml:1: id "A_b" may have lower-case letters, digits and single hyphens between them`},
		"field name":       {minimal + "conn_fields: [{name: Bad}]\n", `a.yaml:6: field name "Bad": lower-case letters, digits and _, beginning with a letter`},
		"field twice":      {minimal + "conn_fields:\n- name: b\n- name: b\n", `a.yaml:8: field "b" is declared twice`},
		"status":           {minimal + "retry: {statuses: [40]}\n", `a.yaml:6: retry.statuses[0]: "40" is no status; write 403, 5xx or 500-502`},
		"alias":            {minimal + "docs: &x {host: a}\n", "a.yaml:6: YAML anchors and aliases are not supported; write the value out"},
		"tag":              {minimal + "vendor_domain: !secret x\n", "a.yaml:6: the YAML tag !secret is not supported"},
		"two documents":    {minimal + "---\nid: b\n", "a.yaml:6: one file holds one provider; remove everything from this --- on"},
		"empty":            {"", "a.yaml: the file is empty"},
		"syntax":           {minimal + "docs: [\n", "a.yaml:6: not valid YAML: did not find expected node content"},
		"no authorize":     {strings.Replace(minimal, "none", "oauth2_code", 1) + "token: {url: 'https://a.com'}\nrequest: {base_url: 'https://a.com'}\n", "a.yaml:1: auth_scheme oauth2_code needs authorize.url"},
		"no fields":        {strings.Replace(minimal, "none", "api_key", 1) + "request: {base_url: 'https://a.com'}\n", "a.yaml:1: auth_scheme api_key needs cred_fields"},
		"reserved header":  {minimal + "request: {base_url: 'https://a.com', headers: {host: x}}\n", `a.yaml:6: request.headers: the header "host" can't be set; the proxy owns it`},
		"one alternative":  {minimal + "request: {base_url: ['https://a.com']}\n", "a.yaml:6: request.base_url: a list of alternatives has two or more entries"},
		"two sources":      {minimal + "derive: [{from_token_response: true, copy: x}]\n", "a.yaml:6: a look-up has one source: request, from_token_response, jwt_claim or copy"},
		"unknown when":     {minimal + "conn_fields: [{name: b, visible_when: {field: c, equals: x}}]\n", `a.yaml:6: field "b": visible_when names "c", which is not in the same list`},
		"unknown tranform": {minimal + "derive: [{copy: x, transform: upper}]\n", `a.yaml:6: transform can't be "upper"; it is last_path_segment or after:<marker>`},
	} {
		_, err := Parse("a.yaml", []byte(c.yaml))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, c.want)
		}
		var pe *ParseError
		if !errors.As(err, &pe) {
			t.Errorf("%s: %T", name, err)
		}
	}
}

func TestOverlayReplacesAddsAndReportsEverything(t *testing.T) {
	own := strings.Replace(minimal, "id: a", "id: own", 1)
	hub := strings.NewReplacer("id: a", "id: github", "display_name: A", "display_name: Ours").Replace(minimal)
	c, err := Load(fstest.MapFS{
		"own.yaml": {Data: []byte(own)}, "github.yaml": {Data: []byte(hub)}, "README.md": {Data: []byte("x")},
		"..data/x.yaml": {Data: []byte("junk")}, ".x.yaml": {Data: []byte("junk")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.Provider("own"); err != nil || p.ID != "own" {
		t.Error(err)
	}
	if p, err := c.Provider("github"); err != nil || p.DisplayName != "Ours" || p.Token != nil {
		t.Error("an overlay entry replaces the whole one", err)
	}
	base, _ := Builtin()
	if p, err := base.Provider("github"); err != nil || p.DisplayName != "GitHub" {
		t.Error("the built-in catalogue changed", err)
	}
	if n := len(c.IDs()); n != len(base.IDs())+1 {
		t.Error(n)
	}
	_, err = Load(fstest.MapFS{
		"b.yaml": {Data: []byte(minimal)}, "c.yml": {Data: []byte("x")}, "d.yaml": {Data: []byte(own + "x: 1\ny: 1\n")},
	})
	for _, want := range []string{"b.yaml:1:", "c.yml: provider files end in .yaml", `d.yaml:6: unknown key "x"`, `d.yaml:7: unknown key "y"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

func TestOverlayMayHaveFolders(t *testing.T) {
	own := strings.Replace(minimal, "id: a", "id: own", 1)
	c, err := Load(fstest.MapFS{
		"crm/eu/own.yaml": {Data: []byte(own)}, "a/README.md": {Data: []byte("x")}, "a/.git/x.yaml": {Data: []byte("junk")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.Provider("own"); err != nil || p.ID != "own" {
		t.Error(err)
	}
	if !slices.IsSorted(c.IDs()) || !slices.Contains(c.IDs(), "own") {
		t.Error("ids:", len(c.IDs()))
	}
	_, err = Load(fstest.MapFS{
		"a/own.yaml": {Data: []byte(own)}, "b/own.yaml": {Data: []byte(own)}, "b/c/d.yaml": {Data: []byte(own)}, "b/e.yml": {Data: []byte(own)},
	})
	for _, want := range []string{
		"b/own.yaml: provider own was already given in a/own.yaml",
		`b/c/d.yaml:1: id "own" and file name differ`, "b/e.yml: provider files end in .yaml",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

func TestUnknownProvider(t *testing.T) {
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Provider("githb")
	if !errors.Is(err, ErrUnknown) || err.Error() != `unknown provider "githb"; did you mean "github"?` {
		t.Error(err)
	}
}

func TestParamsKeepTypesOrderAndAlternatives(t *testing.T) {
	p, err := Parse("a.yaml", []byte(minimal+`
cred_fields: [{name: k, required: true}]
conn_fields: [{name: v}, {name: w, required: true}]
token:
  url: https://a.com/t
  params:
    zeta: '{cred.k}'
    alpha: 1
    flag: false
    nest: {b: 1.5, a: '{conn.w}', list: [{x: 1}]}
    version: ['{conn.v}', '2']
    optional: '{conn.v}'
signed: {kind: jwt, alg: RS256, key: '{cred.k}', lifetime_s: 60, claims: {scope: ['{conn.w}', b], sub: '{conn.v}'}}
request: {base_url: 'https://a.com', body: {auth: {key: '{conn.w}'}, gone: {x: '{conn.v}'}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	e := env("cred.k", "s", "conn.w", "w")
	m, err := p.Token.Params.Fill(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, there := m["optional"]; there || m["alpha"] != 1 || m["flag"] != false || m["version"] != "2" || m["zeta"] != "s" {
		t.Error(m)
	}
	nest := m["nest"].(map[string]any)
	if nest["b"] != 1.5 || nest["a"] != "w" || nest["list"].([]any)[0].(map[string]any)["x"] != 1 {
		t.Error(nest)
	}
	if p.Token.Params[0].Name != "zeta" {
		t.Error("order lost")
	}
	if _, err := p.Token.Params.Fill(env("cred.k", "s")); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "conn.w") {
		t.Errorf("a required value is missing: %v", err)
	}
	claims, err := p.Signed.Claims.FillPresent(e)
	if err != nil || len(claims) != 1 || len(claims["scope"].([]any)) != 2 {
		t.Error(claims, err)
	}
	body, err := p.Request.Body.FillPresent(e)
	if err != nil || len(body) != 1 {
		t.Error("an object left empty disappears:", body, err)
	}
	form, err := p.Token.Params[:3].Form(e)
	if err != nil || form.Encode() != "alpha=1&flag=false&zeta=s" {
		t.Error(form, err)
	}
	if p.Refresh == nil || p.Refresh.Mode != RefreshByToken || !p.Refresh.Rotates || p.Token.Method != "POST" || p.Token.ClientAuth != "post" {
		t.Error("defaults")
	}
	raw := p.Raw()
	raw["id"] = "changed"
	if p.Raw()["id"] != "a" || p.Raw()["token"].(map[string]any)["params"].(map[string]any)["alpha"] != 1 {
		t.Error("Raw must be a copy")
	}
}

// Whatever a file has in it: it is read or refused with its faults, and what was
// read can be shown, checked and explained.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(sound))
	f.Add([]byte(soundOAuth))
	for _, file := range []string{"providers/b/bullhorn.yaml", "providers/z/zoho.yaml", "providers/s/sap-success-factors.yaml", "providers/d/docuware.yaml", "providers/e/expensify.yaml"} {
		data, err := builtin.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("", data)
		if err != nil {
			for _, e := range flatten(err) {
				var fault *ParseError
				if !errors.As(e, &fault) || fault.Msg == "" {
					t.Errorf("%T %v", e, e)
				}
			}
			return
		}
		for _, problem := range Lint(p) {
			if problem.Text == "" || problem.Rule == "" {
				t.Errorf("%+v", problem)
			}
		}
		p.Guide()
		p.SetupGuide()
		if p.Raw()["id"] == nil {
			t.Error("the id is lost")
		}
		for _, u := range p.urls() {
			if got, err := u.url.Fill(&Env{Lookup: func(string, string) (string, bool) { return "a", true }}); err == nil && got.Host == "" {
				t.Errorf("%s leads to %q", u.url, got)
			}
		}
	})
}
