package simulator

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// meet makes up who has signed in, as far as the entry reads it from what
// the vendor answers: known.claim.sub, known.answer.id, known.resp.team.id. An
// id that can be read in several places is the same in each.
func (v *Vendor) meet() {
	a := v.facts.Account
	if a == nil {
		return
	}
	if v.user == "" {
		v.user = "who-" + random(10)
	}
	for _, src := range slices.Concat(source(a.ID), source(a.Label)) {
		t, err := parseTemplate(src)
		if err != nil {
			continue // the catalog has parsed it: AccountID says so
		}
		for _, ref := range refsOfNodes(t) {
			if namespace, _, _ := strings.Cut(ref, "."); namespace != "claim" && namespace != "answer" && namespace != "resp" || v.known[ref] != "" {
				continue
			}
			if v.known[ref] = "is-" + random(8); len(t) == 1 && slices.Contains(source(a.ID), src) {
				v.known[ref] = v.user
			}
		}
	}
}

func refsOfNodes(nodes []node) []string {
	var out []string
	for _, n := range nodes {
		if n.ref != "" {
			out = append(out, n.ref)
		}
		out = append(out, refsOfNodes(n.args)...)
	}
	return out
}

// AccountID is what the client can know the account by that signed in last; empty
// if it can't.
func (v *Vendor) AccountID() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.facts.Account == nil {
		return ""
	}
	v.meet()
	x := v.exchange(nil, nil)
	x.grant = v.newest()
	lookup := x.scope.lookup
	x.scope.lookup = func(ref string) (string, bool) {
		if strings.HasPrefix(ref, "claim.") && !v.signsIn() {
			return "", false
		}
		return lookup(ref)
	}
	t, err := x.choose(source(v.facts.Account.ID))
	if err != nil {
		return ""
	}
	id, err := x.text(t)
	if err != nil {
		return ""
	}
	return id
}

// Switch has another user sign in at the vendor from now on, until back is
// called: what was granted meanwhile is forgotten then. It returns nil if the
// account is known by nothing but what its user types.
func (v *Vendor) Switch() (back func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.facts.Account
	if a == nil {
		return nil
	}
	told, known, answers, grants, user := maps.Clone(v.told), maps.Clone(v.known), v.answers, v.grants, v.user
	changed := false
	for _, r := range a.ID.Refs() {
		switch r.Namespace {
		case "claim", "answer", "resp":
			changed = true
		case "token": // jwt_claim, whose claims are made up with the token
			changed = true
		case "conn":
			_, typed := v.account.Conn[r.Path]
			changed = changed || !typed
		}
	}
	if !changed {
		return nil
	}
	v.user, v.grants, v.answers = "", nil, map[string]any{}
	maps.DeleteFunc(v.known, func(ref, _ string) bool {
		return strings.HasPrefix(ref, "claim.") || strings.HasPrefix(ref, "answer.") || strings.HasPrefix(ref, "resp.")
	})
	for _, r := range a.ID.Refs() {
		if r.Namespace == "conn" && v.account.Conn[r.Path] == "" {
			delete(v.told, r.Path)
		}
	}
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.told, v.known, v.answers, v.grants, v.user, v.closed = told, known, answers, grants, user, false
	}
}

// signsIn tells whether the vendor issues an ID token: to a client that has
// asked for one.
func (v *Vendor) signsIn() bool {
	return v.facts.Account != nil && !v.facts.Account.Issuer.IsZero() && !v.otherwise && slices.Contains(v.facts.Scopes.Split(v.scopes()), "openid")
}

// idToken is who has signed in, as OpenID Connect Core 1.0 section 2 has it.
func (v *Vendor) idToken(x *exchange, g *grant) (string, bool) {
	if !v.signsIn() {
		return "", false
	}
	v.meet()
	now := time.Now()
	claims := map[string]any{
		"aud": v.account.App["client_id"], "sub": "sub-" + random(8), "iat": now.Unix(), "exp": now.Add(lifetime).Unix(),
	}
	for _, path := range v.facts.refsWithin("account", "claim") {
		if v.known["claim."+path] == "" { // of the issuer alone
			v.known["claim."+path] = "tenant-" + random(6)
		}
		put(claims, path, v.known["claim."+path])
	}
	if g.code != nil && g.code.nonce != "" {
		claims["nonce"] = g.code.nonce
	}
	t, err := x.choose(source(v.facts.Account.Issuer))
	if err != nil {
		return "", false
	}
	issuer, err := x.text(t)
	if err != nil {
		return "", false
	}
	claims["iss"] = issuer
	return unsignedJWT(claims), true
}

// accountEndpoint tells who has signed in.
func (v *Vendor) accountEndpoint() *endpoint {
	c := v.facts.Account.Request
	return &endpoint{
		name: "account", method: c.Method,
		check: func(x *exchange) []string {
			d := &demand{encoding: "none", headers: map[string]any{}}
			if len(c.Body.Tree) > 0 {
				d = &demand{encoding: "json", params: plain(treeIn(v.facts.tree("account", "request"), "body")), headers: map[string]any{}}
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
			return append(out, x.bodyUnmet(d)...)
		},
		respond: func(w http.ResponseWriter, _ *exchange) {
			v.counts.Lookups++
			v.meet()
			doc := map[string]any{"simulated": v.facts.ID}
			for _, path := range v.facts.refsWithin("account", "answer") {
				put(doc, path, v.known["answer."+path])
			}
			answer(w, http.StatusOK, doc)
		},
		refuse: v.refuseCall,
	}
}

// withOpenID adds the scope that an ID token is asked for by, where the entry
// reads one.
func withOpenID(p *catalog.Provider, scopes []string) []string {
	if p.Account == nil || p.Account.Issuer.IsZero() {
		return scopes
	}
	if len(scopes) == 0 && p.Scopes != nil {
		scopes = p.Scopes.Default
	}
	if slices.Contains(scopes, "openid") {
		return scopes
	}
	return append(slices.Clone(scopes), "openid")
}
