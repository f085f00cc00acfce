package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// Client is what the operator has registered with a provider, for an integration
// that was made through the API. All of it rests in the vault.
type Client struct {
	ID     string
	Secret scheme.Secret
	// WebhookSecret is kept for apps that ask for it.
	WebhookSecret scheme.Secret
	// Scopes are asked for unless a session has its own; empty: the entry's.
	Scopes []string
	// Fields are the values for the entry's fields of the operator.
	Fields map[string]scheme.Secret
}

// storedClient is a Client as it is written to the vault. Its keys are a format:
// they may be added to, never renamed.
type storedClient struct {
	Format        int               `json:"v"`
	ID            string            `json:"client_id,omitempty"`
	Secret        string            `json:"client_secret,omitempty"`
	WebhookSecret string            `json:"webhook_secret,omitempty"`
	Scopes        []string          `json:"scopes,omitempty"`
	Fields        map[string]string `json:"fields,omitempty"`
}

const clientFormat = 1

func (c *Client) empty() bool {
	return c.ID == "" && c.Secret == "" && c.WebhookSecret == "" && len(c.Scopes) == 0 && len(c.Fields) == 0
}

func (c *Client) encode() ([]byte, error) {
	s := storedClient{Format: clientFormat, ID: c.ID, Secret: c.Secret.Reveal(), WebhookSecret: c.WebhookSecret.Reveal(), Scopes: c.Scopes, Fields: make(map[string]string, len(c.Fields))}
	for name, value := range c.Fields {
		s.Fields[name] = value.Reveal()
	}
	return json.Marshal(s)
}

func decodeClient(data []byte) (Client, error) {
	var s storedClient
	if json.Unmarshal(data, &s) != nil { // its error may quote the data
		return Client{}, errors.New("decoding an integration's client: not the stored format")
	}
	if s.Format != clientFormat {
		return Client{}, fmt.Errorf("decoding an integration's client: format %d, this version of keycaddy reads format %d", s.Format, clientFormat)
	}
	c := Client{ID: s.ID, Secret: scheme.Secret(s.Secret), WebhookSecret: scheme.Secret(s.WebhookSecret), Scopes: s.Scopes, Fields: make(map[string]scheme.Secret, len(s.Fields))}
	for name, value := range s.Fields {
		c.Fields[name] = scheme.Secret(value)
	}
	return c, nil
}

// clientOfApp is the client of an integration in the configuration.
func clientOfApp(a *scheme.App) Client {
	c := Client{ID: a.ClientID, Secret: a.ClientSecret, Scopes: a.Scopes, Fields: make(map[string]scheme.Secret, len(a.Fields))}
	for name, value := range a.Fields {
		c.Fields[name] = scheme.Secret(value)
	}
	return c
}

// made are the integrations that were made through the API, as this process
// knows them. They outlive reloads, and a vault that is away.
type made struct {
	mu       sync.Mutex
	asked    bool
	revision int64
	again    time.Time                   // when the vault is asked again for what it has not given
	all      map[string]*madeIntegration // by UID
	setups   []*Setup                    // those at work
}

type madeIntegration struct {
	StoredIntegration
	client Client
	// missing: the vault has not given the client yet; stale: not the newest.
	missing, stale bool
}

// askAgain is how long the vault is left alone after it has not given a client.
const askAgain = 2 * time.Second

// LoadIntegrations reads the integrations that were made through the API, if
// there are others than this process knows. A client that can't be had from the
// vault is asked for again later; what was known goes on working.
func (r *Refresher) LoadIntegrations(ctx context.Context) error {
	r.made.mu.Lock()
	defer r.made.mu.Unlock()
	return r.loadIntegrations(ctx)
}

func (r *Refresher) loadIntegrations(ctx context.Context) error {
	m := &r.made
	if m.asked && (m.complete() || time.Now().Before(m.again)) {
		revision, err := r.Store.IntegrationsRevision(ctx)
		if err != nil || revision == m.revision {
			return err
		}
	}
	rows, revision, err := r.Store.StoredIntegrations(ctx)
	if err != nil {
		return err
	}
	next := make(map[string]*madeIntegration, len(rows))
	changed := false
	for _, row := range rows {
		old := m.all[row.UID]
		if old != nil && !old.missing && !old.stale && old.StoredIntegration == row {
			next[row.UID] = old
			continue
		}
		in := &madeIntegration{StoredIntegration: row}
		if row.Sealed {
			if in.client, err = r.clientOf(ctx, &row); err != nil {
				r.Logger.Error("an integration's client can't be had from the vault; trying again", zap.String("integration", row.Key), zap.Error(err))
				m.again = time.Now().Add(askAgain)
				if in.missing = old == nil || old.missing; !in.missing {
					in.client, in.stale = old.client, true
				}
			}
		}
		next[row.UID], changed = in, true
	}
	changed = changed || len(next) != len(m.all)
	m.asked, m.revision = true, revision
	if changed {
		m.all = next
		for _, s := range m.setups {
			r.putIntegrations(s)
		}
	}
	return nil
}

func (m *made) complete() bool {
	for _, in := range m.all {
		if in.missing || in.stale {
			return false
		}
	}
	return true
}

// clientOf reads an integration's client from the vault.
func (r *Refresher) clientOf(ctx context.Context, i *StoredIntegration) (Client, error) {
	c, _, err := r.readClient(ctx, i)
	return c, err
}

func (r *Refresher) readClient(ctx context.Context, i *StoredIntegration) (Client, vault.Version, error) {
	e, err := r.Vault.Read(ctx, i.VaultName())
	if errors.Is(err, vault.ErrNotFound) && !i.Sealed {
		return Client{}, 0, nil
	}
	if err != nil {
		return Client{}, 0, fmt.Errorf("reading the client of integration %s: %w", i.Key, err)
	}
	c, err := decodeClient(e.Value)
	return c, e.Version, err
}

// putIntegrations gives a setup the integrations as they are known. What was
// bound by others is bound anew; calls of those that are gone are cut off.
func (r *Refresher) putIntegrations(s *Setup) {
	was := s.madeIntegrations()
	now := make(map[string]*Integration, len(r.made.all))
	for _, m := range r.made.all {
		if old := was[m.Key]; old != nil && old.of == m {
			now[m.Key] = old
			continue
		}
		if m.missing {
			continue
		}
		in, err := s.integration(m.StoredIntegration, m.client)
		if err != nil {
			r.Logger.Error("an integration that was made through the API can't be used", zap.String("integration", m.Key), zap.Error(err))
			continue
		}
		if _, fixed := s.integrations[m.Key]; fixed {
			r.Logger.Warn("an integration of the configuration takes the place of one that was made through the API", zap.String("integration", m.Key))
		}
		in.of = m
		now[m.Key] = in
	}
	s.made.Store(&now)
	if r.setup.Load() != s {
		return
	}
	r.entries.all().Range(func(id ID, e *entry) bool {
		before, after := was[id.Integration], now[id.Integration]
		if before == after {
			return true
		}
		b := e.bound.Load()
		e.drop(nil)
		if b != nil && (after == nil || after.removing) {
			e.calls.cut(b.UID)
		}
		return true
	})
}

// integration makes one of what is stored.
func (s *Setup) integration(i StoredIntegration, c Client) (*Integration, error) {
	p, err := s.Catalog.Provider(i.Provider)
	if err != nil {
		return nil, err
	}
	in := &Integration{
		Key: i.Key, DisplayName: i.DisplayName, Provider: p, Trust: s.Trust, OwnCallback: s.OwnCallbacks,
		Created: i.Created, Updated: i.Updated, ForwardWebhooks: i.ForwardWebhooks, uid: i.UID, removing: i.Removing,
	}
	if in.DisplayName == "" {
		in.DisplayName = p.DisplayName
	}
	in.App = scheme.App{ClientID: c.ID, ClientSecret: c.Secret, Scopes: slices.Clone(c.Scopes), Fields: make(map[string]string, len(c.Fields))}
	for name, value := range c.Fields {
		in.App.Fields[name] = value.Reveal()
	}
	return in, s.settle(in)
}

// attach makes a setup one that gets the integrations.
func (r *Refresher) attach(s *Setup) {
	r.made.mu.Lock()
	defer r.made.mu.Unlock()
	if !slices.Contains(r.made.setups, s) {
		r.made.setups = append(r.made.setups, s)
		r.putIntegrations(s)
	}
}

// Retire lets a setup go that is not at work any more.
func (r *Refresher) Retire(s *Setup) {
	r.made.mu.Lock()
	defer r.made.mu.Unlock()
	r.made.setups = slices.DeleteFunc(r.made.setups, func(x *Setup) bool { return x == s })
}

// Removing connections with their integration.
const (
	integrationPrefix = "integration/"
	// removeBatch connections are removed at a time, removeWorkers at once.
	removeBatch, removeWorkers = 200, 8
	integrationTimeout         = time.Minute
)

// removeIntegrations ends what a deletion has begun.
func (r *Refresher) removeIntegrations(ctx context.Context) {
	r.made.mu.Lock()
	var going []StoredIntegration
	for _, m := range r.made.all {
		if m.Removing {
			going = append(going, m.StoredIntegration)
		}
	}
	r.made.mu.Unlock()
	for _, i := range going {
		if err := r.removeIntegration(ctx, i); err != nil && ctx.Err() == nil && !errors.Is(err, ErrHeld) {
			r.Logger.Warn("removing an integration; trying again", zap.String("integration", i.Key), zap.Error(err))
		}
	}
}

// removeIntegration removes an integration's connections, each as Disconnect
// does, then its client, and last its row.
func (r *Refresher) removeIntegration(ctx context.Context, i StoredIntegration) error {
	ctx, cancel := context.WithTimeout(ctx, integrationTimeout)
	defer cancel()
	l, err := r.Store.Lease(ctx, integrationPrefix+i.UID, r.node(), integrationTimeout)
	if err != nil {
		return err
	}
	defer r.giveBack(context.WithoutCancel(ctx), l)
	c := &Connector{Refresher: r, Store: r.Store, Vault: r.Vault, Logger: r.Logger}
	for {
		page, err := r.Store.Connections(ctx, Query{Integrations: []string{i.Key}, Limit: removeBatch})
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		if err := c.disconnectAll(ctx, page); err != nil {
			return err
		}
	}
	if err := r.Vault.Delete(ctx, i.VaultName()); err != nil {
		return err
	}
	if err := r.Store.DeleteIntegration(ctx, i.UID); err != nil {
		return err
	}
	r.Logger.Info("integration removed", zap.String("integration", i.Key))
	return nil
}

func (c *Connector) disconnectAll(ctx context.Context, page []Connection) error {
	var (
		all    sync.WaitGroup
		slots  = make(chan struct{}, removeWorkers)
		failed = make(chan error, len(page))
	)
	for _, conn := range page {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := c.Disconnect(ctx, conn.ID); err != nil && !errors.Is(err, ErrNotFound) {
				failed <- err
			}
		})
	}
	all.Wait()
	close(failed)
	return <-failed
}
