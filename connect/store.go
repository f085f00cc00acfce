package connect

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrNotFound says that there is no such row (any more).
	ErrNotFound = errors.New("connect: not found")
	// ErrExists says that there is such a row already.
	ErrExists = errors.New("connect: exists already")
	// ErrHeld says that somebody else holds the lease.
	ErrHeld = errors.New("connect: lease is held")
	// ErrStoreUnavailable says that the store can't be asked just now.
	ErrStoreUnavailable = errors.New("connect: store is unavailable")
)

// Query selects connections; zero fields select everything.
type Query struct {
	Connections  []string // one of these connection ids
	Integrations []string // in one of these integrations
	Search       string   // case-insensitive part of connection id, end user's name or e-mail
	EndUsers     []string // of one of these end users, by id
	Organization string   // organization id
	Account      string   // id of the provider's account
	Status       Status
	Tags         map[string]string // all of these tags
	Limit        int               // rows in a page; 0: 10,000, the most
	Page         int               // from 0
}

// Lease is the right to be the only one doing something, for a while. It makes
// it likely that work is done once; that it takes effect once is the vault's
// check-and-set's duty.
type Lease struct {
	Name string
	// Node is the process that holds it, Holder a random name of this holding.
	Node, Holder string
	// Generation rises with every holding of the name and never repeats.
	Generation int64
	Until      time.Time
	// Intent is what the holder is about to do and has not seen the end of.
	// Whoever takes the lease finds the one that the holder before has left.
	Intent *Intent
}

// Intent is a rotation that was begun: from when it is recorded until it is
// cleared, nobody but its holder knows whether the refresh token is spent.
type Intent struct {
	ID ID `json:"id"`
	// Version is that of the credential whose refresh token is sent, Token the
	// SHA-256 of that refresh token, in hexadecimal.
	Version uint64 `json:"version"`
	Token   string `json:"token"`
	// Attempt counts, from 1, how often it has been begun with this token.
	Attempt int `json:"attempt"`
	// Node is who began it. Until Patience others leave it alone, even if the
	// lease has run out: whoever was paused may still have the answer.
	Node     string    `json:"node"`
	Patience time.Time `json:"patience"`
	// Sealed is the new credential, sealed for the other nodes, while the vault
	// can't be written.
	Sealed []byte `json:"sealed,omitempty"`
	// Config holds the connection's plain values, when it is to be removed.
	Config map[string]string `json:"config,omitempty"`
}

// Change tells that a connection was updated or removed, so that what is held
// of it in memory can be told to be old.
type Change struct {
	ID      ID
	UID     string
	Version uint64
	Status  Status
	Removed bool
	// Updated is when; zero if it was removed.
	Updated time.Time
}

// Store is what must be remembered, apart from secrets. All methods may be
// called concurrently, from several processes on one store. Times are kept to
// the microsecond, in UTC. Every store passes the contract in connect/storetest.
//
// Errors wrap the sentinels above where those fit; ErrStoreUnavailable where
// the same call may succeed later.
type Store interface {
	KeyStore

	// Connection returns one connection, or ErrNotFound.
	Connection(ctx context.Context, id ID) (Connection, error)
	// Connections returns a page of what q selects, newest first.
	Connections(ctx context.Context, q Query) ([]Connection, error)
	// Create adds c, whose Serial the store sets and returns with the rest;
	// Created and Updated are set to now where they are zero. ErrExists if its
	// ID or UID is taken. What was told of it (Connection.Tell) is written to the
	// outbox in the same transaction, here and in Update and Delete.
	Create(ctx context.Context, c Connection) (Connection, error)
	// Update reads the connection, lets change edit it, and writes it back as
	// one atomic step, setting Updated. It may call change more than once; an
	// error from change ends it and nothing is written. Change must not call
	// the store. ID, UID, Serial and Created stay as they are. ErrNotFound if
	// it is gone.
	Update(ctx context.Context, id ID, change func(*Connection) error) (Connection, error)
	// Delete removes the connection with this ID and returns it, or ErrNotFound.
	// tell, if not nil, is called with it before, and may do nothing but tell of
	// it; it may be called more than once.
	Delete(ctx context.Context, id ID, tell func(*Connection)) (Connection, error)

	Bulk
	IntegrationStore

	// Changes returns what was updated or removed after an instant by the
	// store's own clock, in no order, some of it again; and the present by that
	// clock, taken before it looked. With a zero instant it returns only that.
	// Whoever asks again has to go back a little, since what was under way at
	// the present may have become visible after it. Removals are told for an
	// hour at least.
	Changes(ctx context.Context, since time.Time) (changes []Change, present time.Time, err error)
	// Announced returns a channel that gets a value when there may be changes,
	// at once and without a guarantee; it is the context's. Nil if the store
	// can't tell: then only asking helps.
	Announced(ctx context.Context) <-chan struct{}
	// Due returns connections whose Due is over by the store's clock, at most
	// limit, the longest over first, and puts their Due off by hold: whoever
	// gets them has that long before others do.
	Due(ctx context.Context, limit int, hold time.Duration) ([]Connection, error)

	// PutSession adds a session; ErrExists if there is one with its token.
	PutSession(ctx context.Context, s Session) error
	// Session returns the unexpired session with the token, or ErrNotFound.
	Session(ctx context.Context, token Digest) (Session, error)
	// NoteResult keeps how the session's latest attempt stands; ErrNotFound if
	// the session has ended.
	NoteResult(ctx context.Context, token Digest, r Result) error
	// DeleteSession ends a session; ending none is no error.
	DeleteSession(ctx context.Context, token Digest) error

	// PutFlow adds a flow; ErrExists if its ID or state is taken.
	PutFlow(ctx context.Context, f Flow) error
	// TakeFlow returns the unexpired flow with the state, once: of any number
	// of concurrent calls one succeeds, all others get ErrNotFound.
	TakeFlow(ctx context.Context, state Digest) (Flow, error)
	// HoldFlow keeps what a flow has brought until it is taken or its time is
	// over. The flow itself lives for FlowTTL longer, so that it can be told how
	// it ended. ErrExists if the flow, or another, has that hold already;
	// ErrNotFound if the flow is gone.
	HoldFlow(ctx context.Context, id string, h Hold) error
	// TakeHeld returns the flow with what it holds under the key, once: of any
	// number of concurrent calls one succeeds, all others get ErrNotFound, as
	// do those that come too late.
	TakeHeld(ctx context.Context, key Digest) (Flow, error)
	// FinishFlow records how a flow ended, tells of it, and removes what it held;
	// ErrNotFound if it is gone.
	FinishFlow(ctx context.Context, id string, o Outcome, events ...Event) error
	// Flow returns the unexpired flow with the id, taken or not, or ErrNotFound.
	Flow(ctx context.Context, id string) (Flow, error)
	// Ended returns the unexpired flows that have an outcome and one of the
	// waiters.
	Ended(ctx context.Context, waiters []Digest) ([]Flow, error)

	// Lease takes the named lease for ttl, or fails with ErrHeld. A lease that
	// has run out can be taken by anyone.
	Lease(ctx context.Context, name, node string, ttl time.Duration) (Lease, error)
	// Extend makes the lease last for ttl from now and records its Intent, as
	// one step. ErrHeld if it isn't held any more.
	Extend(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)
	// Release gives the lease back and records its Intent; if it isn't held any
	// more, nothing happens.
	Release(ctx context.Context, l Lease) error
	// Vacate gives back all leases of a node, whose process has ended. Their
	// intents stay.
	Vacate(ctx context.Context, node string) error
	// Intents returns leases that nobody holds and that have an intent, at most
	// limit.
	Intents(ctx context.Context, limit int) ([]Lease, error)

	// Turn reserves the next turn at something that all processes together may
	// do only so often, and returns how long to wait for it. Turns are every
	// apart at least; zero: there is no such rate, and only Defer makes anyone
	// wait. If the turn is later than within from now, ok is false and none is
	// reserved.
	Turn(ctx context.Context, name string, every, within time.Duration) (wait time.Duration, ok bool, err error)
	// Defer puts the next turn off until wait from now, if that is later than
	// it is.
	Defer(ctx context.Context, name string, wait time.Duration) error

	Outbox
	LogStore
	StatisticsStore

	// Sweep removes sessions, flows, turns, and leases without an intent that
	// ended before the time; and events that are older than EventsKept before it,
	// unless they are still to be delivered. Deliveries that were due RetryFor
	// before it are given up.
	Sweep(ctx context.Context, before time.Time) error
	// Migrate brings the schema up to date; it may run in several processes
	// at once.
	Migrate(ctx context.Context) error
	// Ping tells whether the store answers.
	Ping(ctx context.Context) error
	// Close frees what the store holds. No method may be called after it.
	Close() error
}
