package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// vector is a call of Nango's proxy and what became of it there.
type vector struct {
	Name, Method, Path string
	Headers            map[string]string
	Body               string
	outcome
	// Why, a line of docs/nango.md, is the reason for which Ours differs.
	Why  string
	Ours *outcome
}

type outcome struct {
	Status   int
	Code     string          // of the error
	Paths    []string        // of its fields
	Attempts int             // that the provider counted
	Answer   json.RawMessage // the provider's: text, {"base64"}, or JSON
	Seen     *seen           // what the provider got
}

type seen struct {
	Method, URL string
	Headers     map[string]string // "": there is none
	Body        *string
	Other       bool // by the other provider
}

// over is the outcome with what differs put over it.
func (o outcome) over(ours *outcome) outcome {
	if ours == nil {
		return o
	}
	if ours.Status != 0 {
		o.Status, o.Code, o.Paths, o.Attempts, o.Answer = ours.Status, ours.Code, ours.Paths, 0, nil
		if ours.Seen == nil {
			o.Seen = nil
		}
	}
	if ours.Seen != nil {
		s := seen{Headers: map[string]string{}}
		if o.Seen != nil {
			s = *o.Seen
		}
		for name, v := range ours.Seen.Headers {
			s.Headers[name] = v
		}
		if ours.Seen.Body != nil {
			s.Body = ours.Seen.Body
		}
		o.Seen = &s
	}
	return o
}

func vectors(t *testing.T) []vector {
	t.Helper()
	file, err := os.ReadFile("testdata/nango.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	for line := range bytes.Lines(file) {
		var v vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, v)
	}
	return all
}

// TestNangosCallsAreAnsweredAsThere sends what Nango's proxy was sent, and
// compares status, code and fields, the provider's answer, and what the provider
// got: method, address, body, and every header that it got of Nango. What differs
// is said in docs/nango.md.
func TestNangosCallsAreAnsweredAsThere(t *testing.T) {
	docs, err := os.ReadFile("../docs/nango.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			if (v.Ours == nil) != (v.Why == "") || !strings.Contains(string(docs), "\n- "+v.Why) {
				t.Errorf("docs/nango.md doesn't say why: %q", v.Why)
			}
			w := newWorld(t, v.Answer)
			res, body := w.send(v)
			want := v.over(v.Ours)
			if res.StatusCode != want.Status {
				t.Fatalf("got %d, want %d: %s", res.StatusCode, want.Status, body)
			}
			compare(t, want, res, body)
		})
	}
}

func compare(t *testing.T, want outcome, res *http.Response, body []byte) {
	t.Helper()
	switch {
	case want.Code != "":
		var got struct {
			Error struct {
				Code   string
				Errors []struct{ Path []string }
			}
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		var paths []string
		for _, e := range got.Error.Errors {
			paths = append(paths, strings.Join(e.Path, "."))
		}
		if got.Error.Code != want.Code || res.Header.Get(problem.Header) != want.Code || !slices.Equal(paths, want.Paths) {
			t.Errorf("got %s, want %s of %v", body, want.Code, want.Paths)
		}
	case want.Seen != nil:
		var got seen
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if want.Seen.Method != "" && (got.Method != want.Seen.Method || got.URL != want.Seen.URL || got.Other != want.Seen.Other) || want.Seen.Body != nil && *got.Body != *want.Seen.Body {
			t.Errorf("the provider got %s, want %s %s %q", body, want.Seen.Method, want.Seen.URL, *want.Seen.Body)
		}
		for name, v := range want.Seen.Headers {
			if got.Headers[http.CanonicalHeaderKey(name)] != v {
				t.Errorf("the provider got %s: %q, want %q", name, got.Headers[http.CanonicalHeaderKey(name)], v)
			}
		}
		for name := range got.Headers {
			if own(name) && name != "Authorization" || strings.HasPrefix(name, "Nango") {
				t.Errorf("the provider got %s", name)
			}
		}
	case want.Attempts != 0:
		if want := fmt.Sprintf(`{"attempts":%d}`, want.Attempts); string(body) != want {
			t.Errorf("got %s, want %s", body, want)
		}
	case want.Answer != nil:
		if raw, _ := spoken(want.Answer); res.Header.Get("Content-Encoding") == "" && !bytes.Equal(raw, body) {
			t.Errorf("got %q, want %q", body, raw)
		}
	}
}

// spoken is a provider's answer and its type.
func spoken(answer json.RawMessage) (body []byte, kind string) {
	var text string
	if json.Unmarshal(answer, &text) == nil {
		return []byte(text), "text/plain; charset=utf-8"
	}
	var binary struct{ Base64 string }
	if json.Unmarshal(answer, &binary) == nil && binary.Base64 != "" {
		if p, err := base64.StdEncoding.DecodeString(binary.Base64); err == nil {
			return p, "application/octet-stream"
		}
	}
	return answer, "application/json"
}

// world is a proxy between an SDK's client and two providers.
type world struct {
	t            *testing.T
	front        *httptest.Server
	proxy        *Proxy
	first, other *httptest.Server
	answer       json.RawMessage

	mu       sync.Mutex
	attempts map[string]int
}

var nangoEntries = map[string]string{
	"g-apikey":        "headers: {x-api-key: '{cred.key}'}",
	"g-apikey-domain": "headers: {x-api-key: '{cred.key}'}",
	"g-basic":         "headers: {authorization: \"Basic {base64('user:', cred.key)}\"}",
	"g-oauth2":        "headers: {authorization: 'Bearer {cred.key}'}",
	"g-cc":            "headers: {authorization: 'Bearer {cred.key}'}",
	"g-none":          "",
	"g-retry":         "headers: {x-api-key: '{cred.key}'}",
}

var nangoKeys = map[string]string{"g-apikey": "KEY2", "g-retry": "KEY2", "g-basic": "pass", "g-oauth2": "TOKEN", "g-cc": "TOKEN"}

func newWorld(t *testing.T, answer json.RawMessage) *world {
	t.Helper()
	w := &world{t: t, answer: answer, attempts: make(map[string]int)}
	w.first, w.other = httptest.NewServer(http.HandlerFunc(w.provider)), httptest.NewServer(http.HandlerFunc(w.provider))
	t.Cleanup(w.first.Close)
	t.Cleanup(w.other.Close)
	allowed, err := ParseBaseURL(w.other.URL + "/base")
	if err != nil {
		t.Fatal(err)
	}
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	w.proxy = &Proxy{Base: base, ReplayBuffer: testLimit, Prefix: "/proxy", Compat: Compat{BaseURLs: map[string][]*url.URL{"g-apikey": {allowed}}}, Logger: zap.NewNop()}
	w.proxy.Provision()
	var all []*connect.Integration
	bounds := nangoBounds{}
	for key, request := range nangoEntries {
		request = strings.TrimSuffix("{base_url: 'BASE', "+request, ", ") + "}"
		p, err := catalog.Parse("test.yaml", []byte("id: test\ndisplay_name: Test\nvendor: test\ncategories: [test]\nauth_scheme: none\nrequest: {base_url: 'https://api.example'}\n"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &connect.Integration{Key: key, Provider: p})
		bounds[key] = bind(t, w.first.URL, request, nangoKeys[key])
	}
	setup, err := connect.NewSetup(nil, new(url.URL), nil, all)
	if err != nil {
		t.Fatal(err)
	}
	w.front = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		call, err := w.proxy.Resolve(r, testKeys, setup, bounds)
		if err == nil {
			err = w.proxy.Serve(rw, r, strings.TrimPrefix(r.URL.EscapedPath(), "/proxy"), call)
		}
		if err != nil {
			problem.Of(err).Write(rw, "")
		}
	}))
	t.Cleanup(w.front.Close)
	return w
}

// nangoBounds has the connection c1 of every integration, and one that needs its
// user. (In Nango ids were random, and so of one integration each.)
type nangoBounds map[string]*connect.Bound

func (b nangoBounds) Current(_ context.Context, id connect.ID) (*connect.Bound, error) {
	switch {
	case id.Connection == "imp-exp2":
		return nil, &connect.NeedsReauthError{ID: id, Cause: "invalid_grant"}
	case id.Connection == "c1" && b[id.Integration] != nil:
		return b[id.Integration], nil
	}
	return nil, connect.ErrNotFound
}

func (b nangoBounds) Whose(ctx context.Context, id connect.ID) (*connect.Connection, error) {
	bound, err := b.Current(ctx, id)
	if err != nil {
		return nil, err
	}
	row, err := bound.Connection()
	return &row, err
}

func (nangoBounds) Renew(context.Context, *connect.Bound) (*connect.Bound, error) {
	return nil, connect.ErrFutile
}
func (nangoBounds) Accepted(*connect.Bound) {}
func (nangoBounds) Refused(*connect.Bound)  {}

// send sends a vector's call as an SDK's client does, which follows redirects.
func (w *world) send(v vector) (*http.Response, []byte) {
	w.t.Helper()
	here := strings.NewReplacer("<UPSTREAM2>", w.other.URL, "<UPSTREAM2_HOST>", w.other.Listener.Addr().String())
	req, err := http.NewRequest(v.Method, w.front.URL+here.Replace(v.Path), strings.NewReader(v.Body))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, value := range v.Headers {
		req.Header.Set(name, here.Replace(strings.ReplaceAll(strings.ReplaceAll(value, "Bearer KEY", "Bearer "+testKey), "<UNKNOWN_UUID4>", "0d9b2c1e-4f3a-4b5c-8d7e-6f5a4b3c2d1e")))
	}
	if v.Name == "connection of other integration" {
		req.Header.Set("Connection-Id", "c2")
	}
	client := http.Client{CheckRedirect: func(to *http.Request, via []*http.Request) error {
		if len(via) > 5 {
			return http.ErrUseLastResponse
		}
		if to.URL.Host != via[0].URL.Host { // what a caller takes along to there is its own
			to.Header = http.Header{}
		}
		return nil
	}, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	body = bytes.ReplaceAll(body, []byte(w.other.URL), []byte("<UPSTREAM2>"))
	return res, body
}

// provider is the API behind the proxy.
func (w *world) provider(rw http.ResponseWriter, r *http.Request) {
	if w.answer != nil && !strings.HasPrefix(r.URL.Path, "/flaky") {
		body, kind := spoken(w.answer)
		rw.Header().Set("Content-Type", kind)
		if r.URL.Path == "/gzip" && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			rw.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(rw)
			_, _ = z.Write(body)
			z.Close()
			return
		}
		if _, status, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); ok {
			n, err := strconv.Atoi(status)
			if err != nil {
				panic(err)
			}
			rw.WriteHeader(n)
		}
		_, _ = rw.Write(body)
		return
	}
	query := r.URL.Query()
	switch r.URL.Path {
	case "/status/204", "/status/304", "/status/404":
		status, _ := strconv.Atoi(r.URL.Path[len("/status/"):])
		rw.WriteHeader(status)
	case "/redirect":
		http.Redirect(rw, r, "/echo?redirected=1", http.StatusFound)
	case "/redirect307":
		http.Redirect(rw, r, w.first.URL+"/echo?r307=1", http.StatusTemporaryRedirect)
	case "/redirect-cross":
		http.Redirect(rw, r, w.other.URL+"/echo?cross=1", http.StatusFound)
	case "/redirect-loop":
		http.Redirect(rw, r, "/redirect-loop", http.StatusFound)
	case "/drop":
		panic(http.ErrAbortHandler)
	case "/flaky", "/flakydrop":
		w.flaky(rw, r, query)
	default:
		w.echo(rw, r)
	}
}

func (w *world) flaky(rw http.ResponseWriter, r *http.Request, query url.Values) {
	w.mu.Lock()
	w.attempts[query.Get("k")]++
	n := w.attempts[query.Get("k")]
	w.mu.Unlock()
	if failing, _ := strconv.Atoi(query.Get("n")); n > failing {
		_, _ = fmt.Fprintf(rw, `{"attempts":%d}`, n)
		return
	}
	if r.URL.Path == "/flakydrop" {
		panic(http.ErrAbortHandler)
	}
	status := http.StatusServiceUnavailable
	if c, err := strconv.Atoi(query.Get("c")); err == nil {
		status = c
	}
	if after := query.Get("ra"); after != "" {
		rw.Header().Set("Retry-After", after)
	}
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, `{"e": "flaky"}`)
}

func (w *world) echo(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	text := string(body)
	got := seen{Method: r.Method, URL: r.RequestURI, Headers: map[string]string{}, Body: &text, Other: r.Host == w.other.Listener.Addr().String()}
	for name, v := range r.Header {
		got.Headers[name] = strings.Join(v, ", ")
	}
	_ = json.NewEncoder(rw).Encode(got)
}
