//go:build unix

package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// crowd is how many connections are renewed at the same time.
	crowd = 24
	// Something strikes a node after every strikeMin to strikeMax.
	strikeMin, strikeMax = 2 * time.Second, 8 * time.Second
)

// bulk renews many connections on all nodes, while nodes are killed and paused
// as chance has it.
func (w *world) bulk(ctx context.Context, report *Report) error {
	normal := &Row{Step: "any", Fault: "killed or paused at random"}
	limit := &Row{Step: "asking, answered", Fault: "killed at random", Limit: true}
	report.Rows = append(report.Rows, normal, limit)
	chance := rand.New(rand.NewPCG(w.Seed, 0))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &bulk{world: w, report: report, normal: normal, limit: limit}
	var workers, fate sync.WaitGroup
	for range crowd {
		seed := chance.Uint64()
		workers.Go(func() { b.work(ctx, rand.New(rand.NewPCG(seed, 0))) })
	}
	fate.Go(func() { b.strikes(ctx, chance) })
	told := time.NewTicker(10 * time.Second)
	defer told.Stop()
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-told.C:
			w.say("bulk: %d of %d renewals, %d kills, %d pauses", b.renewals.Load(), w.Rotations, b.kills.Load(), b.pauses.Load())
		case <-done:
			running = false
		}
	}
	cancel()
	fate.Wait()
	normal.Fault = fmt.Sprintf("killed (%d times) or paused (%d) at random", b.kills.Load(), b.pauses.Load())
	return nil
}

type bulk struct {
	*world
	report                  *Report
	normal, limit           *Row
	renewals, kills, pauses atomic.Int64
}

// strikes kills and pauses nodes until the context ends; then all of them live.
func (b *bulk) strikes(ctx context.Context, chance *rand.Rand) {
	for {
		wait := strikeMin + time.Duration(chance.Int64N(int64(strikeMax-strikeMin)))
		victim, kill := b.nodes[chance.IntN(len(b.nodes))], chance.IntN(2) == 0
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		var err error
		if kill {
			b.kills.Add(1)
			victim.kill()
			err = errors.Join(victim.start(), victim.ready())
		} else {
			b.pauses.Add(1)
			err = victim.current().signal(syscall.SIGSTOP)
			time.Sleep(time.Second)
			err = errors.Join(err, victim.current().signal(syscall.SIGCONT))
		}
		if err != nil {
			b.report.broke(fmt.Errorf("bulk: %w", err))
			return
		}
	}
}

// work renews connections until there were enough renewals: a new one whenever
// the one before is lost.
func (b *bulk) work(ctx context.Context, chance *rand.Rand) {
	for ctx.Err() == nil {
		a, err := b.connect(ctx, 0)
		if err != nil {
			b.report.broke(fmt.Errorf("bulk: %w", err))
			return
		}
		if !b.wear(ctx, a, chance) {
			return
		}
	}
}

// wear renews a connection again and again, and tells whether to go on with
// another.
func (b *bulk) wear(ctx context.Context, a *account, chance *rand.Rand) bool {
	for b.renewals.Add(1) <= int64(b.Rotations) {
		b.diedWithAnswer(a) // and was recovered from
		began, before := time.Now(), a.family.Stats().Refreshes
		a.family.EndAccess()
		// Two nodes at once, or one twice; the others after them.
		for range 2 {
			n := b.nodes[chance.IntN(len(b.nodes))]
			go n.call(ctx, a.ID)
		}
		o := Outcome{Connection: a.ID.Connection}
		lost, err := b.everywhere(ctx, a, 2*backWithin)
		o.Lost, o.Took, o.Wrong = lost, time.Since(began), err
		if err == nil && !lost && a.family.Stats().Refreshes == before {
			o.Wrong = errors.New("it was not renewed, and works: the harness is wrong")
		}
		row := b.normal
		if lost {
			b.judge(ctx, a, &o)
			if b.diedWithAnswer(a) {
				row = b.limit
			}
		} else {
			o.Reused = a.family.Stats().Reused
		}
		b.report.add(row, o)
		if err := o.Err(row.Limit); err != nil {
			b.say("WRONG bulk (%s): %v", o.Connection, err)
		}
		if lost || o.Wrong != nil {
			return true
		}
	}
	b.renewals.Add(-1)
	if err := eventually(2*backWithin, func() error { return b.tidy(ctx, a) }); err != nil {
		b.report.add(b.normal, Outcome{Connection: a.ID.Connection, Wrong: err})
	}
	return false
}

// diedWithAnswer tells whether a node was killed between asking the provider
// and putting the answer by: then it was in no place but that node's memory, or
// on the wire.
func (b *bulk) diedWithAnswer(a *account) (yes bool) {
	for _, n := range b.nodes {
		yes = onTheWay(b.board.diedAt(place{n, a.ID.Connection})) || yes
	}
	return yes
}
