package connect

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// ErrFutile says that a credential is not renewed because renewing it did not
// help the last time.
var ErrFutile = errors.New("connect: renewing didn't help the last time")

// NeedsReauthError says that a connection can't be used until its user
// connects it again.
type NeedsReauthError struct {
	ID    ID
	Cause string // the code of what happened
}

func (e *NeedsReauthError) Error() string {
	return fmt.Sprintf("connection %s needs its user to connect again (%s)", e.ID, e.Cause)
}

// DisabledError says that a connection is switched off.
type DisabledError struct{ ID ID }

func (e *DisabledError) Error() string { return fmt.Sprintf("connection %s is disabled", e.ID) }

// BusyError says that a renewal has to wait: for the token endpoint, which all
// connections share, or for another process that may still finish it.
type BusyError struct {
	ID         ID
	RetryAfter time.Duration
	Reason     string
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("connection %s can't be renewed for another %s: %s", e.ID, e.RetryAfter.Round(time.Second), e.Reason)
}

// ended tells whether an error means that the connection has no credential
// any more, as opposed to one that can't be had just now.
func ended(err error) bool {
	var needs *NeedsReauthError
	var disabled *DisabledError
	return errors.Is(err, ErrNotFound) || errors.As(err, &needs) || errors.As(err, &disabled)
}

// UnknownIntegrationError says that no integration has the key.
type UnknownIntegrationError struct{ Key string }

func (e *UnknownIntegrationError) Error() string {
	return fmt.Sprintf("integration %q does not exist", e.Key)
}

// Integration is a provider as the operator has set it up: with his own
// client, scopes and names. It doesn't change while it is in use.
type Integration struct {
	Key         string
	DisplayName string
	Provider    *catalog.Provider
	App         scheme.App
	Scheme      scheme.Scheme
	Trust       Trust
	// OwnCallback gives it a callback address that no other integration has.
	OwnCallback bool
	// AllowAccountChange lets connections become those of other accounts when
	// they are connected again.
	AllowAccountChange bool
	// Look is how its pages look, over the setup's.
	Look             Look
	Created, Updated time.Time
	// ForwardWebhooks is kept for apps that ask; keycaddy takes none.
	ForwardWebhooks bool
	// TokenRate is how many token calls a second the provider allows, for all
	// processes together; 0: no limit is known.
	TokenRate float64
	// OutageGrace is how long connections that are known go on working while
	// vault or store can't be reached; 0: DefaultOutageGrace, negative: not at
	// all.
	OutageGrace time.Duration

	// uid is that of its StoredIntegration, removing its Removing; of the
	// configuration's it is empty.
	uid      string
	removing bool
	of       *madeIntegration // what it was made of
}

// Format keeps the client's secret out of print.
func (in *Integration) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "integration "+in.Key) }

// Setup is what the operator has configured. It doesn't change, but for the
// integrations that are made through the API: a reload makes another one.
type Setup struct {
	Catalog *catalog.Catalog
	// PublicURL is the origin that browsers reach the pages at.
	PublicURL *url.URL
	// Client sends keycaddy's own requests to providers.
	Client *http.Client
	// AppName is what the pages call the app; empty: an app.
	AppName string
	// Embedders are the origins whose pages may hold these in a frame.
	Embedders []string
	// Look is how the pages look in general.
	Look Look
	// Trust and OwnCallbacks are those of integrations that say nothing else:
	// all that are made through the API.
	Trust        Trust
	OwnCallbacks bool
	// InMemory is how many connections are held in memory; 0: DefaultInMemory.
	InMemory int

	integrations map[string]*Integration
	// made are those that were made through the API.
	made atomic.Pointer[map[string]*Integration]
}

func (s *Setup) inMemory() int {
	if s.InMemory == 0 {
		return DefaultInMemory
	}
	return s.InMemory
}

// NewSetup puts a setup together.
func NewSetup(cat *catalog.Catalog, public *url.URL, client *http.Client, integrations []*Integration) (*Setup, error) {
	s := &Setup{Catalog: cat, PublicURL: public, Client: client, integrations: make(map[string]*Integration)}
	for _, in := range integrations {
		if err := s.settle(in); err != nil {
			return nil, fmt.Errorf("integration %s: %w", in.Key, err)
		}
		s.integrations[in.Key] = in
	}
	return s, nil
}

// settle makes an integration ready for use.
func (s *Setup) settle(in *Integration) (err error) {
	if s.PublicURL != nil {
		in.App.RedirectURL = s.CallbackURL(in)
	}
	if in.Scheme, err = scheme.For(in.Provider, in.App, s.Client); err != nil {
		return err
	}
	return in.Trust.settle()
}

// madeIntegrations are those that were made through the API, by key.
func (s *Setup) madeIntegrations() map[string]*Integration {
	if m := s.made.Load(); m != nil {
		return *m
	}
	return nil
}

// fixed tells whether the key is that of an integration in the configuration.
func (s *Setup) fixed(key string) bool {
	_, ok := s.integrations[key]
	return ok
}

// Integration returns the integration with the key, or an
// UnknownIntegrationError.
func (s *Setup) Integration(key string) (*Integration, error) {
	in, err := s.known(key)
	if err == nil && in.removing {
		return nil, &UnknownIntegrationError{Key: key}
	}
	return in, err
}

// known also returns an integration that is being removed.
func (s *Setup) known(key string) (*Integration, error) {
	if in, ok := s.integrations[key]; ok {
		return in, nil
	}
	if in, ok := s.madeIntegrations()[key]; ok {
		return in, nil
	}
	return nil, &UnknownIntegrationError{Key: key}
}

// Fixed tells whether the integration is in the configuration, and can't be
// changed but there.
func (in *Integration) Fixed() bool { return in.uid == "" }

// Integrations returns all integrations, by display name.
func (s *Setup) Integrations() []*Integration {
	all := make([]*Integration, 0, len(s.integrations))
	for _, in := range s.integrations {
		all = append(all, in)
	}
	for key, in := range s.madeIntegrations() {
		if !s.fixed(key) && !in.removing {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b *Integration) int {
		if c := strings.Compare(strings.ToLower(a.DisplayName), strings.ToLower(b.DisplayName)); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
	return all
}

// CallbackURL is where providers send browsers back to. Where integrations have
// addresses of their own, an answer that one was given can't be taken for
// another's.
func (s *Setup) CallbackURL(in *Integration) string {
	u := s.PublicURL.String() + "/oauth/callback"
	if in.OwnCallback {
		u += "/" + url.PathEscape(in.Key)
	}
	return u
}

// ConnectLink is the address that opens the connect pages with a session.
func (s *Setup) ConnectLink(token string) string {
	u := s.PublicURL.JoinPath("/connect/")
	u.RawQuery = url.Values{"session_token": {token}}.Encode()
	return u.String()
}

// AppOrigins are the origins whose pages may speak with these: those of all
// integrations' apps, and those that may frame them.
func (s *Setup) AppOrigins() []string {
	all := slices.Clone(s.Embedders)
	for _, in := range s.Integrations() {
		all = append(all, in.Trust.AppOrigins...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
