package scheme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// twoStep is a login of the vendor's own: what the end user enters is traded
// for a token or a session, in one request or several, as JSON, form or XML. The
// requests are spelled out in the entry; nothing is implied.
type twoStep struct{ base }

func newTwoStep(b base) (Scheme, error) {
	if p := b.provider; p.Token == nil {
		return nil, fmt.Errorf("provider %s: token is needed for %s", p.ID, p.Mode)
	}
	return twoStep{b}, nil
}

// Accept logs in, which proves what was entered.
func (s twoStep) Accept(ctx context.Context, answers map[string]string) (Grant, error) {
	g, err := s.accept(answers)
	if err != nil {
		return Grant{}, err
	}
	g, err = s.login(ctx, g, s.newTokenCall(g, s.grantValues(g)))
	if err != nil {
		return Grant{}, err
	}
	if s.keepsAssertion() {
		g = s.withoutEphemeral(g)
	}
	return g, nil
}

// Renew redeems the refresh token if the entry has one, and logs in again if
// not, or if it was refused: the login is still at hand.
func (s twoStep) Renew(ctx context.Context, g Grant) (Grant, error) {
	var te *TokenError
	if s.refreshMode() == catalog.RefreshByToken && g.RefreshToken != "" {
		fresh, err := s.login(ctx, g, s.newRenewal(g, s.grantValues(g)))
		if err == nil || !errors.As(err, &te) || te.Class != Revoked && te.Status != 401 {
			return fresh, err
		}
	}
	again := s.newTokenCall(g, s.grantValues(g))
	if s.refreshMode() == catalog.RefreshReissue {
		again = s.newRenewal(g, s.grantValues(g))
	}
	fresh, err := s.login(ctx, g, again)
	if errors.As(err, &te) && (te.Status == 401 || te.Class == Misconfigured && te.Status != 0) {
		te.Class = Revoked // the login is the user's own: nobody else can mend it
	}
	return fresh, err
}

func (s twoStep) login(ctx context.Context, g Grant, call *tokenCall) (Grant, error) {
	if err := call.run(ctx, nil, ""); err != nil {
		return Grant{}, err
	}
	out := call.answer.grant(g, time.Now())
	if s.keepsAssertion() {
		out.Assertion = Secret(call.assertion)
	}
	return s.known(ctx, out), nil
}

// Bind also says that the grant can be renewed.
func (s twoStep) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	b.Renewable = true
	return b, nil
}

var (
	_ Prompter = twoStep{}
	_ Renewer  = twoStep{}
)
