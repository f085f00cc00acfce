package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keycaddy/keycaddy/caddymodule/simulate"
	"github.com/keycaddy/keycaddy/catalog"
)

// catalogSimulateCommand tries entries against vendors that are played. It
// needs neither a running Caddy nor a network.
func catalogSimulateCommand() *cobra.Command {
	var all, verbose bool
	cmd := &cobra.Command{
		Use:   "simulate [<provider>...] [--all]",
		Short: "Connects, calls, renews and disconnects providers that are played",
		Long: `Plays the vendor of each provider, from nothing but its entry, and runs what a
connection goes through against it: a wrong credential, connecting, calls, a
refused token, a token whose time has come, a withdrawn consent, disconnecting.
The played vendor demands all that the entry says, and refuses all else.

Nothing is sent anywhere. It fails if any entry does.`,
		RunE: func(cmd *cobra.Command, args []string) error { return nil },
	}
	open := folderFlag(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "Run all providers")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "List every provider, not only those that failed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) > 0) {
			return errors.New("name providers, or say --all")
		}
		cat, err := open()
		if err != nil {
			return err
		}
		for _, id := range args {
			if _, err := cat.Provider(id); err != nil {
				return err
			}
		}
		folder, remove, err := simulate.Folder()
		if err != nil {
			return fmt.Errorf("making a folder to run in: %w", err)
		}
		began := time.Now()
		results, err := simulate.Run(cmd.Context(), cat, folder, args...)
		if err := errors.Join(err, remove()); err != nil {
			return err
		}
		return reportSimulation(cmd.OutOrStdout(), results, verbose || !all, time.Since(began))
	}
	return cmd
}

// reportSimulation prints what came of a simulation: what failed and why, and
// a table of all schemes. It returns an error if anything has failed.
func reportSimulation(w io.Writer, results []simulate.Result, list bool, took time.Duration) error {
	type sum struct{ entries, passed, skipped, failed int }
	sums := map[catalog.Mode]*sum{}
	var total sum
	for _, r := range results {
		s := sums[r.Mode]
		if s == nil {
			s = &sum{}
			sums[r.Mode] = s
		}
		for _, s := range []*sum{s, &total} {
			s.entries++
			switch {
			case len(r.Failures) > 0:
				s.failed++
			case r.Skipped != "":
				s.skipped++
			default:
				s.passed++
			}
		}
		switch {
		case len(r.Failures) > 0:
			fmt.Fprintf(w, "FAILED   %s (%s)\n         %s\n", r.ID, r.Mode, strings.Join(r.Failures, "\n         "))
		case r.Skipped != "":
			fmt.Fprintf(w, "skipped  %s (%s): %s\n", r.ID, r.Mode, r.Skipped)
		case list:
			fmt.Fprintf(w, "passed   %s (%s)\n", r.ID, r.Mode)
		}
	}
	fmt.Fprintln(w)
	err := table(w, func(row func(...any)) error {
		row("SCHEME", "ENTRIES", "PASSED", "SKIPPED", "FAILED")
		for _, mode := range slices.Sorted(maps.Keys(sums)) {
			s := sums[mode]
			row(mode, s.entries, s.passed, s.skipped, s.failed)
		}
		row("all", total.entries, total.passed, total.skipped, total.failed)
		return nil
	})
	fmt.Fprintf(w, "\nin %v\n", took.Round(time.Millisecond))
	if total.failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d providers failed", total.failed, total.entries))
	}
	return err
}
