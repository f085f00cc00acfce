package page_test

import (
	"context"
	"errors"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func (downStore) Session(context.Context, connect.Digest) (connect.Session, error) {
	return connect.Session{}, errDown
}
func (downStore) Flow(context.Context, string) (connect.Flow, error) { return connect.Flow{}, errDown }
func (downStore) TakeFlow(context.Context, connect.Digest) (connect.Flow, error) {
	return connect.Flow{}, errDown
}

type brokenStore struct{ connect.Store }

func (brokenStore) Session(context.Context, connect.Digest) (connect.Session, error) {
	return connect.Session{}, errors.New("secret detail")
}

// hastyStore keeps flows that have expired already.
type hastyStore struct{ connect.Store }

func (s hastyStore) PutFlow(ctx context.Context, f connect.Flow) error {
	f.Expires = time.Now().Add(-time.Second)
	return s.Store.PutFlow(ctx, f)
}
