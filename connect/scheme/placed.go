package scheme

import (
	"fmt"
	"maps"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// placed is a key whose place the operator chooses, for APIs that no catalog
// knows: key_placement (header or query), key_name, and value_template, with
// {cred.api_key} where the key goes.
type placed struct{ apiKey }

func newPlaced(b base) (Scheme, error) {
	p := *b.provider
	if p.Request == nil {
		return nil, fmt.Errorf("provider %s: request is needed for a key that the operator places", p.ID)
	}
	name := b.field("key_name")
	source := b.field("value_template")
	if source == "" {
		source = "{cred.api_key}"
	}
	v, err := catalog.ParseValue(source)
	if err != nil {
		return nil, fmt.Errorf("value_template of provider %s: %w", p.ID, err)
	}
	for _, ref := range v.Refs() {
		if ref.Namespace != "cred" && ref.Namespace != "conn" {
			return nil, fmt.Errorf("value_template of provider %s: {%s} is not among the values of a connection", p.ID, ref)
		}
		if _, ok := p.Field(ref.Namespace, ref.Path); !ok {
			return nil, fmt.Errorf("value_template of provider %s: there is no %s", p.ID, ref)
		}
	}
	if !CarriesCredential(v.Refs()) {
		return nil, fmt.Errorf("value_template of provider %s has no place for the key; write {cred.api_key} there", p.ID)
	}
	request := *p.Request
	p.Request = &request
	if b.field("key_placement") == "query" {
		request.Query = append(request.Query[:len(request.Query):len(request.Query)], catalog.Pair{Name: name, Value: catalog.TextParam(v)})
	} else {
		if err := catalog.CheckHeaderName(name); err != nil {
			return nil, fmt.Errorf("key_name of provider %s: %w", p.ID, err)
		}
		headers := maps.Clone(request.Headers)
		if headers == nil {
			headers = catalog.Headers{}
		}
		headers[strings.ToLower(name)] = v
		request.Headers = headers
	}
	if label := b.field("key_label"); label != "" {
		p.CredFields = append([]catalog.Field(nil), p.CredFields...)
		for i := range p.CredFields {
			if p.CredFields[i].Name == "api_key" {
				p.CredFields[i].Label = label
			}
		}
	}
	b.provider = &p
	return placed{apiKey{b}}, nil
}

var _ Prompter = placed{}
