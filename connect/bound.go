package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

const (
	// A credential is renewed in the background when a fifth of its lifetime is
	// left, or five minutes.
	latestMargin   = 5 * time.Minute
	marginFraction = 5
	// It is taken to have ended a tenth of its lifetime before the provider's
	// time, or ten seconds: a call takes a while to get there.
	maxSkew = 10 * time.Second
)

// causeMissing is the cause of a connection whose secret isn't in the vault any
// more (S56).
const causeMissing = "credential_missing"

// Bound is one version of a connection's credential, ready for use.
type Bound struct {
	scheme.Binding
	// ID, UID and Provider are those of the connection.
	ID            ID
	UID, Provider string
	// User is the app's name of the end user that the connection belongs to, or
	// empty.
	User string
	// Version is the credential's number, see scheme.Credential.
	Version uint64

	// expires is when the credential is taken to be useless, a little before
	// the provider's own time, and renewAt when it is renewed in the
	// background; 0: never. updated is the row's Updated.
	expires, renewAt, updated moment
	token                     scheme.Secret // the access token, if there is one
	packed                    packed
	// kept is its version in the vault; 0: it isn't there yet.
	kept vault.Version
	// grace is the integration's OutageGrace.
	grace time.Duration
	// calls are those of its connection that are under way.
	calls *calls
}

// moment is a time in microseconds since 1970; 0: none.
type moment int64

func momentOf(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return moment(t.UnixMicro())
}

// Bind puts what is known of a connection together with its compiled credential.
func Bind(binding *scheme.Binding, c Connection, cred scheme.Credential) (*Bound, error) {
	b := &Bound{
		Binding: *binding, ID: c.ID, UID: c.UID, Provider: c.Provider, Version: cred.Version,
		updated: momentOf(c.Updated),
	}
	if c.EndUser != nil {
		b.User = c.EndUser.ID
	}
	rest, err := pack(c, &cred)
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", c.ID, err)
	}
	b.packed = packed(rest)
	join(append(b.Texts(), &b.UID, &b.User, (*string)(&b.packed))...)
	b.token = b.Shared(cred.AccessToken)
	if end := cred.Expires; !end.IsZero() && binding.Renewable {
		life := end.Sub(cred.Issued)
		b.expires = momentOf(end.Add(-min(maxSkew, life/10)))
		b.renewAt = momentOf(end.Add(-max(min(latestMargin, life/marginFraction), min(binding.Margin(), life))))
	}
	return b, nil
}

// Ends is when the access token is taken to be useless, a little before the
// provider's own time; not ok: that isn't known.
func (b *Bound) Ends() (_ time.Time, ok bool) {
	return time.UnixMicro(int64(b.expires)), b.expires != 0
}

// Secret returns a value of the credential by its name in the catalog, such as
// api_key or access_token.
func (b *Bound) Secret(name string) (_ scheme.Secret, ok bool, _ error) {
	if name == "access_token" {
		return b.token, b.token != "", nil
	}
	cred, err := b.credential()
	v, ok := cred.Fields[name]
	return v, ok, err
}

func (b *Bound) newerThan(stale *Bound) bool {
	return b.UID != stale.UID || b.Version > stale.Version
}

// load reads the connection as it is.
func (r *Refresher) load(ctx context.Context, id ID) (*Bound, error) {
	c, err := r.Store.Connection(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("reading connection %s: %w", id, err)
	}
	if err := usable(&c); err != nil {
		return nil, err
	}
	if c.ID == id {
		c.ID = id // the store's copies of the same strings needn't be held
	}
	b, err := r.fetch(ctx, c)
	if err != nil && !ended(err) {
		// One that the vault has not taken yet is newer than what is there.
		if u := r.unwritten(c.UID); u != nil {
			return r.bind(c, u.credential, 0)
		}
	}
	return b, err
}

// usable tells what keeps a connection from being used.
func usable(c *Connection) error {
	switch c.Status {
	case StatusNeedsReauth:
		return &NeedsReauthError{ID: c.ID, Cause: c.Cause}
	case StatusDisabled:
		return &DisabledError{ID: c.ID}
	}
	return nil
}

// fetch binds what the vault holds of a connection, or what it is about to.
func (r *Refresher) fetch(ctx context.Context, c Connection) (*Bound, error) {
	cred, kept, err := r.secret(ctx, c)
	if err != nil {
		return nil, err
	}
	if u := r.unwritten(c.UID); u != nil && supersedes(&u.credential, &cred) {
		cred, kept = u.credential, 0
	}
	return r.bind(c, cred, kept)
}

// current reads the row of the connection, which has to be the very one still.
func (r *Refresher) current(ctx context.Context, id ID, uid string) (Connection, error) {
	row, err := r.Store.Connection(ctx, id)
	if err != nil {
		return row, fmt.Errorf("reading connection %s: %w", id, err)
	}
	if row.UID != uid {
		return row, fmt.Errorf("connection %s was made anew: %w", id, ErrNotFound)
	}
	return row, usable(&row)
}

// adopt binds what there is now.
func (r *Refresher) adopt(ctx context.Context, stale *Bound) (*Bound, error) {
	c, err := r.current(ctx, stale.ID, stale.UID)
	if err != nil {
		return nil, err
	}
	return r.fetch(ctx, c)
}

// secret reads the connection's credential from the vault. If it is gone, that
// is recorded: only its user can bring another.
func (r *Refresher) secret(ctx context.Context, c Connection) (scheme.Credential, vault.Version, error) {
	e, err := r.Vault.Read(ctx, c.VaultName())
	if errors.Is(err, vault.ErrNotFound) {
		return scheme.Credential{}, 0, r.missing(ctx, c)
	}
	if err != nil {
		return scheme.Credential{}, 0, fmt.Errorf("reading the credential of %s: %w", c.ID, err)
	}
	cred, err := scheme.DecodeCredential(e.Value)
	if err != nil {
		return scheme.Credential{}, 0, fmt.Errorf("connection %s: %w", c.ID, err)
	}
	return cred, e.Version, nil
}

// missing records that the vault has no credential for the connection, unless
// the connection is gone as well.
func (r *Refresher) missing(ctx context.Context, c Connection) error {
	if r.ReadOnly {
		return &NeedsReauthError{ID: c.ID, Cause: causeMissing}
	}
	_, err := r.Store.Update(ctx, c.ID, func(row *Connection) error {
		if row.UID != c.UID {
			return ErrNotFound
		}
		row.end(&EventError{Type: causeMissing})
		return nil
	})
	if err != nil {
		return fmt.Errorf("the credential of %s is missing: %w", c.ID, err)
	}
	r.Logger.Error("the vault has no credential for the connection; its user has to connect again",
		connectionFields(c.ID, zap.String("cause", causeMissing))...)
	return &NeedsReauthError{ID: c.ID, Cause: causeMissing}
}

// bind makes a credential ready for use.
func (r *Refresher) bind(c Connection, cred scheme.Credential, kept vault.Version) (*Bound, error) {
	in, err := r.setup.Load().Integration(c.Integration)
	if err != nil {
		return nil, err
	}
	binding, err := in.Scheme.Bind(scheme.Grant{Credential: cred, Config: c.Config})
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", c.ID, err)
	}
	r.share(in, &c, binding)
	b, err := Bind(binding, c, cred)
	if err != nil {
		return nil, err
	}
	b.kept, b.grace = kept, in.outageGrace()
	return b, nil
}

// share lets a connection hold what is the same for all of its integration, and
// not copies of that: there may be a million of them in memory.
func (r *Refresher) share(in *Integration, c *Connection, binding *scheme.Binding) {
	if c.Integration == in.Key {
		c.Integration = in.Key
	}
	if c.Provider == in.Provider.ID {
		c.Provider = in.Provider.ID
	}
	last, _ := r.common.Load(in.Key)
	with, _ := last.(*scheme.Common)
	if now := binding.Share(with); now != with {
		r.common.Store(in.Key, now)
	}
}

// Credential returns the connection's credential itself, for apps that fetch
// it; it is renewed first if it has ended. Errors are those of Current.
func (r *Refresher) Credential(ctx context.Context, id ID) (Connection, scheme.Credential, error) {
	b, err := r.Current(ctx, id)
	if err != nil {
		return Connection{}, scheme.Credential{}, err
	}
	c, err := b.Connection()
	if err != nil {
		return Connection{}, scheme.Credential{}, err
	}
	cred, err := b.credential()
	return c, cred, err
}

// supersedes tells whether a takes the place of b: it came of the same consent
// by more renewals. What came of another consent never does: the user has
// connected again since.
func supersedes(a, b *scheme.Credential) bool {
	return a.Consent == b.Consent && a.Version > b.Version
}
