package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/catalog/nango"
)

// readNango reads a providers.yaml.
func readNango(file string) ([]*catalog.Provider, []nango.Remark, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	providers, remarks, err := nango.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return providers, remarks, nil
}

func catalogNangoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nango <providers.yaml> [<provider>]",
		Short: "Says what becomes of the entries of a Nango providers.yaml",
		Long: `Reads a providers.yaml as Nango has it, and says of each entry what the option
"catalog nango <file>" makes of it:

  built in   the built-in entry of that id means the same, and is used
  differs    the built-in entry is used, and differs in what is told
  added      there is no built-in entry; this one is used
  refused    it can't be translated, for the reason that is told

With a provider, its entry is printed as a file of this catalog. Put that into a
folder of your own to have it take the place of the built-in one.`,
		Args: cobra.RangeArgs(1, 2),
	}
	open := folderFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		providers, remarks, err := readNango(args[0])
		if err != nil {
			return err
		}
		if len(args) == 2 {
			return showTranslated(cmd.OutOrStdout(), providers, remarks, args[1])
		}
		cat, err := open()
		if err != nil {
			return err
		}
		left := map[string]string{}
		for _, r := range remarks {
			left[r.ID] = r.Reason
		}
		return table(cmd.OutOrStdout(), func(row func(...any)) error {
			row("PROVIDER", "WHAT", "WHY")
			for _, p := range providers {
				own, err := cat.Provider(p.ID)
				if errors.Is(err, catalog.ErrUnknown) {
					row(p.ID, "added", left[p.ID])
					continue
				}
				if err != nil {
					return err
				}
				if d := nango.Differences(p, own); len(d) > 0 {
					row(p.ID, "differs", strings.Join(d, "; "))
					continue
				}
				row(p.ID, "built in", "")
			}
			for _, r := range remarks {
				if r.Refused {
					row(r.ID, "refused", r.Reason)
				}
			}
			return nil
		})
	}
	return cmd
}

// showTranslated prints one entry in this project's form.
func showTranslated(w io.Writer, providers []*catalog.Provider, remarks []nango.Remark, id string) error {
	for _, p := range providers {
		if p.ID == id {
			_, err := w.Write(p.Source())
			return err
		}
	}
	for _, r := range remarks {
		if r.ID == id {
			return errors.New(r.String())
		}
	}
	return fmt.Errorf("there is no provider %q in the file", id)
}
