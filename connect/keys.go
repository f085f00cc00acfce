package connect

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// keysEvery is how often the store is asked whether keys have changed: one
	// that was revoked is good nowhere a second later.
	keysEvery = 500 * time.Millisecond
	// noteEvery is how often it is told which keys were used.
	noteEvery = time.Minute
)

// StoredKeys are the store's API keys, as this process knows them. Load has to
// come first, and Run has to run beside it. While the store can't be asked, the
// keys that were known stay good.
type StoredKeys struct {
	Store  KeyStore
	Logger *zap.Logger
	// Ended, if not nil, is called with the callers whose keys are gone, so that
	// their calls can be cut off.
	Ended func(*Caller)

	loading sync.Mutex
	ring    atomic.Pointer[ring] // nil: not loaded yet
	version atomic.Int64
}

// Load reads the keys.
func (s *StoredKeys) Load(ctx context.Context) error {
	s.loading.Lock() // what was read later must not be replaced by what was read before
	defer s.loading.Unlock()
	keys, version, err := s.Store.APIKeys(ctx)
	if err != nil {
		return fmt.Errorf("reading API keys: %w", err)
	}
	var before ring
	if r := s.ring.Load(); r != nil {
		before = *r
	}
	r := newRing(keys, before)
	for _, k := range keys {
		if _, err := k.Limits.Compile(); err != nil {
			s.Logger.Error("an API key's limits can't be read, so that it is good for nothing", zap.String("key", k.Name), zap.Error(err))
		}
	}
	s.ring.Store(&r)
	s.version.Store(version)
	if s.Ended != nil {
		for _, gone := range before.without(r) {
			s.Ended(gone)
		}
	}
	return nil
}

// Empty tells whether there are none.
func (s *StoredKeys) Empty() bool { return len(*s.ring.Load()) == 0 }

// Run keeps up with the store until the context ends.
func (s *StoredKeys) Run(ctx context.Context) {
	tick, note := time.NewTicker(keysEvery), time.NewTicker(noteEvery)
	defer tick.Stop()
	defer note.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.follow(ctx); err != nil && ctx.Err() == nil {
				s.Logger.Debug("can't ask whether API keys have changed", zap.Error(err))
			}
		case <-note.C:
			if err := s.noteUse(ctx); err != nil && ctx.Err() == nil {
				s.Logger.Debug("can't keep when API keys were used", zap.Error(err))
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := s.noteUse(last); err != nil {
				s.Logger.Debug("can't keep when API keys were used", zap.Error(err))
			}
			return
		}
	}
}

func (s *StoredKeys) follow(ctx context.Context) error {
	version, err := s.Store.APIKeysVersion(ctx)
	if err != nil || version == s.version.Load() {
		return err
	}
	return s.Load(ctx)
}

// noteUse tells the store of the keys that were used since it was told last.
func (s *StoredKeys) noteUse(ctx context.Context) error {
	if s.ring.Load() == nil {
		return nil
	}
	used := make(map[string]time.Time)
	for _, k := range *s.ring.Load() {
		if at := k.used.Load(); at > k.noted.Load() {
			used[k.Name] = time.UnixMicro(at).UTC()
		}
	}
	if len(used) == 0 {
		return nil
	}
	if err := s.Store.NoteAPIKeyUse(ctx, used); err != nil {
		return err
	}
	for _, k := range *s.ring.Load() {
		if at, ok := used[k.Name]; ok {
			k.noted.Store(max(k.noted.Load(), at.UnixMicro()))
		}
	}
	return nil
}

// Keys are the API keys as those who look after them see them. Of a key itself
// nothing is seen but once, when it is made.
type Keys struct {
	Store  KeyStore
	Stored *StoredKeys // told of changes at once; others hear of them
	Logger *zap.Logger
}

// Make adds a key with this secret, a UUID of version 4. By names who did it,
// for the log. Errors: ErrExists, a *policy.LimitError.
func (k *Keys) Make(ctx context.Context, key APIKey, by string) error {
	if _, err := key.Limits.Compile(); err != nil {
		return err
	}
	if key.Created.IsZero() {
		key.Created = time.Now()
	}
	if err := k.Store.PutAPIKey(ctx, key); err != nil {
		return fmt.Errorf("adding API key: %w", err)
	}
	k.done(ctx, "API key made", key.Name, by)
	return nil
}

// Rotate gives a key a new secret; the one before works for as long as overlap
// says, and ends at once if that is zero. A key that was rotated before and has
// not come to the end of its overlap loses the oldest of its secrets. Nothing is
// done if check, of the key as it is, returns an error. Errors: ErrNotFound,
// ErrExists, that of check.
func (k *Keys) Rotate(ctx context.Context, name string, secret Digest, overlap time.Duration, check func(*APIKey) error, by string) (APIKey, error) {
	key, err := k.Store.UpdateAPIKey(ctx, name, func(key *APIKey) error {
		if err := check(key); err != nil {
			return err
		}
		key.Former, key.FormerUntil = key.Key, time.Now().Add(overlap)
		if overlap <= 0 {
			key.Former, key.FormerUntil = Digest{}, time.Time{}
		}
		key.Key = secret
		return nil
	})
	if err != nil {
		return key, fmt.Errorf("rotating API key: %w", err)
	}
	k.done(ctx, "API key rotated", name, by)
	return key, nil
}

// Change lets change edit what a key may do and when it ends. Errors:
// ErrNotFound, those of change, a *policy.LimitError.
func (k *Keys) Change(ctx context.Context, name string, change func(*APIKey) error, by string) (APIKey, error) {
	key, err := k.Store.UpdateAPIKey(ctx, name, func(key *APIKey) error {
		was := *key
		if err := change(key); err != nil {
			return err
		}
		key.Key, key.Former, key.FormerUntil = was.Key, was.Former, was.FormerUntil
		_, err := key.Limits.Compile()
		return err
	})
	if err != nil {
		return key, fmt.Errorf("changing API key: %w", err)
	}
	k.done(ctx, "API key changed", name, by)
	return key, nil
}

// Revoke ends a key, here at once and on all other nodes within a second.
// Errors: ErrNotFound.
func (k *Keys) Revoke(ctx context.Context, name, by string) error {
	if err := k.Store.DeleteAPIKey(ctx, name); err != nil {
		return fmt.Errorf("revoking API key: %w", err)
	}
	k.done(ctx, "API key revoked", name, by)
	return nil
}

func (k *Keys) done(ctx context.Context, what, name, by string) {
	k.Logger.Info(what, zap.String("key", name), zap.String("by", by))
	if err := k.Stored.Load(ctx); err != nil {
		// The change holds, and this process hears of it as the others do.
		k.Logger.Warn("reading API keys again", zap.Error(err))
	}
}
