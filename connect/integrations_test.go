package connect_test

import (
	"database/sql"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// withCatalog gives a node a catalog with the providers of the tests.
func (w *world) withCatalog(n *node) *node {
	w.t.Helper()
	files := fstest.MapFS{}
	for id, body := range entries {
		files[id+".yaml"] = &fstest.MapFile{Data: []byte("id: " + id + "\ndisplay_name: Name of " + id + "\nvendor: vendor\nvendor_domain: vendor.example\ncategories: [test]\n" + strings.ReplaceAll(body, "BASE", w.base))}
	}
	cat, err := catalog.Load(files)
	must(w.t, err)
	n.Setup.Catalog = cat
	return n
}

func demoDraft(key string) connect.Draft {
	return connect.Draft{Key: key, Provider: "demo", Client: connect.Client{
		ID: demo.DefaultClientID, Secret: demo.DefaultClientSecret, WebhookSecret: "canary-webhook", Scopes: []string{"read"},
	}}
}

// An integration that is made through one process can be connected and called
// through another within a second, also through one that starts later, and its
// secrets are in the vault alone.
func TestIntegrationsThatAreMadeAreKnownToEveryProcess(t *testing.T) {
	w := newServer(t, demo.Options{})
	w.withCatalog(w.node)
	other := w.withCatalog(w.newNode())
	t.Cleanup(w.run(other))
	made, err := w.CreateIntegration(t.Context(), demoDraft("mine"))
	must(t, err)
	if made.Fixed() || made.DisplayName != "Name of demo" || made.App.Scopes[0] != "read" {
		t.Errorf("got %+v", made.App)
	}
	conn := w.authorize(connect.Session{Allowed: []string{"mine"}, Connection: "c"}, nil)
	within(t, "the other process can use it", func() bool {
		_, err := other.Refresher.Current(t.Context(), conn.ID)
		return err == nil
	})
	late := w.withCatalog(w.newNode())
	must(t, late.Refresher.LoadIntegrations(t.Context()))
	if in, err := late.Setup.Integration("mine"); err != nil || in.App.ClientSecret.Reveal() != demo.DefaultClientSecret {
		t.Errorf("a process that starts later: %v, %v", in, err)
	}
	// A reload makes another setup: it has them at once.
	reloaded := w.withCatalog(&node{Connector: &connect.Connector{Setup: w.setup()}}).Setup
	late.Refresher.Configure(reloaded)
	if _, err := reloaded.Integration("mine"); err != nil {
		t.Errorf("after a reload: %v", err)
	}

	// Its client is changed: what is connected goes on, renewed as the new one.
	var seen []string
	w.front = nil
	_, err = w.EditIntegration(t.Context(), "mine", connect.Edit{Client: func(c *connect.Client) error {
		seen = append(seen, c.Secret.Reveal(), c.WebhookSecret.Reveal())
		c.Secret = "canary-wrong"
		return nil
	}})
	must(t, err)
	if strings.Join(seen, " ") != demo.DefaultClientSecret+" canary-webhook" {
		t.Errorf("the client was %q", seen)
	}
	within(t, "the other process renews as the new client", func() bool {
		b, err := other.Refresher.Current(t.Context(), conn.ID)
		if err != nil {
			return false
		}
		_, err = other.Refresher.Renew(t.Context(), b)
		var te *scheme.TokenError
		return errors.As(err, &te) && te.Class == scheme.Misconfigured
	})

	rows, _, err := w.Store.StoredIntegrations(t.Context())
	must(t, err)
	must(t, w.RemoveIntegration(t.Context(), "mine"))
	within(t, "the other process doesn't know it any more", func() bool {
		_, err := other.Setup.Integration("mine")
		_, cerr := other.Refresher.Current(t.Context(), conn.ID)
		return err != nil && cerr != nil
	})
	if _, err := w.Store.Connection(t.Context(), conn.ID); !errors.Is(err, connect.ErrNotFound) {
		t.Errorf("its connection: %v", err)
	}
	for _, name := range []string{conn.VaultName(), rows[0].VaultName()} {
		if _, err := w.Vault.Read(t.Context(), name); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the vault has %s still: %v", name, err)
		}
	}
	for _, e := range w.logs.All() {
		if strings.Contains(toText(e), "canary") || strings.Contains(toText(e), demo.DefaultClientSecret) {
			t.Errorf("S52: the log tells a secret: %v", e)
		}
	}
}

func TestS52AnIntegrationsSecretsAreNotInTheStore(t *testing.T) {
	w := newServer(t, demo.Options{})
	w.withCatalog(w.node)
	d := demoDraft("mine")
	d.Client.Secret = "canary-secret"
	_, err := w.CreateIntegration(t.Context(), d)
	must(t, err)
	db, err := sql.Open("sqlite", w.path)
	must(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)")
	must(t, err)
	data, err := os.ReadFile(w.path)
	must(t, err)
	if !strings.Contains(string(data), "mine") || strings.Contains(string(data), "canary") {
		t.Error("the store's file has no integration, or its secret")
	}
}

func TestAVaultThatIsAwayKeepsIntegrationsThatAreKnown(t *testing.T) {
	w := newServer(t, demo.Options{})
	w.withCatalog(w.node)
	_, err := w.CreateIntegration(t.Context(), demoDraft("mine"))
	must(t, err)
	w.vault.down.Store(true)
	reloaded := w.withCatalog(&node{Connector: &connect.Connector{Setup: w.setup()}}).Setup
	must(t, w.Refresher.LoadIntegrations(t.Context()))
	w.Refresher.Configure(reloaded)
	if _, err := reloaded.Integration("mine"); err != nil {
		t.Errorf("a reload while the vault is away: %v", err)
	}
	// A process that starts then has them as soon as the vault is back.
	late := w.withCatalog(w.newNode())
	late.vault.down.Store(true)
	must(t, late.Refresher.LoadIntegrations(t.Context()))
	if _, err := late.Setup.Integration("mine"); err == nil {
		t.Error("known without the vault")
	}
	t.Cleanup(w.run(late))
	late.vault.down.Store(false)
	eventually(t, "it is known", func() bool {
		_, err := late.Setup.Integration("mine")
		return err == nil
	})
}

// What a deletion has begun, another process ends.
func TestADeletedIntegrationIsClearedUpByAnyProcess(t *testing.T) {
	w := newServer(t, demo.Options{})
	w.withCatalog(w.node)
	_, err := w.CreateIntegration(t.Context(), demoDraft("mine"))
	must(t, err)
	conn := w.authorize(connect.Session{Allowed: []string{"mine"}, Connection: "c"}, nil)
	_, err = w.Store.UpdateIntegration(t.Context(), "mine", func(i *connect.StoredIntegration) error { i.Removing = true; return nil })
	must(t, err) // and the process ends here
	other := w.withCatalog(w.newNode())
	t.Cleanup(w.run(other))
	eventually(t, "all is cleared up", func() bool {
		rows, _, err := other.Store.StoredIntegrations(t.Context())
		must(t, err)
		_, cerr := other.Store.Connection(t.Context(), conn.ID)
		return len(rows) == 0 && errors.Is(cerr, connect.ErrNotFound)
	})
	if n := w.demo.Stats().FamiliesRevoked; n != 1 {
		t.Errorf("%d grants were revoked", n)
	}
}

func TestIntegrationsThatCantBe(t *testing.T) {
	w := newServer(t, demo.Options{})
	w.withCatalog(w.node)
	var fixed *connect.FixedError
	if _, err := w.CreateIntegration(t.Context(), demoDraft("demo")); !errors.As(err, &fixed) {
		t.Errorf("a key of the configuration's: %v", err)
	}
	var draft *connect.DraftError
	if _, err := w.CreateIntegration(t.Context(), connect.Draft{Key: "x", Provider: "demo"}); !errors.As(err, &draft) {
		t.Errorf("without a client: %v", err)
	}
	_, err := w.CreateIntegration(t.Context(), demoDraft("mine"))
	must(t, err)
	if _, err := w.CreateIntegration(t.Context(), demoDraft("mine")); !errors.Is(err, connect.ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if rows, _, _ := w.Store.StoredIntegrations(t.Context()); len(rows) != 1 {
		t.Errorf("%d are stored", len(rows))
	}
	none := ""
	_, err = w.EditIntegration(t.Context(), "mine", connect.Edit{Client: func(c *connect.Client) error { c.ID = none; return nil }})
	if !errors.As(err, &draft) {
		t.Errorf("an edit that takes the client away: %v", err)
	}
	if c, err := w.IntegrationClient(t.Context(), "mine"); err != nil || c.ID != demo.DefaultClientID {
		t.Errorf("the client is %q, %v", c.ID, err)
	}
	for _, err := range []error{w.RemoveIntegration(t.Context(), "demo"), func() error { _, err := w.EditIntegration(t.Context(), "demo", connect.Edit{}); return err }()} {
		if !errors.As(err, &fixed) {
			t.Errorf("the configuration's: %v", err)
		}
	}
	w.authorize(connect.Session{Allowed: []string{"mine"}}, nil)
	key := "other"
	if _, err := w.EditIntegration(t.Context(), "mine", connect.Edit{Key: &key}); !errors.Is(err, connect.ErrInUse) {
		t.Errorf("another key: %v", err)
	}
}

// eventually waits for ten seconds until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within ten seconds: %s", what)
		}
	}
}
