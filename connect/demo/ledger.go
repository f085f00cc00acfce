package demo

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"
)

// Of each kind of thing the ledger keeps at most this many.
const ledgerLimit = 100_000

// A code is good for a minute. RFC 6749 section 4.1.2 wants ten at most.
const codeTTL = time.Minute

// What can be wrong with a code or a token.
var (
	errNotGood = errors.New("it is unknown, expired, revoked or belongs to another client")
	errSpent   = errors.New("it was used before; all that came of it has been revoked")
	errScope   = errors.New("it goes beyond what was granted")
	errFull    = errors.New("the demo provider's memory is full")
)

// A digest stands for a secret wherever one is looked up, so that neither
// memory nor the time of a comparison gives one away.
type digest [sha256.Size]byte

func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

// newSecret returns 256 random bits with a prefix that tells what they are.
func newSecret(prefix string) string {
	var b [32]byte
	rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// A family is all that came of one consent: its code, and every access and
// refresh token made since. It lives and dies as one (RFC 9700 section 4.14.2).
type family struct {
	client, account, scope string
	grace                  time.Duration
	revoked                bool
	refreshes, calls       int
	reused                 int
	before, after          Fault // of its refreshes
}

type code struct {
	*family
	redirectURI, challenge string
	expires                time.Time
	spent                  bool
}

type accessToken struct {
	*family
	scope           string
	issued, expires time.Time
}

type refreshToken struct {
	*family
	issued, expires time.Time
	spent           time.Time // zero: not yet
}

// issued is what a token request is answered with.
type issued struct {
	access, refresh, scope string
}

// A ledger knows every code and token, and what became of it.
type ledger struct {
	accessTTL, refreshTTL, grace time.Duration
	keep                         bool

	mu      sync.Mutex
	codes   map[digest]*code
	access  map[digest]*accessToken
	refresh map[digest]*refreshToken
	swept   time.Time
	totals  Stats
}

func newLedger(o Options) *ledger {
	return &ledger{
		accessTTL: o.AccessTTL, refreshTTL: o.RefreshTTL, grace: o.GraceWindow, keep: o.KeepRefreshToken,
		codes:   map[digest]*code{},
		access:  map[digest]*accessToken{},
		refresh: map[digest]*refreshToken{},
	}
}

// openCode starts a family with a code, and returns the code.
func (l *ledger) openCode(q request, account string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.room(now) {
		return "", errFull
	}
	secret := newSecret("demo_code_")
	l.codes[digestOf(secret)] = &code{
		family:      &family{client: q.ClientID, account: account, scope: q.Scope, grace: l.grace},
		redirectURI: q.RedirectURI,
		challenge:   q.Challenge,
		expires:     now.Add(codeTTL),
	}
	return secret, nil
}

// redeemCode exchanges a code for tokens. A client's own code is spent by the
// attempt, even if the redirect URI or the verifier turns out to be wrong; one
// that was spent already revokes what came of it (RFC 6749 section 4.1.2).
func (l *ledger) redeemCode(client, secret, redirectURI, verifier string) (issued, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	c := l.codes[digestOf(secret)]
	if c == nil || c.client != client {
		return issued{}, errNotGood
	}
	if c.spent {
		l.revoke(c.family)
		return issued{}, errSpent
	}
	if !l.room(now) {
		return issued{}, errFull
	}
	c.spent = true
	if !now.Before(c.expires) || c.redirectURI != redirectURI || !verifies(verifier, c.challenge) {
		return issued{}, errNotGood
	}
	// Not forgotten while its tokens may live, so that a late second use is
	// still noticed.
	c.expires = now.Add(l.refreshTTL)
	return issued{
		access:  l.newAccess(c.family, c.scope, now),
		refresh: l.newRefresh(c.family, now),
		scope:   c.scope,
	}, nil
}

// redeemRefresh exchanges a refresh token for new tokens. To look at the token
// and to spend it is one step: of many callers with the same one, one wins.
// scope may ask for less than was granted (RFC 6749 section 6).
func (l *ledger) redeemRefresh(client, secret, scope string) (issued, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	t := l.refresh[digestOf(secret)]
	if t == nil || t.client != client {
		return issued{}, errNotGood
	}
	if !t.spent.IsZero() && now.Sub(t.spent) >= t.grace {
		l.totals.ReuseDetected++
		t.reused++
		l.revoke(t.family)
		return issued{}, errSpent
	}
	if t.revoked || !now.Before(t.expires) {
		return issued{}, errNotGood
	}
	if scope == "" {
		scope = t.scope
	} else if !within(scope, t.scope) {
		return issued{}, errScope
	}
	if !l.room(now) {
		return issued{}, errFull
	}
	l.totals.Refreshes++
	t.refreshes++
	got := issued{access: l.newAccess(t.family, scope, now), scope: scope}
	if !l.keep {
		if t.spent.IsZero() {
			t.spent = now
		}
		got.refresh = l.newRefresh(t.family, now)
	}
	return got, nil
}

// grantClient gives a client an access token for itself. It gets no refresh
// token (RFC 6749 section 4.4.3).
func (l *ledger) grantClient(client, scope string) (issued, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.room(now) {
		return issued{}, errFull
	}
	f := &family{client: client, account: client, scope: scope}
	return issued{access: l.newAccess(f, scope, now), scope: scope}, nil
}

// use finds a live access token and counts a call with it.
func (l *ledger) use(secret string) (accessToken, family, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.access[digestOf(secret)]
	if t == nil || !t.live(time.Now()) {
		return accessToken{}, family{}, false
	}
	t.calls++
	return *t, *t.family, true
}

// drop revokes a client's token: a refresh token with its family, an access
// token alone (RFC 7009 section 2.1). It reports whether the client may; an
// unknown token is no fault (section 2.2).
func (l *ledger) drop(client, secret string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := digestOf(secret)
	if t := l.refresh[d]; t != nil {
		if t.client != client {
			return false
		}
		l.revoke(t.family)
	}
	if t := l.access[d]; t != nil {
		if t.client != client {
			return false
		}
		delete(l.access, d)
	}
	return true
}

// revokeAccess forgets the access tokens of an account, or all of them.
func (l *ledger) revokeAccess(account string) int {
	return l.forgetAccess(func(t *accessToken) bool { return account == "" || t.account == account })
}

// forgetAccess forgets access tokens, and returns how many were good.
func (l *ledger) forgetAccess(which func(*accessToken) bool) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for d, t := range l.access {
		if which(t) {
			if t.live(now) {
				n++
			}
			delete(l.access, d)
		}
	}
	return n
}

// stats returns the ledger's part of the [Stats].
func (l *ledger) stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, now := l.totals, time.Now()
	for _, t := range l.access {
		if t.live(now) {
			s.AccessValid++
		}
	}
	for _, t := range l.refresh {
		if t.live(now) {
			s.RefreshValid++
		}
	}
	return s
}

func (t *accessToken) live(now time.Time) bool { return !t.revoked && now.Before(t.expires) }

func (t *refreshToken) live(now time.Time) bool {
	return !t.revoked && t.spent.IsZero() && now.Before(t.expires)
}

// The rest is called with the lock held.

func (l *ledger) newAccess(f *family, scope string, now time.Time) string {
	secret := newSecret("demo_access_")
	l.access[digestOf(secret)] = &accessToken{f, scope, now, now.Add(l.accessTTL)}
	l.totals.AccessIssued++
	return secret
}

func (l *ledger) newRefresh(f *family, now time.Time) string {
	secret := newSecret("demo_refresh_")
	l.refresh[digestOf(secret)] = &refreshToken{family: f, issued: now, expires: now.Add(l.refreshTTL)}
	l.totals.RefreshIssued++
	return secret
}

func (l *ledger) revoke(f *family) {
	if !f.revoked {
		f.revoked = true
		l.totals.FamiliesRevoked++
	}
}

// room forgets what has expired, at most every ten seconds unless it must, and
// reports whether there is room for more. Spent and revoked tokens are kept
// until they would have expired, so that their reuse is noticed.
func (l *ledger) room(now time.Time) bool {
	full := func() bool {
		return max(len(l.codes), len(l.access), len(l.refresh)) >= ledgerLimit
	}
	if now.Sub(l.swept) < 10*time.Second && !full() {
		return true
	}
	l.swept = now
	for d, c := range l.codes {
		if !now.Before(c.expires) {
			delete(l.codes, d)
		}
	}
	for d, t := range l.access {
		if !now.Before(t.expires) {
			delete(l.access, d)
		}
	}
	for d, t := range l.refresh {
		if !now.Before(t.expires) {
			delete(l.refresh, d)
		}
	}
	return !full()
}

// within tells whether every scope in some is one of all.
func within(some, all string) bool {
	granted := map[string]bool{}
	for _, s := range strings.Fields(all) {
		granted[s] = true
	}
	for _, s := range strings.Fields(some) {
		if !granted[s] {
			return false
		}
	}
	return true
}
