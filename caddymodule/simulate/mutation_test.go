package simulate

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

var everyMutation = flag.Bool("every-mutation", false, "try every mutation on every entry, and report figures")

// mutation changes the data that a client goes by. It returns the entries that
// it makes, one for each place where it applies.
type mutation struct {
	name string
	of   func(e entry) []entry
}

// entry is an entry's plain data.
type entry map[string]any

func (e entry) clone() entry {
	data, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	out := entry{}
	if err := json.Unmarshal(data, &out); err != nil {
		panic(err)
	}
	return out
}

func (e entry) block(keys ...string) map[string]any {
	m := map[string]any(e)
	for _, k := range keys {
		m, _ = m[k].(map[string]any)
	}
	return m
}

// changed returns a copy in which a block was changed.
func (e entry) changed(change func(e entry)) []entry {
	c := e.clone()
	change(c)
	return []entry{c}
}

// eachKey makes one entry for each key of a block that matches.
func (e entry) eachKey(match func(key string, v any) bool, change func(m map[string]any, key string), block ...string) []entry {
	var out []entry
	for _, key := range slices.Sorted(maps.Keys(e.block(block...))) {
		if match(key, e.block(block...)[key]) {
			out = append(out, e.changed(func(c entry) { change(c.block(block...), key) })...)
		}
	}
	return out
}

func drop(m map[string]any, key string) { delete(m, key) }

func rename(m map[string]any, key string) {
	m["wrong-"+key] = m[key]
	delete(m, key)
}

func secret(_ string, v any) bool {
	s := fmt.Sprint(v)
	return strings.Contains(s, "cred.") || strings.Contains(s, "token.") || strings.Contains(s, "client_secret")
}

// needed tells whether a parameter is one that a vendor would miss.
func needed(key string, v any) bool {
	s, isText := v.(string)
	return !isText || s != "" && !strings.Contains(s, "conn.") && !strings.Contains(s, "app.") && !strings.Contains(s, "flow.") && key != "state"
}

func flip(key string, blocks ...string) func(e entry) []entry {
	return func(e entry) []entry {
		if e.block(blocks...) == nil {
			return nil
		}
		return e.changed(func(c entry) {
			on, _ := c.block(blocks...)[key].(bool)
			c.block(blocks...)[key] = !on
		})
	}
}

func code(of func(e entry) []entry) func(e entry) []entry {
	return func(e entry) []entry {
		if e["auth_scheme"] != "oauth2_code" || e.block("token") == nil || e.block("token")["no_code"] == true {
			return nil
		}
		return of(e)
	}
}

// sending is for entries whose token request has anything to send.
func sending(of func(e entry) []entry) func(e entry) []entry {
	return func(e entry) []entry {
		if e["auth_scheme"] == "two_step" && len(e.block("token", "params")) == 0 {
			return nil
		}
		return of(e)
	}
}

// swap exchanges one word for another.
func swap(key string, words map[any]string, blocks ...string) func(e entry) []entry {
	return func(e entry) []entry {
		m := e.block(blocks...)
		if m == nil || m["url"] == nil {
			return nil
		}
		to, ok := words[m[key]]
		if !ok {
			return nil
		}
		return e.changed(func(c entry) { c.block(blocks...)[key] = to })
	}
}

// longer adds to the path of an address.
func longer(v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	path, query, has := strings.Cut(s, "?")
	if has {
		query = "?" + query
	}
	return strings.TrimRight(path, "/") + "/wrong" + query
}

var mutations = []mutation{
	{"credential in a header of another name", func(e entry) []entry { return e.eachKey(secret, rename, "request", "headers") }},
	{"credential's header left out", func(e entry) []entry { return e.eachKey(secret, drop, "request", "headers") }},
	{"another word before the credential", func(e entry) []entry {
		return e.eachKey(secret, func(m map[string]any, key string) { m[key] = "Wrong " + fmt.Sprint(m[key]) }, "request", "headers")
	}},
	{"credential in a parameter of another name", func(e entry) []entry { return e.eachKey(secret, rename, "request", "query") }},
	{"credential not in the body", func(e entry) []entry { return e.eachKey(secret, drop, "request", "body") }},
	{"API at another host", func(e entry) []entry {
		base, _ := e.block("request")["base_url"].(string)
		if !strings.HasPrefix(base, "https://") {
			return nil
		}
		return e.changed(func(c entry) { c.block("request")["base_url"] = "https://wrong.example/" })
	}},
	{"token request elsewhere", func(e entry) []entry {
		if s, ok := e.block("token")["url"].(string); !ok || s == "" {
			return nil
		}
		return e.changed(func(c entry) { c.block("token")["url"] = longer(c.block("token")["url"]) })
	}},
	{"client identified in another way", swap("client_auth", map[any]string{"post": "basic", "basic": "post", nil: "basic"}, "token")},
	{"token request of another encoding", sending(swap("body", map[any]string{"form": "json", "json": "form", "query": "form", nil: "json"}, "token"))},
	{"token request of another method", swap("method", map[any]string{"GET": "POST"}, "token")},
	{"PKCE the other way", code(flip("pkce", "authorize"))},
	{"redirect_uri the other way", code(flip("no_redirect_uri", "token"))},
	{"grant_type the other way", code(flip("no_grant_type", "token"))},
	{"token parameter left out", func(e entry) []entry { return e.eachKey(needed, drop, "token", "params") }},
	{"token parameter of another name", func(e entry) []entry { return e.eachKey(needed, rename, "token", "params") }},
	{"token header left out", func(e entry) []entry {
		return e.eachKey(func(k string, v any) bool { return k != "content-type" && k != "accept" && needed(k, v) }, drop, "token", "headers")
	}},
	{"authorization parameter left out", code(func(e entry) []entry { return e.eachKey(needed, drop, "authorize", "params") })},
	{"authorization parameter not renamed", code(func(e entry) []entry {
		return e.eachKey(func(string, any) bool { return true }, drop, "authorize", "rename_params")
	})},
	{"code by another name", func(e entry) []entry {
		if e.block("token")["code_name"] == nil {
			return nil
		}
		return e.changed(func(c entry) { delete(c.block("token"), "code_name") })
	}},
	{"client id by another name", func(e entry) []entry {
		return e.eachKey(func(string, any) bool { return true }, drop, "token", "client_auth_names")
	}},
	{"access token looked for elsewhere", func(e entry) []entry {
		if s, _ := e.block("token_response")["access_token"].(string); s == "" || s == "access_token" || s == "$body" {
			return nil
		}
		return e.changed(func(c entry) { c.block("token_response")["access_token"] = "wrong.path" })
	}},
	{"end of the token looked for elsewhere", func(e entry) []entry {
		if e.block("token") == nil {
			return nil // it is written in the token, which the client signs
		}
		return e.eachKey(func(k string, _ any) bool { return k == "expires_in" || k == "expires_at" || k == "lifetime_s" }, func(m map[string]any, key string) {
			if key == "lifetime_s" {
				m[key] = 99999999
			} else {
				m[key] = "wrong.path"
			}
		}, "token_response")
	}},
	{"captured from elsewhere", func(e entry) []entry {
		return e.eachKey(func(string, any) bool { return true }, func(m map[string]any, key string) { m[key] = "wrong.path" }, "token_response", "capture")
	}},
	{"callback parameter looked for elsewhere", code(func(e entry) []entry {
		return e.eachKey(func(string, any) bool { return true }, func(m map[string]any, key string) { m[key] = "wrong" }, "authorize", "capture_callback_params")
	})},
	{"scopes separated by something else", func(e entry) []entry {
		if e.block("scopes")["separator"] == nil {
			return nil
		}
		return e.changed(func(c entry) { delete(c.block("scopes"), "separator") })
	}},
	{"refresh elsewhere", func(e entry) []entry {
		if e.block("refresh")["url"] == nil {
			return nil
		}
		return e.changed(func(c entry) { c.block("refresh")["url"] = longer(c.block("refresh")["url"]) })
	}},
	{"refresh parameter of another name", func(e entry) []entry { return e.eachKey(needed, rename, "refresh", "params") }},
	{"never renewed", func(e entry) []entry {
		if e["auth_scheme"] != "oauth2_code" || e.block("refresh") == nil || e.block("refresh")["mode"] != nil {
			return nil
		}
		return e.changed(func(c entry) { c.block("refresh")["mode"] = "none" })
	}},
	{"credential tried elsewhere", func(e entry) []entry {
		if e.block("verify") == nil || e.block("authorize") != nil {
			return nil // whoever has been at the vendor's page isn't tried
		}
		return e.changed(func(c entry) { c.block("verify")["paths"] = []any{"/wrong/path"} })
	}},
	{"credential tried by another method", swapVerify},
	{"claim left out", func(e entry) []entry { return e.eachKey(needed, drop, "signed", "claims") }},
	{"header of the assertion left out", func(e entry) []entry {
		return e.eachKey(func(k string, v any) bool { return k != "typ" }, drop, "signed", "header")
	}},
	{"assertion that lives too long", func(e entry) []entry {
		if e.block("signed") == nil {
			return nil
		}
		return e.changed(func(c entry) {
			n, _ := c.block("signed")["lifetime_s"].(float64)
			c.block("signed")["lifetime_s"] = int(n)*10 + 1000
		})
	}},
	{"signature for another region or service", func(e entry) []entry {
		// A literal region is that of a global endpoint, which is known anyway.
		return e.eachKey(func(k string, v any) bool { return k == "region" && strings.Contains(fmt.Sprint(v), "{") || k == "service" }, func(m map[string]any, key string) { m[key] = "wrong-1" }, "sign_request")
	}},
	{"signature of another method", func(e entry) []entry {
		to, ok := map[any]string{"HMAC-SHA1": "HMAC-SHA256", "HMAC-SHA256": "HMAC-SHA1", "PLAINTEXT": "HMAC-SHA1"}[e.block("sign_request")["signature_method"]]
		if !ok {
			return nil
		}
		return e.changed(func(c entry) { c.block("sign_request")["signature_method"] = to })
	}},
}

func swapVerify(e entry) []entry {
	if e.block("verify") == nil || e.block("authorize") != nil {
		return nil
	}
	return e.changed(func(c entry) {
		if c.block("verify")["method"] == "POST" {
			c.block("verify")["method"] = "GET"
		} else {
			c.block("verify")["method"] = "POST"
		}
	})
}

// A client that goes by an entry with one thing wrong in it is refused, or falls
// short of what it should do. Each kind of fault is tried on a few entries; with
// -every-mutation, on all that it applies to.
func TestNothingWrongGoesUnnoticed(t *testing.T) {
	cat, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	type job struct {
		mutation string
		wrong    *catalog.Provider
		right    *catalog.Provider
	}
	var jobs []job
	for _, m := range mutations {
		few := 4
		for _, id := range cat.IDs() {
			right, err := cat.Provider(id)
			if err != nil {
				t.Fatal(err)
			}
			if Reasons[id] != "" || few == 0 && !*everyMutation {
				continue
			}
			for _, e := range m.of(entry(right.Raw()).clone()) {
				data, err := json.Marshal(e)
				if err != nil {
					t.Fatal(err)
				}
				wrong, err := catalog.Parse(id+".yaml", data)
				if err != nil {
					continue // refused before anyone is asked
				}
				jobs = append(jobs, job{m.name, wrong, right})
				few--
				if few == 0 && !*everyMutation {
					break
				}
			}
		}
	}
	keys, err := sealed.OpenKeys(filepath.Join(t.TempDir(), "keys"), true)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	noticed, tried := map[string]int{}, map[string]int{}
	began := time.Now()
	err = each(t.Context(), t.TempDir(), keys, len(jobs), func(ctx context.Context, w *world, i int) {
		j := jobs[i]
		if w.variant(ctx, j.right, j.right, variant{name: "right"}) != nil {
			return // TestEveryEntry says so
		}
		err := w.variant(ctx, j.wrong, j.right, variant{name: "wrong"})
		mu.Lock()
		defer mu.Unlock()
		tried[j.mutation]++
		if err != nil {
			noticed[j.mutation]++
			return
		}
		t.Errorf("%s: %s: nothing was noticed", j.right.ID, j.mutation)
	})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, m := range mutations {
		total += tried[m.name]
		t.Logf("%-50s %4d of %4d noticed", m.name, noticed[m.name], tried[m.name])
	}
	t.Logf("%d mutated entries in %v", total, time.Since(began).Round(time.Millisecond))
}
