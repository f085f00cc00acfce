package connect

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// Opener is a page of the app's that starts an attempt itself, by the calls of
// Nango's SDK for browsers.
type Opener struct {
	// Origin is that of the page, as the browser has told it; or empty.
	Origin string
	// Waiter is the name under which the page waits to be told how the attempt
	// ends, or empty. It can't be guessed.
	Waiter string
	// Popup says that the page has opened a window to be sent to a provider,
	// which can do nothing else.
	Popup bool
}

// proves tells whether the page that has started an attempt is proof enough of
// who is at the browser: one of a listed app origin, which has the session's
// token. The provider sends that same browser back, or nothing comes of it.
func (t *Trust) proves(o Opener, s *Session) bool {
	return t.Accepts(ByOpener) && slices.Contains(t.AppOrigins, o.Origin) && t.ReturnURL(s) == ""
}

// Start is Submit for a page of the app's. How the attempt ends is kept for its
// waiter, also if it ends here.
func (c *Connector) Start(ctx context.Context, token, integration string, answers map[string]string, by Opener) (Step, error) {
	v, err := c.Visit(ctx, token)
	if err != nil {
		return Step{}, err
	}
	step, err := c.start(ctx, v, integration, answers, by)
	if err != nil && by.Waiter != "" {
		c.endAtOnce(ctx, v, integration, by, err)
	}
	return step, err
}

func (c *Connector) start(ctx context.Context, v *Visit, integration string, answers map[string]string, by Opener) (Step, error) {
	in, err := v.Integration(integration)
	if err != nil {
		return Step{}, err
	}
	if _, ok := in.Scheme.(scheme.Redirector); by.Popup && !ok {
		return Step{}, ErrNotAllowed
	}
	if !in.Trust.proves(by, &v.Session) {
		by.Origin = ""
	}
	ctx = c.begin(ctx, &v.Session, in)
	step, err := c.submit(ctx, v, in, answers, by)
	if err != nil || step.Connection.UID != "" {
		c.ended(ctx, step.Connection, err)
	}
	return step, err
}

// endAtOnce keeps the end of an attempt that did not get as far as a flow.
func (c *Connector) endAtOnce(ctx context.Context, v *Visit, integration string, by Opener, cause error) {
	f := Flow{
		ID: randomHex(16), State: DigestOf(randomHex(32)), Browser: DigestOf(randomHex(32)), Session: v.Token,
		Integration: integration, Waiter: DigestOf(by.Waiter), Expires: time.Now().Add(FlowTTL),
	}
	err := c.Store.PutFlow(ctx, f)
	if err == nil {
		err = c.Store.FinishFlow(ctx, f.ID, outcomeOf(Connection{}, cause))
	}
	if err != nil {
		c.Logger.Error("recording how an attempt ended", append(f.fields(), zap.Error(err))...)
	}
}
