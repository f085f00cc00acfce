package scheme

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// selfSigned is a token that the end user's key signs: a JWT (RFC 7519) that is
// the bearer token itself. Nobody is asked for it; renewing is signing again.
type selfSigned struct{ base }

func newSelfSigned(b base) (Scheme, error) {
	if p := b.provider; p.Signed == nil {
		return nil, fmt.Errorf("provider %s: signed is needed for %s", p.ID, p.Mode)
	}
	return selfSigned{b}, nil
}

// Accept signs the first token, which shows that the key can.
func (s selfSigned) Accept(_ context.Context, answers map[string]string) (Grant, error) {
	g, err := s.accept(answers)
	if err != nil {
		return Grant{}, err
	}
	return s.sign(g)
}

// Renew signs the next one.
func (s selfSigned) Renew(_ context.Context, g Grant) (Grant, error) { return s.sign(g) }

func (s selfSigned) sign(g Grant) (Grant, error) {
	now := time.Now().Truncate(time.Second) // as the claims are
	token, err := s.signed(g, s.grantValues(g))
	if err != nil {
		return Grant{}, ofField(err)
	}
	g.AccessToken, g.Issued = Secret(token), now
	g.Expires = now.Add(time.Duration(s.provider.Signed.LifetimeS)*time.Second - assertionSkew)
	return g, nil
}

// Bind also says that the grant can be renewed.
func (s selfSigned) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	b.Renewable = true
	return b, nil
}

// ofField blames a key that can't sign on the field it was entered in.
func ofField(err error) error {
	var bad *KeyError
	if errors.As(err, &bad) {
		if name, ok := strings.CutPrefix(bad.Field, "cred."); ok {
			return FieldErrors{name: bad.Reason}
		}
	}
	return err
}

var (
	_ Prompter = selfSigned{}
	_ Renewer  = selfSigned{}
)
