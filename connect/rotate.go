package connect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

const (
	// DefaultLeaseTTL outlives the token call and the write after it, so that
	// nobody else starts while the holder may still be at it.
	DefaultLeaseTTL = 90 * time.Second
	// A token is not asked for with less than a tenth of the lease left.
	leaseReserve = 10
	// vaultWait is how long a renewal waits for the vault; after that it goes
	// on without (S69, S112).
	vaultWait = 3 * time.Second
	// dueAhead, of a credential's lifetime, is the most that its renewal in the
	// background is put forward, so that those of one hour don't come together.
	dueAhead = 0.1
)

// causeInterrupted is the cause of a connection whose new refresh token was
// lost on the way, and whose old one the provider doesn't take any more.
const causeInterrupted = "rotation_interrupted"

// causeRolledBack is the cause of a connection whose credential in the vault is
// older than one that was there before, and refused: the vault was restored
// from a backup, or has lost its last writes (S57, S116).
const causeRolledBack = "vault_rolled_back"

// Steps are the steps of a rotation, in order, as Trace hears them.
var Steps = []string{"leased", "read", "intended", "asking", "answered", "spooled", "written", "recorded", "released"}

// rotation is one renewal of one connection, by the holder of its lease.
//
// Only the credential in the vault counts; lease and intent make it safe to ask
// for another. In order:
//
//	leased    nobody else renews this connection
//	read      what is the newest credential, and did somebody begin to renew it?
//	intended  from here on its refresh token may be spent
//	asking    the token call, if the lease still has time
//	answered  the provider has forgotten the old refresh token
//	spooled   the new one is on this disk, sealed
//	written   … and in the vault, by check-and-set; else sealed in the store
//	recorded  the row tells, and others hear
//	released  the lease, without the intent
type rotation struct {
	*Refresher
	stale *Bound
	early bool
	in    *Integration
	lease Lease
	until time.Time // the lease, by the clock of this process

	row  Connection
	old  scheme.Credential // the stale one
	cred scheme.Credential
	kept vault.Version // of cred in the vault
	// ahead: cred is newer than what the vault holds.
	ahead bool
	// rolledBack: the vault has lost newer ones than cred.
	rolledBack bool
	// interrupted: somebody has begun with this refresh token before and not
	// told the end.
	interrupted bool

	// For the journal: what was done, whether the provider was asked, and what
	// it has said when it refused for good.
	steps   []LogStep
	asked   bool
	refusal string
}

// renew replaces a stale credential: with what somebody else has stored
// meanwhile, or with what the provider gives. It runs once per connection in
// this process, on a context of its own.
func (r *Refresher) renew(ctx context.Context, stale *Bound, early bool) (*Bound, error) {
	id := stale.ID
	if r.ReadOnly {
		b, err := r.adopt(ctx, stale)
		if err == nil && !b.newerThan(stale) {
			return nil, scheme.ErrNotRenewable
		}
		return b, err
	}
	in, err := r.setup.Load().Integration(id.Integration)
	if err != nil {
		return nil, err
	}
	renewer, ok := in.Scheme.(scheme.Renewer)
	if !ok {
		return nil, scheme.ErrNotRenewable
	}
	old, err := stale.credential()
	if err != nil {
		return nil, err
	}
	for {
		ro := &rotation{Refresher: r, stale: stale, old: old, early: early, in: in}
		b, err := ro.run(ctx, renewer)
		ro.logged(ctx, err)
		if errors.Is(err, errOvertaken) && ctx.Err() == nil {
			continue
		}
		return b, err
	}
}

// errOvertaken says that the lease ran out before anything was asked.
var errOvertaken = errors.New("connect: the lease of a renewal ran out before the provider was asked")

func (ro *rotation) run(ctx context.Context, renewer scheme.Renewer) (*Bound, error) {
	newer, err := ro.take(ctx)
	if err != nil || newer != nil {
		return newer, err
	}
	defer ro.release(ctx)
	ro.step("leased")
	if newer, err := ro.read(ctx); err != nil || newer != nil {
		return newer, err
	}
	ro.step("read")
	if err := ro.begin(ctx); err != nil {
		return nil, err
	}
	ro.step("intended")
	return ro.ask(ctx, renewer)
}

// begin waits for a turn and records that the refresh token may be spent. Who
// was held up until the turn was over takes another one, so that calls don't
// come to the provider in a heap; but not for ever.
func (ro *rotation) begin(ctx context.Context) error {
	for n := 1; ; n++ {
		over, err := ro.turn(ctx, ro.row.ID, ro.in, ro.grant(), ro.early)
		if err != nil {
			return err
		}
		before := ro.lease.Intent
		if err := ro.intend(ctx); err != nil {
			return err
		}
		if over.IsZero() || ro.early || n == maxTurns || time.Now().Before(over) {
			return nil
		}
		ro.lease.Intent = before // nobody has been asked yet
	}
}

func (r *Refresher) trace(step string, id ID) {
	if r.Trace != nil {
		r.Trace(step, id)
	}
}

func (ro *rotation) grant() scheme.Grant {
	return scheme.Grant{Credential: ro.cred, Config: ro.row.Config}
}

// read finds the newest credential. It returns it, bound, if it is newer than
// the stale one: then there is nothing to do.
func (ro *rotation) read(ctx context.Context) (*Bound, error) {
	c, err := ro.current(ctx, ro.stale.ID, ro.stale.UID)
	if err != nil {
		return nil, err
	}
	ro.row = c
	if err := ro.newest(ctx); err != nil {
		return nil, err
	}
	intent := ro.lease.Intent
	if intent != nil && intent.Version < ro.cred.Version { // it came to its end: roll forward (S66)
		if !ro.ahead { // else the others still need what is sealed in it
			ro.lease.Intent = nil
		}
		intent = nil
	}
	if ro.cred.Version > ro.stale.Version || ro.cred.Consent != ro.old.Consent {
		if ro.cred.Version > c.Version && !ro.ahead {
			ro.rollForward(ctx)
		}
		return ro.bind(ro.row, ro.cred, ro.kept)
	}
	if intent == nil || intent.Token != tokenDigest(ro.cred.RefreshToken) {
		return nil, nil
	}
	// Somebody was about to spend this refresh token. If it was another
	// process, it may be paused, or have the answer in its spool.
	if wait := time.Until(intent.Patience); intent.Node != ro.node() && wait > 0 {
		return nil, &BusyError{ID: c.ID, RetryAfter: wait, Reason: "another process has begun to and may still have the answer"}
	}
	ro.interrupted = true
	ro.Logger.Warn("a renewal was interrupted; trying once more with the same refresh token",
		connectionFields(c.ID, zap.Int("attempt", intent.Attempt+1))...)
	return nil, nil
}

// newest looks in the vault, and where newer ones may be: in this process,
// which could not write it yet, and in the intent of another that could not.
// If the vault doesn't answer, what this process has in memory will do, unless
// anybody may have renewed it since (S112).
func (ro *rotation) newest(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, vaultWait)
	defer cancel()
	if i := ro.lease.Intent; i != nil && i.Node == ro.node() {
		if err := ro.searched(short); err != nil {
			return err
		}
	}
	var err error
	ro.cred, ro.kept, err = ro.secret(short, ro.row)
	found := err == nil
	if err != nil && ended(err) {
		return err
	}
	take := func(cred scheme.Credential, from string) {
		if found && !supersedes(&cred, &ro.cred) {
			return
		}
		if !found && cred.Version < ro.row.Version {
			return // somebody has brought it to the vault and renewed it since
		}
		ro.Logger.Info("a credential that the vault doesn't have yet is there", connectionFields(ro.row.ID, zap.String("in", from))...)
		ro.cred, ro.ahead, found = cred, true, true
	}
	if i := ro.lease.Intent; i != nil && i.Sealed != nil {
		p, cred, uerr := ro.unsealed(short, i.Sealed)
		switch {
		case uerr == nil && p.UID == ro.row.UID:
			take(cred, "the store")
			ro.row.Config = merge(ro.row.Config, p.Config)
		case errors.Is(uerr, vault.ErrUnavailable):
			return uerr
		case uerr != nil:
			ro.Logger.Error("what another process has left of a renewal can't be used", connectionFields(ro.row.ID, zap.Error(uerr))...)
		}
	}
	if u := ro.unwritten(ro.row.UID); u != nil {
		take(u.credential, "the spool")
	}
	switch {
	case !found && ro.lease.Intent == nil && ro.row.Version == ro.stale.Version && ro.stale.kept != 0:
		ro.cred, ro.kept = ro.old, ro.stale.kept
	case !found:
		return err
	case !ro.ahead && ro.cred.Version < ro.row.Version:
		return ro.fellBack(ctx)
	}
	if ro.ahead {
		ro.keep(ro.row, ro.cred, ro.kept)
	}
	return nil
}

// fellBack handles a vault that holds an older credential than it did before.
func (ro *rotation) fellBack(ctx context.Context) error {
	if m := ro.old; ro.stale.Version == ro.row.Version && m.Consent == ro.cred.Consent {
		ro.Logger.Error("the vault has lost the newest credential; putting it back from memory", connectionFields(ro.row.ID)...)
		ro.cred, ro.ahead = m, true
		ro.keep(ro.row, m, ro.kept)
		return nil
	}
	ro.Logger.Error("the vault has lost the newest credential; trying the one that it holds, once", connectionFields(ro.row.ID,
		zap.Uint64("held", ro.cred.Version), zap.Uint64("lost", ro.row.Version))...)
	ro.rolledBack = true
	return nil
}

// rollForward makes a row that was left behind agree with the vault.
func (ro *rotation) rollForward(ctx context.Context) {
	row, err := ro.record(ctx, ro.row, &ro.cred)
	if err != nil {
		ro.Logger.Warn("bringing a row up to its credential", connectionFields(ro.row.ID, zap.Error(err))...)
		return
	}
	ro.row = row
}

// intend records that the refresh token may be spent from now on. Where there
// is none, nothing can be lost.
func (ro *rotation) intend(ctx context.Context) error {
	if err := ro.openHandover(ctx); err != nil && ro.cred.RefreshToken != "" {
		return err
	}
	attempt := 1
	if ro.interrupted {
		attempt = ro.lease.Intent.Attempt + 1
	}
	lease := ro.lease
	lease.Intent = nil
	if ro.cred.RefreshToken != "" {
		var sealed []byte
		if ro.ahead {
			var err error
			if sealed, err = ro.seal(ro.row, &ro.cred); err != nil {
				return err
			}
		}
		lease.Intent = &Intent{
			ID: ro.row.ID, Version: ro.cred.Version, Token: tokenDigest(ro.cred.RefreshToken), Attempt: attempt, Node: ro.node(),
			Patience: time.Now().Add(ro.leaseTTL() + ro.leaseTTL()/2), Sealed: sealed,
		}
	}
	began := time.Now()
	lease, err := ro.Store.Extend(ctx, lease, ro.leaseTTL())
	if errors.Is(err, ErrHeld) {
		return errOvertaken
	}
	if err != nil {
		return fmt.Errorf("recording that %s is about to be renewed: %w", ro.row.ID, err)
	}
	ro.lease, ro.until = lease, began.Add(ro.leaseTTL())
	return nil
}

// ask asks the provider, and takes care of what it answers.
func (ro *rotation) ask(ctx context.Context, renewer scheme.Renewer) (*Bound, error) {
	ro.step("asking")
	// A process that was paused must not spend a token that another has taken
	// over meanwhile (S60).
	if time.Until(ro.until) < ro.leaseTTL()/leaseReserve {
		return nil, errOvertaken
	}
	began := time.Now()
	ro.asked = true
	fresh, err := renewer.Renew(ctx, ro.grant())
	ro.tokenAnswered(ctx, ro.in, ro.grant(), err)
	if err != nil {
		return ro.refused(ctx, err)
	}
	ro.step("answered")
	fresh.Version, fresh.Consent = max(ro.cred.Version, ro.row.Version)+1, ro.cred.Consent
	if ro.Clock != nil { // the schemes know the machine's only
		life := fresh.Expires.Sub(fresh.Issued)
		if fresh.Issued = ro.now(); !fresh.Expires.IsZero() {
			fresh.Expires = fresh.Issued.Add(life)
		}
	}
	c := ro.row
	c.Config = merge(c.Config, fresh.Config)
	u := ro.keep(c, fresh.Credential, ro.kept)
	ro.step("spooled")
	b, err := ro.write(ctx, u)
	if err == nil {
		ro.Logger.Info("credential renewed", connectionFields(c.ID,
			zap.Uint64("version", b.Version),
			zap.Duration("took", time.Since(began)),
			zap.Time("expires", fresh.Expires))...)
	}
	return b, err
}

// write writes what keep keeps to the vault, unless that was done already by
// what delivers what is kept. If the vault doesn't take it now, it will later:
// meanwhile other processes find it sealed in the store, and this one serves it.
func (ro *rotation) write(ctx context.Context, u *unwritten) (*Bound, error) {
	c := u.connection
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), vaultWait)
	defer cancel()
	b, err := ro.commit(short, u)
	switch {
	case err == nil:
		ro.step("recorded")
		if !u.unrecorded { // else the intent is what tells that the row is behind
			ro.lease.Intent = nil
		}
		return b, nil
	case ended(err):
		ro.lease.Intent = nil
		return nil, err
	}
	ro.Logger.Error("the vault doesn't take a renewed credential; it is kept and will be written later", connectionFields(c.ID, zap.Error(err))...)
	sealed, serr := ro.seal(c, &u.credential)
	if serr == nil && ro.lease.Intent != nil {
		ro.lease.Intent.Sealed = sealed
	}
	return ro.bind(c, u.credential, 0)
}

// refused handles a token call that has brought no token. A refusal for good
// counts only if the refused credential is still the newest (S61).
func (ro *rotation) refused(ctx context.Context, cause error) (*Bound, error) {
	id := ro.row.ID
	var te *scheme.TokenError
	if !errors.As(cause, &te) || te.Class != scheme.Revoked {
		ro.Logger.Warn("renewing credential", connectionFields(id, zap.Error(cause))...)
		if i := ro.lease.Intent; i != nil {
			if errors.As(cause, &te) && te.Definite() && !ro.interrupted {
				ro.lease.Intent = nil // the provider has done nothing
			} else {
				i.Patience = time.Time{} // nobody is at it any more
			}
		}
		ro.noteFailure(ctx, te)
		return nil, cause
	}
	if b, err := ro.adopt(ctx, ro.stale); err == nil && b.newerThan(ro.stale) {
		ro.lease.Intent = nil
		return b, nil
	} else if err != nil && ended(err) {
		return nil, err
	}
	code := te.Code
	ro.refusal = te.Description
	switch {
	case ro.rolledBack:
		code = causeRolledBack
	case ro.interrupted:
		code = causeInterrupted
	}
	_, err := ro.Store.Update(ctx, id, func(row *Connection) error {
		if row.UID != ro.row.UID {
			return ErrNotFound
		}
		if row.Version > ro.row.Version {
			return vault.ErrConflict
		}
		row.end(&EventError{Type: code, Detail: te.Description})
		return nil
	})
	if errors.Is(err, vault.ErrConflict) { // the user has connected again just now
		return ro.adopt(ctx, ro.stale)
	}
	if err != nil {
		return nil, fmt.Errorf("recording that %s needs its user: %w", id, err)
	}
	ro.lease.Intent = nil
	ro.forgetParcel(ro.row.UID)
	ro.Logger.Warn("connection needs its user again", connectionFields(id, zap.String("cause", code), zap.Error(cause))...)
	return nil, &NeedsReauthError{ID: id, Cause: code}
}

// noteFailure keeps and tells that the provider gave no token; te is nil if it
// could not even be asked.
func (ro *rotation) noteFailure(ctx context.Context, te *scheme.TokenError) {
	e := EventError{Type: "refresh_error"}
	if te != nil {
		e = EventError{Type: te.Code, Detail: te.Description}
	}
	_, err := ro.Store.Update(ctx, ro.row.ID, func(row *Connection) error {
		if row.UID != ro.row.UID {
			return ErrNotFound
		}
		if row.Version > ro.row.Version {
			return vault.ErrConflict
		}
		row.fail(&e, ro.now())
		return nil
	})
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, vault.ErrConflict) {
		ro.Logger.Warn("recording that a renewal has failed", connectionFields(ro.row.ID, zap.Error(err))...)
	}
}

// record updates the row to a credential that is in the vault. ErrNotFound if
// the connection is gone, vault.ErrConflict if the row tells of a newer one.
func (r *Refresher) record(ctx context.Context, c Connection, cred *scheme.Credential) (Connection, error) {
	used := r.entry(c.ID).used.Swap(false)
	missing := r.lacking(c.ID, cred)
	var lacked []string
	updated, err := r.Store.Update(ctx, c.ID, func(row *Connection) error {
		if row.UID != c.UID {
			return ErrNotFound
		}
		if row.Version > cred.Version {
			return vault.ErrConflict
		}
		row.mend()
		if row.Status != StatusDisabled {
			row.Status, row.Cause = StatusActive, ""
		}
		row.Version, row.Expires = cred.Version, cred.Expires
		row.Config = merge(row.Config, c.Config)
		row.Due = dueAfter(cred, used)
		lacked, row.MissingScopes = row.MissingScopes, missing
		return nil
	})
	if err == nil {
		r.noteScopes(c.ID, lacked, missing)
	}
	return updated, err
}

// merge returns old with what is new in it. The row of a connection may have
// got other values meanwhile: those that a renewal hasn't touched stay.
func merge(old, new map[string]string) map[string]string {
	if len(new) == 0 {
		return old
	}
	out := maps.Clone(old)
	if out == nil {
		out = make(map[string]string, len(new))
	}
	maps.Copy(out, new)
	return out
}

func connectionFields(id ID, more ...zap.Field) []zap.Field {
	return append([]zap.Field{zap.String("integration", id.Integration), zap.String("connection", id.Connection)}, more...)
}
