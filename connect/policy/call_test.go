package policy

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCallsMatchMethodsAndPaths(t *testing.T) {
	for _, test := range []struct {
		call    string
		yes, no []string // "METHOD path", as canonical paths are: without a leading slash
	}{
		{"GET /repos", []string{"GET repos"}, []string{"GET ", "POST repos", "get repos", "HEAD repos", "GET repos/", "GET repos/x", "GET repo", "GET reposx", "GET Repos", "GET repos;x"}},
		{"/repos", []string{"GET repos", "PURGE repos"}, []string{"GET x"}},
		{"* /repos", []string{"GET repos", "PURGE repos"}, []string{"GET x"}},
		{"GET,POST /", []string{"GET ", "POST "}, []string{"GET x", "PUT "}},
		{"GET /a/", []string{"GET a/"}, []string{"GET a", "GET a/b", "GET a//"}},
		{"GET /**", []string{"GET ", "GET a", "GET a/b/", "GET //a"}, []string{"POST a"}},
		{"GET /repos/**", []string{"GET repos", "GET repos/", "GET repos/a/b", "GET repos//x"}, []string{"GET repo", "GET repos;x/a", "GET x/repos"}},
		{"GET /repos/*/issues", []string{"GET repos/a/issues", "GET repos/a;v=1/issues", "GET repos/%2A/issues", "GET repos/a%20b/issues"},
			[]string{"GET repos//issues", "GET repos/issues", "GET repos/a/b/issues", "GET repos/;/issues", "GET repos/;a/issues", "GET repos/a/issues;x", "GET repos/a%2Fb/issues", "GET repos/a/issues/"}},
		{"GET /repos/*/issues/**", []string{"GET repos/a/issues", "GET repos/a/issues/1/x"}, []string{"GET repos/issues/1", "GET repos//issues/1"}},
		{"GET /v*/x", []string{"GET v/x", "GET v1/x", "GET v1.0/x"}, []string{"GET V1/x", "GET 1/x", "GET v;1/x", "GET v1;a/x", "GET v%2F1/x"}},
		{"GET /*:search", []string{"GET p:search", "GET p%3Asearch", "GET :search"}, []string{"GET p:searchx", "GET p/x:search", "GET a%2F:search"}},
		{"GET /a*b*c", []string{"GET abc", "GET aXbYc", "GET abbcc"}, []string{"GET ac", "GET acb", "GET ab", "GET a%2Fbc", "GET ab%2Fc"}},
		{"GET /projects/*%2F*/x", []string{"GET projects/a%2Fb/x"}, []string{"GET projects/a/b/x", "GET projects/a/x", "GET projects/a%2Fb%2Fc/x"}},
		{"GET /caf%C3%A9", []string{"GET caf%C3%A9"}, []string{"GET cafe"}},
		{"GET /a;b", []string{"GET a;b", "GET a%3Bb"}, []string{"GET a"}},
	} {
		c, err := ParseCall(test.call)
		if err != nil {
			t.Fatal(err)
		}
		for want, requests := range map[bool][]string{true: test.yes, false: test.no} {
			for _, request := range requests {
				method, path, _ := strings.Cut(request, " ")
				if c.Matches(method, path) != want {
					t.Errorf("%q, %q: got %v", test.call, request, !want)
				}
			}
		}
	}
}

func TestCallsThatCantBeMeantAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "GET", "GET ", "repos", "GET repos", "get /x", "GET, /x", "GET,,POST /x", "G3T /x", "GET /x?y", "GET /x#y", `GET /x\y`, "GET /x y", "GET /a//b", "GET //a",
		"GET /a/../b", "GET /%2e%2e/b", "GET /.", "GET /**/a", "GET /a**", "GET /%2a", "GET /%zz", "GET /a%",
	} {
		if c, err := ParseCall(text); err == nil {
			t.Errorf("%q is taken for %+v", text, c)
		}
	}
}

func TestRulesDecide(t *testing.T) {
	rules, err := Limits{Calls: []string{"GET /a/**", "POST /b"}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ method, path, query, rule string }{
		{"GET", "a/x", "", "GET /a/**"}, {"POST", "b", "x=1", "POST /b"}, {"DELETE", "a/x", "", ""}, {"GET", "b", "", ""},
		{"POST", "b", "_method=DELETE", ""}, {"POST", "b", "a=1&_METHOD=delete", ""}, {"POST", "b", "x%2Dhttp-method-override=PUT", ""}, {"GET", "a", "method=delete", ""},
		{"GET", "a", "$httpMethod=DELETE", ""}, {"POST", "b", "a;_method=put", ""}, {"POST", "b", "_method=post", "POST /b"}, {"GET", "a", "method=user.list", "GET /a/**"},
	} {
		rule, err := rules.Decide(test.method, test.path, test.query)
		var refused *CallError
		if rule != test.rule || (rule == "") != errors.As(err, &refused) {
			t.Errorf("%v: got %q, %v", test, rule, err)
		}
	}
	if rule, err := (*Rules)(nil).Decide("POST", "x", "_method=DELETE"); rule != "" || err != nil {
		t.Errorf("without limits: %q, %v", rule, err)
	}
	if _, err := Nothing.Decide("GET", "", ""); err == nil {
		t.Error("nothing lets a call through")
	}
}

func TestRulesReachConnections(t *testing.T) {
	subject := Subject{Integration: "github", Connection: "c1", EndUser: "ada", Tags: map[string]string{"team": "a", "x": ""}}
	for _, test := range []struct {
		limits Limits
		want   bool
	}{
		{Limits{}, true},
		{Limits{Rate: "1/s"}, true},
		{Limits{Integrations: []string{"gitlab", "github"}}, true},
		{Limits{Integrations: []string{"gitlab"}}, false},
		{Limits{Connections: []string{"c1"}}, true},
		{Limits{Connections: []string{"c"}}, false},
		{Limits{EndUsers: []string{"ada"}}, true},
		{Limits{EndUsers: []string{"bob"}}, false},
		{Limits{Tags: map[string]string{"team": "a"}}, true},
		{Limits{Tags: map[string]string{"team": "a", "other": "b"}}, false},
		{Limits{Tags: map[string]string{"team": "b"}}, false},
		{Limits{Integrations: []string{"github"}, EndUsers: []string{"bob"}}, false},
	} {
		rules, err := test.limits.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.Reaches(&subject); got != test.want {
			t.Errorf("%+v: %v", test.limits, got)
		}
	}
	rules, err := Limits{EndUsers: []string{"ada"}}.Compile()
	if err != nil || rules.Reaches(&Subject{Integration: "github", Connection: "c1"}) {
		t.Errorf("a connection of nobody is ada's: %v", err)
	}
}

func TestLimitsThatCantBeMeantAreRefused(t *testing.T) {
	for name, l := range map[string]Limits{
		"integrations": {Integrations: []string{""}}, "connections": {Connections: []string{strings.Repeat("x", 256)}}, "end_users": {EndUsers: make([]string, 1001)},
		"tags": {Tags: map[string]string{"a": ""}}, "calls": {Calls: []string{"x"}}, "rate": {Rate: "fast"},
	} {
		_, err := l.Compile()
		var bad *LimitError
		if !errors.As(err, &bad) || bad.Limit != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimitsAreWithinOthers(t *testing.T) {
	outer := Limits{Integrations: []string{"a", "b"}, Tags: map[string]string{"t": "1"}, Calls: []string{"GET /x"}, Rate: "60/1m"}
	for _, inner := range []Limits{
		outer,
		{Integrations: []string{"b"}, Tags: map[string]string{"t": "1", "u": "2"}, Calls: []string{"GET /x"}, EndUsers: []string{"u"}, Rate: "1/1s"},
	} {
		if !inner.Within(&outer) || !inner.Within(&Limits{}) {
			t.Errorf("%+v is not within", inner)
		}
	}
	for _, change := range []func(*Limits){
		func(l *Limits) { l.Integrations = nil }, func(l *Limits) { l.Integrations = []string{"c"} }, func(l *Limits) { l.Tags = nil },
		func(l *Limits) { l.Calls = nil }, func(l *Limits) { l.Calls = []string{"GET /**"} }, func(l *Limits) { l.Rate = "" }, func(l *Limits) { l.Rate = "61/1m" }, func(l *Limits) { l.Rate = "60/30s" },
	} {
		inner := outer
		change(&inner)
		if inner.Within(&outer) {
			t.Errorf("%+v is within", inner)
		}
	}
}

func TestRatesAreParsed(t *testing.T) {
	for text, want := range map[string]Rate{"1/s": {1, time.Second}, "100/1m": {100, time.Minute}, "5/90s": {5, 90 * time.Second}, "1000000/24h": {1e6, 24 * time.Hour}, "3/h": {3, time.Hour}} {
		if got, err := ParseRate(text); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "/s", "0/s", "-1/s", "1/", "1/0s", "1/500ms", "1/25h", "1000001/s", "1.5/s", "1/x", "1/-1m"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestABucketLetsThroughWhatTheRateSays(t *testing.T) {
	rate := Rate{10, time.Second}
	start := time.Now()
	var b Bucket
	for i := range 10 {
		if wait, ok := b.Take(rate, start); !ok {
			t.Fatalf("call %d has to wait %v", i, wait)
		}
	}
	if wait, ok := b.Take(rate, start); ok || wait != 100*time.Millisecond {
		t.Fatalf("call 11: %v, %v", wait, ok)
	}
	if _, ok := b.Take(rate, start.Add(99*time.Millisecond)); ok {
		t.Error("too early")
	}
	if _, ok := b.Take(rate, start.Add(100*time.Millisecond)); !ok {
		t.Error("there is room again")
	}
	// After a long pause no more than one rate's worth comes at once.
	var through atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 50 {
				if _, ok := b.Take(rate, start.Add(time.Hour)); ok {
					through.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if n := through.Load(); n != 10 {
		t.Errorf("%d calls at once, want 10", n)
	}
	if _, ok := new(Bucket).Take(Rate{}, start); !ok {
		t.Error("without a rate a call waits")
	}
}

// FuzzCall: whatever is taken for a call has to be decidable for every path, and
// what has no star matches its own path alone.
func FuzzCall(f *testing.F) {
	for _, text := range []string{"GET /a/*/b/**", "/x%20y", "GET,POST /a*b*c", "GET /;/*"} {
		f.Add(text, "GET", "a/b/c")
	}
	f.Fuzz(func(t *testing.T, text, method, path string) {
		c, err := ParseCall(text)
		if err != nil {
			return
		}
		matches := c.Matches(method, path)
		if strings.Contains(text, "*") || !matches {
			return
		}
		pattern := text[strings.IndexByte(text, '/')+1:]
		if unescape(strings.TrimSpace(pattern)) != unescape(path) {
			t.Errorf("%q matches %q", text, path)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	var calls []string
	for i := range 20 {
		calls = append(calls, fmt.Sprintf("GET,HEAD /teams/%d/**", i))
	}
	rules, err := Limits{Calls: append(calls, "GET /repos/*/*/issues")}.Compile()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rules.Decide("GET", "repos/owner/name/issues", "page=1"); err != nil {
			b.Fatal(err)
		}
	}
}
