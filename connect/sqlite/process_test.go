package sqlite

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// childVariable, if set, is the database that this process is to race for.
const childVariable = "KEYCADDY_TEST_RACE_FOR"

const (
	raceFlows    = 200
	raceHoldings = 40 // of the lease, by each process
	raceEvery    = 3 * time.Millisecond
)

// outcome is what a racing process has got.
type outcome struct {
	Flows       []string
	Generations []int64
}

// TestS4TwoProcessesTakeEachFlowOnceAndHoldTheLeaseByTurns starts two processes
// that migrate one new database at once, and then race for its flows and a lease.
func TestS4TwoProcessesTakeEachFlowOnceAndHoldTheLeaseByTurns(t *testing.T) {
	if path := os.Getenv(childVariable); path != "" {
		raceAsChild(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "keycaddy.db")
	var children [2]*child
	for n := range children {
		children[n] = startChild(t, path)
	}
	for _, c := range children { // both have migrated
		c.expect(t, "migrated")
	}
	s := openTest(t, path)
	for n := range raceFlows {
		f := connect.Flow{ID: fmt.Sprint("flow", n), State: raceState(n), Expires: time.Now().Add(time.Hour)}
		if err := s.PutFlow(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now().Add(100 * time.Millisecond)
	for _, c := range children {
		fmt.Fprintln(c.in, start.UnixMicro())
	}
	takenBy := map[string]int{}
	generations := map[int64]bool{}
	for n, c := range children {
		got := c.outcome(t)
		t.Logf("process %d took %d flows", n+1, len(got.Flows))
		for _, id := range got.Flows {
			if was, ok := takenBy[id]; ok {
				t.Errorf("%s was taken by process %d and %d", id, was+1, n+1)
			}
			takenBy[id] = n
		}
		var last int64
		for _, g := range got.Generations {
			if g <= last || generations[g] {
				t.Errorf("process %d: generation %d after %d (seen: %v)", n+1, g, last, generations[g])
			}
			last, generations[g] = g, true
		}
	}
	if len(takenBy) != raceFlows {
		t.Errorf("%d of %d flows were taken", len(takenBy), raceFlows)
	}
	if len(generations) != 2*raceHoldings {
		t.Errorf("%d holdings, want %d", len(generations), 2*raceHoldings)
	}
}

func raceState(n int) connect.Digest { return connect.DigestOf(fmt.Sprint("state", n)) }

// raceAsChild is what the processes do. They speak to their parent through
// standard input and file 3, since standard output belongs to the test.
func raceAsChild(t *testing.T, path string) {
	parent := os.NewFile(3, "parent")
	s := openTest(t, path)
	migrate(t, s)
	fmt.Fprintln(parent, "migrated")
	var micros int64
	if _, err := fmt.Fscanln(os.Stdin, &micros); err != nil {
		t.Fatal(err)
	}
	start := time.UnixMicro(micros)
	var got outcome
	for n := range raceFlows {
		// Both go for the same flow at the same time, or the faster gets all.
		time.Sleep(time.Until(start.Add(time.Duration(n) * raceEvery)))
		f, err := s.TakeFlow(t.Context(), raceState(n))
		switch {
		case err == nil:
			got.Flows = append(got.Flows, f.ID)
		case !errors.Is(err, connect.ErrNotFound):
			t.Fatal(err)
		}
	}
	for len(got.Generations) < raceHoldings {
		l, err := s.Lease(t.Context(), "lease", "node", time.Minute)
		if errors.Is(err, connect.ErrHeld) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Generations = append(got.Generations, l.Generation)
		// Nobody else may be in here.
		inside, err := os.OpenFile(path+".inside", os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			t.Fatalf("generation %d is not alone: %v", l.Generation, err)
		}
		inside.Close()
		if err := os.Remove(inside.Name()); err != nil {
			t.Fatal(err)
		}
		if err := s.Release(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.NewEncoder(parent).Encode(got); err != nil {
		t.Fatal(err)
	}
}

// child is a racing process as its parent sees it.
type child struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startChild(t *testing.T, path string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() { out.Close() })
	return &child{cmd, in, bufio.NewReader(out)}
}

func (c *child) expect(t *testing.T, word string) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil || line != word+"\n" {
		t.Fatalf("a process said %q (%v), not %q", line, err, word)
	}
}

func (c *child) outcome(t *testing.T) outcome {
	t.Helper()
	var got outcome
	if err := json.NewDecoder(c.out).Decode(&got); err != nil {
		t.Errorf("a process said nothing: %v", err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("a process failed: %v", err)
	}
	return got
}
