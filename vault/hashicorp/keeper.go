package hashicorp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/zap"
)

const (
	// quickest is how soon after it was looked after a token is seen to again.
	quickest = 500 * time.Millisecond
	// longestPlan is the longest a timer is set for.
	longestPlan = 7 * 24 * time.Hour
	// believed is for how long a token that Vault has just known is believed to
	// be alive: then a 403 is the path's matter.
	believed = 10 * time.Second
	// settled is the age at which a token that Vault doesn't let look at itself
	// may be the reason of a 403.
	settled = 30 * time.Second
)

// keeper keeps one token alive: it logs in, renews, and logs in again. Of any
// number of callers that need a login one makes it, and the others wait.
type keeper struct {
	base    *api.Client
	login   Login
	timeout time.Duration
	logger  *zap.Logger

	mu       sync.Mutex
	current  *session
	flight   *flight // the login under way
	failures int     // logins that failed in a row
	notUntil time.Time
	last     error // of the login that failed
	timer    *time.Timer
	closed   bool
}

// session is the time of one token, from login to its end.
type session struct {
	client *api.Client
	since  time.Time
	first  time.Duration // the lease at login; 0: without end

	// With keeper.mu held:
	expires   time.Time // zero: never
	renewable bool
	seen      time.Time // when Vault last knew the token for sure
}

type flight struct {
	done chan struct{}
	s    *session
	err  error
}

// session returns a session whose token is good as far as is known, and isn't
// stale: the one that the caller knows to be bad (nil: none).
func (k *keeper) session(ctx context.Context, stale *session) (*session, error) {
	k.mu.Lock()
	if s := k.current; s != nil && s != stale && (s.expires.IsZero() || time.Now().Before(s.expires)) {
		k.mu.Unlock()
		return s, nil
	}
	if k.flight == nil && time.Now().Before(k.notUntil) {
		defer k.mu.Unlock()
		return nil, &tooSoonError{k.last}
	}
	f := k.start()
	k.mu.Unlock()
	select {
	case <-f.done:
		return f.s, f.err
	case <-ctx.Done():
		return nil, failed(ctx.Err(), k.timeout)
	}
}

// start starts a login, or joins the one under way. It is not the caller's, who
// may leave. With k.mu held.
func (k *keeper) start() *flight {
	if k.flight != nil {
		return k.flight
	}
	f := &flight{done: make(chan struct{})}
	k.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), k.timeout)
		defer cancel()
		began := time.Now()
		g, err := k.login.login(ctx, k.base, k.timeout)
		k.mu.Lock()
		defer k.mu.Unlock()
		defer close(f.done)
		k.flight = nil
		if err != nil {
			f.err = err
			k.failed(err)
			return
		}
		f.s = &session{client: withToken(k.base, g.token), since: began, first: g.lease, renewable: g.renewable, seen: began}
		k.current, k.failures, k.notUntil, k.last = f.s, 0, time.Time{}, nil
		k.extend(f.s, began, g.lease)
	}()
	return f
}

// failed plans another login, later each time. With k.mu held.
func (k *keeper) failed(err error) {
	wait := pause(k.failures, 2*firstPause, maxLoginGap)
	k.failures++
	k.notUntil, k.last = time.Now().Add(wait), err
	k.logger.Warn("logging in to vault; trying again", zap.String("method", k.login.method()), zap.Error(err), zap.Duration("after", wait))
	k.plan(wait)
}

// extend takes over a lease that began at the time given and plans what is next:
// at two thirds of it, or a bit earlier, so that nodes don't come all at once.
// With k.mu held.
func (k *keeper) extend(s *session, began time.Time, lease time.Duration) {
	if lease <= 0 {
		s.expires = time.Time{}
		return
	}
	s.expires = began.Add(lease)
	due := lease * 2 / 3
	k.plan(due - due/5 + pause(0, due/5, due/5) - time.Since(began))
}

// plan makes the keeper look after its token in a while. With k.mu held.
func (k *keeper) plan(in time.Duration) {
	if k.closed {
		return
	}
	if k.timer != nil {
		k.timer.Stop()
	}
	k.timer = time.AfterFunc(min(max(in, quickest), longestPlan), k.tend)
}

// tend renews the token, or logs in again.
func (k *keeper) tend() {
	k.mu.Lock()
	s := k.current
	if s == nil || !s.renewable || time.Now().After(s.expires) {
		k.start()
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), k.timeout)
	defer cancel()
	began := time.Now()
	lease, renewable, err := renew(ctx, s.client, k.timeout)

	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.current != s: // somebody has logged in meanwhile
	case err == nil:
		// Near the end of a token's life (max TTL) Vault grants ever shorter
		// leases.
		s.renewable, s.seen = renewable && lease > s.first/2, began
		k.extend(s, began, lease)
	case again(err):
		k.logger.Warn("renewing vault token; trying again", zap.Error(err))
		k.plan(min(time.Until(s.expires)/3, maxLoginGap))
	default:
		k.logger.Info("vault token can't be renewed; logging in", zap.Error(err))
		k.start()
	}
}

func renew(ctx context.Context, client *api.Client, timeout time.Duration) (time.Duration, bool, error) {
	a, err := send(ctx, client, request{method: http.MethodPut, path: "auth/token/renew-self", body: struct{}{}}, timeout)
	if err != nil {
		return 0, false, err
	}
	if a.status != http.StatusOK {
		return 0, false, a.err()
	}
	var body struct {
		Auth struct {
			Lease     int64 `json:"lease_duration"`
			Renewable bool
		}
	}
	if json.Unmarshal(a.body, &body) != nil || body.Auth.Lease <= 0 {
		return 0, false, errors.New("vault: renewing the token: no lease in the answer")
	}
	return time.Duration(body.Auth.Lease) * time.Second, body.Auth.Renewable, nil
}

// refused tells whether a 403 is about the session's token rather than about
// the path. Recent Vaults say so; others are asked whether they know the token.
func (k *keeper) refused(ctx context.Context, s *session, a *answer) bool {
	if a.says("invalid token") {
		return true
	}
	k.mu.Lock()
	known := time.Since(s.seen) < believed
	k.mu.Unlock()
	if known {
		return false
	}
	began := time.Now()
	a, err := send(ctx, s.client, request{method: http.MethodGet, path: "auth/token/lookup-self"}, k.timeout)
	switch {
	case err != nil:
		return false
	case a.status == http.StatusForbidden:
		return a.says("invalid token") || time.Since(s.since) > settled
	case a.status == http.StatusOK:
		k.mu.Lock()
		s.seen = began
		k.mu.Unlock()
	}
	return false
}

func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
}
