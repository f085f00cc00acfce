package catalog

import (
	"errors"
	"strings"
	"testing"
)

func field(t *testing.T, yaml string) *Field {
	t.Helper()
	p, err := Parse("a.yaml", []byte(minimal+"conn_fields:\n- {name: f, "+yaml+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return &p.ConnFields[0]
}

func TestFieldsCheckValues(t *testing.T) {
	for _, c := range []struct{ yaml, value, code string }{
		{"required: true", "x", ""},
		{"required: true", "", CodeRequired},
		{"required: true, default: ''", "", ""},
		{"required: false", "", ""},
		{"required: true", "a\nb", CodeCharacter},
		{"required: true", "a\x00", CodeCharacter},
		{"required: true", "a\u200b", CodeCharacter},
		{"required: true", "a\u202e", CodeCharacter},
		{"required: true", "\xff", CodeCharacter},
		{"required: true", "pass word é", ""},
		{"required: true", "-----BEGIN X-----\nAA==\n-----END X-----\n", ""},
		{"required: true", strings.Repeat("a", maxField), ""},
		{"required: true", strings.Repeat("a", maxField+1), CodeTooLong},
		{"enum: [a, b]", "a", ""},
		{"enum: [a, b]", "c", CodeEnum},
		{"regex: '[a-z]+'", "abc", ""},
		{"regex: '[a-z]+'", "abc1", CodePattern},
		{"regex: 'a|bc'", "ac", CodePattern},
		{"regex: '^a$'", "a\n", CodeCharacter},
		{"format: hostname", "a.example.com", ""},
		{"format: hostname", "https://a", CodeFormat},
		{"format: hostname", "127.0.0.1", CodeFormat},
		{"format: uri", "https://a.com/x", ""},
		{"format: uri", "a.com", CodeFormat},
		{"format: uri", "https://u:p@a.com", CodeFormat},
		{"format: uuid", "5ab87915-2deb-429c-a1e2-8b0495900f45", ""},
		{"format: uuid", "5ab879152deb429ca1e28b0495900f45", CodeFormat},
		{"format: email", "a@b.com", ""},
		{"format: email", "A <a@b.com>", CodeFormat},
		{"format: pem_or_base64", "-----BEGIN X-----\r\nAA==\r\n-----END X-----", ""},
		{"format: pem_or_base64", "AAAA\nAA==", ""},
		{"format: pem_or_base64", "no key!", CodeFormat},
		{"deny_suffix: [lightning.force.com]", "a.lightning.force.com", CodeDenied},
		{"deny_suffix: [lightning.force.com]", "https://A.Lightning.force.com./x", CodeDenied},
		{"deny_suffix: [lightning.force.com]", "xlightning.force.com", ""},
	} {
		err := field(t, c.yaml).Check(c.value)
		var fe *FieldError
		errors.As(err, &fe)
		switch {
		case c.code == "" && err != nil, c.code != "" && (fe == nil || fe.Code != c.code):
			t.Errorf("%s with %.30q: %v, want %q", c.yaml, c.value, err, c.code)
		case err != nil && len(c.value) > 1 && strings.Contains(err.Error(), c.value):
			t.Errorf("%s: the message tells the value: %v", c.yaml, err)
		}
	}
	err := field(t, "label: Site, regex: '[a-z]+', example: acme").Check("Ü")
	if err == nil || err.Error() != "f: Site does not have the form that is expected, such as acme." {
		t.Error(err)
	}
}

func TestFieldTitles(t *testing.T) {
	for name, want := range map[string]string{
		"api_key": "API key", "client_id": "Client ID", "subdomain": "Subdomain", "base_url": "Base URL",
		"oauth_scopes": "OAuth scopes", "redirect_uri": "Redirect URI", "id": "ID",
	} {
		if got := (&Field{Name: name}).Title(); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestFieldsCleanWhatIsPasted(t *testing.T) {
	f := &Field{Prefix: "https://", Suffix: ".zendesk.com"}
	for _, v := range []string{"acme", " acme\n", "https://acme.zendesk.com", "https://acme.zendesk.com/", "acme.zendesk.com"} {
		if got := f.Clean(v); got != "acme" {
			t.Errorf("%q: %q", v, got)
		}
	}
}

func TestFieldsAreAskedOfThePersonOnlyWhenNobodyElseKnows(t *testing.T) {
	for yaml, want := range map[string]bool{"secret: true": true, "hidden: true": false, "automatic: true": false, "source: operator": false} {
		if field(t, yaml).Asked() != want {
			t.Error(yaml)
		}
	}
}

func TestDefaultsFillTemplates(t *testing.T) {
	p, err := Parse("a.yaml", []byte(minimal+`
conn_fields: [{name: region, default: us}]
cred_fields: [{name: username}, {name: password, default: '', hidden: true}]
request:
  base_url: https://api.{conn.region}.example.com
  headers: {authorization: "{base64(cred.username, ':', cred.password)}"}
`))
	if err != nil {
		t.Fatal(err)
	}
	e := env("cred.username", "u")
	if u, err := p.Request.BaseURL.Fill(e); err != nil || u.Host != "api.us.example.com" {
		t.Error(u, err)
	}
	if h, err := p.Request.Headers.Fill(e); err != nil || h["Authorization"] != "dTo=" {
		t.Error(h, err)
	}
}

func TestRetryStatuses(t *testing.T) {
	r := &Retry{Statuses: []StatusRange{{403, 403}, {500, 599}}}
	if !r.Limited(403) || !r.Limited(503) || r.Limited(429) || !(*Retry)(nil).Limited(429) || (*Retry)(nil).Limited(403) {
		t.Error("statuses")
	}
}
