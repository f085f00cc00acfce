// Package webhook brings events to apps: it reads the outbox of a connect.Store
// and posts what is there to the endpoints that want it, signed, until each has
// taken it.
//
// An event is written in the transaction of the change that it tells of, and
// stays until every endpoint has answered with 2xx or connect.RetryFor is over.
// So each is delivered at least once, whatever crashes; once more if a process
// dies, or loses its hold, between the answer and the note of it. Receivers tell
// by the header webhook-id, which is the event's.
//
// Any node delivers. One at a time holds an endpoint, with a lease that is a row
// in the store; how an endpoint fares is kept there too, so that all nodes leave
// one alone that is down.
//
// It may import connect, connect/scheme, zap and the standard library.
package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// Endpoint is a receiver of events that the operator has set up.
type Endpoint struct {
	// Name tells it from others; in the store it stands for the URL, which may
	// have a secret in its query.
	Name string
	URL  string
	// Events are the kinds that it gets; empty: all.
	Events []connect.EventKind
	// Secrets sign what it gets: the first as Nango does, and every one as
	// Standard Webhooks has it, so that a receiver can change from one to the next.
	Secrets []scheme.Secret
}

// Config is what a Sender works by. It doesn't change: a reload makes another.
type Config struct {
	Endpoints []Endpoint
	// Secrets sign what goes to connections' own endpoints. Without any nothing
	// is sent there.
	Secrets []scheme.Secret
	// Client sends the requests; it keeps to the egress policy and follows no
	// redirects.
	Client *http.Client
	// Environment is the member of that name in Nango's payloads.
	Environment string
	// AuthMode is Nango's name of how a provider's connections prove themselves.
	AuthMode func(provider string) string
}

// names are those of the endpoints that are set up.
func (c *Config) names() (names []string) {
	for i := range c.Endpoints {
		names = append(names, c.Endpoints[i].Name)
	}
	return names
}

// route says where an event goes: to its connection's own endpoint, or else to
// all that want it.
func (c *Config) route(e *connect.Event) (to []connect.Target) {
	if e.WebhookURL != "" {
		return []connect.Target{{Endpoint: nameOf(e.WebhookURL), URL: e.WebhookURL}}
	}
	for i := range c.Endpoints {
		if ep := &c.Endpoints[i]; len(ep.Events) == 0 || slices.Contains(ep.Events, e.Kind) {
			to = append(to, connect.Target{Endpoint: ep.Name})
		}
	}
	return to
}

// find returns where an endpoint is and what signs for it, or false.
func (c *Config) find(e *connect.Endpoint) (to string, secrets []scheme.Secret, ok bool) {
	if e.URL != "" {
		return e.URL, c.Secrets, true
	}
	for i := range c.Endpoints {
		if ep := &c.Endpoints[i]; ep.Name == e.Name {
			return ep.URL, ep.Secrets, true
		}
	}
	return "", nil, false
}

// nameOf names a connection's own endpoint without showing what may be secret in
// its address.
func nameOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.RawQuery == "" {
		return raw
	}
	sum := sha256.Sum256([]byte(u.RawQuery))
	u.RawQuery = hex.EncodeToString(sum[:4])
	return u.String()
}
