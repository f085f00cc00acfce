package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// baseline is what all others are compared with.
const baseline = "reverse_proxy"

// report is what was measured, by scenario and target, a measurement a round.
type report struct {
	rounds    int
	each      time.Duration
	caddy     string
	loadBegan string
	scenarios []string
	targets   map[string][]string
	got       map[[2]string][]measurement
}

func newReport(rounds int, each time.Duration, caddy string) *report {
	return &report{rounds: rounds, each: each, caddy: caddy, loadBegan: firstLine("/proc/loadavg"), targets: map[string][]string{}, got: map[[2]string][]measurement{}}
}

func (r *report) add(scenario, target string, m measurement) {
	slices.Sort(m.took)
	if !slices.Contains(r.scenarios, scenario) {
		r.scenarios = append(r.scenarios, scenario)
	}
	if !slices.Contains(r.targets[scenario], target) {
		r.targets[scenario] = append(r.targets[scenario], target)
	}
	key := [2]string{scenario, target}
	r.got[key] = append(r.got[key], m)
}

// spread is a median with the least and the most around it.
type spread struct{ min, median, max float64 }

func (s spread) String() string { return fmt.Sprintf("%.2f (%.2f to %.2f)", s.median, s.min, s.max) }

func spreadOf(values []float64) spread {
	slices.Sort(values)
	return spread{values[0], values[len(values)/2], values[len(values)-1]}
}

// ratio is a figure's ratio to the baseline's of the same round.
func (r *report) ratio(scenario, target string, of func(measurement) float64) spread {
	var ratios []float64
	base := r.got[[2]string{scenario, baseline}]
	for round, m := range r.got[[2]string{scenario, target}] {
		ratios = append(ratios, of(m)/of(base[round]))
	}
	return spreadOf(ratios)
}

func (r *report) median(scenario, target string, of func(measurement) float64) float64 {
	var values []float64
	for _, m := range r.got[[2]string{scenario, target}] {
		values = append(values, of(m))
	}
	return spreadOf(values).median
}

func perSecond(m measurement) float64 { return float64(len(m.took)) / m.elapsed.Seconds() }
func cpu(m measurement) float64       { return float64(m.cpu) / 1e3 / float64(len(m.took)) }
func p50(m measurement) float64       { return float64(m.took[len(m.took)/2]) / 1e3 }
func p99(m measurement) float64       { return float64(m.took[len(m.took)*99/100]) / 1e3 }
func memory(m measurement) float64    { return float64(m.memory) / (1 << 20) }

func (r *report) table(w io.Writer) {
	fmt.Fprintln(w, "| | calls/s | to reverse_proxy | CPU, µs a call | to reverse_proxy | p50, µs | p99, µs | p99 to reverse_proxy | MiB |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, s := range r.scenarios {
		fmt.Fprintf(w, "| **%s** |\n", s)
		for _, t := range r.targets[s] {
			fmt.Fprintf(w, "| %s | %.0f | %v | %.1f | %v | %.0f | %.0f | %v | %.0f |\n", t,
				r.median(s, t, perSecond), r.ratio(s, t, perSecond), r.median(s, t, cpu), r.ratio(s, t, cpu),
				r.median(s, t, p50), r.median(s, t, p99), r.ratio(s, t, p99), r.median(s, t, memory))
		}
	}
}

func (r *report) print(w io.Writer) { r.table(w) }

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Results

Made by `+"`./xcaddy.sh bench`"+`; what is compared, and how, is in the comment of bench/main.go.

- Commit: %s
- Machine: %s, %d cores, Linux %s, %s
- Load average before: %s; after: %s
- %d rounds of %v each, in which all take turns of about %v; medians, and in brackets the least and the most of a round. Ratios are to `+"`reverse_proxy`"+` in the same round. MiB is the whole process, with all connections that were called so far in memory.
- Where other work shares the cores, calls/s and p99 follow it; CPU a call depends on it least.

`, output("git", "describe", "--always", "--dirty"), cpuModel(), cores(), firstLine("/proc/sys/kernel/osrelease"), runtime.Version(),
		r.loadBegan, firstLine("/proc/loadavg"), r.rounds, r.each, turn)
	r.table(&b)
	return b.String()
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func firstLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// cores counts those of the machine, not those that this process is kept to.
func cores() int {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.NumCPU()
	}
	return strings.Count("\n"+string(data), "\nprocessor")
}

func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
