package api_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

var (
	fuzzed = flag.Int("requests", 1000, "how many requests TestRequestsMadeOfTheDocument… makes")
	seed   = flag.Uint64("seed", 0, "what they are made of; 0: another one each time")
)

// maker makes requests of the OpenAPI document: right ones, and such as are
// nearly right.
type maker struct {
	doc  map[string]any
	ops  []operation
	r    *rand.Rand
	real map[string][]string // values that there are, by a member's name
}

type operation struct {
	method, path string
	raw          map[string]any
}

func newMaker(t *testing.T, document string, from uint64) *maker {
	t.Helper()
	m := &maker{r: rand.New(rand.NewPCG(from, from)), real: map[string][]string{
		"id": {"c1", "c2", "a/b"}, "connection_id": {"c1", "c2", "a/b"}, "connectionId": {"c1"}, "integration_id": slices.Sorted(maps.Keys(entries)),
		"provider_config_key": slices.Sorted(maps.Keys(entries)), "key": append(slices.Sorted(maps.Keys(entries)), "made"), "unique_key": {"made", "g-apikey"},
		"provider": slices.Sorted(maps.Keys(entries)), "allowed_integrations": slices.Sorted(maps.Keys(entries)), "name": {"made", "app"}, "file": {"g-apikey.svg"},
	}}
	must(t, json.Unmarshal([]byte(document), &m.doc))
	paths := m.doc["paths"].(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path].(map[string]any)
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			if raw, ok := item[method].(map[string]any); ok {
				raw["parameters"] = slices.Concat(list(item["parameters"]), list(raw["parameters"]))
				m.ops = append(m.ops, operation{strings.ToUpper(method), path, raw})
			}
		}
	}
	return m
}

func list(v any) []any { l, _ := v.([]any); return l }

func (m *maker) resolve(v any) map[string]any {
	o, _ := v.(map[string]any)
	for {
		ref, ok := o["$ref"].(string)
		if !ok {
			return o
		}
		at := any(m.doc)
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			at = at.(map[string]any)[part]
		}
		o = at.(map[string]any)
	}
}

func (m *maker) one(of []string) string { return of[m.r.IntN(len(of))] }
func (m *maker) chance(in int) bool     { return m.r.IntN(in) == 0 }

// odd are values that somebody may send in place of others.
func (m *maker) odd() any {
	return []any{nil, "", " ", true, -1, 0, 1e300, 12345678901234567890.0, "\x00", "\u202e", "../..", "%2e%2e/", "'; DROP TABLE connections; --", "{{7*7}}", "${accessToken}",
		strings.Repeat("x", 70_000), []any{}, map[string]any{}, []any{nil, []any{map[string]any{"a": nil}}}, "2026-13-45", "http://[::1", "\U0001f600", map[string]any{"__proto__": 1}}[m.r.IntN(23)]
}

// value is one that a schema has, or, seldom, one that it hasn't.
func (m *maker) value(name string, raw any, depth int) any {
	schema := m.resolve(raw)
	if m.chance(25) {
		return m.odd()
	}
	for _, choice := range []string{"oneOf", "anyOf"} {
		if of := list(schema[choice]); len(of) > 0 {
			return m.value(name, of[m.r.IntN(len(of))], depth+1)
		}
	}
	if of := list(schema["enum"]); len(of) > 0 {
		return of[m.r.IntN(len(of))]
	}
	if c, ok := schema["const"]; ok {
		return c
	}
	kind, _ := schema["type"].(string)
	if kinds := list(schema["type"]); len(kinds) > 0 {
		kind, _ = kinds[m.r.IntN(len(kinds))].(string)
	}
	switch kind {
	case "object":
		return m.object(schema, depth)
	case "array":
		var all []any
		for range m.r.IntN(4) {
			all = append(all, m.value(name, schema["items"], depth+1))
		}
		return all
	case "boolean":
		return m.chance(2)
	case "integer", "number":
		return m.r.IntN(200) - 10
	case "null":
		return nil
	}
	if known := m.real[name]; known != nil && !m.chance(5) {
		return m.one(known)
	}
	switch {
	case schema["format"] == "date-time":
		return time.Unix(m.r.Int64N(4e9), 0).UTC().Format(time.RFC3339)
	case schema["format"] == "uri":
		return "https://app.example/" + m.word()
	case schema["format"] == "email":
		return m.word() + "@app.example"
	}
	return m.word()
}

func (m *maker) word() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	b := make([]byte, 1+m.r.IntN(12))
	for i := range b {
		b[i] = letters[m.r.IntN(len(letters))]
	}
	return string(b)
}

func (m *maker) object(schema map[string]any, depth int) map[string]any {
	out := make(map[string]any)
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		need := slices.Contains(list(schema["required"]), any(name))
		if need && !m.chance(30) || !need && m.chance(2) {
			out[name] = m.value(name, properties[name], depth+1)
		}
	}
	if more, ok := schema["additionalProperties"].(map[string]any); ok && depth < 6 {
		for range m.r.IntN(3) {
			out[m.word()] = m.value("", more, depth+1)
		}
	}
	if m.chance(40) {
		out[m.word()] = m.odd()
	}
	return out
}

// request is one of an operation.
func (m *maker) request(op operation) (target, body string) {
	query := url.Values{}
	path := op.path
	for {
		before, rest, ok := strings.Cut(path, "{")
		if !ok {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		path = before + url.PathEscape(fmt.Sprint(m.value(name, map[string]any{"type": "string"}, 0))) + after
	}
	for _, p := range list(op.raw["parameters"]) {
		p := m.resolve(p)
		name, _ := p["name"].(string)
		if p["in"] != "query" || p["required"] != true && m.chance(2) {
			continue
		}
		switch v := m.value(name, p["schema"], 0).(type) {
		case []any:
			for _, e := range v {
				query.Add(name, fmt.Sprint(e))
			}
		case map[string]any:
			for k, e := range v {
				query.Add(name+"["+k+"]", fmt.Sprint(e))
			}
		default:
			query.Add(name, fmt.Sprint(v))
		}
	}
	if m.chance(30) {
		query.Add(m.word(), fmt.Sprint(m.odd()))
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	content, _ := m.resolve(op.raw["requestBody"])["content"].(map[string]any)
	if content == nil {
		return path, ""
	}
	data, err := json.Marshal(m.value("", content["application/json"].(map[string]any)["schema"], 0))
	if err != nil {
		return path, "{"
	}
	if body = string(data); m.chance(40) { // cut off, or broken somewhere
		i := m.r.IntN(len(body) + 1)
		body = body[:i] + m.one([]string{"", "\x00", "\xff", "}", `"`, "[[[["}) + body[min(len(body), i+m.r.IntN(3)):]
	}
	return path, body
}

// TestRequestsMadeOfTheDocumentFindNoFault makes requests of the document, most of
// them right: none is answered with a 5xx or otherwise than the document says,
// and none takes long. More than a few: -args -requests 10000.
func TestRequestsMadeOfTheDocumentFindNoFault(t *testing.T) {
	s := newService(t)
	from := *seed
	if from == 0 {
		from = rand.Uint64()
	}
	m := newMaker(t, s.get("/openapi.json").body, from)
	s.connect("g-apikey", "c1", &connect.EndUser{ID: "u1"}, map[string]string{"api_key": "abc"})
	s.connect("g-oauth2", "c2", nil, map[string]string{"tenant": "t"})
	s.connect("g-basic", "a/b", nil, map[string]string{"username": "a", "password": "b"})
	statuses := make(map[int]int)
	var slowest time.Duration
	for i := range *fuzzed {
		op := m.ops[m.r.IntN(len(m.ops))]
		target, body := m.request(op)
		auth := ""
		asVisitor := strings.Contains(op.path, "/connect/session") && op.method != http.MethodPost || strings.Contains(target, "connect_session_token=")
		if asVisitor && !m.chance(10) || m.chance(20) {
			token, _, err := s.connector.Open(t.Context(), connect.Session{})
			must(t, err)
			auth = "Bearer " + token
			target = strings.Replace(target, "connect_session_token=", "connect_session_token="+token+"&x=", 1)
		}
		before := time.Now()
		a := s.call(op.method, target, auth, body)
		slowest = max(slowest, time.Since(before))
		statuses[a.status]++
		if a.status >= 500 {
			t.Errorf("request %d of seed %d: %s %s %.300s: got %d %s", i, from, op.method, target, body, a.status, a.body)
		}
		if t.Failed() && i > 0 {
			t.Fatalf("request %d of seed %d was %s %.300s %.600s", i, from, op.method, target, body)
		}
	}
	if slowest > 10*time.Second {
		t.Errorf("one took %v", slowest)
	}
	t.Logf("seed %d: %v, the slowest took %v", from, statuses, slowest.Round(time.Millisecond))
}
