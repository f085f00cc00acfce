package connect

import (
	"context"
	"errors"
	"time"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// step notes that the rotation has come to one of Steps.
func (ro *rotation) step(name string) {
	ro.trace(name, ro.stale.ID)
	ro.steps = append(ro.steps, LogStep{At: time.Now(), Name: name})
}

// renewalOutcome is one of a few words for how a renewal has ended.
func renewalOutcome(err error) string {
	var te *scheme.TokenError
	var needs *NeedsReauthError
	switch {
	case err == nil:
		return "success"
	case errors.As(err, &needs):
		return "revoked"
	case errors.As(err, &te):
		return te.Class.String()
	}
	return "failed"
}

// logged has the rotation written to the journal, if the provider was asked.
func (ro *rotation) logged(ctx context.Context, err error) {
	if !ro.asked {
		return
	}
	if ro.Observe != nil {
		ro.Observe(ro.row.Provider, renewalOutcome(err), time.Since(ro.steps[0].At))
	}
	if ro.Journal == nil {
		return
	}
	c := &ro.row
	l := Log{
		ID: randomHex(16), Kind: LogRefresh, Status: LogSuccess, Integration: c.Integration, Connection: c.ID.Connection, Provider: c.Provider,
		Started: ro.steps[0].At, Steps: ro.steps, Took: time.Since(ro.steps[0].At),
	}
	if c.EndUser != nil {
		l.EndUser = c.EndUser.ID
	}
	if err != nil {
		l.Status, l.Code, l.Message = LogFailure, "renewal_failed", err.Error()
		var te *scheme.TokenError
		var needs *NeedsReauthError
		switch {
		case errors.As(err, &te):
			l.Code, l.Detail = te.Code, te.Description
		case errors.As(err, &needs):
			l.Code, l.Detail = needs.Cause, ro.refusal
		}
		l.Steps = append(l.Steps, LogStep{At: time.Now(), Name: "failed", Message: l.Message, Detail: l.Detail})
	}
	ro.Journal.Write(ctx, l)
}
