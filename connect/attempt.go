package connect

import (
	"context"
	"time"
)

// attempt is an attempt to connect, as far as the journal is concerned. It goes
// along in the context, since it passes through much that has nothing else to
// do with it.
type attempt struct {
	id, integration string
	last            time.Time // of a step
}

type attemptKey struct{}

// attemptOf returns an empty one if there is none in the context.
func attemptOf(ctx context.Context) *attempt {
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		return a
	}
	return new(attempt)
}

// begin starts an attempt and logs that.
func (c *Connector) begin(ctx context.Context, s *Session, in *Integration) context.Context {
	a := &attempt{id: randomHex(16), integration: in.Key}
	ctx = context.WithValue(ctx, attemptKey{}, a)
	l := a.log(LogStep{Name: "started"})
	l.Provider, l.Connection, l.EndUser = in.Provider.ID, s.Connection, s.UserID()
	c.Journal.Write(ctx, l)
	return ctx
}

// resume goes on with the attempt of a flow.
func resume(ctx context.Context, f *Flow) context.Context {
	return context.WithValue(ctx, attemptKey{}, &attempt{id: f.ID, integration: f.Integration})
}

// log makes a log of one step. Steps are told apart by when they were.
func (a *attempt) log(s LogStep) Log {
	if s.At = time.Now(); s.At.Sub(a.last) < time.Microsecond {
		s.At = a.last.Add(time.Microsecond)
	}
	a.last = s.At
	return Log{ID: a.id, Kind: LogConnect, Status: LogRunning, Integration: a.integration, Started: s.At, Steps: []LogStep{s}}
}

// step logs a step of the attempt in the context.
func (c *Connector) step(ctx context.Context, name, message string) {
	if a := attemptOf(ctx); a.id != "" {
		c.Journal.Write(ctx, a.log(LogStep{Name: name, Message: message}))
	}
}

// ended logs how the attempt in the context has ended.
func (c *Connector) ended(ctx context.Context, conn Connection, err error) {
	a := attemptOf(ctx)
	if a.id == "" {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if err == nil {
		l := a.log(LogStep{Name: "stored", Message: conn.ID.String()})
		l.Status, l.Connection = LogSuccess, conn.ID.Connection
		c.Journal.Write(ctx, l)
		return
	}
	o := outcomeOf(Connection{}, err)
	l := a.log(LogStep{Name: "failed", Message: err.Error(), Detail: o.Detail})
	l.Status, l.Code, l.Message, l.Detail = LogFailure, o.Code, err.Error(), o.Detail
	c.Journal.Write(ctx, l)
}
