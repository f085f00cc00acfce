package postgres

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

// Variables that, if set, make this process one of the racing ones: the
// database, and the file that only the holder of the lease may have made.
const (
	raceVariable   = "KEYCADDY_TEST_RACE_FOR"
	insideVariable = "KEYCADDY_TEST_RACE_INSIDE"
)

const (
	raceFlows    = 200
	raceHoldings = 40 // of the lease, by each process
	raceEvery    = 5 * time.Millisecond
)

// raced is what a racing process has got.
type raced struct {
	Flows       []string
	Generations []int64
}

// TestS4TwoProcessesTakeEachFlowOnceAndHoldTheLeaseByTurns starts two processes
// that migrate one new database at once, and then race for its flows and a lease.
func TestS4TwoProcessesTakeEachFlowOnceAndHoldTheLeaseByTurns(t *testing.T) {
	if dsn := os.Getenv(raceVariable); dsn != "" {
		race(t, dsn, os.Getenv(insideVariable))
		return
	}
	t.Parallel()
	dsn := sharedCluster(t).database(t)
	inside := filepath.Join(t.TempDir(), "inside")
	var racers [2]*racer
	for n := range racers {
		racers[n] = startRacer(t, dsn, inside)
	}
	for _, r := range racers { // both have migrated
		r.expect(t, "migrated")
	}
	s := openTest(t, dsn)
	for n := range raceFlows {
		f := connect.Flow{ID: fmt.Sprint("flow", n), State: raceState(n), Expires: time.Now().Add(time.Hour)}
		if err := s.PutFlow(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now().Add(100 * time.Millisecond)
	for _, r := range racers {
		fmt.Fprintln(r.in, start.UnixMicro())
	}
	takenBy := map[string]int{}
	generations := map[int64]bool{}
	for n, r := range racers {
		got := r.outcome(t)
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

// race is what the processes do. They speak to their parent through standard
// input and file 3, since standard output belongs to the test.
func race(t *testing.T, dsn, insideFile string) {
	parent := os.NewFile(3, "parent")
	s := openTest(t, dsn)
	migrate(t, s)
	fmt.Fprintln(parent, "migrated")
	var micros, highest int64
	if _, err := fmt.Fscanln(os.Stdin, &micros); err != nil {
		t.Fatal(err)
	}
	start := time.UnixMicro(micros)
	var got raced
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
		// Nobody else may be in here, and nobody may have been with a higher
		// generation: the file is made by its holder and holds the last one.
		inside, err := os.OpenFile(insideFile, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			t.Fatalf("generation %d is not alone: %v", l.Generation, err)
		}
		inside.Close()
		if text, err := os.ReadFile(insideFile + ".last"); err == nil {
			fmt.Sscan(string(text), &highest)
		}
		if l.Generation <= highest {
			t.Errorf("generation %d after %d", l.Generation, highest)
		}
		if err := os.WriteFile(insideFile+".last", fmt.Append(nil, l.Generation), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(insideFile); err != nil {
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

// racer is a racing process as its parent sees it.
type racer struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startRacer(t *testing.T, dsn, inside string) *racer {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), raceVariable+"="+dsn, insideVariable+"="+inside)
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
	return &racer{cmd, in, bufio.NewReader(out)}
}

func (r *racer) expect(t *testing.T, word string) {
	t.Helper()
	line, err := r.out.ReadString('\n')
	if err != nil || line != word+"\n" {
		t.Fatalf("a process said %q (%v), not %q", line, err, word)
	}
}

func (r *racer) outcome(t *testing.T) raced {
	t.Helper()
	var got raced
	if err := json.NewDecoder(r.out).Decode(&got); err != nil {
		t.Errorf("a process said nothing: %v", err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("a process failed: %v", err)
	}
	return got
}
