package nango

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/keycaddy/keycaddy/catalog"
)

// meaning is what an entry does, flat, with the defaults filled in: where the
// browser goes, what token requests have, what is put on calls, what is asked.
// Texts for people, links and hints are left out.
func meaning(p *catalog.Provider) map[string]string {
	raw := p.Raw()
	out := map[string]string{"auth_scheme": string(p.Mode)}
	for _, block := range []string{"authorize", "token", "token_steps", "refresh", "token_response", "signed", "registration", "scopes", "request"} {
		flatten(out, block, raw[block])
	}
	def := func(path, value string) {
		if out[path] == "" {
			out[path] = value
		}
	}
	if p.Token != nil {
		def("token.method", "POST")
		def("token.body", "form")
		def("token.client_auth", "post")
		out["refresh.mode"] = p.Refresh.Mode
		delete(out, "refresh.declared")
		// What the answer is read for anyway.
		for path, value := range map[string]string{"access_token": "access_token", "refresh_token": "refresh_token", "expires_in": "expires_in"} {
			def("token_response."+path, value)
		}
	}
	for _, said := range []string{"application/x-www-form-urlencoded", "application/json"} {
		for _, header := range []string{"token.headers.content-type", "token.headers.accept"} {
			if out[header] == said { // by body, and by what is understood
				delete(out, header)
			}
		}
	}
	if p.Scopes != nil {
		def("scopes.separator", " ")
	}
	for namespace, fields := range map[string][]catalog.Field{"conn": p.ConnFields, "cred": p.CredFields} {
		for i := range fields {
			if fields[i].Asked() {
				out["asks "+namespace+"."+fields[i].Name] = "yes"
			}
		}
	}
	return out
}

func flatten(out map[string]string, path string, v any) {
	switch v := v.(type) {
	case nil:
	case map[string]any:
		for k, x := range v {
			flatten(out, path+"."+k, x)
		}
	case []any:
		for i, x := range v {
			flatten(out, fmt.Sprintf("%s[%d]", path, i), x)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}

// Differences are the places in which two entries don't mean the same, as
// sentences.
func Differences(theirs, ours *catalog.Provider) []string {
	a, b := meaning(theirs), meaning(ours)
	if reflect.DeepEqual(a, b) {
		return nil
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	var out []string
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if a[path] != b[path] {
			out = append(out, fmt.Sprintf("%s: theirs %q, ours %q", path, a[path], b[path]))
		}
	}
	return out
}
