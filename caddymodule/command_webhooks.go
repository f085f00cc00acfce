package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func init() { moreCommands = append(moreCommands, webhooksCommand) }

func webhooksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhooks",
		Short: "Shows which events were delivered, and delivers them again",
	}
	cmd.AddCommand(webhooksListCommand(), webhooksEndpointsCommand(), webhooksRedeliverCommand())
	return cmd
}

func webhooksListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Lists deliveries, the newest first",
		Args:  cobra.NoArgs,
	}
	ask := client(cmd)
	filter := filters(cmd, map[string]string{
		"state":       "Only those that are waiting, delivered or given_up",
		"endpoint":    "Only those to this endpoint",
		"event":       "Only those of this event",
		"integration": "Only those of this integration's connections",
		"connection":  "Only those of this connection",
		"limit":       "How many at most (default: 100)",
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var answer struct {
			Deliveries []struct {
				Event struct {
					ID, Kind, At      string
					ProviderConfigKey string `json:"provider_config_key"`
					ConnectionID      string `json:"connection_id"`
				}
				Endpoint, State, Error string
				Attempts               int
			}
		}
		if err := ask(http.MethodGet, "/webhooks/deliveries?"+filter().Encode(), nil, &answer); err != nil {
			return err
		}
		return table(cmd.OutOrStdout(), func(row func(...any)) error {
			row("AT", "EVENT", "KIND", "INTEGRATION", "CONNECTION", "ENDPOINT", "STATE", "ATTEMPTS", "ERROR")
			for _, d := range answer.Deliveries {
				row(d.Event.At, d.Event.ID, d.Event.Kind, d.Event.ProviderConfigKey, d.Event.ConnectionID, d.Endpoint, d.State, d.Attempts, d.Error)
			}
			return nil
		})
	}
	return cmd
}

func webhooksEndpointsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "Lists endpoints and how they fare",
		Args:  cobra.NoArgs,
	}
	ask := client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var answer struct {
			Endpoints []struct {
				Name              string
				Waiting, Failures int
				PausedUntil       string `json:"paused_until"`
			}
		}
		if err := ask(http.MethodGet, "/webhooks", nil, &answer); err != nil {
			return err
		}
		return table(cmd.OutOrStdout(), func(row func(...any)) error {
			row("ENDPOINT", "WAITING", "FAILURES", "PAUSED UNTIL")
			for _, e := range answer.Endpoints {
				row(e.Name, e.Waiting, e.Failures, e.PausedUntil)
			}
			return nil
		})
	}
	return cmd
}

func webhooksRedeliverCommand() *cobra.Command {
	var endpoint string
	cmd := &cobra.Command{
		Use:   "redeliver <event>",
		Short: "Delivers an event again, to the endpoints that it was for",
		Args:  cobra.ExactArgs(1),
	}
	ask := client(cmd)
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "To this endpoint only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var answer struct{ Deliveries int }
		request := map[string]string{"event": args[0]}
		if endpoint != "" {
			request["endpoint"] = endpoint
		}
		if err := ask(http.MethodPost, "/webhooks/redeliver", request, &answer); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d deliveries are due again\n", answer.Deliveries)
		return err
	}
	return cmd
}

// filters gives a command a flag for each name, and returns the query of those
// that were given. An integration and a connection have the names there that
// they have in answers.
func filters(cmd *cobra.Command, usage map[string]string) func() url.Values {
	values := make(map[string]*string)
	for name, help := range usage {
		values[name] = cmd.Flags().String(name, "", help)
	}
	names := map[string]string{"integration": "provider_config_key", "connection": "connection_id"}
	return func() url.Values {
		query := url.Values{}
		for name, value := range values {
			if *value == "" {
				continue
			}
			if n, ok := names[name]; ok {
				name = n
			}
			query.Set(name, *value)
		}
		return query
	}
}
