package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/identity"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/spool"
	"github.com/keycaddy/keycaddy/connect/webhook"
	"github.com/keycaddy/keycaddy/vault"
)

// runtimes holds what outlives a reload: store, vault, and the credentials in
// memory, by the configuration of store and vault.
var runtimes = caddy.NewUsagePool()

// drainTimeout is how long closing waits for renewals that are under way, and
// for what they brought to be in the vault or in the spool (S121). It is longer
// than a token call and the writes after it take at the most.
const drainTimeout = 70 * time.Second

// sweepEvery is how often what has expired is removed from the store.
const sweepEvery = 10 * time.Minute

// startWait is how long the start of a configuration waits for store and vault.
// If they are down for longer, it starts without: calls are answered that they
// have to come again, and all else follows when store and vault are back (S117).
const startWait = 10 * time.Second

type runtime struct {
	logger  *zap.Logger
	metrics *metrics
	demoKey string
	greeted atomic.Bool
	stop    context.CancelFunc
	working sync.WaitGroup

	// opened is closed when store and vault are there, or failed for good.
	opened    chan struct{}
	err       error
	trouble   atomic.Pointer[error] // of the last attempt
	store     connect.Store
	vault     vault.Vault
	spool     *spool.Spool
	refresher *connect.Refresher
	sender    *webhook.Sender
	journal   *connect.Journal

	// The journal ends last: what others do at their end is in it.
	journaling sync.WaitGroup
	endJournal context.CancelFunc
	keys       *connect.StoredKeys

	mu     sync.Mutex
	active []*running // the newest is the last
}

// running is a configuration at work.
type running struct {
	runtime   *runtime
	setup     *connect.Setup
	hooks     *webhook.Config
	calls     callLogs
	kept      time.Duration
	connector *connect.Connector
	refresher *connect.Refresher
	keys      *connect.Keyring
	callers   *identity.Callers
	firstKey  string // made by this start
}

// acquire opens the runtime, or joins the one that is open.
func (a *App) acquire() (*runtime, error) {
	value, _, err := runtimes.LoadOrNew(a.guests, func() (caddy.Destructor, error) {
		background, stop := context.WithCancel(context.Background())
		rt := &runtime{logger: a.logger, metrics: newMetrics(), demoKey: uuid.NewString(), stop: stop, opened: make(chan struct{})}
		rt.working.Go(func() { rt.work(background, a) })
		return rt, nil
	})
	if err != nil {
		return nil, err
	}
	a.shared = a.guests // only now is there something to let go of
	return value.(*runtime), nil
}

// work opens store and vault and does what has to be done with them beside
// calls, until the context ends.
func (rt *runtime) work(ctx context.Context, a *App) {
	rt.err = rt.open(ctx, a)
	close(rt.opened)
	if rt.err != nil {
		return
	}
	rt.working.Go(func() { rt.sweep(ctx) })
	rt.working.Go(func() { rt.sender.Run(ctx) })
	rt.working.Go(func() { rt.metrics.ping(ctx, rt.store) })
	var journaling context.Context
	journaling, rt.endJournal = context.WithCancel(context.WithoutCancel(ctx))
	rt.journaling.Go(func() { rt.journal.Run(journaling) })
	rt.working.Go(func() { rt.keys.Run(ctx) })
	rt.refresher.Run(ctx)
}

// others tells whether there is another runtime at work.
func (rt *runtime) others() (found bool) {
	runtimes.Range(func(_, value any) bool {
		other := value.(*runtime)
		if other != rt {
			other.mu.Lock()
			found = found || len(other.active) > 0
			other.mu.Unlock()
		}
		return true
	})
	return found
}

// errLater marks what can't be opened just now and may be later.
var errLater = errors.New("not available yet")

// open opens store and vault. As long as they are down it tries again.
func (rt *runtime) open(ctx context.Context, a *App) error {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := rt.tryOpen(ctx, a)
		if err == nil || !errors.Is(err, errLater) {
			return err
		}
		rt.trouble.Store(&err)
		rt.logger.Error("can't open what keycaddy stores things in; trying again", zap.Duration("in", wait), zap.Error(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

func (rt *runtime) tryOpen(ctx context.Context, a *App) error {
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	store, err := a.store.OpenStore(bounded)
	if err != nil {
		return fmt.Errorf("opening store: %w", err)
	}
	secrets, err := a.vault.OpenVault(bounded, store)
	if err != nil {
		return errors.Join(fmt.Errorf("opening vault: %w", err), store.Close())
	}
	rt.store, rt.vault = store, timed{secrets, rt.metrics.vaultTook}
	rt.refresher = &connect.Refresher{Store: store, Vault: rt.vault, Logger: rt.logger.Named("refresh"), Observe: rt.metrics.refreshed}
	rt.metrics.refresher.Store(rt.refresher)
	rt.journal = connect.NewJournal(store, rt.logger.Named("journal"), rt.metrics.dropped)
	rt.metrics.journal.Store(rt.journal)
	rt.refresher.Journal = rt.journal
	rt.sender = &webhook.Sender{Outbox: store, Logger: rt.logger.Named("webhook"), Observe: rt.metrics.delivery, Counted: rt.metrics.waiting}
	if v, ok := secrets.(interface{ ReadOnly() bool }); ok {
		rt.refresher.ReadOnly = v.ReadOnly()
	}
	if !rt.refresher.ReadOnly {
		if rt.spool, err = spool.Open(filepath.Join(caddy.AppDataDir(), "keycaddy", "spool")); err != nil {
			return errors.Join(err, rt.close())
		}
		rt.refresher.Spool = rt.spool
	}
	rt.keys = &connect.StoredKeys{Store: store, Logger: rt.logger.Named("keys"), Ended: rt.refresher.EndCaller}
	prepare(rt.refresher)
	return nil
}

// prepare is called with every new refresher; the fault harness has its hooks
// there.
var prepare = func(*connect.Refresher) {}

func (rt *runtime) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := rt.store.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
				rt.logger.Warn("removing what has expired", zap.Error(err))
			}
			if err := rt.journal.Sweep(ctx); err != nil && ctx.Err() == nil {
				rt.logger.Warn("removing old logs", zap.Error(err))
			}
		case <-ctx.Done():
			return
		}
	}
}

// activate makes a configuration the one that credentials are bound by.
func (rt *runtime) activate(ctx context.Context, a *App) (*running, error) {
	run := &running{runtime: rt, setup: a.setup, hooks: a.hooks, calls: a.calls, kept: a.kept, refresher: rt.refresher}
	run.connector = &connect.Connector{
		Setup: a.setup, Refresher: rt.refresher, Store: rt.store, Vault: rt.vault, Logger: a.logger.Named("connect"), Journal: rt.journal,
	}
	if err := rt.keys.Load(ctx); err != nil {
		return nil, err
	}
	if len(a.keys) == 0 && rt.keys.Empty() {
		secret := uuid.NewString()
		first := connect.APIKey{Name: "first", Key: connect.DigestOf(secret), Scopes: policy.DefaultScopes}
		switch err := run.apiKeys().Make(ctx, first, "start"); {
		case err == nil:
			run.firstKey = secret
		case !errors.Is(err, connect.ErrExists): // another node has made one just now
			return nil, fmt.Errorf("storing the first API key: %w", err)
		}
	}
	keys := a.keys
	if a.demo != nil {
		if only := a.demoIntegrations(); len(only) > 0 {
			keys = append(slices.Clone(keys), connect.APIKey{
				Name: "demo", Key: connect.DigestOf(rt.demoKey), Scopes: policy.DefaultScopes, Limits: policy.Limits{Integrations: only},
			})
		}
	}
	run.keys = connect.NewKeyring(keys, rt.keys)
	run.callers = &identity.Callers{Keys: run.keys, Tokens: a.tokens, Certificates: a.certificates}

	if err := rt.refresher.LoadIntegrations(ctx); err != nil {
		return nil, fmt.Errorf("reading integrations: %w", err)
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.active = append(rt.active, run)
	rt.configure(run)
	return run, nil
}

// apiKeys are the stored keys, to be looked after.
func (r *running) apiKeys() *connect.Keys {
	return &connect.Keys{Store: r.runtime.store, Stored: r.runtime.keys, Logger: r.connector.Logger.Named("keys")}
}

// deactivate takes a configuration back. If it was the newest (a reload that
// failed half way), the one before it holds again.
func (rt *runtime) deactivate(run *running) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	newest := len(rt.active) > 0 && rt.active[len(rt.active)-1] == run
	rt.active = slices.DeleteFunc(rt.active, func(r *running) bool { return r == run })
	rt.refresher.Retire(run.setup)
	if newest && len(rt.active) > 0 {
		rt.configure(rt.active[len(rt.active)-1])
	}
}

func (rt *runtime) configure(run *running) {
	rt.refresher.Configure(run.setup)
	rt.sender.Configure(run.hooks)
	rt.journal.Keep(run.kept)
}

// Destruct closes store and vault when no configuration uses them any more,
// after renewals under way have come to their end.
func (rt *runtime) Destruct() error {
	rt.stop()
	rt.working.Wait()
	if rt.err != nil {
		return nil // there is nothing to close
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := rt.refresher.Drain(ctx); err != nil {
		rt.logger.Error("closing while credentials are being renewed", zap.Error(err))
	}
	rt.endJournal()
	rt.journaling.Wait()
	return rt.close()
}

func (rt *runtime) close() error {
	err := rt.store.Close()
	if v, ok := rt.vault.(io.Closer); ok {
		err = errors.Join(err, v.Close())
	}
	if rt.spool != nil {
		err = errors.Join(err, rt.spool.Close())
	}
	return err
}
