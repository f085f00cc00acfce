package demo

import (
	"net/http"
	"time"
)

// Family is a handle on what came of one consent: it tells how its tokens were
// used, and can make the token endpoint fail for them alone. All methods may be
// called concurrently.
type Family struct {
	ledger *ledger
	family *family
}

// Tokens are the first of a family.
type Tokens struct{ Access, Refresh string }

// FamilyStats are counters of one family.
type FamilyStats struct {
	// Refreshes were granted; Reused were refused because the refresh token had
	// been spent.
	Refreshes, Reused int
	// Revoked: none of its tokens is good any more.
	Revoked bool
}

// Mint makes a family with its first tokens, as if an account had consented and
// the client had redeemed the code. A spent refresh token of it may be used
// again for grace; 0: for as long as the provider's options say.
func (p *Provider) Mint(client, account, scope string, grace time.Duration) (*Family, Tokens, error) {
	l := p.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.room(now) {
		return nil, Tokens{}, errFull
	}
	if grace == 0 {
		grace = l.grace
	}
	f := &family{client: client, account: account, scope: scope, grace: grace}
	return &Family{l, f}, Tokens{l.newAccess(f, scope, now), l.newRefresh(f, now)}, nil
}

// EndAccess makes the family's access tokens worthless and returns how many
// there were. Its refresh token stays good.
func (f *Family) EndAccess() int {
	return f.ledger.forgetAccess(func(t *accessToken) bool { return t.family == f.family })
}

// Stats returns a snapshot.
func (f *Family) Stats() FamilyStats {
	f.ledger.mu.Lock()
	defer f.ledger.mu.Unlock()
	return FamilyStats{Refreshes: f.family.refreshes, Reused: f.family.reused, Revoked: f.family.revoked}
}

// Disturb sets what happens to the family's refreshes: before the provider looks
// at the token, and after it has spent it and made others. Nil: nothing.
func (f *Family) Disturb(before, after Fault) {
	f.ledger.mu.Lock()
	defer f.ledger.mu.Unlock()
	f.family.before, f.family.after = before, after
}

// faults are those of the family that a refresh token is of.
func (l *ledger) faults(secret string) (before, after Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.refresh[digestOf(secret)]; t != nil {
		return t.before, t.after
	}
	return nil, nil
}

// answers lets a fault answer in the provider's place, if there is one.
func (f Fault) answers(w http.ResponseWriter, r *http.Request, grant string) bool {
	return f != nil && f(w, r, grant)
}
