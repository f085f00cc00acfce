package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// A trace of a call shows each attempt and the renewal between them, below the
// span that Caddy's tracing has made, and nothing secret (S125).
func TestS125TracesShowAttemptsAndRenewals(t *testing.T) {
	var (
		mu    sync.Mutex
		spans []*traces.Span
		raw   strings.Builder
	)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				t.Error(err)
				return
			}
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(data, &req); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		raw.Write(data)
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				spans = append(spans, ss.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(receiver.Close)
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.URL, "OTEL_BSP_SCHEDULE_DELAY": "100",
	} {
		t.Setenv(name, value)
	}
	u, c, _ := startOwn(t, demo.Options{}, "tracing\n\tkeycaddy")
	var token string
	u.API["/ok"] = func(w http.ResponseWriter, r *http.Request) {
		token = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		fmt.Fprint(w, "ok")
	}
	if u.RevokeAccess("") == 0 {
		t.Fatal("there was no token to revoke")
	}
	if got, err := exchange(c, "/proxy/ok"); got != "200 ok" {
		t.Fatal(got, err)
	}
	byName := func(name string) []*traces.Span {
		mu.Lock()
		defer mu.Unlock()
		return slices.DeleteFunc(slices.Clone(spans), func(s *traces.Span) bool { return s.Name != name })
	}
	eventually(t, 20*time.Second, "the spans are exported", func() error {
		if a, b := len(byName("provider GET")), len(byName("renew credential")); a != 2 || b != 1 {
			return fmt.Errorf("%d attempts and %d renewals", a, b)
		}
		return nil
	})
	attribute := func(s *traces.Span, name string) string {
		for _, a := range s.Attributes {
			if a.Key == name {
				return strings.Trim(strings.SplitN(a.Value.String(), ":", 2)[1], `"`)
			}
		}
		return ""
	}
	mu.Lock()
	byID := make(map[string]*traces.Span)
	for _, s := range spans {
		byID[string(s.SpanId)] = s
	}
	mu.Unlock()
	statuses := ""
	for _, s := range append(byName("provider GET"), byName("renew credential")...) {
		statuses += attribute(s, "http.response.status_code") + " "
		parent := byID[string(s.ParentSpanId)]
		if parent == nil {
			t.Errorf("%s is below no span", s.Name)
			continue
		}
		if attribute(parent, "keycaddy.integration") != "own" || attribute(parent, "keycaddy.replayed") != "true" {
			t.Errorf("%s is below %s, which has %v", s.Name, parent.Name, parent.Attributes)
		}
	}
	if statuses != "401 200  " {
		t.Errorf("the attempts ended with %q", statuses)
	}
	for _, s := range byName("provider GET") {
		if strings.Contains(s.String(), "/ok") {
			t.Errorf("an attempt's span has the call's address: %v", s.Attributes)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(raw.String(), apiKey) || strings.Contains(raw.String(), token) || token == "" {
		t.Error("a secret is in the traces, or there was none")
	}
}
