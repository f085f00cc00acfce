package catalog

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

//go:embed providers/*.yaml
var builtin embed.FS

// ErrUnknown is wrapped by the error for an id that no entry has.
var ErrUnknown = errors.New("unknown provider")

// Catalog is a set of providers. It is safe for concurrent use.
type Catalog struct {
	entries map[string]*entry
	ids     []string
}

// entry is read and compiled on first use: a server with a thousand entries
// serves a dozen of them.
type entry struct {
	file     string
	read     func() ([]byte, error)
	once     sync.Once
	provider *Provider
	err      error
}

// Builtin returns the providers shipped with the program.
func Builtin() (*Catalog, error) { return Load(nil) }

// Load returns the shipped providers with the files of a folder laid over them:
// an id that exists is replaced as a whole, another one is added. The files are
// named <id>.yaml and stand in the top folder. All of them are read and checked
// at once, and all their faults are reported together. A nil overlay is none.
func Load(overlay fs.FS) (*Catalog, error) {
	c := &Catalog{entries: map[string]*entry{}}
	list, err := builtin.ReadDir("providers")
	if err != nil {
		return nil, fmt.Errorf("reading built-in providers: %w", err)
	}
	for _, f := range list {
		file := path.Join("providers", f.Name())
		c.entries[strings.TrimSuffix(f.Name(), ".yaml")] = &entry{
			file: file,
			read: func() ([]byte, error) { return builtin.ReadFile(file) },
		}
	}
	if overlay != nil {
		if err := c.overlay(overlay); err != nil {
			return nil, err
		}
	}
	c.ids = slices.Sorted(maps.Keys(c.entries))
	return c, nil
}

func (c *Catalog) overlay(fsys fs.FS) error {
	list, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return fmt.Errorf("reading provider folder: %w", err)
	}
	var errs []error
	for _, f := range list {
		name := f.Name()
		// Mounted folders have bookkeeping of their own in dot files.
		if f.IsDir() || strings.HasPrefix(name, ".") {
			continue
		}
		if strings.HasSuffix(name, ".yml") {
			errs = append(errs, &ParseError{File: name, Msg: "provider files end in .yaml; rename it"})
		}
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		p, err := readProvider(fsys, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.entries[p.ID] = &entry{file: name, provider: p, read: nil}
	}
	return errors.Join(errs...)
}

func readProvider(fsys fs.FS, name string) (*Provider, error) {
	if info, err := fs.Stat(fsys, name); err == nil && info.Size() > maxFile {
		return nil, &ParseError{File: name, Msg: fmt.Sprintf("longer than %d KiB; that is no provider file", maxFile>>10)}
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("reading provider file: %w", err)
	}
	return Parse(name, data)
}

// Provider returns an entry, compiled. The error wraps [ErrUnknown] when there is
// none with that id.
func (c *Catalog) Provider(id string) (*Provider, error) {
	e := c.entries[id]
	if e == nil {
		return nil, fmt.Errorf("%w %.64q%s", ErrUnknown, id, didYouMean(id, c.ids))
	}
	e.once.Do(e.load)
	return e.provider, e.err
}

func (e *entry) load() {
	if e.read == nil {
		return // from the overlay, read already
	}
	data, err := e.read()
	if err != nil {
		e.err = fmt.Errorf("reading %s: %w", e.file, err)
		return
	}
	e.provider, e.err = Parse(e.file, data)
}

// IDs returns the ids of all entries, sorted.
func (c *Catalog) IDs() []string { return slices.Clone(c.ids) }
