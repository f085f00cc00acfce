//go:build unix

package torture

import (
	"bufio"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// Agent is the harness's hand in a node. It reads commands, one a line, and
// answers each with "ok" or "error: …":
//
//	hold STEP CONNECTION   stop its next renewal at the step
//	go CONNECTION          let it go on
//	clock SECONDS          put the time of day that far off
//	disk full, disk ok     let no file be written, or let them again
//
// Between the answers it tells "at STEP CONNECTION" of every step of every
// renewal, before it goes on, and "held STEP CONNECTION" of those it stops.
type Agent struct {
	// Lease is how long leases last; 0: as long as they do.
	Lease time.Duration
	// Out is where it answers. A line is written at once, so that it is there
	// although the process is killed next.
	Out io.Writer

	writing sync.Mutex
	offset  atomic.Int64

	mu   sync.Mutex
	hold map[string]string        // connection → step
	held map[string]chan struct{} // connection → closed when it may go on
}

// Prepare gives a refresher its hooks.
func (a *Agent) Prepare(r *connect.Refresher) {
	r.LeaseTTL = a.Lease
	r.Trace = a.at
	r.Clock = func() time.Time { return time.Now().Add(time.Duration(a.offset.Load())) }
}

func (a *Agent) at(step string, id connect.ID) {
	a.Tell("at", step, id.Connection)
	a.mu.Lock()
	if a.hold[id.Connection] != step {
		a.mu.Unlock()
		return
	}
	delete(a.hold, id.Connection)
	goOn := make(chan struct{})
	if a.held == nil {
		a.held = map[string]chan struct{}{}
	}
	a.held[id.Connection] = goOn
	a.mu.Unlock()
	a.Tell("held", step, id.Connection)
	<-goOn
}

// Tell writes a line.
func (a *Agent) Tell(words ...string) {
	a.writing.Lock()
	defer a.writing.Unlock()
	io.WriteString(a.Out, strings.Join(words, " ")+"\n") // if nobody listens, this process is about to end
}

// Serve does what it is told until there is nothing more to read.
func (a *Agent) Serve(in io.Reader) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if err := a.do(strings.Fields(lines.Text())); err != nil {
			a.Tell("error:", err.Error())
		} else {
			a.Tell("ok")
		}
	}
	return lines.Err()
}

func (a *Agent) do(words []string) error {
	switch {
	case len(words) == 3 && words[0] == "hold":
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.hold == nil {
			a.hold = map[string]string{}
		}
		a.hold[words[2]] = words[1]
		return nil
	case len(words) == 2 && words[0] == "go":
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.hold, words[1])
		if goOn, ok := a.held[words[1]]; ok {
			delete(a.held, words[1])
			close(goOn)
		}
		return nil
	case len(words) == 2 && words[0] == "clock":
		seconds, err := strconv.Atoi(words[1])
		a.offset.Store(int64(seconds) * int64(time.Second))
		return err
	case len(words) == 2 && words[0] == "disk" && (words[1] == "full" || words[1] == "ok"):
		return fillDisk(words[1] == "full")
	}
	return fmt.Errorf("unknown command %q", strings.Join(words, " "))
}

// fillDisk makes the kernel refuse every write to a file of this process, with
// EFBIG, which is as near to a full disk as one gets without one.
func fillDisk(full bool) error {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if full {
		limit.Cur = 0
	}
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}
