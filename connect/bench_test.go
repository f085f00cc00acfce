package connect_test

import (
	"testing"

	"github.com/keycaddy/keycaddy/connect/demo"
)

func BenchmarkCurrent(b *testing.B) {
	w := newServer(b, demo.Options{})
	id := w.account()
	w.current(id)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Refresher.Current(ctx, id); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
