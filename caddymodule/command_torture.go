//go:build unix

package caddymodule

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile" // the adapter
	"github.com/spf13/cobra"

	"github.com/keycaddy/keycaddy/caddymodule/torture"
)

func init() { moreCommands = append(moreCommands, tortureCommand, tortureNodeCommand) }

// tortureCommand breaks things while credentials are renewed.
func tortureCommand() *cobra.Command {
	var o torture.Options
	cmd := &cobra.Command{
		Use:   "torture",
		Short: "Breaks things while credentials are renewed, and looks whether any is lost",
		Long: `Starts nodes of this program, a provider whose refresh tokens are good for one
use, a Vault and a PostgreSQL, all of its own and on loopback, and renews
connections while nodes are killed and paused, the provider fails, Vault and
PostgreSQL go away, clocks jump and disks fill up: at each step of a renewal.
Then it renews many connections at once while nodes are killed at random.

The table says, for every fault at every step, how many renewals it has struck,
how many connections were lost by it, how many had a refresh token sent twice,
and how long it took until they worked on all nodes again. Where nobody can help,
since the provider has spent the refresh token and its answer is lost, the loss
has to be reported, once: those rows are apart.

It fails if anything else is lost, or any refresh token is spent twice.

Vault's command has to be in PATH, or named; PostgreSQL's programs in PATH, where
Debian keeps them, or named. With --store sqlite --vault sealed neither is needed.
Nothing of the machine's own servers is touched.`,
		Example: `  caddy keycaddy torture
  caddy keycaddy torture --store sqlite --vault sealed --nodes 1
  caddy keycaddy torture --only 'spooled/*' --only '*/Vault *' --rotations 0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			o.Progress = cmd.ErrOrStderr()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			began := time.Now()
			report, err := torture.Run(ctx, o)
			if report != nil && len(report.Rows) > 0 {
				if perr := report.Print(cmd.OutOrStdout()); perr != nil {
					return perr
				}
				fmt.Fprintf(cmd.OutOrStdout(), "\nin %v\n", time.Since(began).Round(time.Second))
			}
			if err != nil {
				return err
			}
			cmd.SilenceUsage = true
			return report.Err()
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 3, "How many nodes there are")
	f.IntVar(&o.Runs, "runs", 20, "How many renewals each fault strikes at each step")
	f.IntVar(&o.Rotations, "rotations", 2000, "How many renewals there are besides, with faults at random")
	f.Uint64Var(&o.Seed, "seed", 1, "What decides the order of faults, and chance")
	f.StringVar(&o.Store, "store", "postgres", "The nodes' store: postgres or sqlite")
	f.StringVar(&o.Vault, "vault", "hashicorp", "The nodes' vault: hashicorp or sealed")
	f.StringVar(&o.VaultProgram, "vault-program", "", "Vault's command (default: vault, in PATH)")
	f.StringVar(&o.PostgresPrograms, "postgres-programs", "", "The folder of initdb and postgres (default: in PATH, or Debian's)")
	f.StringArrayVar(&o.Only, "only", nil, "Only the rows whose STEP/FAULT matches, such as 'spooled/*'; may be given again")
	return cmd
}

// tortureNodeCommand is what torture starts its nodes with.
func tortureNodeCommand() *cobra.Command {
	var config string
	agent := &torture.Agent{Out: os.Stdout}
	cmd := &cobra.Command{
		Use:    "torture-node",
		Short:  "A node of torture, which takes commands from its standard input",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			prepare = agent.Prepare
			text, err := os.ReadFile(config)
			if err != nil {
				return err
			}
			adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": config})
			if err != nil {
				return err
			}
			loaded := make(chan error, 1)
			go func() {
				err := caddy.Load(adapted, true)
				if err == nil {
					agent.Tell("started")
				}
				loaded <- err
			}()
			served := make(chan error, 1)
			go func() { served <- agent.Serve(os.Stdin) }()
			select {
			case err = <-loaded:
				if err != nil {
					return err
				}
				err = <-served
			case err = <-served: // before it has started
				return err
			}
			if err != nil {
				return err
			}
			return caddy.Stop()
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "The node's Caddyfile")
	cmd.Flags().DurationVar(&agent.Lease, "lease", 0, "How long leases last")
	return cmd
}
