package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "keycaddy",
		Short: "Looks after connections, integrations and providers",
		Long: `Commands for keycaddy, the credential-injecting reverse proxy.

All but providers, catalog and torture ask a running Caddy through its admin endpoint, which is
found as by other commands: by --address, or in the configuration file.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(providersCommand(), catalogCommand(), connectionsCommand(), connectCommand(), keysCommand(), explainCommand())
			for _, more := range moreCommands {
				cmd.AddCommand(more())
			}
		},
	})
}

// moreCommands are those that not every system has.
var moreCommands []func() *cobra.Command

func providersCommand() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:   "providers [search]",
		Short: "Lists the providers in the catalog",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cat, err := openCatalog(folder)
			if err != nil {
				return err
			}
			search := strings.ToLower(strings.Join(args, ""))
			return table(cmd.OutOrStdout(), func(row func(...any)) error {
				row("PROVIDER", "NAME", "SCHEME", "DOCUMENTATION")
				for _, id := range cat.IDs() {
					p, err := cat.Provider(id)
					if err != nil {
						return err
					}
					if strings.Contains(id, search) || strings.Contains(strings.ToLower(p.DisplayName), search) {
						row(id, p.DisplayName, p.Mode, p.Docs.Reference)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&folder, "catalog", "", "A folder of your own provider files")
	return cmd
}

func connectionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connections [search]",
		Short: "Lists connections",
		Args:  cobra.MaximumNArgs(1),
	}
	ask := client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var answer struct {
			Connections []struct {
				ConnectionID      string `json:"connection_id"`
				ProviderConfigKey string `json:"provider_config_key"`
				Provider          string
				Errors            []struct{ Cause string }
				EndUser           *struct{ ID string } `json:"end_user"`
				Created           string
			}
		}
		query := url.Values{}
		if len(args) > 0 {
			query.Set("search", args[0])
		}
		if err := ask(http.MethodGet, "/connections?"+query.Encode(), nil, &answer); err != nil {
			return err
		}
		return table(cmd.OutOrStdout(), func(row func(...any)) error {
			row("INTEGRATION", "CONNECTION", "PROVIDER", "STATUS", "END USER", "CREATED")
			for _, c := range answer.Connections {
				status, user := "active", ""
				if len(c.Errors) > 0 {
					status = "needs reauth (" + c.Errors[0].Cause + ")"
				}
				if c.EndUser != nil {
					user = c.EndUser.ID
				}
				row(c.ProviderConfigKey, c.ConnectionID, c.Provider, status, user, c.Created)
			}
			return nil
		})
	}
	return cmd
}

func connectCommand() *cobra.Command {
	var user, connection string
	cmd := &cobra.Command{
		Use:   "connect [integration...]",
		Short: "Prints a link on which a user can connect an account",
		Long: `Opens a connect session and prints its link, which works for half an hour.
Without an integration the user chooses among all of them.`,
	}
	ask := client(cmd)
	cmd.Flags().StringVar(&user, "user", "cli", "The id of your user that the connection is for")
	cmd.Flags().StringVar(&connection, "connection", "", "The id that the connection gets; one that exists is connected again (default: a random one)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var answer struct {
			Data struct {
				ConnectLink string    `json:"connect_link"`
				ExpiresAt   time.Time `json:"expires_at"`
			}
		}
		request := map[string]any{"end_user": map[string]string{"id": user}, "allowed_integrations": args}
		if connection != "" {
			request["connection_id"] = connection
		}
		if err := ask(http.MethodPost, "/connect/sessions", request, &answer); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), answer.Data.ConnectLink)
		return err
	}
	return cmd
}

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain <integration> <connection> [<method> <path>]",
		Short: "Says what a call of a connection would get, or why it would be refused",
		Long: `Says where a call of a connection would go and which headers and parameters
would be put on it (their names, never their values), or why it would be refused.
With an API key's name it says what that key's call would get, and which of the
calls that the key is good for it is.`,
		Example: `  caddy keycaddy explain github c1
  caddy keycaddy explain github c1 GET /repos/acme/api/issues --key reports`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 && len(args) != 4 {
				return fmt.Errorf("expected an integration and a connection, and maybe a method and a path")
			}
			return nil
		},
	}
	key := cmd.Flags().String("key", "", "The name of the API key that the call would be made with")
	ask := client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var answer json.RawMessage
		request := map[string]string{"provider_config_key": args[0], "connection_id": args[1]}
		if *key != "" {
			request["key"] = *key
		}
		if len(args) == 4 {
			request["method"], request["path"] = args[2], args[3]
		}
		if err := ask(http.MethodPost, "/explain", request, &answer); err != nil {
			return err
		}
		var out bytes.Buffer
		if err := json.Indent(&out, answer, "", "  "); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), out.String())
		return err
	}
	return cmd
}

// client gives a command the flags that find the admin endpoint, and returns
// what calls the API there.
func client(cmd *cobra.Command) func(method, path string, request, answer any) error {
	var address, config, adapter string
	cmd.Flags().StringVar(&address, "address", "", "The address of the admin endpoint")
	cmd.Flags().StringVarP(&config, "config", "c", "", "The configuration file to find the address in")
	cmd.Flags().StringVarP(&adapter, "adapter", "a", "", "The name of that file's adapter")
	return func(method, path string, request, answer any) error {
		admin, err := caddycmd.DetermineAdminAPIAddress(address, nil, config, adapter)
		if err != nil {
			return fmt.Errorf("finding the admin endpoint: %w", err)
		}
		var body io.Reader
		headers := http.Header{}
		if request != nil {
			data, err := json.Marshal(request)
			if err != nil {
				return err
			}
			body = bytes.NewReader(data)
			headers.Set("Content-Type", "application/json")
		}
		// AdminAPIRequest makes an error of every status from 400 on.
		res, err := caddycmd.AdminAPIRequest(admin, method, adminPath+path, headers, body)
		if err != nil {
			return fmt.Errorf("asking Caddy at %s: %w", admin, err)
		}
		err = json.NewDecoder(res.Body).Decode(answer)
		return errors.Join(err, res.Body.Close())
	}
}

// table prints rows in columns.
func table(w io.Writer, fill func(row func(...any)) error) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	err := fill(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(out, "\t")
			}
			fmt.Fprint(out, c)
		}
		fmt.Fprintln(out)
	})
	return errors.Join(err, out.Flush())
}
