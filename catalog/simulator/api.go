package simulator

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// apiEndpoint is all of the API below its base.
func (v *Vendor) apiEndpoint() *endpoint {
	return &endpoint{
		name: "API", prefix: true,
		check: func(x *exchange) []string { return v.allowed(x, nil, "") },
		respond: func(w http.ResponseWriter, x *exchange) {
			v.counts.Calls++
			answer(w, http.StatusOK, map[string]any{
				"simulated": v.facts.ID, "method": x.r.Method, "path": x.url.EscapedPath(), "query": x.url.RawQuery, "body": string(x.body),
			})
		},
		refuse: v.refuseCall,
	}
}

// refuseCall answers a call whose only fault is that its token has ended.
func (v *Vendor) refuseCall(w http.ResponseWriter, x *exchange, faults []string) bool {
	if !slices.Contains(faults, tokenEnded) || len(faults) > 1 {
		return false
	}
	v.counts.Expired++
	if v.signal == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	answer(w, v.signal, map[string]any{"error": "simulated: the token has ended"})
	return true
}

const tokenEnded = "the token has ended"

// allowed returns why a call is not let in: the entry's request block, over the
// request as it has arrived. The headers of own stand in for the entry's.
func (v *Vendor) allowed(x *exchange, own map[string]any, service string) []string {
	if v.closed {
		return []string{tokenEnded}
	}
	if !v.UsesToken() {
		return v.credentialed(x, own, service)
	}
	if v.selfSigned() {
		return v.selfCredentialed(x, own, service)
	}
	best := []string{"there is no token yet"}
	for i := len(v.grants) - 1; i >= 0; i-- {
		g := v.grants[i]
		attempt := *x
		attempt.grant = g
		attempt.scope = &scope{made: map[string]string{}, now: x.now}
		attempt.scope.lookup, attempt.scope.assertion = attempt.value, attempt.assertion
		faults := v.credentialed(&attempt, own, service)
		if len(faults) == 0 {
			x.grant = g
			if !g.live {
				return []string{tokenEnded}
			}
			return nil
		}
		if i == len(v.grants)-1 {
			best = faults
		}
	}
	return best
}

// UsesToken tells whether calls carry a token that the vendor has given, or that
// the client has signed: one that ends.
func (v *Vendor) UsesToken() bool {
	if s := v.facts.SignRequest; s != nil && (s.Kind == "oauth1" && s.Token.IsZero() || s.Credentials == "assume_role") {
		return true // in the signature
	}
	for _, name := range []string{"token", "resp"} {
		if len(v.facts.refsWithin("request", name)) > 0 {
			return true
		}
	}
	return v.selfSigned()
}

func carriesCredential(templates []string) bool {
	return slices.ContainsFunc(templates, func(s string) bool {
		return strings.Contains(s, "cred.") || strings.Contains(s, "token.") || strings.Contains(s, "secret")
	})
}

// credentialed checks a call's headers, query, body and signature.
func (v *Vendor) credentialed(x *exchange, own map[string]any, service string) []string {
	req := v.facts.Request
	if req == nil {
		return nil
	}
	headers := sources(req.Headers)
	maps.Copy(headers, own)
	for name, want := range headers {
		// What can't be filled is left out, and the caller's own may stand there,
		// unless it is where the credential goes.
		if _, err := x.choose(alternatives(want)); errors.Is(err, errAbsent) && !carriesCredential(alternatives(want)) {
			delete(headers, name)
		}
	}
	out := x.certificateUnmet()
	if _, declared := headers["authorization"]; !declared && (v.facts.SignRequest != nil || v.facts.HasFlag("placement_from_app_fields")) {
		headers["authorization"] = free{} // looked at below
	}
	out = append(out, x.headersUnmet(&demand{headers: headers})...)
	if v.facts.SignRequest != nil {
		out = append(out, v.signatureUnmet(x, service)...)
	}
	if len(x.body) > 0 && x.r.Header.Get("Content-Type") == "" {
		out = append(out, "there is a body without a content type")
	}
	query := x.url.Query()
	for name, values := range x.fixedQuery(source(req.BaseURL), nil) {
		if !slices.Equal(query[name], values) {
			out = append(out, "the query's "+name+" of the API's address is missing")
		}
	}
	for name, want := range v.facts.tree("request", "query") {
		values, present := query[name]
		if len(values) > 1 {
			out = append(out, "the query has "+name+" twice")
		}
		if err := x.one(want, query.Get(name), present, false); err != nil {
			out = append(out, fmt.Sprintf("the query's %s %v", name, err))
		}
	}
	out = append(out, v.bodyUnmet(x)...)
	if v.facts.HasFlag("placement_from_app_fields") {
		out = append(out, v.placementUnmet(x)...)
	}
	return out
}

// bodyUnmet checks that the entry's values are in the caller's body, which
// keeps its own.
func (v *Vendor) bodyUnmet(x *exchange) []string {
	want := v.facts.tree("request", "body")
	if len(want) == 0 || !slices.Contains([]string{"POST", "PUT", "PATCH"}, x.r.Method) {
		return nil
	}
	got, typed := map[string]any{}, false
	if mediaType(x.r.Header.Get("Content-Type")) == mediaTypes["form"] {
		values, err := url.ParseQuery(string(x.body))
		if err != nil {
			return []string{"the body is no form"}
		}
		for name := range values {
			got[name] = values.Get(name)
		}
	} else if typed = true; decodeJSON(x.body, &got) != nil {
		return []string{"the body is no JSON object"}
	}
	var out []string
	for name, value := range want {
		s, present := got[name]
		if err := x.one(value, s, present, typed); err != nil {
			out = append(out, fmt.Sprintf("the body's %s %v", name, err))
		}
	}
	return out
}

// placementUnmet is for private APIs: the operator has said where the key goes.
func (v *Vendor) placementUnmet(x *exchange) []string {
	app := func(name string) string {
		s, _ := x.value("app." + name)
		return s
	}
	value, err := x.choose([]string{app("value_template")})
	if err != nil {
		return []string{"the operator's template: " + err.Error()}
	}
	name := app("key_name")
	if app("key_placement") == "query" {
		if err := x.one(app("value_template"), x.url.Query().Get(name), x.url.Query().Has(name), false); err != nil {
			return []string{fmt.Sprintf("the query's %s %v", name, err)}
		}
		return nil
	}
	if err := x.match(value, x.r.Header.Get(name)); err != nil {
		return []string{fmt.Sprintf("the header %s %v", name, err)}
	}
	return nil
}

// verifyEndpoint is the request by which a client tries a credential. All of
// the entry's paths but the last say no, as one of them is enough.
func (v *Vendor) verifyEndpoint(i int) *endpoint {
	ver := v.facts.Verify
	last := i == len(ver.Paths)-1
	return &endpoint{
		name: "verification", method: ver.Method,
		check: func(x *exchange) []string {
			out := v.allowed(x, sources(ver.Headers), ver.SignService)
			if len(out) == 1 && out[0] == tokenEnded {
				return out
			}
			for name, values := range x.fixedQuery(source(ver.Paths[i]), x.mustBase()) {
				if !slices.Equal(x.url.Query()[name], values) {
					out = append(out, "the query's "+name+" is missing")
				}
			}
			d := &demand{encoding: "none", headers: map[string]any{}}
			switch {
			case ver.BodySpecial != "":
				if !bytes.Contains(x.body, []byte("Envelope")) {
					out = append(out, "the body is no SOAP envelope")
				}
				return out
			case !ver.BodyRaw.IsZero():
				d = &demand{encoding: "raw", raw: source(ver.BodyRaw), headers: sources(ver.Headers)}
			case len(ver.Body) > 0:
				d = &demand{encoding: "json", params: plain(v.facts.tree("verify", "body")), headers: sources(ver.Headers)}
			}
			if len(v.facts.Request.Body) > 0 && len(ver.Body) == 0 {
				return out
			}
			if len(v.facts.Request.Body) > 0 {
				d.params = maps.Clone(d.params)
				maps.Copy(d.params, v.facts.tree("request", "body"))
			}
			if _, declared := d.headers["content-type"]; !declared && v.facts.Request.Headers != nil {
				if ct, ok := v.facts.Request.Headers["content-type"]; ok {
					d.headers["content-type"] = source(ct)
				}
			}
			return append(out, x.bodyUnmet(d)...)
		},
		respond: func(w http.ResponseWriter, _ *exchange) {
			if !last {
				answer(w, http.StatusNotFound, map[string]any{"error": "simulated: another path says yes"})
				return
			}
			v.counts.Verified++
			v.verified(w)
		},
		refuse: v.refuseVerify,
	}
}

func (x *exchange) mustBase() *url.URL {
	u, err := x.base()
	if err != nil {
		return &url.URL{Scheme: "https", Host: "unknown.vendor.example"}
	}
	return u
}

// verified is an answer that the entry expects.
func (v *Vendor) verified(w http.ResponseWriter) {
	e := v.facts.Verify.Expect
	status, doc := http.StatusOK, map[string]any{"simulated": v.facts.ID}
	if e != nil {
		if len(e.Status) > 0 {
			status = e.Status[0]
		}
		if e.Is == "array" {
			if e.Path == "" {
				answer(w, status, []any{doc})
				return
			}
			put(doc, e.Path, []any{map[string]any{"id": 1}})
		} else if e.Path != "" {
			put(doc, e.Path, e.Equals)
		}
	}
	answer(w, status, doc)
}

// refuseVerify says no in the vendor's way: some do so with a status of 200.
func (v *Vendor) refuseVerify(w http.ResponseWriter, x *exchange, faults []string) bool {
	e := v.facts.Verify.Expect
	if e == nil || len(faults) == 1 && faults[0] == tokenEnded {
		return v.refuseCall(w, x, faults)
	}
	v.fault("%s %s: verification: %s", x.r.Method, x.url.Host+x.url.EscapedPath(), strings.Join(faults, "; "))
	switch {
	case len(e.NotContains) == 2 && e.NotContains[0] == "$text":
		w.WriteHeader(http.StatusOK)
		_, _ = fmt.Fprintf(w, "simulated: %s", e.NotContains[1])
	case len(e.NotContains) == 2:
		doc := map[string]any{}
		put(doc, e.NotContains[0], "simulated: "+e.NotContains[1])
		answer(w, http.StatusOK, doc)
	case e.Path != "" && e.Is == "":
		doc := map[string]any{}
		put(doc, e.Path, "simulated")
		answer(w, http.StatusOK, doc)
	case e.Is == "array":
		answer(w, http.StatusOK, map[string]any{"errors": []any{"simulated"}})
	default:
		answer(w, http.StatusUnauthorized, map[string]any{"error": "simulated"})
	}
	return true
}
