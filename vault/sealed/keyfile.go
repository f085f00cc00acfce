package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// maxFile bounds the key ring file, in bytes: thousands of keys.
const maxFile = 1 << 20

// load reads the key ring file. Its errors never quote what is in there: those
// of the JSON parser would.
func load(path string) (*ring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of the open file: the path may change meanwhile
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is not a file", ErrKeysBroken, path)
	case info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows": // which has no such modes
		return nil, fmt.Errorf("%w: run: chmod 600 %s", ErrKeysOpen, path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrKeysBroken, path, info.Size())
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(io.LimitReader(f, maxFile)))
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not hold a Tink keyset in JSON", ErrKeysBroken, path)
	}
	r, err := ringOf(handle, info)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeysBroken, path, err)
	}
	return r, nil
}

// makeFile makes the key ring file with a first key, unless it is there by now.
// A link of a finished file puts it in place, and fails if somebody was faster:
// so nobody ever reads half a file, and only one key comes to be.
func makeFile(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	handle, err := keyset.NewHandle(template())
	if err != nil {
		return errors.New("generating a key failed")
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := fill(f, handle); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(dir)
}

// changeFile replaces the key ring file by what edit returns and then calls
// done. The new file, named path.next until it is renamed into place, is the
// lock as well: of several processes only one can make it.
func changeFile(path string, edit func() (*keyset.Handle, error), done func() error) (err error) {
	next := path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w by another process; if there is none, remove %s", ErrKeysBusy, next)
	}
	if err != nil {
		return err
	}
	handle, err := edit()
	if err != nil {
		f.Close()
		os.Remove(next)
		return err
	}
	if err := fill(f, handle); err != nil {
		os.Remove(next)
		return err
	}
	if err := os.Rename(next, path); err != nil {
		os.Remove(next)
		return err
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return done()
}

// fill writes the key ring to f, to the disk, and closes f.
func fill(f *os.File, handle *keyset.Handle) error {
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		f.Close()
		return errors.New("writing the keyset as JSON failed")
	}
	if _, err := f.Write(text.Bytes()); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// syncFolder brings a new or renamed file's entry to the disk.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" { // which can't and needn't
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
