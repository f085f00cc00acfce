// Package vault says where secrets rest: under a name, in versions, written
// only by check-and-set.
//
// The check-and-set is the one commit point of keycaddy: of two writers that
// read the same version exactly one succeeds, whatever became of their locks.
// A vault keeps bytes and knows nothing of providers, connections or tokens.
//
// It may import the standard library only; the vaults in its sub-packages
// bring the rest. Every vault passes the contract in vault/vaulttest.
package vault

import (
	"context"
	"errors"
)

// Version counts the writes of one name. The first write makes version 1.
// 0 stands for "nothing rests there". After a Delete the count begins anew, so
// names that may be deleted must not be used again for something else.
type Version uint64

// Entry is the newest value of a name.
type Entry struct {
	Value   []byte
	Version Version
}

var (
	// ErrNotFound says that nothing rests under the name: it was never
	// written, or it was deleted.
	ErrNotFound = errors.New("vault: no such secret")

	// ErrConflict says that the name's newest version is not the one that the
	// writer had read. Nothing was written. The way out is to read again.
	ErrConflict = errors.New("vault: secret changed since it was read")

	// ErrCorrupt says that what rests under the name can't be opened: it was
	// changed, moved from another name or version, or sealed with a key that
	// is not in the key ring. It is never answered by writing a blank value.
	ErrCorrupt = errors.New("vault: secret can't be opened")

	// ErrUnavailable says that the vault can't be asked just now (sealed,
	// unreachable, rate limited); the same call may succeed later.
	ErrUnavailable = errors.New("vault: unavailable")
)

// MaxName and MaxValue bound what every vault has to accept, in bytes.
const (
	MaxName  = 512
	MaxValue = 512 << 10
)

// A Vault keeps small secrets. All methods may be called concurrently, from
// several processes on the same vault, and end early with the context's error.
//
// A name is one or more segments of [A-Za-z0-9._~-] joined by "/", no segment
// being "." or "..", and MaxName bytes at most.
type Vault interface {
	// Read returns the newest entry, or an error wrapping ErrNotFound,
	// ErrCorrupt or ErrUnavailable.
	Read(ctx context.Context, name string) (Entry, error)

	// Write makes value the newest entry and returns its version, which is
	// after+1. It fails with ErrConflict, and changes nothing, unless the
	// newest version is after (0: nothing rests under the name).
	Write(ctx context.Context, name string, value []byte, after Version) (Version, error)

	// Delete removes every version of name. Deleting a name that holds
	// nothing is no error.
	Delete(ctx context.Context, name string) error
}
