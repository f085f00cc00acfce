package scheme

import (
	"context"
	"time"
)

// known asks the provider when the token ends (RFC 7662) if its answer didn't
// tell and the entry knows whom to ask. If nobody can tell, the token serves
// until it is refused.
func (b base) known(ctx context.Context, g Grant) Grant {
	i := b.provider.Introspect
	if i == nil || !g.Expires.IsZero() {
		return g
	}
	u, err := i.URL.Fill(b.env(g, nil))
	if err != nil {
		return g // an address that this account doesn't have
	}
	m := &message{method: i.Method, url: u, body: i.Body, params: i.Params}
	req, err := m.build(ctx, b, g, nil)
	if err != nil {
		return g
	}
	doc, err := b.fetch(req, g, false)
	if err != nil {
		return g // the token itself is good: it was issued just now
	}
	now := time.Now()
	if at, ok := doc.text(i.ExpiresAt); ok {
		if t, ok := parseTime(at, now); ok && t.After(now) {
			g.Expires = clampTime(t, now)
		}
	}
	return g
}
