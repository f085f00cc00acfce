//go:build unix

package torture

import (
	"errors"
	"net/http"
	"syscall"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
)

const (
	// pausedLease is how long leases last where a node is paused for longer.
	// Others leave a connection alone for half as long again, which the second
	// pause outlives, too.
	pausedLease      = 20 * time.Second
	pause, longPause = 21 * time.Second, 32 * time.Second
	// forgiving is the grace window of a provider that has one.
	forgiving = 30 * time.Second
)

// atProvider is where the token call is while the provider has it.
const atProvider = "at provider"

// What nodes log of faults that they are not to let anybody feel.
const (
	notSpooled = "spooling a renewed credential; until the vault has it, it is in memory only"
	notWritten = "the vault doesn't take a renewed credential; it is kept and will be written later"
)

// fault is something that breaks while connections are being renewed.
type fault struct {
	name  string
	steps []string
	// limit are the steps at which nobody can help.
	limit []string
	// alone: it strikes all nodes, so that nothing else is run meanwhile.
	alone bool
	// paused: it outlives leases, which are short for it.
	paused bool
	// together is how many renewals it strikes at once.
	together int
	needs    func(Options) bool
	grace    time.Duration
	// arm prepares a renewal for a fault that is the provider's; nil: the node
	// holds it at its step.
	arm func(t *trial)
	// strike breaks things while the renewals are held, and mends them. It
	// returns since when the connections could recover.
	strike func(w *world, victim *node, trials []*trial) (since time.Time, err error)
	// felt is what a node has to have logged about each connection; empty:
	// nothing tells that it was struck.
	felt string
	// after undoes what has to last until the connections are looked at.
	after func(victim *node) error
}

func hashicorpVault(o Options) bool { return o.Vault == "hashicorp" }
func postgresStore(o Options) bool  { return o.Store == "postgres" }

// faults are all that there are.
func faults() []*fault {
	all := []*fault{
		// One at a time, or one would kill the node that renews what another has
		// struck.
		{name: "killed", alone: true, steps: connect.Steps, limit: []string{"answered"}, together: 5, strike: killed},
		{name: "killed before it rotates", alone: true, steps: []string{atProvider}, together: 5, arm: holdsBefore, strike: killed},
		{name: "killed after it has rotated", alone: true, steps: []string{atProvider}, limit: []string{atProvider}, together: 5, arm: holdsAfter, strike: killed},
		{name: "paused beyond the lease", steps: connect.Steps, together: 20, paused: true, strike: paused(pause)},
		// Not with the answer, which others would try to have once more: what comes
		// of that is up to the provider (docs/torture.md).
		{name: "paused beyond patience", steps: []string{"leased", "read", "intended", "asking", "written", "recorded", "released"}, together: 20, paused: true, strike: paused(longPause)},

		{name: "drops the answer", steps: []string{atProvider}, limit: []string{atProvider}, together: 5, arm: drops, strike: nothing},
		{name: "drops the answer, forgives", steps: []string{atProvider}, together: 5, grace: forgiving, arm: drops, strike: nothing},
		{name: "takes 5 s", steps: []string{atProvider}, together: 5, arm: takes(5 * time.Second), strike: nothing},
		{name: "hangs", steps: []string{atProvider}, together: 10, arm: hangs, strike: untilAnswered},
		{name: "429, Retry-After 2", steps: []string{atProvider}, together: 5, arm: refuses(http.StatusTooManyRequests), strike: nothing},
		{name: "500", steps: []string{atProvider}, together: 5, arm: refuses(http.StatusInternalServerError), strike: nothing},
		{name: "503", steps: []string{atProvider}, together: 5, arm: refuses(http.StatusServiceUnavailable), strike: nothing},

		{name: "clock +10 min", steps: []string{"asking", "written"}, together: 5, strike: clock("600"), after: clockRight},
		{name: "clock -10 min", steps: []string{"asking", "written"}, together: 5, strike: clock("-600"), after: clockRight},
		{name: "disk full", steps: []string{"asking", "answered"}, together: 5, felt: notSpooled, strike: diskFull, after: diskFree},

		{name: "Postgres killed, back", steps: connect.Steps, alone: true, together: 9, needs: postgresStore, strike: outage(
			func(w *world) error { w.cluster.crash(); return nil }, func(w *world) error { return w.cluster.start() }, false)},
	}
	held := []string{"leased", "read", "intended", "asking", "answered", "spooled"}
	vaults := []struct {
		name        string
		down, mends func(w *world) error
	}{
		{"Vault sealed, unsealed", func(w *world) error { return w.hc.seal() }, func(w *world) error { return w.hc.unseal() }},
		{"Vault 403, allowed again", func(w *world) error { return w.hc.permit(noPolicy) }, func(w *world) error { return w.hc.permit(policy) }},
		{"Vault 429", func(w *world) error { w.hc.refuse.Store(429); return nil }, func(w *world) error { w.hc.refuse.Store(0); return nil }},
		{"Vault 412", func(w *world) error { w.hc.refuse.Store(412); return nil }, func(w *world) error { w.hc.refuse.Store(0); return nil }},
		{"Vault killed, back", func(w *world) error { w.hc.kill(); return nil }, func(w *world) error { return w.hc.comeBack() }},
	}
	for _, v := range vaults {
		all = append(all, &fault{name: v.name, steps: held, alone: true, together: 6, needs: hashicorpVault, felt: notWritten, strike: outage(v.down, v.mends, true)})
	}
	return append(all,
		&fault{name: "Vault sealed, node killed, unsealed", steps: []string{"asking", "answered"}, alone: true, together: 4, needs: hashicorpVault, felt: notWritten, strike: sealedAndKilled},
		&fault{name: "Vault sealed, disk full, unsealed", steps: []string{"asking", "answered"}, alone: true, together: 4, needs: hashicorpVault, felt: notSpooled, strike: sealedAndFull, after: diskFree})
}

// killed kills the node and starts it again at once.
func killed(_ *world, victim *node, trials []*trial) (time.Time, error) {
	victim.kill()
	for _, t := range trials {
		t.family.Disturb(nil, nil)
	}
	since := time.Now()
	err := victim.start()
	if err == nil {
		err = victim.ready()
	}
	return since, err
}

// paused stops the node. The others are called meanwhile.
func paused(during time.Duration) func(*world, *node, []*trial) (time.Time, error) {
	return func(w *world, victim *node, trials []*trial) (time.Time, error) {
		if err := victim.current().signal(syscall.SIGSTOP); err != nil {
			return time.Time{}, err
		}
		w.callOthers(victim, trials, during)
		if err := victim.current().signal(syscall.SIGCONT); err != nil {
			return time.Time{}, err
		}
		return time.Now(), goOn(trials)
	}
}

func goOn(trials []*trial) error {
	var errs []error
	for _, t := range trials {
		if t.account != nil { // its beginning may have failed
			errs = append(errs, t.goOn())
		}
	}
	return errors.Join(errs...)
}

// nothing is left to do: the provider does it.
func nothing(*world, *node, []*trial) (time.Time, error) { return time.Now(), nil }

// untilAnswered waits until the node has given up on the provider.
func untilAnswered(_ *world, _ *node, trials []*trial) (time.Time, error) {
	for _, t := range trials {
		<-t.called
	}
	return time.Now(), nil
}

// once makes a fault that strikes the first call only, and tells that it has.
func once(t *trial, f demo.Fault) demo.Fault {
	t.reached = make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request, grant string) bool {
		select {
		case <-t.reached:
			return false
		default:
		}
		close(t.reached) // one node has the lease, so that calls come one by one
		return f(w, r, grant)
	}
}

func holdsBefore(t *trial) { t.family.Disturb(once(t, gone), nil) }
func holdsAfter(t *trial)  { t.family.Disturb(nil, once(t, gone)) }
func hangs(t *trial)       { t.family.Disturb(once(t, gone), nil) }

// gone waits until whoever asked has gone.
func gone(_ http.ResponseWriter, r *http.Request, _ string) bool {
	<-r.Context().Done()
	return true
}

func drops(t *trial) {
	t.family.Disturb(nil, once(t, func(http.ResponseWriter, *http.Request, string) bool { panic(http.ErrAbortHandler) }))
}

func takes(d time.Duration) func(t *trial) {
	return func(t *trial) {
		t.family.Disturb(nil, once(t, func(http.ResponseWriter, *http.Request, string) bool { time.Sleep(d); return false }))
	}
}

func refuses(status int) func(t *trial) {
	return func(t *trial) {
		t.family.Disturb(once(t, func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			if status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "2")
			}
			http.Error(w, "not now", status)
			return true
		}), nil)
	}
}

// clock makes the node's clock jump.
func clock(seconds string) func(*world, *node, []*trial) (time.Time, error) {
	return func(_ *world, victim *node, trials []*trial) (time.Time, error) {
		if err := victim.tell("clock", seconds); err != nil {
			return time.Time{}, err
		}
		return time.Now(), goOn(trials)
	}
}

func clockRight(victim *node) error { return victim.tell("clock", "0") }

// diskFull fills the node's disk. With a store that is on it, there is no room
// for anything until the disk is free again.
func diskFull(w *world, victim *node, trials []*trial) (time.Time, error) {
	if err := victim.tell("disk", "full"); err != nil {
		return time.Time{}, err
	}
	if err := errors.Join(goOn(trials), served(trials)); err != nil || postgresStore(w.Options) {
		return time.Now(), err
	}
	return time.Now(), diskFree(victim)
}

func diskFree(victim *node) error { return victim.tell("disk", "ok") }

func served(trials []*trial) error {
	var errs []error
	for _, t := range trials {
		errs = append(errs, t.served())
	}
	return errors.Join(errs...)
}

// outage takes something away and brings it back. While it is away, the calls
// have to be served if that is to be expected.
func outage(down, mends func(*world) error, serves bool) func(*world, *node, []*trial) (time.Time, error) {
	return func(w *world, victim *node, trials []*trial) (time.Time, error) {
		err := errors.Join(down(w), goOn(trials))
		if serves {
			err = errors.Join(err, served(trials))
		} else {
			w.callOthers(victim, trials, 2*time.Second)
		}
		return time.Now(), errors.Join(err, mends(w))
	}
}

// sealedAndKilled kills the node that has what the vault could not take.
func sealedAndKilled(w *world, victim *node, trials []*trial) (time.Time, error) {
	err := errors.Join(w.hc.seal(), goOn(trials), served(trials))
	victim.kill()
	err = errors.Join(err, victim.start())
	time.Sleep(3 * time.Second) // so that its next life begins without a vault
	since := time.Now()
	return since, errors.Join(err, w.hc.unseal(), victim.ready())
}

// sealedAndFull leaves the new credential no place but the node's memory, and
// the store.
func sealedAndFull(w *world, victim *node, trials []*trial) (time.Time, error) {
	err := errors.Join(w.hc.seal(), victim.tell("disk", "full"), goOn(trials), served(trials))
	return time.Now(), errors.Join(err, w.hc.unseal())
}
