package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func init() { moreCommands = append(moreCommands, logsCommand) }

// logLine is a log as the API tells it.
type logLine struct {
	ID, Kind, Status  string
	ProviderConfigKey string    `json:"provider_config_key"`
	ConnectionID      string    `json:"connection_id"`
	StartedAt         string    `json:"started_at"`
	ChangedAt         time.Time `json:"changed_at"`
	DurationMS        float64   `json:"duration_ms"`
	Error             *struct {
		Code, Message   string
		ProviderMessage string `json:"provider_message"`
	}
	Call *struct {
		Method, Path string
		Status       int
	}
	Steps []struct {
		At, Name, Message string
		ProviderMessage   string `json:"provider_message"`
	}
}

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs [id]",
		Short: "Shows attempts to connect, renewals and calls",
		Long: `Lists logs, the newest last. With an id, shows that log step by step: the
id is the flow's that an error page shows, or one of the list.`,
		Args: cobra.MaximumNArgs(1),
	}
	ask := client(cmd)
	filter := filters(cmd, map[string]string{
		"kind":        "Only those of connect, refresh, call or fetch",
		"status":      "Only those that are running, success or failure",
		"integration": "Only those of this integration",
		"connection":  "Only those of this connection",
		"since":       "Only those that started since, such as 2026-01-31T12:00:00Z",
		"until":       "Only those that started before",
		"text":        "Only those with this text in ids, codes, messages, paths, callers or end users",
		"limit":       "How many at most (default: 100)",
	})
	follow := cmd.Flags().BoolP("follow", "f", false, "Go on with what is new")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			var l logLine
			if err := ask(http.MethodGet, "/logs/"+url.PathEscape(args[0]), nil, &l); err != nil {
				return err
			}
			return l.print(cmd.OutOrStdout())
		}
		f := follower{ask: func(query url.Values) (found []logLine, err error) {
			var answer struct{ Logs []logLine }
			err = ask(http.MethodGet, "/logs?"+query.Encode(), nil, &answer)
			return answer.Logs, err
		}, out: cmd.OutOrStdout(), query: filter(), shown: make(map[string]string)}
		if err := f.once(); err != nil || !*follow {
			return err
		}
		for {
			select {
			case <-time.After(followEvery):
			case <-cmd.Context().Done():
				return nil
			}
			if err := f.more(); err != nil {
				return err
			}
		}
	}
	return cmd
}

const (
	// followEvery is how often it is asked what is new. Each question goes back
	// by followOverlap behind the one before, for what was being written then.
	followEvery, followOverlap = time.Second, 5 * time.Second
	followPage                 = 1000
)

// follower prints logs, and what becomes of them.
type follower struct {
	ask   func(url.Values) ([]logLine, error)
	out   io.Writer
	query url.Values
	mark  time.Time         // up to which everything is shown
	shown map[string]string // what is shown of logs that changed of late
}

func (f *follower) once() error {
	logs, err := f.ask(f.query)
	if err != nil {
		return err
	}
	f.mark = time.Now().Add(-time.Minute)
	return f.show(logs)
}

func (f *follower) more() error {
	query := url.Values{"limit": {fmt.Sprint(followPage)}, "changed_since": {f.mark.Add(-followOverlap).Format(time.RFC3339Nano)}}
	for name, values := range f.query {
		if name != "limit" {
			query[name] = values
		}
	}
	logs, err := f.ask(query)
	if err != nil {
		return err
	}
	return f.show(logs)
}

// show prints those that were not shown yet as they are now.
func (f *follower) show(logs []logLine) error {
	slices.Reverse(logs)
	for i := range logs {
		l := &logs[i]
		if l.ChangedAt.After(f.mark) {
			f.mark = l.ChangedAt
		}
		line := l.line()
		if f.shown[l.ID] == line {
			continue
		}
		f.shown[l.ID] = line
		if _, err := fmt.Fprintln(f.out, line); err != nil {
			return err
		}
	}
	if len(f.shown) > 10*followPage { // what didn't come again has not changed for long
		f.shown = make(map[string]string)
		for i := range logs {
			f.shown[logs[i].ID] = logs[i].line()
		}
	}
	return nil
}

func (l *logLine) line() string {
	parts := []string{l.StartedAt, l.ID, l.Kind, l.Status, l.ProviderConfigKey + "/" + l.ConnectionID}
	if l.DurationMS > 0 {
		parts = append(parts, fmt.Sprintf("%.0fms", l.DurationMS))
	}
	if l.Call != nil {
		parts = append(parts, fmt.Sprintf("%s %s %d", l.Call.Method, l.Call.Path, l.Call.Status))
	}
	if l.Error != nil {
		parts = append(parts, l.Error.Code+": "+l.Error.Message)
		if l.Error.ProviderMessage != "" {
			parts = append(parts, fmt.Sprintf("(the provider says %q)", l.Error.ProviderMessage))
		}
	}
	return strings.Join(parts, "  ")
}

// print writes a log with its steps.
func (l *logLine) print(w io.Writer) error {
	if _, err := fmt.Fprintln(w, l.line()); err != nil {
		return err
	}
	return table(w, func(row func(...any)) error {
		for _, s := range l.Steps {
			message := s.Message
			if s.ProviderMessage != "" {
				message += fmt.Sprintf(" (the provider says %q)", s.ProviderMessage)
			}
			row("", s.At, s.Name, message)
		}
		return nil
	})
}
