//go:build unix

package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/postgres"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/hashicorp"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

// Options say what is run.
type Options struct {
	// Program is the Caddy that nodes are started as.
	Program string
	Nodes   int
	// Runs is how often each fault strikes at each step, Rotations how many
	// renewals there are in bulk besides.
	Runs, Rotations int
	// Seed decides the order of things, and whom chance strikes.
	Seed uint64
	// Store is postgres or sqlite, Vault hashicorp or sealed.
	Store, Vault string
	// VaultProgram is Vault's command, PostgresPrograms the folder of initdb and
	// postgres; empty: those that are found.
	VaultProgram, PostgresPrograms string
	// Only are patterns such as "spooled/*" of the rows to run; none: all.
	Only []string
	// Progress is told how far it is.
	Progress io.Writer

	options string // more of the integration's
}

const (
	integration = "torture"
	apiKey      = "6f0e1c52-8d0b-4c1e-9a53-2f1f3f0f7a10" // of a node that lives for minutes, on loopback
)

// world is all that takes part.
type world struct {
	Options
	folder   string
	provider *demo.Provider
	server   *http.Server
	address  string // of the provider
	cluster  *cluster
	hc       *vaultServer
	store    connect.Store
	vault    vault.Vault
	nodes    []*node
	board    *board
	made     atomic.Int64 // connections
}

// build starts everything in a folder. What was started is in the world also if
// there is an error.
func build(ctx context.Context, o Options, folder string) (*world, error) {
	w := &world{Options: o, folder: folder, board: newBoard()}
	log, err := os.Create(filepath.Join(folder, "servers.log"))
	if err != nil {
		return w, err
	}
	if err := w.startProvider(); err != nil {
		return w, err
	}
	if o.Store == "postgres" {
		if w.cluster, err = newCluster(o.PostgresPrograms, filepath.Join(folder, "postgres"), log); err != nil {
			return w, err
		}
	}
	if o.Vault == "hashicorp" {
		if w.hc, err = newVault(o.VaultProgram, filepath.Join(folder, "vault"), log); err != nil {
			return w, err
		}
	}
	if err := w.open(ctx); err != nil {
		return w, err
	}
	for i := range o.Nodes {
		n, err := w.newNode(i)
		if err != nil {
			return w, err
		}
		w.nodes = append(w.nodes, n)
	}
	return w, nil
}

func (w *world) startProvider() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.address = "http://" + listener.Addr().String()
	w.provider = demo.New(demo.Options{BaseURL: w.address, AccessTTL: time.Hour})
	w.server = &http.Server{Handler: w.provider, ErrorLog: quiet}
	go w.server.Serve(listener)
	return nil
}

// open opens store and vault for the harness itself.
func (w *world) open(ctx context.Context) (err error) {
	var blobs sealed.Blobs
	if w.cluster != nil {
		s, err := postgres.Open(ctx, w.cluster.dsn(), postgres.Options{})
		if err != nil {
			return err
		}
		w.store, blobs = s, s
	} else {
		s, err := sqlite.Open(w.sqlite())
		if err != nil {
			return err
		}
		w.store, blobs = s, s
	}
	if err := w.store.Migrate(ctx); err != nil {
		return err
	}
	if w.hc != nil {
		w.vault, err = hashicorp.New(hashicorp.Config{Address: "http://" + w.hc.address, Login: hashicorp.Token{Value: hashicorp.Secret(w.hc.root)}})
		return err
	}
	keys, err := sealed.OpenKeys(w.keyFile(), true)
	if err != nil {
		return err
	}
	w.vault = sealed.New(blobs, keys)
	return nil
}

func (w *world) sqlite() string  { return filepath.Join(w.folder, "keycaddy.db") }
func (w *world) keyFile() string { return filepath.Join(w.folder, "vault.key") }

func (w *world) newNode(i int) (*node, error) {
	port, err := unusedPort()
	if err != nil {
		return nil, err
	}
	n := &node{
		program: w.Program, folder: filepath.Join(w.folder, fmt.Sprint("node", i+1)), board: w.board,
		url: fmt.Sprintf("http://127.0.0.1:%d", port), key: apiKey,
	}
	if err := os.Mkdir(n.folder, 0o700); err != nil {
		return nil, err
	}
	store, secrets := "sqlite "+w.sqlite(), "sealed "+w.keyFile()
	if w.cluster != nil {
		store = fmt.Sprintf("postgres %q", w.cluster.dsn())
	}
	if w.hc != nil {
		secrets = fmt.Sprintf("hashicorp %s {\n\t\t\tauth token %s\n\t\t}", w.hc.url, w.hc.token)
	}
	config := fmt.Sprintf(`{
	admin off
	persist_config off
	keycaddy {
		public_url %s
		store %s
		vault %s
		api_key %s
		egress {
			allow 127.0.0.1
		}
		integration %s {
			provider keycaddy-demo
			client_id %s
			client_secret %s
			field base_url %s
			%s
		}
	}
}
%[1]s {
	bind 127.0.0.1
	keycaddy
}
`, n.url, store, secrets, apiKey, integration, demo.DefaultClientID, demo.DefaultClientSecret, w.address, w.options)
	return n, os.WriteFile(filepath.Join(n.folder, "Caddyfile"), []byte(config), 0o600)
}

// lives makes all nodes live by leases of a length, anew if they live already.
func (w *world) lives(lease time.Duration) error {
	for _, n := range w.nodes {
		n.stop()
		n.lease = lease
		if err := n.start(); err != nil {
			return err
		}
	}
	for _, n := range w.nodes {
		if err := n.ready(); err != nil {
			return err
		}
	}
	return nil
}

// account is a connection at the provider that the harness has made, in store
// and vault as if its user had connected it.
type account struct {
	connect.Connection
	family *demo.Family
}

// connect makes an account. Its provider forgives the use of a spent refresh
// token for grace.
func (w *world) connect(ctx context.Context, grace time.Duration) (*account, error) {
	family, tokens, err := w.provider.Mint(demo.DefaultClientID, "ada", "read", grace)
	if err != nil {
		return nil, err
	}
	number := w.made.Add(1)
	now := time.Now()
	cred := scheme.Credential{
		Version: 1, Consent: fmt.Sprint("consent-", number), Issued: now, Expires: now.Add(time.Hour),
		AccessToken: scheme.Secret(tokens.Access), RefreshToken: scheme.Secret(tokens.Refresh),
	}
	c := connect.Connection{
		ID:  connect.ID{Integration: integration, Connection: fmt.Sprintf("c%05d", number)},
		UID: fmt.Sprintf("%016x%016x", rand.Uint64(), number), Provider: "keycaddy-demo", Status: connect.StatusActive, Version: 1, Expires: cred.Expires,
	}
	value, err := cred.Encode()
	if err != nil {
		return nil, err
	}
	if _, err := w.vault.Write(ctx, c.VaultName(), value, 0); err != nil {
		return nil, fmt.Errorf("making a connection: %w", err)
	}
	if c, err = w.store.Create(ctx, c); err != nil {
		return nil, fmt.Errorf("making a connection: %w", err)
	}
	return &account{c, family}, nil
}

// held is the version of the account's credential in the vault.
func (w *world) held(ctx context.Context, a *account) (uint64, error) {
	e, err := w.vault.Read(ctx, a.VaultName())
	if err != nil {
		return 0, err
	}
	cred, err := scheme.DecodeCredential(e.Value)
	return cred.Version, err
}

// tidy tells what is left of a renewal that has come to its end.
func (w *world) tidy(ctx context.Context, a *account) error {
	intents, err := w.store.Intents(ctx, 10_000)
	if err != nil {
		return err
	}
	for _, l := range intents {
		if l.Intent.ID == a.ID {
			return errors.New("its intent is left in the store")
		}
	}
	for _, n := range w.nodes {
		found, err := filepath.Glob(filepath.Join(n.folder, "data", "caddy", "keycaddy", "spool", "*", spoolFile(a.UID)))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return errors.New("its credential is left in a spool")
		}
	}
	return nil
}

// close ends all that was started.
func (w *world) close() error {
	for _, n := range w.nodes {
		n.stop()
	}
	var errs []error
	if w.store != nil {
		errs = append(errs, w.store.Close())
	}
	if c, ok := w.vault.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	if w.hc != nil {
		w.hc.close()
	}
	if w.cluster != nil && w.cluster.process != nil {
		w.cluster.crash()
	}
	if w.server != nil {
		errs = append(errs, w.server.Close())
	}
	return errors.Join(errs...)
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(w.Progress, strings.TrimRight(format, "\n")+"\n", args...)
}
