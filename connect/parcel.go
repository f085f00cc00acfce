package connect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/spool"
	"github.com/keycaddy/keycaddy/vault"
)

// unwritten is a credential that the provider has issued and the vault hasn't
// got yet. It is in memory, and sealed in the spool.
type unwritten struct {
	connection Connection
	credential scheme.Credential
	after      vault.Version // what the vault held when it was issued; 0: not known
	writing    sync.Mutex
	spooled    bool
	// unrecorded: the vault has it, but the row could not be told.
	unrecorded bool
}

// unwritten returns what the vault hasn't got yet of a connection, or nil.
func (r *Refresher) unwritten(uid string) *unwritten {
	if u, ok := r.parcels.Load(uid); ok {
		return u.(*unwritten)
	}
	return nil
}

// keep takes care of a credential until the vault has it: from here on it
// outlives this process, if there is a spool.
func (r *Refresher) keep(c Connection, cred scheme.Credential, after vault.Version) *unwritten {
	if u := r.unwritten(c.UID); u != nil && u.credential.Consent == cred.Consent && u.credential.Version >= cred.Version {
		return u
	}
	u := &unwritten{connection: c, credential: cred, after: after}
	u.writing.Lock()
	defer u.writing.Unlock()
	r.parcels.Store(c.UID, u)
	if r.Spool == nil || cred.RefreshToken == "" {
		return u // nothing is lost with it that couldn't be had again
	}
	sealed, err := r.seal(c, &cred)
	if err == nil {
		err = r.Spool.Put(c.UID, sealed)
	}
	if err != nil {
		r.Logger.Error("spooling a renewed credential; until the vault has it, it is in memory only", connectionFields(c.ID, zap.Error(err))...)
		return u
	}
	u.spooled = true
	return u
}

// commit writes a kept credential to the vault, unless there is a newer one,
// and the row after it. What the vault has by the end is returned, bound.
// ErrNotFound if the connection is gone.
func (r *Refresher) commit(ctx context.Context, u *unwritten) (*Bound, error) {
	u.writing.Lock()
	defer u.writing.Unlock()
	c := u.connection
	value, err := u.credential.Encode()
	if err != nil {
		return nil, fmt.Errorf("encoding credential: %w", err)
	}
	kept, known := u.after, u.after != 0
	for {
		if known {
			version, err := r.Vault.Write(ctx, c.VaultName(), value, kept)
			if err == nil {
				kept = version
				break
			}
			if !errors.Is(err, vault.ErrConflict) {
				return nil, fmt.Errorf("storing the renewed credential of %s: %w", c.ID, err)
			}
		}
		// What is there is ours, if the answer to a write was lost; or somebody
		// else's, who may be behind or ahead of us (S70).
		held, version, err := r.held(ctx, c)
		if err != nil {
			return nil, r.settled(u, err)
		}
		kept, known = version, true
		if held.Version == u.credential.Version && held.AccessToken == u.credential.AccessToken {
			break
		}
		if version != 0 && !supersedes(&u.credential, &held) {
			r.drop(u)
			return r.adopt(ctx, &Bound{ID: c.ID, UID: c.UID})
		}
	}
	r.trace("written", c.ID)
	row, err := r.record(ctx, c, &u.credential)
	switch {
	case errors.Is(err, vault.ErrConflict): // the user has connected again since
		r.drop(u)
		return r.adopt(ctx, &Bound{ID: c.ID, UID: c.UID})
	case errors.Is(err, ErrNotFound):
		return nil, r.settled(u, r.bury(ctx, c, err))
	case err != nil:
		// The vault has it, and that is what counts; the row catches up later.
		r.Logger.Error("recording a renewal", connectionFields(c.ID, zap.Error(err))...)
		row = c
		row.Version = u.credential.Version
		u.unrecorded = true
	}
	r.drop(u)
	return r.bind(row, u.credential, kept)
}

// held is what the vault has of a connection; version 0: nothing, although the
// connection is there.
func (r *Refresher) held(ctx context.Context, c Connection) (scheme.Credential, vault.Version, error) {
	e, err := r.Vault.Read(ctx, c.VaultName())
	if errors.Is(err, vault.ErrNotFound) {
		_, err = r.current(ctx, c.ID, c.UID)
		return scheme.Credential{}, 0, err
	}
	if err != nil {
		return scheme.Credential{}, 0, fmt.Errorf("reading the credential of %s: %w", c.ID, err)
	}
	cred, err := scheme.DecodeCredential(e.Value)
	return cred, e.Version, err
}

// settled drops a kept credential for good if its connection has ended. One that
// is nowhere but here is revoked at once, if the provider can be told.
func (r *Refresher) settled(u *unwritten, err error) error {
	if !ended(err) {
		return err
	}
	r.drop(u)
	if errors.Is(err, ErrNotFound) {
		ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
		defer cancel()
		i := &Intent{ID: u.connection.ID, Config: u.connection.Config}
		if rerr := r.revoke(ctx, i, u.credential); rerr != nil {
			r.Logger.Warn("a grant that came for a removed connection is dropped", connectionFields(i.ID, zap.Error(rerr))...)
		}
	}
	return err
}

// drop lets go of a kept credential, which is where it belongs.
func (r *Refresher) drop(u *unwritten) {
	uid := u.connection.UID
	if !r.parcels.CompareAndDelete(uid, u) || !u.spooled {
		return
	}
	if err := r.Spool.Remove(uid); err != nil {
		r.Logger.Warn("removing a credential from the spool that the vault has", connectionFields(u.connection.ID, zap.Error(err))...)
	}
}

// forgetParcel drops what is kept of a connection whose credential is refused.
func (r *Refresher) forgetParcel(uid string) {
	if u := r.unwritten(uid); u != nil {
		r.drop(u)
	}
}

// bury clears up after a version that was written for a connection that has
// been removed meanwhile (S82).
func (r *Refresher) bury(ctx context.Context, c Connection, cause error) error {
	l, err := r.removal(ctx, c)
	if err != nil {
		r.Logger.Error("removing the credential of a removed connection", connectionFields(c.ID, zap.Error(err))...)
	} else {
		r.clearUp(ctx, l)
	}
	return fmt.Errorf("connection %s was removed while it was renewed: %w", c.ID, cause)
}

// Unwritten is how many renewed credentials the vault hasn't got yet.
func (r *Refresher) Unwritten() int {
	n := 0
	r.parcels.Range(func(any, any) bool { n++; return true })
	return n
}

// deliver writes what is kept to the vault, and what a former life of this
// process has left in the spool.
func (r *Refresher) deliver(ctx context.Context) {
	r.collect(ctx)
	r.parcels.Range(func(_, v any) bool {
		u := v.(*unwritten)
		bounded, cancel := context.WithTimeout(ctx, vaultWait)
		defer cancel()
		b, err := r.commit(bounded, u)
		switch {
		case err == nil:
			r.Logger.Info("a renewed credential that was kept is in the vault now", connectionFields(b.ID)...)
			r.entry(b.ID).replace(b)
		case ctx.Err() != nil || !errors.Is(err, vault.ErrUnavailable):
			if ctx.Err() == nil && !ended(err) {
				r.Logger.Error("writing a kept credential", connectionFields(u.connection.ID, zap.Error(err))...)
			}
		default:
			return false // the next one would fare no better
		}
		return ctx.Err() == nil
	})
}

// collect takes over what a former life has left in the spool. It needs the
// handover key, and with it the vault.
func (r *Refresher) collect(ctx context.Context) {
	if r.Spool == nil || r.collected.Load() {
		return
	}
	r.collecting.Lock()
	defer r.collecting.Unlock()
	if r.collected.Load() {
		return
	}
	if err := r.openHandover(ctx); err != nil {
		return // asked again soon; the outage is reported elsewhere
	}
	if err := r.takeOver(r.Spool); err != nil {
		r.Logger.Error("reading the spool", zap.Error(err))
		return
	}
	r.collected.Store(true)
}

// searched makes sure that nothing is left in the spool which this process
// doesn't know of: it may be what became of a renewal that its former life had
// begun.
func (r *Refresher) searched(ctx context.Context) error {
	if r.collect(ctx); r.Spool != nil && !r.collected.Load() {
		return fmt.Errorf("the spool could not be searched yet: %w", vault.ErrUnavailable)
	}
	return nil
}

// takeOver keeps what is in a spool.
func (r *Refresher) takeOver(s *spool.Spool) error {
	items, err := s.Items()
	if err != nil {
		return err
	}
	for _, item := range items {
		p, cred, err := r.unseal(item)
		if err != nil {
			r.Logger.Error("a file in the spool can't be used", zap.Error(err))
			continue
		}
		r.Logger.Info("found a renewed credential that was kept before the process ended", connectionFields(p.ID)...)
		r.keep(Connection{ID: p.ID, UID: p.UID, Config: p.Config}, cred, 0)
	}
	return nil
}

// flush waits until all that is kept is in the vault or in the spool.
func (r *Refresher) flush(ctx context.Context) error {
	for {
		loose := 0
		r.parcels.Range(func(_, v any) bool {
			u := v.(*unwritten)
			if _, err := r.commit(ctx, u); err != nil && !u.spooled && u.credential.RefreshToken != "" && !ended(err) {
				loose++
			}
			return ctx.Err() == nil
		})
		if loose == 0 && ctx.Err() == nil {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			if loose > 0 {
				return fmt.Errorf("%d renewed credentials are lost with this process: neither the vault nor the spool has taken them: %w", loose, ctx.Err())
			}
			return nil
		}
	}
}
