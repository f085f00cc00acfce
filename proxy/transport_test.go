package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// A call whose credential has ended is sent again, whole and once, if its body
// is small and of known length; of all others the caller gets the provider's
// own refusal, and the credential is renewed for the next call (S74, S75).
func TestReplay(t *testing.T) {
	t.Parallel()
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "QUERY"}
	for name, c := range map[string]struct {
		size    int
		unknown bool
		want    int
	}{
		"no body":              {0, false, 200},
		"small":                {5, false, 200},
		"at the limit":         {testLimit, false, 200},
		"one over":             {testLimit + 1, false, 401},
		"large":                {1 << 20, false, 401},
		"small, unknown":       {5, true, 401},
		"large, unknown":       {1 << 20, true, 401},
		"empty, but not known": {0, true, 401},
	} {
		for _, method := range methods {
			if method == "HEAD" && c.size > 0 {
				continue
			}
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				g := newRig(t, bearerRequest, strict(echo))
				body := strings.Repeat("x", c.size)
				req := g.request(method, nil, int64(c.size))
				if c.size > 0 || c.unknown {
					req.Body = io.NopCloser(strings.NewReader(body))
				}
				if c.unknown {
					req.ContentLength = -1
				}
				res, err := g.transport().RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				got := read(t, res)
				<-g.renewals.changed
				call := callFrom(req.Context())
				switch {
				case res.StatusCode != c.want:
					t.Errorf("got %d", res.StatusCode)
				case c.want == 401:
					if method != "HEAD" && got != refusal {
						t.Errorf("got %q instead of the provider's refusal", got)
					}
					if n := g.renewals.counts(); n != [3]int{1, 0, 0} || call.Replayed {
						t.Errorf("renewed, accepted, refused: %v; replayed: %v", n, call.Replayed)
					}
				default:
					if got != body || res.Header.Get("X-Method") != method || res.Header.Get("X-Query") != "a=1" {
						t.Errorf("arrived as %v with %d bytes", res.Header, len(got))
					}
					if n := g.renewals.counts(); n != [3]int{1, 1, 0} || !call.Replayed || call.Auth != g.new {
						t.Errorf("renewed, accepted, refused: %v; replayed: %v", n, call.Replayed)
					}
				}
			})
		}
	}
}

// A good credential costs nothing: no renewal, and one request.
func TestNoReplayWithoutRefusal(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 204, 301, 400, 403, 404, 407, 429, 500, 503} {
		var seen atomic.Int32
		g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) { seen.Add(1); w.WriteHeader(status) })
		res, err := g.transport().RoundTrip(g.request("GET", nil, 0))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if n := g.renewals.counts(); res.StatusCode != status || seen.Load() != 1 || n != [3]int{} {
			t.Errorf("got %d after %d requests and renewals %v", res.StatusCode, seen.Load(), n)
		}
	}
}

// A new credential that is refused too is not renewed again: the caller gets
// the second answer, and the refresher hears of it (S71).
func TestSecondRefusalIsPassedOn(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "refusal %d", seen.Add(1))
	})
	res, err := g.transport().RoundTrip(g.request("POST", strings.NewReader("x"), 1))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, res); res.StatusCode != 401 || got != "refusal 2" || g.renewals.counts() != [3]int{1, 0, 1} {
		t.Errorf("got %d %q, renewed, accepted, refused: %v", res.StatusCode, got, g.renewals.counts())
	}
}

// Some vendors say with another status that a token has ended; their entries
// name it (S73).
func TestS73OtherStatusesOfAnEndedTokenAreRenewedToo(t *testing.T) {
	t.Parallel()
	const request = `{base_url: 'BASE', expired_statuses: [403, 498], headers: {authorization: 'Bearer {cred.key}'}}`
	for status, renewed := range map[int]int{401: 1, 403: 1, 498: 1, 400: 0, 404: 0, 500: 0} {
		g := newRig(t, request, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer new" {
				w.WriteHeader(status)
			}
		})
		res, err := g.transport().RoundTrip(g.request("POST", strings.NewReader("x"), 1))
		if err != nil {
			t.Fatal(err)
		}
		want := map[int]int{0: status, 1: 200}[renewed]
		if read(t, res); res.StatusCode != want || g.renewals.counts()[0] != renewed {
			t.Errorf("%d became %d, renewed %d times", status, res.StatusCode, g.renewals.counts()[0])
		}
	}
}

// A new token would have the same scope (RFC 6750 section 3.1).
func TestInsufficientScopeIsNotRenewed(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
		w.Header().Add("WWW-Authenticate", `Bearer error="insufficient_scope", scope="admin"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, refusal)
	})
	res, err := g.transport().RoundTrip(g.request("GET", nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, res); res.StatusCode != 401 || got != refusal || g.renewals.counts() != [3]int{} {
		t.Errorf("got %d %q, renewals %v", res.StatusCode, got, g.renewals.counts())
	}
}

// If only the user can help, the app is told so, in keycaddy's own words. If
// renewing fails for any other reason, the provider's answer says more.
func TestRenewalThatFails(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, strict(echo))
	g.renewals.err = fmt.Errorf("wrapped: %w", &connect.NeedsReauthError{ID: testID, Cause: "invalid_grant"})
	res, body := g.send(g.get("/x"))
	if res.StatusCode != http.StatusFailedDependency || res.Header.Get(problem.Header) != "needs_reauth" || !strings.Contains(body, `"action":"reconnect"`) {
		t.Errorf("got %d %v %s", res.StatusCode, res.Header, body)
	}
	for _, err := range []error{scheme.ErrNotRenewable, connect.ErrFutile, connect.ErrNotFound, errBroken, context.DeadlineExceeded} {
		g.renewals.err = err
		res, body := g.send(g.get("/x"))
		if res.StatusCode != 401 || body != refusal || res.Header.Get("WWW-Authenticate") == "" || res.Header.Get(problem.Header) != "" {
			t.Errorf("%v: got %d %v %s", err, res.StatusCode, res.Header, body)
		}
	}
}

// The request that others hold (loggers, placeholders) never gets to see the
// credential, and isn't changed in any other way.
func TestCallersRequestIsUntouched(t *testing.T) {
	t.Parallel()
	g := newRig(t, `{base_url: 'BASE', headers: {authorization: 'Bearer {cred.key}', x-version: '7'}, query: {key: '{cred.key}'}}`, strict(echo))
	req := g.request("GET", nil, 0)
	req.Header.Set("X-Own", "1")
	before := req.Clone(context.Background())
	res, err := g.transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if !reflect.DeepEqual(req.Header, before.Header) || *req.URL != *before.URL || req.Host != before.Host {
		t.Errorf("changed to %v %v", req.URL, req.Header)
	}
	if got := res.Header.Get("X-Query"); got != "a=1&key=new" {
		t.Errorf("sent with query %q", got)
	}
}

// A body that breaks off is the caller's fault, and the provider sees nothing of it.
func TestTruncatedBody(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) { seen.Add(1) })
	for _, body := range []io.Reader{strings.NewReader("short"), io.MultiReader(strings.NewReader("short"), reader{errBroken})} {
		_, err := g.transport().RoundTrip(g.request("POST", body, 100))
		var broken *BodyError
		if p := problem.Of(&UpstreamError{Err: err}); !errors.As(err, &broken) || p.Status != 400 || p.Code != "incomplete_body" {
			t.Errorf("got %v, %+v", err, p)
		}
	}
	_, err := g.transport().RoundTrip(g.request("POST", reader{&http.MaxBytesError{Limit: 1}}, 100))
	if p := problem.Of(&UpstreamError{Err: err}); p.Status != 413 {
		t.Errorf("a body over a limit: got %v, %+v", err, p)
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("the provider saw %d requests", n)
	}
}

type reader struct{ err error }

func (r reader) Read([]byte) (int, error) { return 0, r.err }

// Uploads are not sent again, so no answer shows whether the new credential is
// any good. A provider that refuses every upload must not be asked for a token
// on each of them (S71).
func TestRefusedUploadsDontRenewEachTime(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusUnauthorized)
	})
	upload := func(with *connect.Bound) {
		req := g.request("POST", strings.NewReader("x"), -1)
		callFrom(req.Context()).Auth = with
		res, err := g.transport().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	upload(g.old)
	<-g.renewals.changed
	for deadline := time.Now().Add(5 * time.Second); g.renewals.counts()[2] == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the refresher wasn't told that renewing is futile: %v", g.renewals.counts())
		}
		upload(g.new)
	}
	if n := g.renewals.counts(); n[0] > 3 || n[2] != 1 {
		t.Errorf("renewed, accepted, refused: %v", n)
	}
}

// A refusal whose body never ends doesn't keep the call from being sent again.
func TestRefusalWithoutEnd(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer new" {
			w.WriteHeader(http.StatusUnauthorized)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	req := g.request("GET", nil, 0)
	ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
	defer cancel()
	res, err := g.transport().RoundTrip(req.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, res); got != "ok" {
		t.Errorf("got %q", got)
	}
}

func TestRoundTripWithoutCall(t *testing.T) {
	t.Parallel()
	g := newRig(t, bearerRequest, echo)
	req, _ := http.NewRequest("GET", g.provider.URL, nil)
	if _, err := g.transport().RoundTrip(req); !errors.Is(err, errNoCall) {
		t.Errorf("got %v", err)
	}
}
