package connect

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// HoldTTL is how long a code waits, sealed, for the proof of who has brought it.
const HoldTTL = 90 * time.Second

// Hold is what a visitor has brought and what is not redeemed yet. Sealed can
// be opened with the key alone, of which there is but the digest here: neither
// who has the store nor the operator can redeem it.
type Hold struct {
	Key    Digest
	Sealed []byte
	Until  time.Time
}

// Waiting is a hold as its browser knows it.
type Waiting struct {
	// Key opens the hold, once.
	Key string
	// Until is when it can't be opened any more.
	Until time.Time
	// ReturnURL is the app's address to which the key is brought as a ticket;
	// empty if another proof is wanted.
	ReturnURL string
}

// held is what is sealed: a callback with what it takes to redeem it, or the
// grant that was made of a form.
type held struct {
	State    string     `json:"state,omitempty"`
	Binding  string     `json:"binding,omitempty"`
	Callback url.Values `json:"callback,omitempty"`

	Credential []byte            `json:"credential,omitempty"`
	Config     map[string]string `json:"config,omitempty"`
}

// holdKey is the key to what a callback has brought.
func holdKey(state, binding string) string {
	return hex.EncodeToString(derive("held code", state, binding))
}

// sealer is the AEAD of one hold: AES-256-GCM, with a key that is used once.
func sealer(key string) (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("seal"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// belongs is what a hold is sealed to: it can't be opened as another flow's.
func (f *Flow) belongs() []byte {
	return fmt.Appendf(nil, "%s\x00%s\x00%x\x00%s", f.ID, f.Integration, f.Session, f.RedirectURL)
}

func seal(f *Flow, key string, h held) ([]byte, error) {
	plain, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	aead, err := sealer(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, f.belongs()), nil
}

func unseal(f *Flow, key string) (h held, err error) {
	aead, err := sealer(key)
	if err != nil {
		return held{}, err
	}
	plain, err := aead.Open(nil, nil, f.Hold.Sealed, f.belongs())
	if err != nil {
		return held{}, errors.New("opening what was held: it was changed")
	}
	if err := json.Unmarshal(plain, &h); err != nil {
		return held{}, errors.New("opening what was held: it can't be read")
	}
	return h, nil
}

// hold seals what a visitor has brought and lets it wait.
func (c *Connector) hold(ctx context.Context, f *Flow, s *Session, in *Integration, key string, h held) (*Waiting, error) {
	sealed, err := seal(f, key, h)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	until := time.Now().Add(HoldTTL)
	if err := c.Store.HoldFlow(ctx, f.ID, Hold{Key: DigestOf(key), Sealed: sealed, Until: until}); err != nil {
		return nil, fmt.Errorf("holding what was brought: %w", err)
	}
	c.step(ctx, "waiting", "for the proof of who is there")
	c.Logger.Info("waiting for the proof of who is there", f.fields()...)
	return &Waiting{Key: key, Until: until, ReturnURL: in.Trust.ReturnURL(s)}, nil
}

// holdForm lets the grant of a form wait, as a callback would.
func (c *Connector) holdForm(ctx context.Context, v *Visit, in *Integration, g scheme.Grant) (Step, error) {
	credential, err := g.Encode()
	if err != nil {
		return Step{}, fmt.Errorf("encoding credential: %w", err)
	}
	key := randomHex(32)
	f := Flow{
		ID: attemptOf(ctx).id, State: DigestOf(randomHex(32)), Browser: DigestOf(key), Session: v.Token,
		Integration: in.Key, Expires: time.Now().Add(FlowTTL),
	}
	if err := c.Store.PutFlow(ctx, f); err != nil {
		return Step{}, fmt.Errorf("storing attempt: %w", err)
	}
	c.note(ctx, f.Session, Result{Status: Pending, Integration: in.Key})
	w, err := c.hold(ctx, &f, &v.Session, in, key, held{Credential: credential, Config: g.Config})
	return Step{Flow: f.ID, Waiting: w}, err
}

// Confirm takes the proof of who is at the browser, and only then redeems what
// the key opens. The key works once, whatever comes of it: with a wrong proof
// the code is thrown away (S1). How the flow has ended is also kept for Flow.
//
// Errors: ErrFlowExpired (with no Arrival), ErrUserMismatch, ErrProofRefused,
// ErrOtherAccount, ErrAccountUnknown, and those of Arrive.
func (c *Connector) Confirm(ctx context.Context, key string, e Evidence) (Arrival, error) {
	return c.release(ctx, key, func(ctx context.Context, f *Flow) (Connection, error) { return c.confirm(ctx, f, key, e) })
}

// Refuse throws away what the key opens: the person at the browser says that it
// is not meant so.
func (c *Connector) Refuse(ctx context.Context, key string) (Arrival, error) {
	a, err := c.release(ctx, key, func(context.Context, *Flow) (Connection, error) { return Connection{}, ErrUserMismatch })
	if errors.Is(err, ErrUserMismatch) {
		err = nil
	}
	return a, err
}

func (c *Connector) release(ctx context.Context, key string, confirm func(context.Context, *Flow) (Connection, error)) (Arrival, error) {
	f, err := c.Store.TakeHeld(ctx, DigestOf(key))
	if errors.Is(err, ErrNotFound) {
		return Arrival{}, ErrFlowExpired
	}
	if err != nil {
		return Arrival{}, fmt.Errorf("reading what was held: %w", err)
	}
	ctx = resume(ctx, &f)
	conn, err := confirm(ctx, &f)
	return c.finish(ctx, f, conn, err)
}

func (c *Connector) confirm(ctx context.Context, f *Flow, key string, e Evidence) (Connection, error) {
	s, in, err := c.party(ctx, f)
	if err != nil {
		return Connection{}, err
	}
	if !in.Trust.Accepts(e.By) {
		return Connection{}, ErrProofRefused
	}
	if e.By != ByApp && in.Trust.ReturnURL(&s) != "" {
		return Connection{}, ErrProofRefused // the app has asked to prove it itself
	}
	if !e.holds(f, &s, &in.Trust) {
		return Connection{}, ErrUserMismatch
	}
	h, err := unseal(f, key)
	if err != nil {
		return Connection{}, err
	}
	c.step(ctx, "proved", "by "+string(e.By))
	c.Logger.Info("proved who is there", append(f.fields(), zap.String("proof", string(e.By)))...)
	g, err := c.redeem(ctx, f, &s, in, h)
	if err != nil {
		return Connection{}, err
	}
	if h.Credential == nil {
		c.step(ctx, "exchanged", "the provider has issued a credential")
	}
	// From here on the code is spent: a visitor who goes away must not undo it.
	return c.save(context.WithoutCancel(ctx), &s, in, g)
}

func (c *Connector) redeem(ctx context.Context, f *Flow, s *Session, in *Integration, h held) (scheme.Grant, error) {
	if h.Credential != nil {
		credential, err := scheme.DecodeCredential(h.Credential)
		return scheme.Grant{Credential: credential, Config: h.Config}, err
	}
	r, ok := in.Scheme.(scheme.Redirector)
	if !ok {
		return scheme.Grant{}, ErrNotAllowed
	}
	return r.Exchange(ctx, schemeFlow(f, h.State, h.Binding, s.Defaults[in.Key]), h.Callback)
}
