package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/keycaddy/keycaddy/caddymodule/nangodb"
)

func init() { moreCommands = append(moreCommands, importCommand) }

func importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Brings integrations and connections over from elsewhere",
	}
	cmd.AddCommand(importNangoCommand())
	return cmd
}

// nangoImport is one run of the command.
type nangoImport struct {
	ask      func(method, path string, request, answer any) error
	db       *nangodb.Database
	out, err io.Writer
	dry      bool

	modes    map[string]string // the catalog's schemes, by entry
	here     map[string]bool   // connections that are here already, as integration and id
	known    map[string]bool   // integrations that are here
	report   nangoReport
	progress time.Time
}

// nangoReport says what became of everything.
type nangoReport struct {
	Integrations outcomes `json:"integrations"`
	Connections  outcomes `json:"connections"`
	Keys         outcomes `json:"api_keys"`
}

type outcomes struct {
	Brought int       `json:"brought"`
	Before  int       `json:"before"` // there already
	Failed  []failure `json:"failed"`
}

type failure struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func (o *outcomes) fail(name string, reason any) {
	o.Failed = append(o.Failed, failure{name, told(fmt.Sprint(reason))})
}

// told is what the API has said, if that is what a text quotes.
func told(text string) string {
	_, body, _ := strings.Cut(text, `{"error":`)
	var answer struct {
		Code, Message string
		Errors        []struct {
			Message string
			Path    []string
		}
	}
	if json.NewDecoder(strings.NewReader(body)).Decode(&answer) != nil {
		return text
	}
	parts := []string{answer.Code}
	if answer.Message != "" {
		parts = append(parts, answer.Message)
	}
	for _, e := range answer.Errors {
		parts = append(parts, strings.Join(e.Path, ".")+": "+e.Message)
	}
	return strings.Join(parts, ": ")
}

func importNangoCommand() *cobra.Command {
	var (
		dsn, schema, environment, file string
		dry, keys, stopped             bool
	)
	cmd := &cobra.Command{
		Use:   "nango",
		Short: "Brings integrations and connections over from a Nango that you host",
		Long: `Reads the Postgres of a Nango that you host yourself, with the key that it has in
NANGO_ENCRYPTION_KEY, and brings one environment's integrations and connections
over to the keycaddy that runs here.

A refresh token that rotates can be used by one system only. So stop Nango first
(server, jobs, and whatever else connects to its database); the command refuses to
run while anything does. It then locks Nango's connections until it is through, and
takes the refresh tokens of those that were brought over out of Nango's database:
there is no way back for these but to have users connect again. Begin with
--dry-run, which changes nothing, here or there, and may run beside Nango.

If it is interrupted, run it again: it goes on where it was. What is here already
is left alone.`,
		Example: `  export NANGO_DATABASE_URL=postgres://nango@localhost/nango NANGO_ENCRYPTION_KEY=...
  caddy keycaddy import nango --dry-run
  caddy keycaddy import nango --api-keys --report report.json`,
		Args: cobra.NoArgs,
	}
	ask := client(cmd)
	f := cmd.Flags()
	f.StringVar(&dsn, "database", os.Getenv("NANGO_DATABASE_URL"), "Nango's Postgres; better in the environment, as NANGO_DATABASE_URL")
	f.StringVar(&schema, "schema", "nango", "The schema that Nango has there")
	f.StringVar(&environment, "environment", "prod", "Which of Nango's environments")
	f.StringVar(&file, "report", "", "A file to write what became of everything to, as JSON")
	f.BoolVar(&dry, "dry-run", false, "Say what would be brought over, and change nothing")
	f.BoolVar(&keys, "api-keys", false, "Bring API keys over too, so that apps can keep theirs")
	f.BoolVar(&stopped, "nango-is-stopped", false, "Go on although others are connected to its database: you know that none is Nango")
	f.Lookup("database").DefValue = "" // it may have a password
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if dsn == "" {
			return errors.New("say where Nango's database is, with NANGO_DATABASE_URL or --database")
		}
		cmd.SilenceUsage = true
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
		defer stop()
		db, err := nangodb.Open(ctx, dsn, schema, environment, os.Getenv("NANGO_ENCRYPTION_KEY"))
		if err != nil {
			return err
		}
		defer db.Close()
		i := &nangoImport{ask: ask, db: db, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), dry: dry}
		err = i.run(ctx, stopped, keys)
		return errors.Join(err, i.tell(file))
	}
	return cmd
}

func (i *nangoImport) run(ctx context.Context, stopped, keys bool) error {
	if err := i.look(); err != nil {
		return err
	}
	if !i.dry {
		var busy *nangodb.BusyError
		if err := i.db.Freeze(ctx, stopped); errors.As(err, &busy) {
			return fmt.Errorf("%w; stop Nango, or say --nango-is-stopped if none of these is", err)
		} else if err != nil {
			return err
		}
	}
	if err := i.integrations(ctx); err != nil {
		return err
	}
	if keys {
		if err := i.apiKeys(ctx); err != nil {
			return err
		}
	}
	err := i.connections(ctx)
	if i.dry {
		return err
	}
	// What was brought over is retired there also if the rest wasn't.
	return errors.Join(err, i.db.Commit(context.WithoutCancel(ctx)))
}

// look finds out what is here.
func (i *nangoImport) look() error {
	var providers struct {
		Data []struct {
			Name string
			Mode string `json:"auth_mode"`
		}
	}
	var integrations struct {
		Data []struct {
			Key string `json:"unique_key"`
		}
	}
	if err := errors.Join(i.ask(http.MethodGet, "/providers", nil, &providers), i.ask(http.MethodGet, "/integrations", nil, &integrations)); err != nil {
		return err
	}
	i.modes, i.known, i.here = make(map[string]string), make(map[string]bool), make(map[string]bool)
	for _, p := range providers.Data {
		i.modes[p.Name] = p.Mode
	}
	for _, in := range integrations.Data {
		i.known[in.Key] = true
	}
	const limit = 2000
	for page := 0; ; page++ {
		var answer struct {
			Connections []struct {
				ID  string `json:"connection_id"`
				Key string `json:"provider_config_key"`
			}
		}
		if err := i.ask(http.MethodGet, fmt.Sprintf("/connections?limit=%d&page=%d", limit, page), nil, &answer); err != nil {
			return err
		}
		for _, c := range answer.Connections {
			i.here[c.Key+"/"+c.ID] = true
		}
		if len(answer.Connections) < limit {
			return nil
		}
	}
}

func (i *nangoImport) integrations(ctx context.Context) error {
	all, err := i.db.Integrations(ctx)
	if err != nil {
		return err
	}
	to := &i.report.Integrations
	for _, in := range all {
		mode, ok := i.modes[in.Provider]
		switch {
		case i.known[in.Key]:
			to.Before++
			continue
		case !ok:
			to.fail(in.Key, "the catalog has no provider "+in.Provider+"; `catalog nango` reads those of your own")
			continue
		case in.Broken != nil:
			to.fail(in.Key, in.Broken)
			continue
		case in.Shared != nil && in.Secret == "":
			to.fail(in.Key, "its client is one of Nango's own; register yours with the provider")
			continue
		}
		if !i.dry {
			var answer json.RawMessage
			if err := i.ask(http.MethodPost, "/integrations", integrationOf(&in, mode), &answer); err != nil {
				to.fail(in.Key, err)
				continue
			}
		}
		i.known[in.Key] = true
		to.Brought++
	}
	return nil
}

func (i *nangoImport) apiKeys(ctx context.Context) error {
	keys, err := i.db.Keys(ctx)
	if err != nil {
		return err
	}
	for n, k := range keys {
		name := strings.Map(func(r rune) rune {
			if r < 0x80 && (r == ' ' || r == '.' || r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
				return r
			}
			return -1
		}, k.Name)
		if name = strings.Trim(name, " ._-"); name == "" {
			name = fmt.Sprint("nango ", n+1)
		}
		request := map[string]any{"name": name, "key": strings.ToLower(k.Key), "scopes": scopesOf(k.Scopes)}
		if !i.dry {
			var answer json.RawMessage
			if err := i.ask(http.MethodPost, "/keys", request, &answer); err != nil {
				if strings.Contains(err.Error(), "There is a key of this name") {
					i.report.Keys.Before++
				} else {
					i.report.Keys.fail(k.Name, err)
				}
				continue
			}
		}
		i.report.Keys.Brought++
	}
	return nil
}

// batch is how many connections are read, and noted, at once; abreast how many
// are brought over at the same time.
const (
	batch   = 500
	abreast = 8
)

func (i *nangoImport) connections(ctx context.Context) error {
	total, err := i.db.Count(ctx)
	if err != nil {
		return err
	}
	var begun map[int]bool
	if !i.dry {
		if begun, err = i.db.Begun(ctx); err != nil {
			return err
		}
	}
	for after, done := 0, 0; ; {
		rows, err := i.db.Connections(ctx, after, batch)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := i.bring(ctx, rows, begun); err != nil {
			return err
		}
		after, done = rows[len(rows)-1].ID, done+len(rows)
		if now := time.Now(); now.Sub(i.progress) > time.Second || done == total {
			i.progress = now
			fmt.Fprintf(i.err, "%s of %s connections\n", humanize.Comma(int64(done)), humanize.Comma(int64(total)))
		}
	}
}

// bring brings a batch over, and retires there what is here.
func (i *nangoImport) bring(ctx context.Context, rows []nangodb.Connection, begun map[int]bool) error {
	to := &i.report.Connections
	var fresh []*nangodb.Connection
	var ids []int
	var retired []*nangodb.Connection
	for n := range rows {
		c := &rows[n]
		name := c.Integration + "/" + c.Connection
		switch {
		case c.Broken != nil:
			to.fail(name, c.Broken)
		case !i.known[c.Integration]:
			to.fail(name, "its integration isn't here")
		case i.here[name] && begun[c.ID]:
			to.Before++
			retired = append(retired, c)
		case i.here[name] && i.dry:
			to.Before++
		case i.here[name]:
			to.fail(name, "there is a connection of that name here which was not brought over; it is left alone, and so is Nango's")
		default:
			fresh, ids = append(fresh, c), append(ids, c.ID)
		}
	}
	if i.dry {
		to.Brought += len(fresh)
		return nil
	}
	if err := i.db.Begin(ctx, ids); err != nil {
		return fmt.Errorf("noting what is brought over: %w", err)
	}
	failed := make([]error, len(fresh))
	var group errgroup.Group
	group.SetLimit(abreast)
	for n, c := range fresh {
		group.Go(func() error {
			if failed[n] = ctx.Err(); failed[n] == nil {
				var answer json.RawMessage
				failed[n] = i.ask(http.MethodPost, "/connections?verify=false", connectionOf(c), &answer)
			}
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	for n, c := range fresh {
		if failed[n] != nil {
			to.fail(c.Integration+"/"+c.Connection, failed[n])
			continue
		}
		to.Brought++
		retired = append(retired, c)
	}
	// From here on it is known which are here, and that has to be kept.
	for _, c := range retired {
		if err := i.db.Retire(context.WithoutCancel(ctx), c); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// tell prints the report, and writes it to a file if there is one.
func (i *nangoImport) tell(file string) error {
	verb := "brought over"
	if i.dry {
		verb = "would be brought over"
	}
	var failed int
	for _, part := range []struct {
		what string
		of   *outcomes
	}{{"integrations", &i.report.Integrations}, {"API keys", &i.report.Keys}, {"connections", &i.report.Connections}} {
		if part.of.Brought+part.of.Before+len(part.of.Failed) == 0 {
			continue
		}
		fmt.Fprintf(i.out, "%s: %s %s, %s here before, %s not\n", part.what, humanize.Comma(int64(part.of.Brought)), verb, humanize.Comma(int64(part.of.Before)), humanize.Comma(int64(len(part.of.Failed))))
		for n, f := range part.of.Failed {
			if n == 20 {
				fmt.Fprintf(i.out, "  … and %d more; --report writes all of them\n", len(part.of.Failed)-n)
				break
			}
			fmt.Fprintf(i.out, "  %s: %s\n", f.Name, f.Reason)
		}
		failed += len(part.of.Failed)
	}
	if file != "" {
		data, err := json.MarshalIndent(i.report, "", "  ")
		if err == nil {
			err = os.WriteFile(file, append(data, '\n'), 0o600)
		}
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d could not be brought over", failed)
	}
	return nil
}
