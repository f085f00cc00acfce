// Command bench compares keycaddy with Caddy's own reverse_proxy, which sets
// a static header, and with nginx as the floor: real processes on loopback, the
// proxy on one core, everything else on another, in rounds that take turns, so
// that whatever else the machine does falls on all alike. What counts are the
// ratios within a round.
//
// ./xcaddy.sh bench runs it and writes bench/results.md. It may import what
// makes connections (connect, connect/scheme, connect/sqlite, vault/sealed) and
// the standard library.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// turn is how long one proxy is measured before it is another's turn: the speed
// of a machine that is shared changes within seconds.
const turn = 500 * time.Millisecond

// scenario is one thing to measure.
type scenario struct {
	name        string
	upstream    string // the key of an upstream's address: plain, tls, h2
	integration string // of keycaddy's; the others just set a header
	path        string
	clients     int
	// connections are how many of keycaddy's the calls take turns with.
	connections int
}

func scenarios(most int) []scenario {
	all := []scenario{
		{"1 KiB, 1 client", "plain", "key", "1k", 1, 1},
		{"1 KiB, 64 clients", "plain", "key", "1k", 64, 1},
		{"1 KiB, 256 clients", "plain", "key", "1k", 256, 1},
		{"1 MiB, 64 clients", "plain", "key", "1m", 64, 1},
		{"1 KiB, 64 clients, OAuth 2", "plain", "oauth", "1k", 64, 1},
		{"1 KiB, 64 clients, AWS Signature 4", "plain", "sigv4", "1k", 64, 1},
		{"1 KiB, 64 clients, TLS upstream", "tls", "tls", "1k", 64, 1},
		{"1 KiB, 64 clients, TLS and HTTP/2 upstream", "h2", "h2", "1k", 64, 1},
	}
	for n := 10_000; n <= most; n *= 100 {
		all = append(all, scenario{fmt.Sprintf("1 KiB, 64 clients, %d connections", n), "plain", "key", "1k", 64, n})
	}
	return all
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) > 1 && os.Args[1] == "upstream" {
		log.Fatal(serveUpstream(os.Args[2]))
	}
	caddy := flag.String("caddy", "bin/caddy", "the `binary` to measure")
	stock := flag.String("stock", ".cache/stock", "Caddy's own `binary`, without keycaddy")
	out := flag.String("o", "", "the `file` to write the results to")
	rounds := flag.Int("rounds", 5, "how often everything is measured")
	each := flag.Duration("for", 2*time.Second, "how long one measurement takes")
	connections := flag.Int("connections", 10_000, "how many connections there are, 10000 or 1000000")
	kept := flag.String("seed", "", "the `folder` that connections are kept in for other runs; empty: they are made each time")
	only := flag.String("only", "", "measure scenarios with this in their `name`")
	flag.Parse()
	pin()
	runtime.LockOSThread() // the processes end with the thread that has started them
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := run(ctx, *caddy, *stock, *rounds, *each, *connections, *kept, *only)
	if err != nil {
		log.Fatal(err)
	}
	r.print(os.Stdout)
	if *out != "" {
		if err := os.WriteFile(*out, []byte(r.markdown()), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// pin moves this process to the last core and leaves the first to the proxies,
// if there are two.
func pin() {
	if runtime.NumCPU() < 2 || os.Getenv("BENCH_PINNED") != "" {
		return
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		log.Fatal(err)
	}
	args := append([]string{taskset, "-c", strconv.Itoa(runtime.NumCPU() - 1)}, os.Args...)
	log.Fatal(syscall.Exec(taskset, args, append(os.Environ(), "BENCH_PINNED=1")))
}

// run measures everything.
func run(ctx context.Context, caddy, stock string, rounds int, each time.Duration, connections int, kept, only string) (*report, error) {
	dir, err := os.MkdirTemp("", "keycaddy-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ups, err := startUpstreams(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer ups.stop()
	if err := seed(ctx, dir, kept, connections); err != nil {
		return nil, err
	}
	targets, err := startTargets(ctx, dir, caddy, stock, ups)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, t := range targets {
			t.stop()
		}
	}()
	r := newReport(rounds, each, caddy)
	for _, s := range scenarios(connections) {
		if !strings.Contains(s.name, only) {
			continue
		}
		log.Print(s.name)
		if err := r.compare(ctx, s, targets); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return r, nil
}

// compare measures all targets in a scenario.
func (r *report) compare(ctx context.Context, s scenario, targets []*target) error {
	targets = slices.DeleteFunc(slices.Clone(targets), func(t *target) bool { return t.address(s) == "" })
	for _, t := range targets {
		if err := warm(t, s); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	var loads []*load
	for _, t := range targets {
		l, err := newLoad(t, s)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		defer l.close()
		loads = append(loads, l)
	}
	turns := max(int(r.each/turn), 1)
	for round := range r.rounds {
		got := make([]measurement, len(loads))
		for n := range turns {
			for i := range loads {
				i = (i + round + n) % len(loads) // another one is first each time
				m, err := loads[i].measure(r.each/time.Duration(turns), 0)
				if err != nil {
					return fmt.Errorf("%s: %w", loads[i].target.name, err)
				}
				got[i].add(m)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		for i, m := range got {
			r.add(s.name, loads[i].target.name, m)
		}
	}
	return nil
}

// warm makes the first calls, in which connections are read from store and vault.
func warm(t *target, s scenario) error {
	l, err := newLoad(t, s)
	if err != nil {
		return err
	}
	defer l.close()
	least := int64(0)
	if t.connected {
		least = int64(s.connections)
	}
	_, err = l.measure(300*time.Millisecond, least)
	return err
}
