package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/vault"
)

const (
	// DefaultOutageGrace is how long known connections go on working without
	// vault or store.
	DefaultOutageGrace = time.Hour
	// probeEvery is how often the vault is asked whether it answers, and
	// probeTimeout how long it may take.
	probeEvery, probeTimeout = 2 * time.Second, 3 * time.Second
)

// Outage is what can't be reached, since when, and why; zero times: it can.
type Outage struct {
	Vault, Store       time.Time
	VaultErr, StoreErr error
}

// OutageError says that a known connection isn't used any more because vault
// or store have been out of reach for longer than its integration allows.
type OutageError struct {
	ID    ID
	Cause error
}

func (e *OutageError) Error() string {
	return fmt.Sprintf("connection %s is not used any longer while it can't be checked: %v", e.ID, e.Cause)
}

func (e *OutageError) Unwrap() error { return e.Cause }

// bars tells whether a connection must not be used any longer.
func (o *Outage) bars(b *Bound) error {
	now := time.Now()
	if !o.Vault.IsZero() && now.Sub(o.Vault) > b.grace {
		return &OutageError{b.ID, fmt.Errorf("%w: %w", vault.ErrUnavailable, o.VaultErr)}
	}
	if !o.Store.IsZero() && now.Sub(o.Store) > b.grace {
		return &OutageError{b.ID, fmt.Errorf("%w: %w", ErrStoreUnavailable, o.StoreErr)}
	}
	return nil
}

func (in *Integration) outageGrace() time.Duration {
	if in.OutageGrace == 0 {
		return DefaultOutageGrace
	}
	return in.OutageGrace
}

// Outage tells what can't be reached.
func (r *Refresher) Outage() Outage {
	if o := r.outage.Load(); o != nil {
		return *o
	}
	return Outage{}
}

// report notes whether something answered, by changing its part of the outage.
// Several may do so at once.
func (r *Refresher) report(change func(*Outage)) {
	for {
		old := r.outage.Load()
		var o Outage
		if old != nil {
			o = *old
		}
		change(&o)
		next := &o
		if o.Vault.IsZero() && o.Store.IsZero() {
			next = nil
		}
		if r.outage.CompareAndSwap(old, next) {
			return
		}
	}
}

func (r *Refresher) vaultAnswered(err error) {
	r.answered("vault", err, func(o *Outage) (*time.Time, *error) { return &o.Vault, &o.VaultErr })
}

func (r *Refresher) storeAnswered(err error) {
	r.answered("store", err, func(o *Outage) (*time.Time, *error) { return &o.Store, &o.StoreErr })
}

// answered notes whether a part has answered, and logs when that changes.
func (r *Refresher) answered(name string, err error, part func(*Outage) (since *time.Time, cause *error)) {
	o := r.Outage()
	since, _ := part(&o)
	down := !since.IsZero()
	if down == (err != nil) {
		return
	}
	now := time.Time{}
	if down {
		r.Logger.Info("the "+name+" answers again", zap.Duration("after", time.Since(*since)))
	} else {
		now = time.Now()
		r.Logger.Error("the "+name+" can't be reached; known connections go on working from memory", zap.Error(err))
	}
	r.report(func(o *Outage) {
		since, cause := part(o)
		*since, *cause = now, err
	})
}

// probe asks the vault now and then, so that an outage is known before
// somebody needs it.
func (r *Refresher) probe(ctx context.Context) {
	every(ctx, probeEvery, func() {
		err := r.Available(ctx)
		if ctx.Err() == nil {
			r.vaultAnswered(err)
		}
	})
}

// Available asks the vault whether it would answer. It is asked before an end
// user is sent to a provider: a consent that can't be kept is a consent wasted
// (S112).
func (r *Refresher) Available(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if _, err := r.Vault.Read(ctx, handoverName); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	return nil
}

// every calls do now and again until the context ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		do()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
