package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentLeavesTheHeadroom(t *testing.T) {
	for alive, want := range map[uint64]int{0: 400, 8 << 20: 400, 32 << 20: 400, 40 << 20: 300, 64 << 20: 200, 96 << 20: 200, 128 << 20: 200, 8 << 30: 200} {
		if got := percentFor(alive); got != want {
			t.Errorf("with %d MiB alive: %d, want %d", alive>>20, got, want)
		}
	}
}

// The pace follows what is alive, up and down.
func TestPaceFollowsWhatIsAlive(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	becomes := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); percent() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the percentage is %d, want %d", percent(), want)
			}
			runtime.GC()
		}
	}
	pace()
	becomes(400)
	much := make([]byte, headroom)
	becomes(200)
	runtime.KeepAlive(much)
	becomes(400)
}

func TestPaceLeavesGOGCAlone(t *testing.T) {
	t.Setenv("GOGC", "70")
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	pace()
	if p := debug.SetGCPercent(70); p != 70 {
		t.Errorf("the percentage is %d", p)
	}
}
