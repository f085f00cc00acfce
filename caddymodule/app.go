package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/egress"
	"github.com/keycaddy/keycaddy/connect/identity"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/webhook"
)

func init() { caddy.RegisterModule(new(App)) }

// App is keycaddy's configuration: what the handlers on all sites share. Left
// empty it works: everything is kept in one folder under Caddy's data
// directory, secrets sealed with a key that is made on the first start.
type App struct {
	// The origin at which browsers reach the connect pages and providers send
	// them back, such as `https://connect.example.com`. It is never taken from
	// a request. Default: `http://localhost:8080`
	PublicURL string `json:"public_url,omitempty"`

	// Where everything but secrets is kept. Default: sqlite
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=keycaddy.stores inline_key=store"`

	// Where secrets rest. Default: sealed
	VaultRaw json.RawMessage `json:"vault,omitempty" caddy:"namespace=keycaddy.vaults inline_key=vault"`

	// What the connect pages call your app. Default: an app
	AppName string `json:"app_name,omitempty"`

	// How it is made sure that the person at the browser is the user that a
	// connect session was opened for, for integrations that don't say.
	Trust

	// Gives every integration a callback address of its own,
	// `<public_url>/oauth/callback/<integration>`, so that an answer which one
	// provider was tricked into can't be taken for another's. Each has to be
	// registered with its provider. Default: one address for all
	OwnCallbacks bool `json:"own_callbacks,omitempty"`

	// How the connect pages look.
	Look *Look `json:"look,omitempty"`

	// The origins whose pages may hold the connect pages in a frame. Default:
	// none
	Embedders []string `json:"embedders,omitempty"`

	// The API keys that apps may use, beside those that are made by command or
	// by API. If there is none here and none was made before, one is made on the
	// first start and printed once.
	APIKeys []APIKey `json:"api_keys,omitempty"`

	// Callers that prove themselves by other means than API keys, by what they
	// are called in logs.
	Callers map[string]*Caller `json:"callers,omitempty"`

	// The providers that users can connect, by the key that apps call them by.
	Integrations map[string]*Integration `json:"integrations,omitempty"`

	// A folder of YAML files, one for each API of your own. They lie over the
	// built-in ones: one of the same id takes its place.
	Catalog string `json:"catalog,omitempty"`

	// A providers.yaml as Nango has it. Entries whose ids are not known here are
	// added; `caddy keycaddy catalog nango` says what becomes of each.
	CatalogNango string `json:"catalog_nango,omitempty"`

	// The endpoints of your backend's that are told what happens to connections.
	Webhooks []*Webhook `json:"webhooks,omitempty"`

	// What webhooks are signed with, unless an endpoint has a secret of its own;
	// also those to connections' own endpoints. Best `whsec_` and 32 random bytes
	// in base64, or what your Nango signs with. Of several the first signs as Nango
	// does, and all as Standard Webhooks has it, so that it can be changed.
	WebhookSecrets []string `json:"webhook_secrets,omitempty"`

	// The member environment of webhooks. Default: prod
	Environment string `json:"environment,omitempty"`

	// What is kept of what keycaddy does, for `caddy keycaddy logs` and the API.
	Logs *Logs `json:"logs,omitempty"`

	// How many connections are held in memory, where calls find them without
	// asking store or vault. Each takes a little less than a kilobyte. Beyond, one
	// that was not called lately makes room, and is read again on its next call.
	// Default: 1000000
	InMemory int `json:"in_memory,omitempty"`

	// Which addresses keycaddy may connect to beyond the public internet.
	Egress Egress `json:"egress,omitzero"`

	store StoreOpener
	vault VaultOpener
	keys  []connect.APIKey

	tokens       []*identity.Tokens
	certificates []*identity.Certificates

	policy egress.Policy
	setup  *connect.Setup
	hooks  *webhook.Config
	calls  callLogs
	kept   time.Duration // of logs
	logger *zap.Logger

	registry registry
	guests   string // the configuration of store and vault, by which runtimes are kept apart
	shared   string // the key of the runtime in the pool; empty: not acquired
	run      *running
	ready    chan struct{}
	// stopping is closed by Stop; starting is the start, as long as it takes.
	stopping chan struct{}
	starting sync.WaitGroup
	demo     *demoHandler
}

// Egress opens addresses that keycaddy refuses to connect to by default:
// private networks, loopback, link-local, and all others that are special.
type Egress struct {
	// Address ranges (CIDR) or single addresses. Plain `http` works towards
	// these only.
	Allow []string `json:"allow,omitempty"`
}

// DefaultPublicURL is where the connect pages are if nothing else is said.
const DefaultPublicURL = "http://localhost:8080"

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "keycaddy", New: func() caddy.Module { return new(App) }}
}

// Provision reads the configuration. It touches neither store nor vault: a
// configuration may be provisioned only to be checked.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger, a.registry = ctx.Logger(), ctx.GetMetricsRegistry()
	a.ready, a.stopping = make(chan struct{}), make(chan struct{})
	if err := a.loadGuests(ctx); err != nil {
		return err
	}
	repl := caddy.NewReplacer()
	public, err := a.publicURL(repl)
	if err != nil {
		return err
	}
	if a.policy, err = a.egress(repl); err != nil {
		return err
	}
	if a.keys, err = provisionKeys(a.APIKeys, repl); err != nil {
		return err
	}
	cat, err := a.catalog(repl)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	var integrations []*connect.Integration
	for key, in := range a.Integrations {
		made, err := in.make(key, cat, a.Trust, repl)
		if err != nil {
			return fmt.Errorf("integration %s: %w", key, err)
		}
		made.OwnCallback = in.OwnCallback || a.OwnCallbacks
		integrations = append(integrations, made)
	}
	if a.setup, err = connect.NewSetup(cat, public, egress.NewClient(a.policy, tokenTimeout), integrations); err != nil {
		return err
	}
	if err := a.makeCallers(ctx, a.setup.Client, repl); err != nil {
		return err
	}
	a.setup.OwnCallbacks = a.OwnCallbacks
	if a.setup.InMemory = a.InMemory; a.InMemory < 0 {
		return fmt.Errorf("in_memory: %d is less than 0", a.InMemory)
	}
	if a.setup.Trust, err = a.Trust.over(Trust{}, repl); err != nil {
		return err
	}
	if a.hooks, err = a.makeWebhooks(repl); err != nil {
		return err
	}
	if a.kept, a.calls, err = a.Logs.make(); err != nil {
		return err
	}
	if a.setup.AppName, err = repl.ReplaceOrErr(a.AppName, true, true); err != nil {
		return fmt.Errorf("app_name: %w", err)
	}
	if a.setup.Look, err = a.Look.load(repl); err != nil {
		return err
	}
	for _, raw := range a.Embedders {
		origin, err := repl.ReplaceOrErr(raw, true, true)
		if err == nil {
			err = connect.CheckOrigin(origin)
		}
		if err != nil {
			return fmt.Errorf("embedder %q: %w", raw, err)
		}
		a.setup.Embedders = append(a.setup.Embedders, origin)
	}
	return nil
}

// tokenTimeout bounds one request to a provider's token endpoint.
const tokenTimeout = 30 * time.Second

func (a *App) loadGuests(ctx caddy.Context) error {
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"store":"sqlite"}`)
	}
	if a.VaultRaw == nil {
		a.VaultRaw = json.RawMessage(`{"vault":"sealed"}`)
	}
	// LoadModule clears what it has loaded.
	sum := sha256.Sum256(slices.Concat(a.StoreRaw, []byte{0}, a.VaultRaw))
	a.guests = hex.EncodeToString(sum[:])
	store, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return fmt.Errorf("loading store: %w", err)
	}
	vault, err := ctx.LoadModule(a, "VaultRaw")
	if err != nil {
		return fmt.Errorf("loading vault: %w", err)
	}
	var ok bool
	if a.store, ok = store.(StoreOpener); !ok {
		return fmt.Errorf("store module %T doesn't open stores", store)
	}
	if a.vault, ok = vault.(VaultOpener); !ok {
		return fmt.Errorf("vault module %T doesn't open vaults", vault)
	}
	return nil
}

func (a *App) publicURL(repl *caddy.Replacer) (*url.URL, error) {
	raw := a.PublicURL
	if raw == "" {
		raw = DefaultPublicURL
	}
	raw, err := repl.ReplaceOrErr(raw, true, true)
	if err != nil {
		return nil, fmt.Errorf("public_url: %w", err)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("public_url: %q is not an origin such as https://connect.example.com", raw)
	}
	u.Path = ""
	return u, nil
}

func (a *App) egress(repl *caddy.Replacer) (egress.Policy, error) {
	var p egress.Policy
	for _, raw := range a.Egress.Allow {
		s, err := repl.ReplaceOrErr(raw, true, true)
		if err != nil {
			return p, fmt.Errorf("egress allow: %w", err)
		}
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return p, fmt.Errorf("egress allow: %q is neither an address nor a range such as 10.20.0.0/16", s)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		p.Allow = append(p.Allow, prefix.Masked())
	}
	return p, nil
}

func (a *App) catalog(repl *caddy.Replacer) (*catalog.Catalog, error) {
	folder, err := repl.ReplaceOrErr(a.Catalog, true, true)
	if err != nil {
		return nil, err
	}
	file, err := repl.ReplaceOrErr(a.CatalogNango, true, true)
	if err != nil {
		return nil, err
	}
	if file == "" {
		return openCatalog(folder)
	}
	imported, remarks, err := readNango(file)
	if err != nil {
		return nil, err
	}
	cat, err := openCatalog(folder, imported...)
	if err != nil {
		return nil, err
	}
	for _, r := range remarks {
		p, err := cat.Provider(r.ID)
		switch {
		case errors.Is(err, catalog.ErrUnknown):
			a.logger.Warn("an entry was not taken", zap.String("file", file), zap.Int("line", r.Line), zap.String("provider", r.ID), zap.String("reason", r.Reason))
		case err == nil && slices.Contains(imported, p):
			a.logger.Warn("an entry was taken in part", zap.String("file", file), zap.Int("line", r.Line), zap.String("provider", r.ID), zap.String("reason", r.Reason))
		}
	}
	return cat, nil
}

// openCatalog reads the built-in providers, those of a folder over them, and
// adds what was imported.
func openCatalog(folder string, imported ...*catalog.Provider) (*catalog.Catalog, error) {
	if folder == "" {
		return catalog.Load(nil, imported...)
	}
	if info, err := os.Stat(folder); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", folder)
	}
	return catalog.Load(os.DirFS(folder), imported...)
}

// Start opens store and vault, or takes over those that a former configuration
// has opened. If they are down it doesn't wait for long: the rest of the start
// follows when they are back.
func (a *App) Start() error {
	rt, err := a.acquire()
	if err != nil {
		return err
	}
	if err := rt.metrics.register(a.registry); err != nil {
		return err
	}
	started := make(chan error, 1)
	a.starting.Go(func() { started <- a.start(rt) })
	select {
	case err := <-started:
		return err
	case <-time.After(startWait):
		if err := rt.trouble.Load(); err != nil && rt.others() {
			close(a.stopping) // a reload that fails leaves the configuration before it at work
			a.starting.Wait()
			return *err
		}
		a.logger.Error("started, but store or vault is down: calls are answered with 503 until they are back")
		return nil
	}
}

// start waits for store and vault and takes up work.
func (a *App) start(rt *runtime) error {
	select {
	case <-rt.opened:
	case <-a.stopping:
		return nil
	}
	if rt.err != nil {
		return rt.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run, err := rt.activate(ctx, a)
	if err != nil {
		return err
	}
	a.run = run
	if err := a.greet(ctx); err != nil {
		rt.deactivate(run)
		return err
	}
	close(a.ready)
	a.logger.Info("keycaddy is ready", zap.String("public_url", a.setup.PublicURL.String()), zap.Int("integrations", len(a.Integrations)))
	return nil
}

// Stop takes this configuration back. Store and vault stay open: requests are
// still under way.
func (a *App) Stop() error {
	close(a.stopping)
	a.starting.Wait()
	if a.run != nil {
		a.run.runtime.deactivate(a.run)
	}
	return nil
}

// Cleanup lets go of store and vault; the last to do so closes them.
func (a *App) Cleanup() error {
	if a.shared == "" {
		return nil
	}
	_, err := runtimes.Delete(a.shared)
	a.shared = ""
	return err
}

// wait returns what handlers work with, as soon as the app has started: Caddy
// starts apps in no particular order, and a request may be faster. While store
// or vault is down, it is not for long that anyone is kept waiting.
func (a *App) wait(ctx context.Context) (*running, error) {
	if a.started() {
		return a.run, nil
	}
	select {
	case <-a.ready:
		return a.run, nil
	case <-time.After(startWait):
		return nil, errStarting
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *App) started() bool {
	select {
	case <-a.ready:
		return true
	default:
		return false
	}
}

// errStarting answers calls until store and vault are there.
var errStarting = &problem.Problem{
	Status: http.StatusServiceUnavailable, Code: problem.Unavailable, Message: "keycaddy has not reached yet what it stores things in.",
	Retryable: true, Action: "retry", RetryAfter: 5 * time.Second,
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
