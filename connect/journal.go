package connect

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// journalRoom is how many logs wait to be written, of calls and of all else
	// apart; journalBatch are written in one transaction, and flushEvery is how
	// often.
	journalRoom, journalBatch = 4096, 500
	flushEvery                = 200 * time.Millisecond
	// lastFlush is how long the end of a process waits for what is left.
	lastFlush = 5 * time.Second
	// failedCalls is how many failed calls are logged in a second beyond those
	// of the sample.
	failedCalls = 20
)

// Journal writes logs to the store behind everybody's back: no call waits for
// it. While the store can't keep up, or is away, what is written waits in
// memory; there is room for so many, and logs of calls that find none are
// dropped and counted. Nil is a journal that keeps nothing.
//
// Run has to run beside it.
type Journal struct {
	store  LogStore
	logger *zap.Logger
	// dropped is told of each log that was dropped.
	dropped func(LogKind)

	calls, others chan Log
	kept          atomic.Int64
	// second and failed count failed calls: the second, and how many in it.
	second, failed atomic.Int64
}

// NewJournal makes a journal. Dropped is called for each log that is dropped; it
// may be nil.
func NewJournal(store LogStore, logger *zap.Logger, dropped func(LogKind)) *Journal {
	return &Journal{store: store, logger: logger, dropped: dropped, calls: make(chan Log, journalRoom), others: make(chan Log, journalRoom)}
}

// Keep sets how long logs are kept.
func (j *Journal) Keep(d time.Duration) { j.kept.Store(int64(d)) }

// Waiting is how many logs wait to be written.
func (j *Journal) Waiting() int { return len(j.calls) + len(j.others) }

// Write has a log of anything but a call written. It waits for room as long as
// the context lasts, which it does only if the store has not kept up for
// thousands of them.
func (j *Journal) Write(ctx context.Context, l Log) {
	if j == nil {
		return
	}
	l.tidy()
	j.say(&l)
	select {
	case j.others <- l:
		return
	default:
	}
	select {
	case j.others <- l:
	case <-ctx.Done():
		j.drop(l.Kind)
	}
}

// Call has the log of a call written, if there is room.
func (j *Journal) Call(l Log) {
	if j == nil {
		return
	}
	l.tidy()
	j.say(&l)
	select {
	case j.calls <- l:
	default:
		j.drop(l.Kind)
	}
}

// Failed tells whether there is a place for a failed call that isn't of the
// sample: there are so many in a second.
func (j *Journal) Failed(now time.Time) bool {
	if j == nil {
		return false
	}
	second := now.Unix()
	if last := j.second.Load(); last != second && j.second.CompareAndSwap(last, second) {
		j.failed.Store(0)
	}
	if j.failed.Load() >= failedCalls {
		return false
	}
	return j.failed.Add(1) <= failedCalls
}

func (j *Journal) drop(kind LogKind) {
	if j.dropped != nil {
		j.dropped(kind)
	}
}

// say writes the log as a line.
func (j *Journal) say(l *Log) {
	line := j.logger.Check(zap.DebugLevel, "log")
	if line == nil {
		return
	}
	fields := connectionFields(ID{l.Integration, l.Connection}, zap.String("log", l.ID), zap.String("kind", string(l.Kind)), zap.String("status", string(l.Status)))
	if l.Code != "" {
		fields = append(fields, zap.String("code", l.Code), zap.String("message", l.Message), zap.String("detail", l.Detail))
	}
	if l.Kind == LogCall {
		fields = append(fields, zap.String("method", l.Method), zap.String("path", l.Path), zap.Int("answer", l.Answer), zap.String("caller", l.Caller))
	}
	var steps []string
	for _, s := range l.Steps {
		steps = append(steps, s.Name)
	}
	line.Write(append(fields, zap.Strings("steps", steps))...)
}

// Run writes until the context ends, and then what is left.
func (j *Journal) Run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			j.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
			defer cancel()
			j.flush(last)
			return
		}
	}
}

// flush writes all that is there. As long as the store doesn't take a batch, it
// is tried again.
func (j *Journal) flush(ctx context.Context) {
	for {
		batch := j.take()
		if len(batch) == 0 {
			return
		}
		for wait := flushEvery; ; wait = min(2*wait, 5*time.Second) {
			err := j.store.WriteLogs(ctx, batch)
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				j.logger.Warn("writing logs; trying again", zap.Int("logs", len(batch)), zap.Error(err))
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				j.putBack(batch)
				return
			}
		}
	}
}

// take takes a batch, those that aren't of calls first.
func (j *Journal) take() (batch []Log) {
	for len(batch) < journalBatch {
		select {
		case l := <-j.others:
			batch = append(batch, l)
			continue
		default:
		}
		select {
		case l := <-j.calls:
			batch = append(batch, l)
		default:
			return batch
		}
	}
	return batch
}

// putBack keeps a batch for the last flush.
func (j *Journal) putBack(batch []Log) {
	for _, l := range batch {
		to := j.others
		if l.Kind == LogCall {
			to = j.calls
		}
		select {
		case to <- l:
		default:
			j.drop(l.Kind)
		}
	}
}

// Sweep removes logs that have been kept for long enough.
func (j *Journal) Sweep(ctx context.Context) error {
	kept := time.Duration(j.kept.Load())
	if kept <= 0 {
		kept = DefaultLogsKept
	}
	for {
		n, err := j.store.SweepLogs(ctx, time.Now().Add(-kept), sweepBatch)
		if err != nil || n < sweepBatch {
			return err
		}
	}
}

// sweepBatch is how many logs are removed in one transaction.
const sweepBatch = 1000
