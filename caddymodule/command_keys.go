package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keycaddy/keycaddy/connect/policy"
)

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Lists, makes, rotates and revokes API keys",
		Long: `API keys are what apps prove themselves with. A key is shown once, when it is made
or rotated; what is kept of it is a digest.`,
	}
	cmd.AddCommand(listKeysCommand(), createKeyCommand(), rotateKeyCommand(), revokeKeyCommand(), scopesCommand())
	return cmd
}

// keyAnswer is what the API says of a key.
type keyAnswer struct {
	Name      string
	Scopes    []string
	Limits    policy.Limits
	Config    bool
	Key       string
	ExpiresAt string `json:"expires_at"`
	UsedAt    string `json:"last_used_at"`
	Former    string `json:"former_key_until"`
}

func listKeysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Lists API keys", Args: cobra.NoArgs}
	ask := client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var answer struct{ Data []keyAnswer }
		if err := ask(http.MethodGet, "/keys", nil, &answer); err != nil {
			return err
		}
		return table(cmd.OutOrStdout(), func(row func(...any)) error {
			row("NAME", "FROM", "LIMITED", "LAST USED", "EXPIRES", "SCOPES")
			for _, k := range answer.Data {
				from, limited := "store", "no"
				if k.Config {
					from = "config"
				}
				if !k.Limits.Empty() {
					limited = "yes"
				}
				row(k.Name, from, limited, k.UsedAt, k.ExpiresAt, strings.Join(k.Scopes, " "))
			}
			return nil
		})
	}
	return cmd
}

func createKeyCommand() *cobra.Command {
	var (
		limits  policy.Limits
		scopes  []string
		expires time.Duration
	)
	cmd := &cobra.Command{
		Use:   "create <name>",
		Short: "Makes an API key and prints it, this once",
		Long: `Makes an API key and prints it, this once. Without --scope it may do all but read
credentials and client secrets, and make and change keys.`,
		Example: `  caddy keycaddy keys create reports --scope environment:proxy \
      --integration github --call 'GET,HEAD /repos/**' --rate 100/1m --expires 720h`,
		Args: cobra.ExactArgs(1),
	}
	ask := client(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&scopes, "scope", nil, "A scope; see the command scopes")
	f.StringSliceVar(&limits.Integrations, "integration", nil, "An integration that it is good for, and no other")
	f.StringArrayVar(&limits.Connections, "connection", nil, "A connection that it is good for, by its id, and no other")
	f.StringArrayVar(&limits.EndUsers, "user", nil, "An end user whose connections it is good for, and no other's")
	f.StringToStringVar(&limits.Tags, "tag", nil, "A tag that connections must have, as name=value")
	f.StringArrayVar(&limits.Calls, "call", nil, "A call that it is good for, such as 'GET /repos/**', and no other")
	f.StringVar(&limits.Rate, "rate", "", "How many calls it may make in a time, such as 100/1m")
	f.DurationVar(&expires, "expires", 0, "How long it lives, such as 720h")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := map[string]any{"name": args[0], "limits": limits}
		if len(scopes) > 0 {
			request["scopes"] = scopes
		}
		if expires > 0 {
			request["expires_at"] = time.Now().Add(expires).UTC().Format(time.RFC3339)
		}
		return printKey(cmd, ask, "/keys", request)
	}
	return cmd
}

func rotateKeyCommand() *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate <name>",
		Short: "Gives an API key a new secret and prints it, this once",
		Long:  "Gives an API key a new secret and prints it, this once. The one before works\nfor as long as --overlap says.",
		Args:  cobra.ExactArgs(1),
	}
	ask := client(cmd)
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "How long the key from before goes on working")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return printKey(cmd, ask, "/keys/"+url.PathEscape(args[0])+"/rotate", map[string]any{"overlap_seconds": int64(overlap / time.Second)})
	}
	return cmd
}

func printKey(cmd *cobra.Command, ask func(method, path string, request, answer any) error, path string, request any) error {
	var answer struct{ Data keyAnswer }
	if err := ask(http.MethodPost, path, request, &answer); err != nil {
		return err
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), answer.Data.Key)
	return err
}

func revokeKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke <name>",
		Short: "Ends an API key, on all nodes within a second",
		Args:  cobra.ExactArgs(1),
	}
	ask := client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var answer struct{ Success bool }
		return ask(http.MethodDelete, "/keys/"+url.PathEscape(args[0]), nil, &answer)
	}
	return cmd
}

func scopesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "scopes",
		Short: "Lists the scopes that a key can have",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return table(cmd.OutOrStdout(), func(row func(...any)) error {
				row("SCOPE", "BY DEFAULT", "MAY")
				scopes, about := policy.About()
				for _, s := range scopes {
					byDefault := "no"
					if policy.DefaultScopes.Has(s) {
						byDefault = "yes"
					}
					row(s, byDefault, about[s])
				}
				return nil
			})
		},
	}
}
