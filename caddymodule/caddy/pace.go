package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// headroom is how much garbage may gather, in bytes, before it is collected,
// unless twice what is alive is more. Calls leave a few kilobytes each; without it a
// process that holds little would collect them every few hundred calls.
const headroom = 128 << 20

// pace lets garbage gather up to the headroom. GOGC in the environment comes
// first; Caddy's own limit of memory (GOMEMLIMIT) holds in any case.
func pace() {
	if os.Getenv("GOGC") != "" {
		return
	}
	adjust(100)
}

// adjust is called after each collection, as the finalizer of something that
// nobody holds.
func adjust(percent int) {
	if next := percentFor(alive()); next != percent {
		debug.SetGCPercent(next)
		percent = next
	}
	runtime.SetFinalizer(&cycle{percent: &percent}, func(c *cycle) { adjust(*c.percent) })
}

type cycle struct{ percent *int }

// percentFor is how much garbage may gather, in percent of what is alive, in
// steps, since each change stops the world for a moment. (Four times as much is
// where less frequent collections stop to be worth their memory. A million
// connections are most of a gigabyte to look through each time.)
func percentFor(alive uint64) int {
	const step = 25
	return int(min(max(headroom*100/max(alive, 1)/step*step, 200), 400))
}

// alive is how many bytes the last collection has found to be in use.
func alive() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
