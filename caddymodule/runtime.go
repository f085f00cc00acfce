package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/vault"
)

// runtimes holds what outlives a reload: store, vault, and the credentials in
// memory, by the configuration of store and vault.
var runtimes = caddy.NewUsagePool()

// drainTimeout is how long closing waits for renewals that are under way. It is
// longer than a renewal takes at the most.
const drainTimeout = 70 * time.Second

// sweepEvery is how often what has expired is removed from the store.
const sweepEvery = 10 * time.Minute

type runtime struct {
	store     connect.Store
	vault     vault.Vault
	refresher *connect.Refresher
	logger    *zap.Logger
	demoKey   string
	greeted   atomic.Bool
	stop      context.CancelFunc

	mu     sync.Mutex
	active []*running // the newest is the last
}

// running is a configuration at work.
type running struct {
	runtime   *runtime
	setup     *connect.Setup
	connector *connect.Connector
	refresher *connect.Refresher
	keys      *connect.Keyring
	firstKey  string // made by this start
}

// acquire opens the runtime, or joins the one that is open.
func (a *App) acquire(ctx context.Context) (*runtime, error) {
	value, _, err := runtimes.LoadOrNew(a.guests, func() (caddy.Destructor, error) { return a.open(ctx) })
	if err != nil {
		return nil, err
	}
	a.shared = a.guests // only now is there something to let go of
	return value.(*runtime), nil
}

func (a *App) open(ctx context.Context) (*runtime, error) {
	store, err := a.store.OpenStore(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	secrets, err := a.vault.OpenVault(ctx, store)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening vault: %w", err), store.Close())
	}
	background, stop := context.WithCancel(context.Background())
	rt := &runtime{
		store: store, vault: secrets, logger: a.logger, demoKey: uuid.NewString(), stop: stop,
		refresher: &connect.Refresher{Store: store, Vault: secrets, Logger: a.logger.Named("refresh")},
	}
	if v, ok := secrets.(interface{ ReadOnly() bool }); ok {
		rt.refresher.ReadOnly = v.ReadOnly()
	}
	go rt.sweep(background)
	go rt.refresher.Watch(background)
	return rt, nil
}

func (rt *runtime) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := rt.store.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
				rt.logger.Warn("removing what has expired", zap.Error(err))
			}
		case <-ctx.Done():
			return
		}
	}
}

// activate makes a configuration the one that credentials are bound by.
func (rt *runtime) activate(ctx context.Context, a *App) (*running, error) {
	run := &running{runtime: rt, setup: a.setup, refresher: rt.refresher}
	run.connector = &connect.Connector{
		Setup: a.setup, Refresher: rt.refresher, Store: rt.store, Vault: rt.vault, Logger: a.logger.Named("connect"),
	}
	stored, err := rt.store.APIKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading API keys: %w", err)
	}
	if len(stored) == 0 && len(a.keys) == 0 {
		run.firstKey = uuid.NewString()
		first := connect.APIKey{Name: "first", Key: connect.DigestOf(run.firstKey), Created: time.Now()}
		if err := rt.store.PutAPIKey(ctx, first); err != nil {
			return nil, fmt.Errorf("storing the first API key: %w", err)
		}
		stored = append(stored, first)
	}
	keys := slices.Concat(stored, a.keys)
	if a.demo != nil {
		keys = append(keys, connect.APIKey{Name: "demo", Key: connect.DigestOf(rt.demoKey), Integrations: a.demoIntegrations()})
	}
	run.keys = connect.NewKeyring(keys)

	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.active = append(rt.active, run)
	rt.refresher.Configure(a.setup)
	return run, nil
}

// deactivate takes a configuration back. If it was the newest (a reload that
// failed half way), the one before it holds again.
func (rt *runtime) deactivate(run *running) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	newest := len(rt.active) > 0 && rt.active[len(rt.active)-1] == run
	rt.active = slices.DeleteFunc(rt.active, func(r *running) bool { return r == run })
	if newest && len(rt.active) > 0 {
		rt.refresher.Configure(rt.active[len(rt.active)-1].setup)
	}
}

// Destruct closes store and vault when no configuration uses them any more,
// after renewals under way have come to their end.
func (rt *runtime) Destruct() error {
	rt.stop()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := rt.refresher.Drain(ctx); err != nil {
		rt.logger.Error("closing while credentials are being renewed", zap.Error(err))
	}
	err := rt.store.Close()
	if v, ok := rt.vault.(io.Closer); ok {
		err = errors.Join(err, v.Close())
	}
	return err
}
