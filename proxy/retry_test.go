package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// busy is a provider that answers the first calls with a status and headers, and
// then echoes.
func busy(seen *atomic.Int32, times int32, status int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) > times {
			echo(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "busy")
	}
}

// A call is sent again, whole, as often as was asked for and as the provider's
// entry means it; and never one that may do its work twice unless the caller
// says so.
func TestRetries(t *testing.T) {
	t.Parallel()
	facts := &catalog.Retry{AfterHeaders: []string{"X-Wait"}, RemainingHeader: "X-Remaining"}
	for name, c := range map[string]struct {
		method   string
		headers  http.Header // of the call
		operator int
		status   int // of the first two answers
		answer   []string
		body     int
		attempts int32
	}{
		"asked for":                   {"GET", http.Header{"Retries": {"2"}}, 0, 503, nil, 0, 3},
		"asked for, too few":          {"GET", http.Header{"Retries": {"1"}}, 0, 503, nil, 0, 2},
		"asked for, any method":       {"POST", http.Header{"Retries": {"2"}}, 0, 429, nil, 5, 3},
		"the operator's":              {"GET", http.Header{}, 2, 500, nil, 0, 3},
		"the operator's, PUT":         {"PUT", http.Header{}, 2, 500, nil, 5, 3},
		"the operator's, POST":        {"POST", http.Header{}, 2, 500, nil, 5, 1},
		"POST with a key":             {"POST", http.Header{"Idempotency-Key": {"k"}}, 2, 500, nil, 5, 3},
		"the caller wants none":       {"GET", http.Header{"Retries": {"0"}}, 2, 500, nil, 0, 1},
		"nobody asked":                {"GET", http.Header{}, 0, 503, nil, 0, 1},
		"not busy":                    {"GET", http.Header{"Retries": {"2"}}, 0, 404, nil, 0, 1},
		"not busy, but asked for":     {"GET", http.Header{"Retries": {"2"}, "Retry-On": {"404,409"}}, 0, 404, nil, 0, 3},
		"busy by a header":            {"GET", http.Header{"Retries": {"2"}}, 0, 403, []string{"X-Remaining", "0"}, 0, 3},
		"not busy by a header":        {"GET", http.Header{"Retries": {"2"}}, 0, 403, []string{"X-Remaining", "7"}, 0, 1},
		"for too long":                {"GET", http.Header{"Retries": {"2"}}, 0, 429, []string{"Retry-After", "3600"}, 0, 1},
		"for too long, its own way":   {"GET", http.Header{"Retries": {"2"}}, 0, 429, []string{"X-Wait", "61"}, 0, 1},
		"a body that can't be resent": {"PUT", http.Header{"Retries": {"2"}}, 0, 503, nil, testLimit + 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen atomic.Int32
			g := newRig(t, bearerRequest, busy(&seen, 2, c.status, c.answer...))
			g.old = g.new
			req := g.request(c.method, nil, 0)
			if c.body > 0 {
				req.Body, req.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", c.body))), int64(c.body)
			}
			req.Header = c.headers
			call := callFrom(req.Context())
			var err error
			if call.retrying, err = asksForRetries(req.Header, c.operator); err != nil {
				t.Fatal(err)
			}
			if call.retrying != nil {
				call.retrying.facts = facts
			}
			res, err := g.transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			got := read(t, res)
			want, body := c.status, "busy"
			if c.attempts == 3 {
				want, body = 200, strings.Repeat("x", c.body)
			}
			if res.StatusCode != want || got != body || seen.Load() != c.attempts || call.Retries != int(c.attempts-1) {
				t.Errorf("got %d %q after %d attempts, retries: %d", res.StatusCode, got, seen.Load(), call.Retries)
			}
		})
	}
}

// A provider that can't be reached is tried again, and one that is refused is not.
func TestRetriesOfErrors(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) < 3 {
			panic(http.ErrAbortHandler)
		}
		echo(w, r)
	})
	req := g.request("POST", strings.NewReader("x"), 1)
	callFrom(req.Context()).retrying = &retrying{left: 2, asked: true}
	res, err := g.transport().RoundTrip(req)
	if err != nil || read(t, res) != "x" || seen.Load() != 3 {
		t.Errorf("got %v, %v after %d attempts", res, err, seen.Load())
	}
}

// Providers say in several ways how long to wait.
func TestWaits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	facts := &catalog.Retry{AfterHeaders: []string{"X-After"}, AtHeaders: []string{"X-At"}}
	for _, c := range []struct {
		name, value string
		want        time.Duration // 0: our own
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "1.5", 1500 * time.Millisecond},
		{"Retry-After", now.Add(9 * time.Second).Format(http.TimeFormat), 9 * time.Second},
		{"Retry-After", "soon", 0},
		{"Retry-After", "-1", 0},
		{"Retry-After", "NaN", 0},
		{"Retry-After", now.Add(-time.Hour).Format(http.TimeFormat), 0},
		{"X-After", "3", 3 * time.Second},
		{"X-At", fmt.Sprint(now.Add(11 * time.Second).Unix()), 11 * time.Second},
		{"X-At", fmt.Sprint(now.Add(12 * time.Second).UnixMilli()), 12 * time.Second},
		{"X-At", now.Add(13 * time.Second).Format(time.RFC3339), 13 * time.Second},
		{"X-At", "never", 0},
		{"X-Other", "5", 0},
	} {
		res := &http.Response{StatusCode: 429, Header: http.Header{}}
		res.Header.Set(c.name, c.value)
		got := (&retrying{facts: facts}).wait(res, now)
		least, most := c.want, c.want+c.want/10+1
		if c.want == 0 {
			least, most = retryWaitMin/2, retryWaitMin
		}
		if got < least || got > most {
			t.Errorf("%s: %s: waits %v", c.name, c.value, got)
		}
	}
	for done := range MaxRetries {
		want := min(retryWaitMin<<done, retryWaitMax)
		if d := (&retrying{done: done}).wait(nil, now); d < want/2 || d > want {
			t.Errorf("after %d: waits %v", done, d)
		}
	}
}
