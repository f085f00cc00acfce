// Package sealed is the vault that keycaddy brings along: secrets are sealed
// with authenticated encryption and the sealed bytes rest in a table of the
// store. Whoever has the table alone (a dump, a backup, a stolen disk) has
// nothing; the key ring is a file of its own, see [OpenKeys].
//
// It protects what rests, not a machine that somebody else has entered: there
// the key ring can be read as well. For that, use a vault on another machine.
//
// # Format
//
// A blob is a Tink ciphertext: a byte 1, the key's id in four bytes, a nonce of
// 24 bytes, the XChaCha20-Poly1305 ciphertext and its tag of 16 bytes; 45 bytes
// longer than the value. The additional data binds it to its place:
//
//	"keycaddy sealed 1" NUL, length of name (4 bytes), name, version (8 bytes)
//
// with numbers in big endian. A blob that is moved to another name (another
// connection's), or is put back later as if it were a newer version, therefore
// doesn't open.
//
// The package may import vault, Tink and the standard library only.
package sealed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/keycaddy/keycaddy/vault"
)

// Overhead is how many bytes a blob is longer than the value sealed in it.
const Overhead = 5 + 24 + 16

// Blobs is the table that sealed bytes rest in. Packages of stores implement it
// by method set alone, without importing this one, and so it has no sentinel
// errors. All methods may be called concurrently, also from several processes.
type Blobs interface {
	// ReadBlob returns the blob with the name and its version; ok is false if
	// there is none. The caller may change data.
	ReadBlob(ctx context.Context, name string) (data []byte, version uint64, ok bool, err error)

	// WriteBlob makes data the blob with the name, as version after+1, if its
	// version is after (0: there is none), as one atomic and durable step.
	// Otherwise it changes nothing and written is false.
	WriteBlob(ctx context.Context, name string, data []byte, after uint64) (written bool, err error)

	// DeleteBlob removes the blob; removing none is no error.
	DeleteBlob(ctx context.Context, name string) error
}

// Vault is a vault.Vault over a table of sealed blobs. Errors of the table
// wrap vault.ErrUnavailable beside the table's own.
type Vault struct {
	blobs Blobs
	keys  *Keys
}

var _ vault.Vault = (*Vault)(nil)

// New returns the vault that seals with the keys k and keeps the outcome in b.
func New(b Blobs, k *Keys) *Vault { return &Vault{blobs: b, keys: k} }

// Read implements vault.Vault.
func (v *Vault) Read(ctx context.Context, name string) (vault.Entry, error) {
	e, _, err := v.read(ctx, name)
	if err != nil {
		return vault.Entry{}, fmt.Errorf("reading secret: %w", err)
	}
	return e, nil
}

// Write implements vault.Vault. It always seals with the newest key, also if
// another process has just made it.
func (v *Vault) Write(ctx context.Context, name string, value []byte, after vault.Version) (vault.Version, error) {
	if err := v.write(ctx, name, value, after); err != nil {
		return 0, fmt.Errorf("writing secret: %w", err)
	}
	return after + 1, nil
}

// Delete implements vault.Vault.
func (v *Vault) Delete(ctx context.Context, name string) error {
	if err := vault.CheckName(name); err != nil {
		return fmt.Errorf("deleting secret: %w", err)
	}
	if err := v.blobs.DeleteBlob(ctx, name); err != nil {
		return fmt.Errorf("deleting secret: %w", unavailable(ctx, err))
	}
	return nil
}

// Rewrap seals the secret again, as a new version with the same value, if it
// isn't sealed with the newest key, and tells whether that was needed. Like
// Read and Write it fails with ErrNotFound, ErrCorrupt or ErrConflict; after
// the last the way out is to call it again.
func (v *Vault) Rewrap(ctx context.Context, name string) (bool, error) {
	e, key, err := v.read(ctx, name)
	if err != nil {
		return false, fmt.Errorf("rewrapping secret: %w", err)
	}
	if key == v.keys.newest().primary {
		return false, nil
	}
	if err := v.write(ctx, name, e.Value, e.Version); err != nil {
		return false, fmt.Errorf("rewrapping secret: %w", err)
	}
	return true, nil
}

// read returns the entry and the id of the key that it was sealed with.
func (v *Vault) read(ctx context.Context, name string) (vault.Entry, uint32, error) {
	if err := vault.CheckName(name); err != nil {
		return vault.Entry{}, 0, err
	}
	blob, version, ok, err := v.blobs.ReadBlob(ctx, name)
	switch {
	case err != nil:
		return vault.Entry{}, 0, unavailable(ctx, err)
	case !ok:
		return vault.Entry{}, 0, vault.ErrNotFound
	}
	id, ok := keyOf(blob)
	if !ok {
		return vault.Entry{}, 0, fmt.Errorf("%w: %d bytes that aren't sealed", vault.ErrCorrupt, len(blob))
	}
	r := v.keys.holding(id)
	if r == nil {
		return vault.Entry{}, 0, fmt.Errorf("%w: key %08x is not in the key ring", vault.ErrCorrupt, id)
	}
	value, err := r.aead.Decrypt(blob, place(name, version))
	if err != nil { // Tink says no more than this
		return vault.Entry{}, 0, fmt.Errorf("%w: it was changed, or belongs to another name or version", vault.ErrCorrupt)
	}
	return vault.Entry{Value: value, Version: vault.Version(version)}, id, nil
}

func (v *Vault) write(ctx context.Context, name string, value []byte, after vault.Version) error {
	if err := vault.CheckName(name); err != nil {
		return err
	}
	if err := vault.CheckValue(value); err != nil {
		return err
	}
	if after == math.MaxUint64 { // nobody has read that one
		return vault.ErrConflict
	}
	blob, err := v.keys.newest().aead.Encrypt(value, place(name, uint64(after)+1))
	if err != nil {
		return errors.New("sealing failed")
	}
	written, err := v.blobs.WriteBlob(ctx, name, blob, uint64(after))
	switch {
	case err != nil:
		return unavailable(ctx, err)
	case !written:
		return vault.ErrConflict
	}
	return nil
}

// place is the additional data: where the blob belongs. (The length keeps
// different names and versions from making the same bytes.)
func place(name string, version uint64) []byte {
	const format = "keycaddy sealed 1\x00"
	p := make([]byte, 0, len(format)+4+len(name)+8)
	p = append(p, format...)
	p = binary.BigEndian.AppendUint32(p, uint32(len(name)))
	p = append(p, name...)
	return binary.BigEndian.AppendUint64(p, version)
}

// keyOf returns the id of the key that a blob is sealed with.
func keyOf(blob []byte) (uint32, bool) {
	if len(blob) < Overhead || blob[0] != 1 {
		return 0, false
	}
	return binary.BigEndian.Uint32(blob[1:5]), true
}

// unavailable adds vault.ErrUnavailable to an error of the table, unless the
// caller's own context is the cause.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", vault.ErrUnavailable, err)
}
