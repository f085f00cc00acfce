package connect

import (
	"context"
	"errors"
	"net/url"
	"time"
)

// DeliveryState is how far the delivery of an event to an endpoint has come.
type DeliveryState string

// The states of a delivery.
const (
	DeliveryWaiting   DeliveryState = "waiting"   // for its first or next attempt
	DeliveryDelivered DeliveryState = "delivered" // the endpoint has taken it
	DeliveryGivenUp   DeliveryState = "given_up"  // it has not, for RetryFor
)

// CheckWebhookURL accepts the address of an endpoint: https, or http, which
// works towards addresses that the operator has opened only.
func CheckWebhookURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", u.Opaque != "":
		return errors.New("is not an address such as https://app.example.com/hooks")
	case u.User != nil:
		return errors.New("has a user name or password in it")
	case u.Fragment != "":
		return errors.New("has a fragment")
	}
	return nil
}

// RetryFor is how long the delivery of an event is tried.
const RetryFor = 3 * 24 * time.Hour

// Target is where an event goes.
type Target struct {
	Endpoint string
	// URL is set for an endpoint that no configuration names: a connection's own.
	URL string
}

// Endpoint is a receiver of events, as all processes together know it.
type Endpoint struct {
	Name string
	URL  string // of a connection's own endpoint; else the configuration has it
	// Failures counts failed attempts in a row; PausedUntil is when the next may
	// be made.
	Failures    int
	PausedUntil time.Time
	// Holder is a random name of this holding of it.
	Holder string
	// Waiting is how many deliveries wait for it.
	Waiting int
}

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	// Serial is the store's own number, rising.
	Serial   int64
	Event    Event
	Endpoint string
	State    DeliveryState
	Attempts int
	// Since is when the first attempt was due, Next when the next is, and Tried
	// when the latest was made; zero: none was.
	Since, Next, Tried time.Time
	// Status is the endpoint's answer to the latest attempt; 0: none came, and
	// Error says why.
	Status int
	Error  string
}

// DeliveryQuery selects deliveries; zero fields select everything.
type DeliveryQuery struct {
	State       DeliveryState
	Endpoint    string
	Event       string
	Integration string
	Connection  string
	// Before selects those with a smaller serial; Limit is how many, 100 if 0.
	Before int64
	Limit  int
}

// Outbox is the part of a Store that keeps events until they are delivered.
// Connection.Tell is how events get there.
type Outbox interface {
	// Route makes deliveries of events that have none yet, at most limit, oldest
	// first, and returns how many events that were. to says where an event
	// goes; it may be called more than once and must not call the store.
	Route(ctx context.Context, limit int, to func(*Event) []Target) (int, error)
	// ClaimEndpoints returns endpoints that have deliveries due, are not paused,
	// and are held by nobody, at most limit, and holds them for hold. Of those
	// without a URL only the named ones are returned.
	ClaimEndpoints(ctx context.Context, names []string, limit int, hold time.Duration) ([]Endpoint, error)
	// ReleaseEndpoint gives an endpoint back and records Failures and
	// PausedUntil. If it isn't held any more, nothing happens.
	ReleaseEndpoint(ctx context.Context, e Endpoint) error
	// DueDeliveries returns what an endpoint is to be sent now, at most limit,
	// the longest due first.
	DueDeliveries(ctx context.Context, endpoint string, limit int) ([]Delivery, error)
	// NoteAttempt records State, Attempts, Next, Tried, Status and Error of a
	// delivery that is waiting; one that isn't stays as it is.
	NoteAttempt(ctx context.Context, d Delivery) error
	// Redeliver has an event delivered again, at once and with all of RetryFor
	// before it: to one endpoint, or with an empty name to all that it was for.
	// It returns how many that are; ErrNotFound if it was for none.
	Redeliver(ctx context.Context, event, endpoint string) (int, error)
	// Deliveries returns what q selects, newest first.
	Deliveries(ctx context.Context, q DeliveryQuery) ([]Delivery, error)
	// Endpoints returns all that have had a delivery, with Waiting, by name.
	Endpoints(ctx context.Context) ([]Endpoint, error)
	// OutboxDepth is how many events wait to be routed or delivered.
	OutboxDepth(ctx context.Context) (int, error)
}
