package connect

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// complete finds out what else there is to know of a new grant's account, and
// makes sure that calls can be made with it before anything is stored.
func (c *Connector) complete(ctx context.Context, in *Integration, g scheme.Grant) (scheme.Grant, error) {
	g, err := in.Scheme.Derive(ctx, g)
	if err != nil {
		c.Logger.Info("look-up failed while connecting", zap.String("integration", in.Key), zap.Error(err))
		return scheme.Grant{}, err
	}
	if _, err := in.Scheme.Bind(g); err != nil && !errors.Is(err, scheme.ErrNoUpstream) {
		c.Logger.Warn("a new grant can't be used", zap.String("integration", in.Key), zap.Error(err))
		return scheme.Grant{}, err
	}
	c.step(ctx, "completed", "calls can be made with it")
	return g, nil
}

// refusedLogin makes a refusal of what the visitor has entered, by the token
// endpoint or a login, the same as that of a verify request.
func refusedLogin(err error) error {
	var te *scheme.TokenError
	if !errors.As(err, &te) || te.Class == scheme.Misconfigured {
		return err
	}
	switch te.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity:
		return &VerifyError{Status: te.Status, Cause: te}
	}
	return err
}

// stateOf returns the state of a callback, if there is exactly one: under its
// own name, or else under that which the vendor of an integration has for it.
func (s *Setup) stateOf(callback url.Values) string {
	if states := callback["state"]; len(states) > 0 {
		if len(states) > 1 {
			return ""
		}
		return states[0]
	}
	state := ""
	for _, in := range s.Integrations() {
		states := callback[scheme.StateParam(in.Provider)]
		if len(states) > 1 || len(states) == 1 && state != "" && states[0] != state {
			return ""
		}
		if len(states) == 1 {
			state = states[0]
		}
	}
	return state
}
