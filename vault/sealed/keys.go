package sealed

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

var (
	// ErrNoKeys says that there is no key ring file, though there should be.
	ErrNoKeys = errors.New("sealed: no key ring")

	// ErrKeysOpen says that others than the owner may read the key ring file.
	ErrKeysOpen = errors.New("sealed: key ring is readable by others")

	// ErrKeysBroken says that the file is no key ring.
	ErrKeysBroken = errors.New("sealed: not a key ring")

	// ErrKeysBusy says that another process is changing the key ring.
	ErrKeysBusy = errors.New("sealed: key ring is being changed")
)

// Keys is a key ring: the key that seals, and all former ones, which still
// open what they have sealed. All methods may be called concurrently. Printed
// or marshalled in whatever way, Keys is "[secret]".
//
// The file may be changed by another process (Rotate, called by a command while
// a server runs): it is looked at before each write, and where a key is missing.
// Should the file vanish, what is in memory goes on working, for a refreshed
// token that can't be written would be lost.
type Keys struct {
	path string
	ring atomic.Pointer[ring]
	mu   sync.Mutex // held while the file is read or changed
}

// ring is one state of the key ring file.
type ring struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary uint32
	ids     map[uint32]bool
	file    fs.FileInfo // as it was when it was read
}

// OpenKeys reads the key ring file: a Tink keyset in JSON, not encrypted, that
// only its owner may read (ErrKeysOpen tells how to mend that). If there is no
// file and create is true, it makes one with a new key, mode 0600, in a folder
// of mode 0700; of several processes doing so at once all get the same key.
//
// The caller has to set create to false if sealed secrets exist already: they
// can't be opened with a new key, and the operator has to bring back the file.
// The error then is ErrNoKeys.
func OpenKeys(path string, create bool) (*Keys, error) {
	k := &Keys{path: path}
	r, err := load(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !create {
			return nil, fmt.Errorf("%w: %s is missing, but there are secrets sealed with it: restore it from a backup", ErrNoKeys, path)
		}
		if err := makeFile(path); err != nil {
			return nil, fmt.Errorf("making key ring: %w", err)
		}
		r, err = load(path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening key ring: %w", err)
	}
	k.ring.Store(r)
	return k, nil
}

// Rotate adds a new key, which seals from now on, and keeps all others. It
// fails with ErrKeysBusy, and changes nothing, while another process does so.
func (k *Keys) Rotate() error {
	err := k.change(func(m *keyset.Manager) error {
		id, err := m.Add(template())
		if err != nil {
			return err
		}
		return m.SetPrimary(id)
	})
	if err != nil {
		return fmt.Errorf("rotating key ring: %w", err)
	}
	return nil
}

// Retire removes all keys but the newest, for good: what is still sealed with
// them can't be opened any more. Call [Vault.Rewrap] for every name before.
func (k *Keys) Retire() error {
	err := k.change(func(m *keyset.Manager) error {
		r := k.ring.Load()
		for id := range r.ids {
			if id == r.primary {
				continue
			}
			if err := m.Delete(id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("retiring keys: %w", err)
	}
	return nil
}

// change edits the key ring in the file and then takes it over.
func (k *Keys) change(edit func(*keyset.Manager) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return changeFile(k.path, func() (*keyset.Handle, error) {
		r, err := load(k.path)
		if err != nil {
			return nil, err
		}
		k.ring.Store(r)
		m := keyset.NewManagerFromHandle(r.handle)
		if err := edit(m); err != nil {
			return nil, errors.New("changing the keyset failed")
		}
		return m.Handle()
	}, func() error {
		r, err := load(k.path)
		if err != nil {
			return err
		}
		k.ring.Store(r)
		return nil
	})
}

// newest returns the key ring as it is in the file now.
func (k *Keys) newest() *ring {
	r := k.ring.Load()
	file, err := os.Stat(k.path)
	if err != nil || same(file, r.file) {
		return r
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	fresh, err := load(k.path)
	if err != nil { // broken or opened to others since: see the comment on Keys
		return k.ring.Load()
	}
	k.ring.Store(fresh)
	return fresh
}

// holding returns a key ring with the key, or nil if there is none.
func (k *Keys) holding(id uint32) *ring {
	if r := k.ring.Load(); r.ids[id] {
		return r
	}
	if r := k.newest(); r.ids[id] {
		return r
	}
	return nil
}

// same tells whether two looks at the file saw the same state: a changed key
// ring is always a new file, renamed into place.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func ringOf(handle *keyset.Handle, file fs.FileInfo) (*ring, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("its keys are not for authenticated encryption")
	}
	info := handle.KeysetInfo()
	r := &ring{handle: handle, aead: primitive, primary: info.GetPrimaryKeyId(), ids: map[uint32]bool{}, file: file}
	for _, key := range info.GetKeyInfo() {
		if key.GetStatus() != tinkpb.KeyStatusType_ENABLED {
			continue
		}
		if key.GetOutputPrefixType() != tinkpb.OutputPrefixType_TINK {
			return nil, fmt.Errorf("key %08x does not put its id before what it seals (output prefix %s)", key.GetKeyId(), key.GetOutputPrefixType())
		}
		r.ids[key.GetKeyId()] = true
	}
	return r, nil
}

var template = aead.XChaCha20Poly1305KeyTemplate

const secret = "[secret]"

func (k *Keys) String() string { return secret }

// GoString keeps the keys out of %#v.
func (k *Keys) GoString() string { return secret }

// Format keeps the keys out of every other verb.
func (k *Keys) Format(f fmt.State, _ rune) { io.WriteString(f, secret) }

// MarshalText keeps the keys out of logs and configuration files.
func (k *Keys) MarshalText() ([]byte, error) { return []byte(secret), nil }

// MarshalJSON keeps the keys out of logs and configuration files.
func (k *Keys) MarshalJSON() ([]byte, error) { return []byte(`"` + secret + `"`), nil }
