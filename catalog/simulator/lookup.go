package simulator

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// lookupEndpoint answers a request that the client makes after it has got its
// first token, to find out the rest of a connection's fields.
func (v *Vendor) lookupEndpoint(i int) *endpoint {
	d := &v.facts.Derive[i]
	c := d.Request
	return &endpoint{
		name: "look-up", method: c.Method,
		check: func(x *exchange) []string {
			if d.ExtraToken != "" {
				return v.extraUnmet(x, i)
			}
			var out []string
			switch c.Auth {
			case "none":
				out = x.headersUnmet(&demand{headers: sources(c.Headers)})
			case "bearer":
				x.grant = v.newest()
				out = x.headersUnmet(&demand{headers: map[string]any{"authorization": "Bearer {token.access_token}"}})
			default:
				out = v.allowed(x, sources(c.Headers), "")
			}
			body := plain(treeIn(treeIn(v.facts.item("derive", i), "request"), "body"))
			dm := &demand{encoding: "none", headers: map[string]any{}}
			if len(c.Body.Tree) > 0 {
				dm = &demand{encoding: "json", params: body, headers: map[string]any{}}
			}
			return append(out, x.bodyUnmet(dm)...)
		},
		respond: func(w http.ResponseWriter, x *exchange) {
			v.counts.Lookups++
			if d.ExtraToken != "" {
				v.extraAnswer(w, x, d)
				return
			}
			answer(w, http.StatusOK, v.lookedUp(x, i))
		},
		refuse: v.refuseCall,
	}
}

// lookedUp makes the answer that all look-ups at one address share.
func (v *Vendor) lookedUp(x *exchange, i int) any {
	address := v.facts.Derive[i].Request.URL.String()
	if doc, ok := v.answers[address]; ok {
		return doc
	}
	var doc any = map[string]any{"simulated": v.facts.ID}
	for n := range v.facts.Derive {
		d := &v.facts.Derive[n]
		if d.Request == nil || d.Request.URL.String() != address {
			continue
		}
		if d.Pick != nil {
			doc = v.picked(x, d, n)
			continue
		}
		m := doc.(map[string]any)
		if w := d.When; w != nil && len(w.PathEquals) == 2 {
			put(m, fmt.Sprint(w.PathEquals[0]), w.PathEquals[1])
		}
		v.set(m, d, false)
	}
	v.answers[address] = doc
	return doc
}

// set puts the values of the fields that a look-up fills where it finds them.
func (v *Vendor) set(m map[string]any, d *catalog.Derive, withheld bool) {
	for field, path := range d.Set {
		if withheld || d.UnlessSet && v.account.Conn[field] != "" {
			if at(m, path) == nil {
				put(m, path, disguise(d.Transform, "other-"+random(6)))
			}
			continue
		}
		if have, ok := at(m, path).(string); ok {
			v.told[field] = undisguise(d.Transform, have)
			continue
		}
		if v.parentOfOther(path) {
			continue // a list whose elements another look-up reads
		}
		put(m, path, disguise(d.Transform, v.tell(field)))
	}
}

// parentOfOther tells whether another look-up reads something inside a path.
func (v *Vendor) parentOfOther(path string) bool {
	for _, d := range v.facts.Derive {
		for _, other := range d.Set {
			if strings.HasPrefix(other, path+".") {
				return true
			}
		}
	}
	return false
}

// picked makes a list with the element that is to be chosen, and with one that
// isn't wherever that can be told apart.
func (v *Vendor) picked(x *exchange, d *catalog.Derive, n int) any {
	p := d.Pick
	right, wrong := map[string]any{}, map[string]any{}
	matched := false
	raw := treeIn(v.facts.item("derive", n), "pick")
	rules, _ := raw["match"].([]any)
	for i, m := range p.Match {
		rule, _ := rules[i].(map[string]any)
		var value any
		switch {
		case rule["equals"] != nil:
			value = rule["equals"]
			if s, ok := value.(string); ok {
				text, err := v.fill(x, s)
				if err != nil {
					continue
				}
				value = text
			}
		case rule["contains"] != nil:
			text, err := v.fill(x, fmt.Sprint(rule["contains"]))
			if err != nil {
				continue
			}
			value = "The " + text + " site"
		case rule["host_label_equals"] != nil:
			text, err := v.fill(x, fmt.Sprint(rule["host_label_equals"]))
			if err != nil {
				continue
			}
			value = "https://" + text + ".vendor.example"
		}
		put(right, m.Path, value)
		if b, ok := value.(bool); ok {
			put(wrong, m.Path, !b)
		} else {
			put(wrong, m.Path, "https://other"+random(4)+".vendor.example")
		}
		matched = true
	}
	v.set(right, d, false)
	v.set(wrong, d, true)
	list := []any{right, wrong}
	switch {
	case matched:
		list = []any{wrong, right}
	case p.Default == "only":
		list = []any{right}
	}
	if p.Array == "" {
		return list
	}
	doc := map[string]any{}
	put(doc, p.Array, list)
	return doc
}

func (v *Vendor) fill(x *exchange, src string) (string, error) {
	t, err := x.choose(strings.Split(src, " | "))
	if err != nil {
		// A claim of the token is known here even if the token isn't at hand.
		if _, rest, ok := strings.Cut(src, "jwt_claim(token.access_token, '"); ok {
			name, _, _ := strings.Cut(rest, "'")
			return v.known["claim."+name], nil
		}
		return "", err
	}
	return x.text(t)
}

// extraUnmet checks the request for a second token.
func (v *Vendor) extraUnmet(x *exchange, i int) []string {
	c := v.facts.Derive[i].Request
	x.grant = v.newest()
	encoding := c.Body.Encoding
	if encoding == "" {
		encoding = "form"
	}
	return x.unmet(&demand{encoding: encoding, params: treeIn(treeIn(v.facts.item("derive", i), "request"), "params"), headers: sources(c.Headers)})
}

func (v *Vendor) extraAnswer(w http.ResponseWriter, x *exchange, d *catalog.Derive) {
	doc := map[string]any{"token_type": "Bearer"}
	token := "xt." + random(24)
	if x.grant != nil {
		x.grant.extra[d.ExtraToken] = token
	}
	put(doc, d.Path, token)
	if d.RefreshPath != "" {
		put(doc, d.RefreshPath, "xr."+random(24))
	}
	if d.ExpiresIn != "" {
		put(doc, d.ExpiresIn, int(lifetime/time.Second))
	}
	answer(w, http.StatusOK, doc)
}

// altEndpoint gives a second kind of token next to the main one.
func (v *Vendor) altEndpoint(name string) *endpoint {
	t := v.facts.TokenAlt[name]
	raw := v.facts.tree("token_alt", name)
	return &endpoint{
		name: "second token", method: t.Method,
		check: func(x *exchange) []string {
			d := &demand{encoding: t.Body, params: maps.Clone(treeIn(raw, "params")), headers: sources(t.Headers)}
			if d.params == nil {
				d.params = map[string]any{}
			}
			v.identify(d, t.ClientAuth, nil, "app")
			return x.unmet(d)
		},
		respond: func(w http.ResponseWriter, x *exchange) {
			v.counts.Lookups++
			token := "alt." + random(24)
			for _, g := range v.grants {
				g.extra[name] = token
			}
			doc := map[string]any{}
			put(doc, t.AccessToken, token)
			if t.ExpiresAt != "" {
				put(doc, t.ExpiresAt, time.Now().Add(lifetime).UTC().Format(time.RFC3339))
			}
			answer(w, http.StatusCreated, doc)
		},
	}
}

func (v *Vendor) introspectEndpoint() *endpoint {
	in := v.facts.Introspect
	return &endpoint{
		name: "introspection", method: in.Method,
		check: func(x *exchange) []string {
			if x.grant = v.newest(); x.grant == nil {
				return []string{"there is no token yet"}
			}
			return x.unmet(&demand{encoding: in.Body, params: v.facts.tree("introspect", "params"), headers: map[string]any{"authorization": optional{free{}}}})
		},
		respond: func(w http.ResponseWriter, x *exchange) {
			doc := map[string]any{}
			put(doc, in.Active, x.grant.live)
			x.grant.told = time.Now().Add(lifetime).Truncate(time.Second)
			put(doc, in.ExpiresAt, x.grant.told.Unix())
			answer(w, http.StatusOK, doc)
		},
	}
}

func (v *Vendor) revokeEndpoint() *endpoint {
	c := v.facts.Revoke
	return &endpoint{
		name: "revocation", method: c.Method,
		check: func(x *exchange) []string {
			if x.grant = v.newest(); x.grant == nil {
				return []string{"there is no token yet"}
			}
			headers := sources(c.Headers)
			if c.Auth == "bearer" {
				headers["authorization"] = "Bearer {token.access_token}"
			}
			encoding := c.Body.Encoding
			if encoding == "" {
				encoding = "none"
			}
			return x.unmet(&demand{encoding: encoding, params: v.facts.tree("revoke", "params"), headers: headers})
		},
		respond: func(w http.ResponseWriter, _ *exchange) {
			v.counts.Revoked++
			for _, g := range v.grants {
				g.live, g.refresh = false, ""
			}
			v.closed = true
			w.WriteHeader(http.StatusNoContent)
		},
	}
}
