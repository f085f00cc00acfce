package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/connect/sqlite"
	"github.com/keycaddy/keycaddy/vault"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

// Result is what came of one entry.
type Result struct {
	ID   string
	Mode catalog.Mode
	// Skipped is the reason why there was nothing to run; see Reasons.
	Skipped string
	// Failures say what went wrong, and where.
	Failures []string
	Took     time.Duration
}

// Passed tells whether the entry did all that it should.
func (r *Result) Passed() bool { return r.Skipped == "" && len(r.Failures) == 0 }

// world is what all entries share: a store in a file, and a vault in it.
type world struct {
	store connect.Store
	vault vault.Vault
}

// workers run entries at the same time, each with a store of its own: they
// wait for the disk more than they work.
const workers = 6

// Run runs entries, all if there are no ids, and returns the results in their
// order. The folder is for the stores' files; it is the caller's to remove. The
// error says why nothing could be run.
func Run(ctx context.Context, cat *catalog.Catalog, folder string, ids ...string) ([]Result, error) {
	if len(ids) == 0 {
		ids = cat.IDs()
	}
	keys, err := sealed.OpenKeys(filepath.Join(folder, "keys"), true)
	if err != nil {
		return nil, fmt.Errorf("opening keys: %w", err)
	}
	out := make([]Result, len(ids))
	return out, each(ctx, folder, keys, len(ids), func(ctx context.Context, w *world, i int) { out[i] = w.entry(ctx, cat, ids[i]) })
}

// each calls do for all numbers below n, in several worlds.
func each(ctx context.Context, folder string, keys *sealed.Keys, n int, do func(ctx context.Context, w *world, i int)) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for worker := range min(workers, n) {
		group.Go(func() (err error) {
			store, err := sqlite.Open(filepath.Join(folder, fmt.Sprintf("%d.db", worker)))
			if err != nil {
				return fmt.Errorf("opening store: %w", err)
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			if err := store.Migrate(ctx); err != nil {
				return fmt.Errorf("preparing store: %w", err)
			}
			w := &world{store: store, vault: sealed.New(store, keys)}
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				do(ctx, w, i)
			}
			return context.Cause(ctx)
		})
	}
	return group.Wait()
}

// entry runs one entry: once with a form that is filled in, and once more with
// what is required only, if that is less.
func (w *world) entry(ctx context.Context, cat *catalog.Catalog, id string) (r Result) {
	began := time.Now()
	r.ID = id
	defer func() { r.Took = time.Since(began) }()
	p, err := cat.Provider(id)
	if err != nil {
		r.Failures = append(r.Failures, err.Error())
		return r
	}
	r.Mode = p.Mode
	if r.Skipped = Reasons[id]; r.Skipped != "" {
		return r
	}
	for _, v := range variants(p) {
		err := w.variant(ctx, p, p, v)
		var unsupported *scheme.UnsupportedError
		if errors.As(err, &unsupported) {
			r.Failures = append(r.Failures, unsupported.Error())
			return r
		}
		for _, failure := range failures(err) {
			r.Failures = append(r.Failures, v.name+": "+failure)
		}
		if ctx.Err() != nil {
			return r
		}
	}
	return r
}

func failures(err error) []string {
	if err == nil {
		return nil
	}
	return slices.DeleteFunc(strings.Split(err.Error(), "\n"), func(s string) bool { return s == "" })
}

// journal is a log that is searched for secrets.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Contains(j.buf.Bytes(), []byte(text))
}

func (j *journal) logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(j), zap.DebugLevel))
}

// Folder makes a folder to run in, and returns what removes it.
func Folder() (path string, remove func() error, err error) {
	path, err = os.MkdirTemp("", "keycaddy-simulate")
	return path, func() error { return os.RemoveAll(path) }, err
}
