package webhook

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

const (
	// lookEvery is how often the outbox is looked into.
	lookEvery = 500 * time.Millisecond
	// routeBatch is how many events are routed in one transaction.
	routeBatch = 100
	// slots is how many endpoints one node delivers to at once, and batch how
	// many deliveries to one endpoint are under way at once.
	slots, batch = 16, 8
	// holdFactor, times the timeout of a request, is how long an endpoint is held:
	// so long does it wait if its holder dies.
	holdFactor = 2
	// depthEvery is how often it is counted what waits.
	depthEvery = 15 * time.Second
)

// DefaultTimeout is how long an endpoint may take for its answer.
const DefaultTimeout = 20 * time.Second

// Sender delivers what is in an outbox. Run has to run for that.
type Sender struct {
	Outbox connect.Outbox
	Logger *zap.Logger
	// Timeout bounds one request with its answer; 0: DefaultTimeout.
	Timeout time.Duration
	// Observe, if not nil, is called with the result of every attempt: delivered,
	// failed, given_up.
	Observe func(result string)
	// Counted, if not nil, is called now and then with how many events wait to be
	// routed or delivered, by all nodes.
	Counted func(waiting int)

	config atomic.Pointer[Config]
	every  time.Duration // in the place of lookEvery, for tests of days
}

// Configure makes the sender work by another configuration.
func (s *Sender) Configure(c *Config) { s.config.Store(c) }

// Run delivers until the context ends. What is under way then is delivered again
// by whoever looks next.
func (s *Sender) Run(ctx context.Context) {
	var working sync.WaitGroup
	defer working.Wait()
	free := make(chan struct{}, slots)
	var counted time.Time
	for tick := time.NewTicker(cmp.Or(s.every, lookEvery)); ; {
		if c := s.config.Load(); c != nil {
			s.look(ctx, c, free, &working)
		}
		if s.Counted != nil && time.Since(counted) > depthEvery {
			counted = time.Now()
			if n, err := s.Outbox.OutboxDepth(ctx); err == nil {
				s.Counted(n)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

// look routes new events, and takes on endpoints as far as there are slots. An
// outage of the store is reported elsewhere, and over when it is over.
func (s *Sender) look(ctx context.Context, c *Config, slot chan struct{}, working *sync.WaitGroup) {
	for {
		n, err := s.Outbox.Route(ctx, routeBatch, c.route)
		if err != nil {
			s.failed(ctx, "routing events", err)
			return
		}
		if n < routeBatch {
			break
		}
	}
	unused := cap(slot) - len(slot)
	if unused == 0 {
		return
	}
	hold := holdFactor * s.timeout()
	until := time.Now().Add(hold)
	claimed, err := s.Outbox.ClaimEndpoints(ctx, c.names(), unused, hold)
	if err != nil {
		s.failed(ctx, "looking for deliveries", err)
		return
	}
	for _, e := range claimed {
		slot <- struct{}{}
		working.Go(func() {
			defer func() { <-slot }()
			s.serve(ctx, c, e, until)
		})
	}
}

func (s *Sender) failed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		s.Logger.Warn(what, zap.Error(err))
	}
}

func (s *Sender) timeout() time.Duration { return cmp.Or(s.Timeout, DefaultTimeout) }

// serve delivers to an endpoint while there is something due, it answers, and it
// is held.
func (s *Sender) serve(ctx context.Context, c *Config, e connect.Endpoint, until time.Time) {
	defer func() {
		if err := s.Outbox.ReleaseEndpoint(context.WithoutCancel(ctx), e); err != nil {
			s.failed(ctx, "giving an endpoint back", err)
		}
	}()
	for ctx.Err() == nil && time.Until(until) > s.timeout()+s.timeout()/4 {
		n := batch
		if e.Failures > 0 { // one that may be down isn't sent a crowd
			n = 1
		}
		due, err := s.Outbox.DueDeliveries(ctx, e.Name, n)
		if err != nil {
			s.failed(ctx, "reading deliveries", err)
			return
		}
		if len(due) == 0 {
			return
		}
		outcomes := make([]outcome, len(due))
		var all sync.WaitGroup
		for i := range due {
			all.Go(func() { outcomes[i] = s.attempt(ctx, c, &e, &due[i]) })
		}
		all.Wait()
		if ctx.Err() != nil {
			return
		}
		for i := range due {
			if !s.note(ctx, &e, &due[i], outcomes[i]) {
				return
			}
		}
		if time.Until(e.PausedUntil) > 0 {
			return
		}
	}
}

// note records an attempt: in the store, and in how the endpoint fares. It
// tells whether to go on.
func (s *Sender) note(ctx context.Context, e *connect.Endpoint, d *connect.Delivery, o outcome) bool {
	now := time.Now()
	d.Attempts++
	d.Tried, d.Status, d.Error = now, o.status, o.err
	fields := []zap.Field{zap.String("event_id", d.Event.ID), zap.String("event", string(d.Event.Kind)), zap.String("endpoint", e.Name), zap.Int("attempt", d.Attempts)}
	result := "failed"
	switch {
	case o.ok():
		result, d.State = "delivered", connect.DeliveryDelivered
		e.Failures, e.PausedUntil = 0, time.Time{}
	default:
		e.Failures++
		wait := max(backoff(d.Attempts), o.retryAfter)
		d.Next = now.Add(wait)
		if d.Next.Sub(d.Since) > connect.RetryFor {
			result, d.State = "given_up", connect.DeliveryGivenUp
		}
		if pause := max(pauseAfter(e.Failures), o.retryAfter); pause > 0 {
			e.PausedUntil = now.Add(pause)
		}
	}
	if s.Observe != nil {
		s.Observe(result)
	}
	switch fields = append(fields, zap.Int("status", o.status)); result {
	case "delivered":
		s.Logger.Debug("webhook delivered", fields...)
	case "given_up":
		s.Logger.Error("webhook given up; it can be delivered again by hand", append(fields, zap.String("error", o.err))...)
	default:
		s.Logger.Warn("webhook not taken; it is tried again", append(fields, zap.String("error", o.err), zap.Time("next", d.Next))...)
	}
	if err := s.Outbox.NoteAttempt(context.WithoutCancel(ctx), *d); err != nil {
		s.failed(ctx, "recording a delivery", err)
		return false
	}
	return true
}
