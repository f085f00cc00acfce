// Package spool keeps on the local disk what can't be written elsewhere just
// now: each item is a file that is complete and on the disk when Put returns,
// or isn't there. The items are sealed by whoever puts them in.
//
// Several processes may share a folder. Each has a slot in it, which is its own
// as long as it lives: the slot gives the process a name that it keeps when it
// is started again, and shows others what a process has left that ended.
//
// It may import github.com/gofrs/flock and the standard library only.
package spool

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// maxSlots is how many processes can share a folder.
const maxSlots = 64

const (
	nodeFile = "node"
	lockFile = "lock"
	suffix   = ".sealed"
)

// Spool is a slot that this process holds. All methods may be called
// concurrently.
type Spool struct {
	dir  string
	node string
	lock *flock.Flock
}

// Open takes the first free slot in the folder, which is made if it isn't there
// (mode 0700).
func Open(folder string) (*Spool, error) {
	for n := range maxSlots {
		s, err := take(slot(folder, n), true)
		if s != nil || err != nil {
			return s, err
		}
	}
	return nil, fmt.Errorf("opening spool: all %d slots in %s are in use", maxSlots, folder)
}

// Left returns the slots in the same folder whose processes have ended and that
// hold items. They are the caller's until it closes them.
func (s *Spool) Left() ([]*Spool, error) {
	folder := filepath.Dir(s.dir)
	var found []*Spool
	for n := range maxSlots {
		dir := slot(folder, n)
		if dir == s.dir {
			continue
		}
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		s, err := take(dir, false)
		if err != nil {
			return found, err
		}
		if s == nil {
			continue
		}
		names, err := s.files()
		if err != nil || len(names) == 0 {
			if cerr := s.Close(); err != nil || cerr != nil {
				return found, errors.Join(err, cerr)
			}
			continue
		}
		found = append(found, s)
	}
	return found, nil
}

func slot(folder string, n int) string { return filepath.Join(folder, fmt.Sprintf("%02d", n)) }

// take returns the slot, or nil if another process has it.
func take(dir string, make bool) (*Spool, error) {
	if make {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("opening spool: %w", err)
		}
	}
	lock := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("opening spool: %w", err)
	}
	if !ok {
		return nil, nil
	}
	s := &Spool{dir: dir, lock: lock}
	if s.node, err = s.name(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening spool: %w", err), lock.Close())
	}
	return s, nil
}

// name reads the slot's name, or gives it one.
func (s *Spool) name() (string, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, nodeFile))
	if name := strings.TrimSpace(string(data)); err == nil && name != "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name := rand.Text()
	return name, s.write(nodeFile, []byte(name+"\n"))
}

// Node is the name of this slot, and so of the process: a restart keeps it.
func (s *Spool) Node() string { return s.node }

// Close lets go of the slot.
func (s *Spool) Close() error { return s.lock.Close() }

// Put keeps an item, in the place of a former one with the name. When it
// returns without an error, the item outlives a power failure.
func (s *Spool) Put(name string, item []byte) error {
	if err := s.write(file(name), item); err != nil {
		return fmt.Errorf("spooling: %w", err)
	}
	return nil
}

// Remove drops an item; dropping none is no error.
func (s *Spool) Remove(name string) error {
	if err := os.Remove(filepath.Join(s.dir, file(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing from spool: %w", err)
	}
	return nil
}

// Clear drops all items.
func (s *Spool) Clear() error {
	names, err := s.files()
	for _, name := range names {
		if rerr := os.Remove(filepath.Join(s.dir, name)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// Items returns all items.
func (s *Spool) Items() ([][]byte, error) {
	names, err := s.files()
	if err != nil {
		return nil, err
	}
	var items [][]byte
	for _, name := range names {
		item, err := os.ReadFile(filepath.Join(s.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading spool: %w", err)
		}
		items = append(items, item)
	}
	return items, nil
}

func (s *Spool) files() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("reading spool: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// file is the name of an item's file, whatever the item's name is made of.
func file(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:]) + suffix
}

// write makes a file appear whole, and on the disk.
func (s *Spool) write(name string, data []byte) (err error) {
	f, err := os.CreateTemp(s.dir, "new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		return err
	}
	return syncFolder(s.dir)
}

// syncFolder makes a rename last.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
