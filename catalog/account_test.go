package catalog

import (
	"strings"
	"testing"
)

func TestAccountBlockSaysWhatIsWrong(t *testing.T) {
	for block, want := range map[string]string{
		"account: {id: '{claim.sub}'}":    "claim.sub needs issuer",
		"account: {id: '{answer.id}'}":    "answer.id needs request",
		"account: {id: same}":             "all accounts would be one",
		"account: {label: '{resp.name}'}": "id",
		"account: {issuer: 'https://{answer.x}', id: '{claim.sub}', request: {method: GET, url: /x}}": "issuer can't be made of an answer",
		"account: {id: '{conn.nope}'}":                                            "conn.nope is not declared",
		"account: {id: '{resp.id}', request: {method: GET, url: '/{claim.sub}'}}": "known in account only",
		"derive: [{copy: '{claim.sub}', to: x}]":                                  "known in account only",
		"scopes: {granted_by: {'a*b*': ['c']}}":                                   "at most one *",
		"scopes: {granted_by: {'a': ['c*']}}":                                     "at most one *",
		"account: {id: '{resp.id}', email: x}":                                    "unknown key",
	} {
		_, err := Parse("a.yaml", []byte(minimal+block+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "a.yaml:") {
			t.Errorf("%s: %v", block, err)
		}
	}
	p, err := Parse("a.yaml", []byte(minimal+"account: {issuer: 'https://{claim.tid}', id: ['{claim.sub}', '{answer.id}'], label: '{answer.name}', request: {method: GET, url: /me}}\n"))
	if err != nil || p.Account.ID.IsZero() || !p.Account.Request.URL.Relative() {
		t.Errorf("%v", err)
	}
}
