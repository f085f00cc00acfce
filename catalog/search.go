package catalog

import (
	"fmt"
	"strings"
)

// Search returns the entries that have all the words, whatever their case, in
// id, name, vendor, domain, categories or scheme, in the order of their ids. It
// reads every entry.
func (c *Catalog) Search(words ...string) ([]*Provider, error) {
	var found []*Provider
	for _, id := range c.ids {
		p, err := c.Provider(id)
		if err != nil {
			return nil, fmt.Errorf("reading provider %s: %w", id, err)
		}
		if p.has(words) {
			found = append(found, p)
		}
	}
	return found, nil
}

func (p *Provider) has(words []string) bool {
	text := strings.ToLower(strings.Join([]string{
		p.ID, p.DisplayName, p.Vendor, p.VendorDomain, strings.Join(p.Categories, " "), string(p.Mode),
	}, "\n"))
	for _, w := range words {
		if !strings.Contains(text, strings.ToLower(w)) {
			return false
		}
	}
	return true
}
