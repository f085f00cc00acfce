package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// lifetime is how long a token lives where the vendor says so.
const lifetime = 3600 * time.Second

// firstAnswer answers a token request: with the tokens, or with what the next
// request of a chain needs.
func (v *Vendor) firstAnswer(w http.ResponseWriter, x *exchange, g *grant) {
	if len(v.facts.TokenSteps) == 0 {
		v.lastAnswer(w, x, g, false)
		return
	}
	v.pending = g
	if v.otherwise && v.facts.TokenSteps[0].Optional {
		// The next request will fail, so that this answer is the one that counts.
		v.known["step1.access_token"] = g.access
		v.lastAnswer(w, x, g, false)
		return
	}
	v.stepAnswer(w, 1)
}

func (v *Vendor) nextAnswer(w http.ResponseWriter, x *exchange, step int) {
	if step <= len(v.facts.TokenSteps) {
		v.stepAnswer(w, step)
		return
	}
	g := v.pending
	v.pending = nil
	v.lastAnswer(w, x, g, false)
}

// root is where the tokens are in the answer of a vendor that has two kinds.
func (v *Vendor) root() string {
	if r := v.facts.TokenResponse; v.otherwise && r != nil && r.AlternateRoot != "" {
		return r.AlternateRoot + "."
	}
	return ""
}

// stepAnswer has a value at every path of it that the entry uses.
func (v *Vendor) stepAnswer(w http.ResponseWriter, step int) {
	namespace := fmt.Sprintf("step%d", step)
	doc := map[string]any{}
	for _, path := range v.facts.refsIn(namespace) {
		ref := namespace + "." + path
		value := "st." + random(24) + "+/="
		switch v.facts.placeOf(ref) {
		case placeBase:
			value = "https://" + random(8) + ".vendor.example"
		case placeHost:
			value = random(8) + ".vendor.example"
		case placeLabel:
			value = "st" + random(6)
		}
		v.known[ref] = value
		put(doc, path, value)
	}
	if r := v.facts.TokenResponse; r != nil && strings.HasPrefix(r.RefreshToken, namespace+".") {
		put(doc, strings.TrimPrefix(r.RefreshToken, namespace+"."), v.pending.refresh)
	}
	answer(w, http.StatusOK, doc)
}

func (v *Vendor) accessPath() string {
	if r := v.facts.TokenResponse; r != nil && r.AccessToken != "" {
		return r.AccessToken
	}
	return "access_token"
}

// lastAnswer is the token response.
func (v *Vendor) lastAnswer(w http.ResponseWriter, x *exchange, g *grant, renewal bool) {
	v.grants = append(v.grants, g)
	r := v.facts.TokenResponse
	if r == nil {
		r = &catalog.TokenResponse{}
	}
	if v.accessPath() == "$body" {
		v.expire(map[string]any{}, g, r)
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(g.access))
		return
	}
	doc := map[string]any{}
	root := v.root()
	put(doc, root+v.accessPath(), g.access)
	if renewal && v.facts.Refresh.KeepsAccessToken {
		doc = map[string]any{}
	}
	if g.refresh != "" && !strings.HasPrefix(r.RefreshToken, "step") && (!renewal || v.rotates()) {
		path := "refresh_token"
		if r.RefreshToken != "" {
			path = r.RefreshToken
		}
		put(doc, root+path, g.refresh)
	}
	switch v.facts.Mode {
	case catalog.ModeOAuth2Code, catalog.ModeClientCredentials, catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery:
		if v.accessPath() == "access_token" {
			doc["token_type"] = "Bearer"
		}
	}
	v.expire(doc, g, r)
	if r.OK != nil {
		put(doc, r.OK.Path, r.OK.Equals)
	}
	v.capture(doc, r, renewal)
	v.meet()
	who := v.facts.refsWithin("account", "resp")
	for _, path := range v.facts.refsIn("resp") {
		if have, ok := at(doc, path).(string); ok {
			v.known["resp."+path] = have
			continue
		}
		if !slices.Contains(who, path) { // who it is, stays
			v.known["resp."+path] = "re-" + random(12)
		}
		put(doc, path, v.known["resp."+path])
	}
	if token, ok := v.idToken(x, g); ok && !renewal {
		doc["id_token"] = token
	}
	if r.CaptureCookies {
		g.cookies = "B1SESSION=" + random(16) + "; ROUTEID=." + random(4)
		for cookie := range strings.SplitSeq(g.cookies, "; ") {
			w.Header().Add("Set-Cookie", cookie+"; path=/; HttpOnly")
		}
	}
	if v.facts.Token.Body == "xml" {
		var b strings.Builder
		writeXML(&b, doc)
		w.Header().Set("Content-Type", "application/xml")
		_, _ = w.Write([]byte(b.String()))
		return
	}
	answer(w, http.StatusOK, doc)
}

// capture puts the connection fields that the client reads out of the answer
// where it looks for them.
func (v *Vendor) capture(doc map[string]any, r *catalog.TokenResponse, renewal bool) {
	for i := range v.facts.Derive {
		d := &v.facts.Derive[i]
		if !d.FromTokenResponse || renewal {
			continue
		}
		for field, path := range d.Set {
			if d.UnlessSet && v.account.Conn[field] != "" {
				put(doc, path, disguise(d.Transform, "other-"+random(4)))
				continue
			}
			if have, ok := at(doc, path).(string); ok {
				v.told[field] = undisguise(d.Transform, have)
				continue
			}
			put(doc, path, disguise(d.Transform, v.tell(field)))
		}
	}
	captured := r.Capture
	if renewal {
		captured = r.CaptureOnRefresh
	}
	for field, path := range captured {
		if have, ok := at(doc, path).(string); ok {
			v.told[field] = have
			continue
		}
		put(doc, path, v.tell(field))
	}
}

// disguise wraps a value so that a transform finds it.
func disguise(transform, value string) string {
	if transform == "last_path_segment" {
		return "https://api.vendor.example/things/" + value
	}
	if marker, ok := strings.CutPrefix(transform, "after:"); ok {
		return "https://www." + marker + value
	}
	return value
}

func undisguise(transform, value string) string {
	if transform == "last_path_segment" {
		return value[strings.LastIndexByte(value, '/')+1:]
	}
	if marker, ok := strings.CutPrefix(transform, "after:"); ok {
		if _, rest, found := strings.Cut(value, marker); found {
			return rest
		}
	}
	return value
}

// expire says when the token ends, where the entry knows where that is said.
func (v *Vendor) expire(doc map[string]any, g *grant, r *catalog.TokenResponse) {
	now := time.Now()
	life := lifetime
	// Vendors that say the same thing write it in different ways: the way is
	// the entry's own here, so that all of them come up.
	way := 0
	for _, c := range v.facts.ID {
		way += int(c)
	}
	switch {
	case r.LifetimeS > 0:
		life = time.Duration(r.LifetimeS) * time.Second
	case r.NoExpiryGiven:
		return
	case r.ExpiresAt != "":
		end := now.Add(life)
		var value any
		switch {
		case strings.Contains(r.ExpiresAt, "estimatedTime"): // from now, D:HH:MM
			value = "0:01:00"
		case way%3 == 0:
			value = end.Unix()
		case way%3 == 1:
			value = end.UnixMilli()
		default:
			value = end.UTC().Format(time.RFC3339)
		}
		put(doc, r.ExpiresAt, value)
	case r.ExpiresIn != "" || v.saysExpiry():
		path := "expires_in"
		if r.ExpiresIn != "" {
			path = r.ExpiresIn
		}
		seconds := int(life / time.Second)
		if r.ExpiresInUnit == "ms" {
			seconds *= 1000
		}
		var value any = seconds
		if way%5 == 0 {
			value = strconv.Itoa(seconds)
		}
		if v.otherwise && r.ExpiresIn == "" {
			path, value = "expires_at", now.Add(life).Unix()
		}
		put(doc, v.root()+path, value)
	default:
		return
	}
	if f := v.facts.Refresh; f != nil && f.LifetimeS > 0 && f.KeepsAccessToken && len(v.grants) > 1 {
		life = time.Duration(f.LifetimeS) * time.Second
	}
	g.told = now.Add(life)
	if r.RefreshMarginS > 0 {
		g.told = g.told.Add(-time.Duration(r.RefreshMarginS) * time.Second)
	}
}

// saysExpiry tells whether the vendor answers with expires_in though the entry
// does not mention it: OAuth asks for it (RFC 6749 section 5.1), and a token
// that can be renewed is one that ends.
func (v *Vendor) saysExpiry() bool {
	switch v.facts.Mode {
	case catalog.ModeClientCredentials:
		return true
	case catalog.ModeOAuth2Code, catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery:
		return v.refreshable() || v.facts.Refresh.Mode == catalog.RefreshExchangesAccess
	}
	return false
}

// put sets the value at a path of keys and indexes: accounts.0.id.
func put(doc map[string]any, path string, value any) {
	doc2 := putIn(doc, strings.Split(path, "."), value)
	if m, ok := doc2.(map[string]any); ok {
		for k, v := range m {
			doc[k] = v
		}
	}
}

func putIn(into any, keys []string, value any) any {
	if len(keys) == 0 {
		return value
	}
	if i, err := strconv.Atoi(keys[0]); err == nil {
		list, _ := into.([]any)
		for len(list) <= i {
			list = append(list, nil)
		}
		list[i] = putIn(list[i], keys[1:], value)
		return list
	}
	m, ok := into.(map[string]any)
	if !ok {
		m = map[string]any{}
	}
	m[keys[0]] = putIn(m[keys[0]], keys[1:], value)
	return m
}

// at reads the value at a path.
func at(doc any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch v := doc.(type) {
		case map[string]any:
			doc = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(v) {
				return nil
			}
			doc = v[i]
		default:
			return nil
		}
	}
	return doc
}

func decodeJSON(data []byte, into any) error { return json.Unmarshal(data, into) }
