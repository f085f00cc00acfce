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

//go:embed providers/*/*.yaml
var builtin embed.FS

// ErrUnknown is wrapped by the error for an id that no entry has.
var ErrUnknown = errors.New("unknown provider")

// Catalog is a set of providers. It is safe for concurrent use.
type Catalog struct {
	shipped, own map[string]*entry
	ids          []string // of both, sorted; shared, never changed
}

// entry is read and compiled on first use: a server with a thousand entries
// serves a dozen of them.
type entry struct {
	file     string
	once     sync.Once
	provider *Provider
	err      error
}

// shipped lists the built-in files, once for the process: their entries are
// read-only, so that all catalogs share them.
var shipped = sync.OnceValues(listShipped)

type listing struct {
	entries map[string]*entry
	ids     []string
}

func listShipped() (*listing, error) {
	l := &listing{entries: map[string]*entry{}}
	err := fs.WalkDir(builtin, "providers", func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			l.entries[strings.TrimSuffix(d.Name(), ".yaml")] = &entry{file: file}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading built-in providers: %w", err)
	}
	l.ids = slices.Sorted(maps.Keys(l.entries))
	return l, nil
}

// Builtin returns the providers shipped with the program.
func Builtin() (*Catalog, error) { return Load(nil) }

// Load returns the shipped providers with the files of a folder laid over them:
// an id that exists is replaced as a whole, another one is added. The files are
// named <id>.yaml and stand in the folder or at any depth below it; what begins
// with a dot is passed over, and links to folders are not followed. All files are
// read and checked at once, and all their faults are reported together. A nil
// overlay is none. What was imported from elsewhere is added where neither has an
// entry of that id.
func Load(overlay fs.FS, imported ...*Provider) (*Catalog, error) {
	l, err := shipped()
	if err != nil {
		return nil, err
	}
	c := &Catalog{shipped: l.entries, ids: l.ids}
	if overlay == nil && len(imported) == 0 {
		return c, nil
	}
	c.own = map[string]*entry{}
	if overlay != nil {
		if c.own, err = readFolder(overlay); err != nil {
			return nil, err
		}
	}
	for _, p := range imported {
		if l.entries[p.ID] == nil && c.own[p.ID] == nil {
			c.own[p.ID] = &entry{file: p.file, provider: p}
		}
	}
	c.ids = slices.Clone(l.ids)
	for id := range c.own {
		if l.entries[id] == nil {
			c.ids = append(c.ids, id)
		}
	}
	slices.Sort(c.ids)
	return c, nil
}

func readFolder(fsys fs.FS) (map[string]*entry, error) {
	own := map[string]*entry{}
	var errs []error
	err := fs.WalkDir(fsys, ".", func(file string, d fs.DirEntry, err error) error {
		switch name := path.Base(file); {
		case err != nil:
			return err
		case file == ".":
		case strings.HasPrefix(name, "."): // mounted folders have bookkeeping of their own there
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
		case strings.HasSuffix(name, ".yml"):
			errs = append(errs, &ParseError{File: file, Msg: "provider files end in .yaml; rename it"})
		case strings.HasSuffix(name, ".yaml"):
			p, err := readProvider(fsys, file)
			if err != nil {
				errs = append(errs, err)
				return nil
			}
			if first := own[p.ID]; first != nil {
				errs = append(errs, &ParseError{File: file, Msg: "provider " + p.ID + " was already given in " + first.file})
				return nil
			}
			own[p.ID] = &entry{file: file, provider: p}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading provider folder: %w", err)
	}
	return own, errors.Join(errs...)
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
	e := c.own[id]
	if e == nil {
		e = c.shipped[id]
	}
	if e == nil {
		return nil, fmt.Errorf("%w %.64q%s", ErrUnknown, id, didYouMean(id, c.ids))
	}
	e.once.Do(e.load)
	return e.provider, e.err
}

func (e *entry) load() {
	if e.provider != nil {
		return // from the overlay, read already
	}
	e.provider, e.err = readProvider(builtin, e.file)
}

// IDs returns the ids of all entries, sorted.
func (c *Catalog) IDs() []string { return slices.Clone(c.ids) }

// Files returns the files of the shipped entries, in folders by their first
// letter.
func Files() fs.FS {
	files, err := fs.Sub(builtin, "providers")
	if err != nil {
		panic(err) // the path is a constant
	}
	return files
}
