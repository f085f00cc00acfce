package simulator

import (
	"regexp"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// facts is an entry as it was written. Trees of parameters are taken from the
// plain data, so that their types and templates are the file's own.
type facts struct {
	*catalog.Provider
	raw map[string]any
}

func factsOf(p *catalog.Provider) *facts {
	if p.Mode == catalog.ModeMCPDiscovery && p.Token == nil {
		// What the entry leaves to be discovered is what the standard says.
		c := *p
		c.Token = &catalog.Token{Method: "POST", Body: "form", ClientAuth: "none"}
		c.Refresh = &catalog.Refresh{Mode: catalog.RefreshByToken, Rotates: true}
		p = &c
	}
	return &facts{p, p.Raw()}
}

// at returns what stands at a path of keys, nil if nothing does.
func (f *facts) at(keys ...string) any {
	var v any = f.raw
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

// tree returns the map at a path of keys.
func (f *facts) tree(keys ...string) map[string]any {
	m, _ := f.at(keys...).(map[string]any)
	return m
}

// item returns the n-th element of the list under a key.
func (f *facts) item(key string, n int) map[string]any {
	list, _ := f.raw[key].([]any)
	if n >= len(list) {
		return nil
	}
	m, _ := list[n].(map[string]any)
	return m
}

func treeIn(m map[string]any, key string) map[string]any {
	t, _ := m[key].(map[string]any)
	return t
}

// source returns a template's alternatives.
func source(t interface{ String() string }) []string {
	if s := t.String(); s != "" {
		return strings.Split(s, " | ")
	}
	return nil
}

// sources returns the alternatives of header templates by name.
func sources(h catalog.Headers) map[string]any {
	out := map[string]any{}
	for name, v := range h {
		out[name] = source(v)
	}
	return out
}

// templatesOf calls f with every string of the entry and the key it stands at.
func (f *facts) templatesOf(call func(key, s string)) { templatesIn(f.raw, call) }

func templatesIn(tree any, call func(key, s string)) {
	var walk func(key string, v any)
	walk = func(key string, v any) {
		switch v := v.(type) {
		case string:
			call(key, v)
		case []any:
			for _, item := range v {
				walk(key, item)
			}
		case map[string]any:
			for k, item := range v {
				walk(k, item)
			}
		}
	}
	walk("", tree)
}

// Where a value stands in the entry's addresses.
type place int

const (
	placeNone  place = iota // not in an address, or in its path or query
	placeLabel              // a part of a host
	placeHost               // a whole host
	placePort
	placeBase // a whole address
)

// placeOf finds the most demanding place of a value such as conn.subdomain.
func (f *facts) placeOf(ref string) place {
	found := placeNone
	hole := "{" + ref + "}"
	f.templatesOf(func(key, s string) {
		if key == "url" || key == "base_url" || key == "paths" || key == "request_token_url" {
			if strings.HasPrefix(s, hole) {
				found = max(found, placeBase)
				return
			}
		}
		_, rest, ok := strings.Cut(s, "://")
		if !ok || !strings.Contains(rest, hole) {
			return
		}
		host, _, _ := strings.Cut(rest, "/")
		host, _, _ = strings.Cut(host, "?")
		switch {
		case strings.HasPrefix(host, hole):
			if host == hole || strings.HasPrefix(host, hole+":") {
				found = max(found, placeHost)
			} else {
				found = max(found, placeLabel)
			}
		case strings.Contains(host, ":"+hole):
			found = max(found, placePort)
		case strings.Contains(host, hole):
			found = max(found, placeLabel)
		}
	})
	return found
}

// refers tells whether any string of the entry refers to a value.
func (f *facts) refers(ref string) bool {
	form := regexp.MustCompile(`\b` + regexp.QuoteMeta(ref) + `\b`)
	found := false
	f.templatesOf(func(_, s string) { found = found || strings.Contains(s, "{") && form.MatchString(s) })
	return found
}

// refsIn lists the values of a namespace that the entry refers to: for step1,
// the paths in the first answer.
func (f *facts) refsIn(namespace string) []string { return refsOf(f.raw, namespace) }

// refsWithin is refsIn for one block of the entry.
func (f *facts) refsWithin(key, namespace string) []string { return refsOf(f.raw[key], namespace) }

func refsOf(tree any, namespace string) []string {
	form := regexp.MustCompile(`\b` + namespace + `\.([A-Za-z0-9_$-]+(?:\.[A-Za-z0-9_$-]+)*)`)
	seen := map[string]bool{}
	var out []string
	templatesIn(tree, func(_, s string) {
		for _, hole := range holeForm.FindAllString(s, -1) {
			for _, m := range form.FindAllStringSubmatch(hole, -1) {
				if !seen[m[1]] {
					seen[m[1]] = true
					out = append(out, m[1])
				}
			}
		}
	})
	return out
}

var holeForm = regexp.MustCompile(`\{[^{}]+\}`)
