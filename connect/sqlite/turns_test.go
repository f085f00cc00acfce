package sqlite

import (
	"context"
	"sync/atomic"

	"github.com/keycaddy/keycaddy/vault/sealed"
)

// turns uses several handles on one store by turns.
type turns struct {
	handles []sealed.Blobs
	calls   atomic.Uint64
}

func (t *turns) next() sealed.Blobs { return t.handles[t.calls.Add(1)%uint64(len(t.handles))] }

func (t *turns) ReadBlob(ctx context.Context, name string) ([]byte, uint64, bool, error) {
	return t.next().ReadBlob(ctx, name)
}

func (t *turns) WriteBlob(ctx context.Context, name string, data []byte, after uint64) (bool, error) {
	return t.next().WriteBlob(ctx, name, data, after)
}

func (t *turns) DeleteBlob(ctx context.Context, name string) error {
	return t.next().DeleteBlob(ctx, name)
}
