package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// faulty answers with an error, or a status.
type faulty struct {
	calls  int
	err    error
	status int
}

func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	f.calls++
	if f.err != nil {
		return nil, f.err
	}
	return &http.Response{StatusCode: f.status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

func TestAHostThatIsNotReachedIsLeftAlone(t *testing.T) {
	g := newRig(t, bearerRequest, echo)
	synctest.Test(t, func(t *testing.T) {
		base := &faulty{err: errors.New("connection refused")}
		transport := &Transport{Base: base, ReplayBuffer: testLimit, Logger: zap.NewNop(), circuits: &circuits{limit: 3}}
		call := func(host string) error {
			req := g.request("GET", nil, 0)
			if host != "" {
				req.URL.Host = host
			}
			_, err := transport.RoundTrip(req)
			return err
		}
		down := func(err error) bool {
			var p *problem.Problem
			return errors.As(err, &p) && p.Status == 503 && p.Code == "upstream_down" && p.RetryAfter > 0 && p.RetryAfter <= circuitPause
		}
		expect := func(what string, calls int, isDown bool) {
			t.Helper()
			before := base.calls
			if err := call(""); down(err) != isDown || base.calls-before != calls {
				t.Errorf("%s: %v, %d calls", what, err, base.calls-before)
			}
		}
		for i := range 3 {
			expect(fmt.Sprint("failure ", i+1), 1, false)
		}
		expect("open", 0, true)
		if err := call("other.example"); down(err) {
			t.Error("another host is left alone too")
		}
		time.Sleep(circuitPause)
		expect("the one that tries it", 1, false)
		expect("after it has failed", 0, true)
		time.Sleep(circuitPause)
		base.err, base.status = nil, 503 // it is there, whatever it says
		expect("the one that reaches it", 1, false)
		expect("closed", 1, false)
		base.err = errors.New("connection refused")
		expect("one failure", 1, false)
		base.err = nil
		expect("and an answer", 1, false)
		base.err = errors.New("connection refused")
		for i := range 3 {
			expect(fmt.Sprint("failure in a row ", i+1), 1, false)
		}
		expect("open again", 0, true)
	})
}
