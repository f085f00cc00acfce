package connect

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// handoverName is where the vault keeps the key that new credentials are sealed
// with until the vault has them: in the spool, and in the store for other
// processes. So whoever has the disk or the store alone has nothing (S53).
const handoverName = "handover/key"

// handover is that key, once it was read: made by the first process that needs
// it, the same for all.
type handover struct{ aead atomic.Pointer[cipher.AEAD] }

var errNoHandover = errors.New("the key that new credentials are sealed with has not been read yet")

// openHandover reads the key, or makes it.
func (r *Refresher) openHandover(ctx context.Context) error {
	if r.handover.aead.Load() != nil {
		return nil
	}
	e, err := r.Vault.Read(ctx, handoverName)
	if errors.Is(err, vault.ErrNotFound) && !r.ReadOnly {
		key := make([]byte, 32)
		rand.Read(key) // never fails: crypto/rand crashes the program instead
		e.Value = key
		_, err = r.Vault.Write(ctx, handoverName, key, 0)
		if errors.Is(err, vault.ErrConflict) { // another process was faster
			e, err = r.Vault.Read(ctx, handoverName)
		}
	}
	if err != nil {
		return fmt.Errorf("reading the handover key: %w", err)
	}
	block, err := aes.NewCipher(e.Value)
	if err != nil {
		return fmt.Errorf("the handover key in the vault (%s) is damaged: %w", handoverName, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	r.handover.aead.Store(&aead)
	return nil
}

// parcel is a new credential on its way to the vault.
type parcel struct {
	ID         ID              `json:"id"`
	UID        string          `json:"uid"`
	Credential json.RawMessage `json:"credential"`
	// Config holds the plain values that the renewal has changed.
	Config map[string]string `json:"config,omitempty"`
}

// seal makes a parcel that only processes with the same vault can open.
func (r *Refresher) seal(c Connection, cred *scheme.Credential) ([]byte, error) {
	aead := r.handover.aead.Load()
	if aead == nil {
		return nil, errNoHandover
	}
	value, err := cred.Encode()
	if err != nil {
		return nil, fmt.Errorf("encoding credential: %w", err)
	}
	plain, err := json.Marshal(parcel{ID: c.ID, UID: c.UID, Credential: value, Config: c.Config})
	if err != nil {
		return nil, fmt.Errorf("encoding credential: %w", err)
	}
	return (*aead).Seal(nil, nil, plain, []byte(handoverName)), nil
}

// unseal opens a parcel.
func (r *Refresher) unseal(sealed []byte) (parcel, scheme.Credential, error) {
	aead := r.handover.aead.Load()
	if aead == nil {
		return parcel{}, scheme.Credential{}, errNoHandover
	}
	plain, err := (*aead).Open(nil, nil, sealed, []byte(handoverName))
	if err != nil {
		return parcel{}, scheme.Credential{}, errors.New("a sealed credential doesn't open: it is damaged, or of another vault")
	}
	var p parcel
	if err := json.Unmarshal(plain, &p); err != nil {
		return parcel{}, scheme.Credential{}, errors.New("a sealed credential is not in the form expected")
	}
	cred, err := scheme.DecodeCredential(p.Credential)
	return p, cred, err
}

// unsealed is unseal for a process that may not have read the key yet.
func (r *Refresher) unsealed(ctx context.Context, sealed []byte) (parcel, scheme.Credential, error) {
	if err := r.openHandover(ctx); err != nil {
		return parcel{}, scheme.Credential{}, err
	}
	return r.unseal(sealed)
}

// tokenDigest names a refresh token without telling it.
func tokenDigest(token scheme.Secret) string {
	sum := sha256.Sum256([]byte(token.Reveal()))
	return hex.EncodeToString(sum[:])
}
