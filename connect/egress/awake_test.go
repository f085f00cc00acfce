package egress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// slow answers after a while, or only after it has begun to.
func slow(t *testing.T) (*httptest.Server, Policy) {
	t.Helper()
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/never":
			<-done
		case "/never-ends":
			w.Write([]byte("begun"))
			w.(http.Flusher).Flush()
			<-done
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(done) })
	return s, Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

func TestS77AnswersThatDoNotComeTimeOut(t *testing.T) {
	s, policy := slow(t)
	client := NewClient(policy, 200*time.Millisecond)
	began := time.Now()
	_, err := client.Get(s.URL + "/never")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("an answer: %v after %v", err, time.Since(began))
	}
	res, err := client.Get(s.URL + "/never-ends")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a body: %v", err)
	}
	if res, err := client.Get(s.URL + "/"); err != nil {
		t.Error(err)
	} else if _, err := io.ReadAll(res.Body); err != nil || res.Body.Close() != nil {
		t.Error(err)
	}
}

// What the clock says doesn't count: a process that was stopped has one tick
// waiting for it when it goes on, however long it was.
func TestS60TimeAsleepIsNotCounted(t *testing.T) {
	ticks := make(chan time.Time)
	answered := make(chan struct{})
	a := &awake{timeout: time.Second, tick: func(time.Duration) (<-chan time.Time, func()) { return ticks, func() {} },
		next: roundTrip(func(r *http.Request) (*http.Response, error) {
			select {
			case <-r.Context().Done():
				return nil, context.Cause(r.Context())
			case <-answered:
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}
		})}
	result := make(chan error, 1)
	ask := func() {
		req, _ := http.NewRequest("GET", "https://provider.example", nil)
		res, err := a.RoundTrip(req)
		if err == nil {
			err = res.Body.Close() // which ends the count
		}
		result <- err
	}
	go ask()
	for range awakeTicks - 1 {
		ticks <- time.Now().Add(time.Hour)
	}
	answered <- struct{}{}
	if err := <-result; err != nil {
		t.Errorf("with a tick left: %v", err)
	}
	go ask()
	for range awakeTicks {
		ticks <- time.Now()
	}
	if err := <-result; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with none left: %v", err)
	}
}
