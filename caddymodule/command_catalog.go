package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keycaddy/keycaddy/catalog"
)

// catalogCommand looks after provider files. None of it needs a running Caddy.
func catalogCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalog",
		Short: "Looks after the catalog of providers: searches, shows, checks, begins a file",
	}
	cmd.AddCommand(catalogSearchCommand(), catalogShowCommand(), catalogLintCommand(), catalogNewCommand(), catalogNangoCommand(), catalogSimulateCommand())
	return cmd
}

// folderFlag adds the flag that names a folder of own provider files.
func folderFlag(cmd *cobra.Command) func() (*catalog.Catalog, error) {
	var folder string
	cmd.Flags().StringVar(&folder, "catalog", "", "A folder of your own provider files")
	return func() (*catalog.Catalog, error) { return openCatalog(folder) }
}

func catalogSearchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "search <word>...",
		Short: "Lists the providers that all the words apply to",
		Long:  "Lists the providers that have all the words in their id, name, vendor, domain,\ncategories or scheme.",
		Args:  cobra.MinimumNArgs(1),
	}
	open := folderFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cat, err := open()
		if err != nil {
			return err
		}
		found, err := cat.Search(args...)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("no provider has all of: %s", strings.Join(args, ", "))
		}
		return table(cmd.OutOrStdout(), func(row func(...any)) error {
			row("PROVIDER", "NAME", "SCHEME", "CATEGORIES", "DOCUMENTATION")
			for _, p := range found {
				row(p.ID, p.DisplayName, p.Mode, strings.Join(p.Categories, ","), p.Docs.Page())
			}
			return nil
		})
	}
	return cmd
}

func catalogShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show <provider>",
		Short: "Prints an entry as it is written, and what users and operators are told",
		Args:  cobra.ExactArgs(1),
	}
	open := folderFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cat, err := open()
		if err != nil {
			return err
		}
		p, err := cat.Provider(args[0])
		if err != nil {
			return err
		}
		return showProvider(cmd.OutOrStdout(), p)
	}
	return cmd
}

// showProvider prints an entry such that it is still valid YAML.
func showProvider(w io.Writer, p *catalog.Provider) error {
	var b strings.Builder
	b.Write(p.Source())
	section := func(title string, g catalog.Guide) {
		if len(g.Steps)+len(g.Fields)+len(g.Links) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n# %s\n", title)
		for i, s := range g.Steps {
			fmt.Fprintf(&b, "#   %d. %s\n", i+1, s)
		}
		for _, f := range g.Fields {
			fmt.Fprintf(&b, "#   %s (%s): %s\n", f.Title, f.Name, f.Text())
			if f.Example != "" {
				fmt.Fprintf(&b, "#     for example %s\n", f.Example)
			}
			if f.URL != "" {
				fmt.Fprintf(&b, "#     %s\n", f.URL)
			}
		}
		for _, l := range g.Links {
			fmt.Fprintf(&b, "#   %s: %s\n", l.Text, l.URL)
		}
	}
	section("For who connects an account:", p.Guide())
	section("For who sets up the integration:", p.SetupGuide())
	_, err := io.WriteString(w, b.String())
	return err
}

func catalogLintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lint [<folder>]",
		Short: "Checks provider files: those of a folder, or the built-in ones",
		Long: `Checks the provider files of a folder, or the built-in ones. Each fault is told
with file, line, and what to do. Advice (verify) doesn't make it fail.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder := ""
			files := catalog.Files()
			if len(args) > 0 {
				folder = args[0]
				if info, err := os.Stat(folder); err != nil {
					return err
				} else if !info.IsDir() {
					return fmt.Errorf("%s is not a folder", folder)
				}
				files = os.DirFS(folder)
			}
			problems, n, err := catalog.LintFolder(files)
			if err != nil {
				return err
			}
			faults := 0
			for _, p := range problems {
				p.File = filepath.Join(folder, filepath.FromSlash(p.File))
				if p.Advice() && folder == "" {
					continue // the vendors have none
				}
				if !p.Advice() {
					faults++
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), p); err != nil {
					return err
				}
			}
			if faults > 0 {
				return fmt.Errorf("%d faults in %d files", faults, n)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d files, no faults\n", n)
			return err
		},
	}
}

func catalogNewCommand() *cobra.Command {
	var folder, mode string
	modes := make([]string, len(catalog.StarterModes))
	for i, m := range catalog.StarterModes {
		modes[i] = string(m)
	}
	cmd := &cobra.Command{
		Use:   "new <id>",
		Short: "Writes a provider file with comments, to be filled in",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := catalog.Starter(args[0], catalog.Mode(mode))
			if err != nil {
				return err
			}
			file := filepath.Join(folder, args[0]+".yaml")
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			_, err = f.Write(data)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
			return err
		},
	}
	cmd.Flags().StringVar(&folder, "folder", ".", "The folder that the file is made in")
	cmd.Flags().StringVar(&mode, "scheme", string(catalog.ModeAPIKey), "One of "+strings.Join(modes, ", "))
	return cmd
}
