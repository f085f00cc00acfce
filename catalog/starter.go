package catalog

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed starters/*.yaml
var starters embed.FS

// StarterModes are the modes that [Starter] has a file for.
var StarterModes = []Mode{ModeOAuth2Code, ModeClientCredentials, ModeAPIKey, ModeBasic, ModeTwoStep}

// Starter returns a provider file with comments, to be filled in by hand. It
// passes [Parse] and [Lint] as it is.
func Starter(id string, m Mode) ([]byte, error) {
	if !idForm.MatchString(id) || len(id) > 64 {
		return nil, fmt.Errorf("id %q may have lower-case letters, digits and single hyphens between them, 64 at most", id)
	}
	if !slices.Contains(StarterModes, m) {
		return nil, fmt.Errorf("there is no starter for %q, only for %v; to begin with another scheme, copy an entry that has it", m, StarterModes)
	}
	data, err := starters.ReadFile("starters/" + string(m) + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("reading starter: %w", err)
	}
	return []byte(strings.ReplaceAll(string(data), "ACME", id)), nil
}
