package connect

import (
	"slices"
	"time"
)

// EventKind says what has happened.
type EventKind string

// The kinds of events. Each is written to the outbox in the same transaction as
// the change that it tells of: what is stored is told, whatever crashes.
const (
	// EventCreated: a connection was made.
	EventCreated EventKind = "connection.created"
	// EventOverridden: a connection has got a new credential from its user, or
	// from the app.
	EventOverridden EventKind = "connection.overridden"
	// EventDeleted: a connection was removed.
	EventDeleted EventKind = "connection.deleted"
	// EventConnectFailed: an attempt to connect has failed; Error says why, such
	// as link_user_mismatch.
	EventConnectFailed EventKind = "connection.connect_failed"
	// EventNeedsReauth: the provider has refused the credential for good.
	EventNeedsReauth EventKind = "connection.needs_reauth"
	// EventRefreshFailed: the provider was asked for a new token and gave none.
	// It is told once in RefreshToldEvery at most.
	EventRefreshFailed EventKind = "connection.refresh_failed"
	// EventDegraded: the access token has ended and renewals fail, so that calls
	// go out with a token that the provider will refuse.
	EventDegraded EventKind = "connection.degraded"
	// EventRecovered: what an EventNeedsReauth, EventRefreshFailed or
	// EventDegraded has told of is over.
	EventRecovered EventKind = "connection.recovered"
)

// EventKinds are all kinds.
var EventKinds = []EventKind{
	EventCreated, EventOverridden, EventDeleted, EventConnectFailed,
	EventNeedsReauth, EventRefreshFailed, EventDegraded, EventRecovered,
}

// RefreshToldEvery is how often a connection's failed renewals are told of at
// most.
const RefreshToldEvery = 30 * time.Second

// EventsKept is how long events and their deliveries are kept, for looking them
// up and delivering them again.
const EventsKept = 15 * 24 * time.Hour

// Event is something that has happened to a connection, with the connection as
// it was then. Nothing in it is secret.
type Event struct {
	// ID is the event's own: it stays the same however often it is delivered.
	ID   string    `json:"id"`
	Kind EventKind `json:"kind"`
	At   time.Time `json:"at"`

	Integration string `json:"integration"`
	// Connection is the connection's id; for an EventConnectFailed without one,
	// that of the attempt, as the logs have it.
	Connection string            `json:"connection"`
	UID        string            `json:"uid,omitempty"`
	Provider   string            `json:"provider"`
	Tags       map[string]string `json:"tags,omitempty"`
	EndUser    *EndUser          `json:"end_user,omitempty"`
	// WebhookURL, if not empty, is where this event goes, in the place of the
	// configured endpoints.
	WebhookURL string `json:"webhook_url,omitempty"`
	// Reconnect tells that an attempt was for a connection that exists.
	Reconnect bool        `json:"reconnect,omitempty"`
	Error     *EventError `json:"error,omitempty"`
}

// EventError is what went wrong.
type EventError struct {
	// Type is a code; Detail says more, cleaned, and partly in the provider's words.
	Type   string `json:"type"`
	Detail string `json:"detail,omitempty"`
	// Callback: the provider has told it by way of the browser.
	Callback bool `json:"callback,omitempty"`
}

// Trouble is what keeps a connection from being renewed, since when. A token
// that is still valid goes on working.
type Trouble struct {
	Since    time.Time `json:"since"`
	Failures int       `json:"failures"`
	// Code is that of the latest failure.
	Code string `json:"code"`
	// Told is when it was last told.
	Told time.Time `json:"told"`
	// Degraded: the access token has ended meanwhile.
	Degraded bool `json:"degraded,omitempty"`
}

// Tell has the store write an event along with the connection: in Create, in
// Update, and in Delete, which do it in one transaction.
func (c *Connection) Tell(kind EventKind, e *EventError) {
	c.told = append(c.told, Event{Kind: kind, Error: e})
}

// Events returns what was told of the connection, with the connection as it is
// now. It is for stores.
func (c *Connection) Events() []Event {
	out := slices.Clone(c.told)
	for i := range out {
		e := newEvent(out[i].Kind)
		e.Integration, e.Connection, e.UID, e.Provider = c.Integration, c.ID.Connection, c.UID, c.Provider
		e.Tags, e.EndUser, e.WebhookURL, e.Error = c.Tags, c.EndUser, c.WebhookURL, out[i].Error
		out[i] = e
	}
	return out
}

// end notes that only the connection's user can help.
func (c *Connection) end(e *EventError) {
	if c.Status != StatusNeedsReauth {
		c.Tell(EventNeedsReauth, e)
	}
	c.Status, c.Cause, c.Due, c.Trouble = StatusNeedsReauth, e.Type, time.Time{}, nil
}

// mend notes that the connection has a credential that works, and tells if
// anything else was told before.
func (c *Connection) mend() {
	if c.Status == StatusNeedsReauth || c.Trouble != nil {
		c.Tell(EventRecovered, nil)
	}
	c.Trouble = nil
}

// fail notes a renewal that has failed and may succeed later.
func (c *Connection) fail(e *EventError, now time.Time) {
	now = now.UTC().Truncate(time.Microsecond)
	t := Trouble{Since: now}
	if c.Trouble != nil {
		t = *c.Trouble
	}
	t.Failures++
	t.Code = e.Type
	if now.Sub(t.Told) >= RefreshToldEvery {
		t.Told = now
		c.Tell(EventRefreshFailed, e)
	}
	if !t.Degraded && !c.Expires.IsZero() && !now.Before(c.Expires) {
		t.Degraded = true
		c.Tell(EventDegraded, e)
	}
	c.Trouble = &t
}

func newEvent(kind EventKind) Event {
	return Event{ID: "evt_" + randomHex(16), Kind: kind, At: time.Now().UTC().Truncate(time.Microsecond)}
}
