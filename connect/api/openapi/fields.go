package openapi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/keycaddy/keycaddy/connect/problem"
)

// fields says what won't do, with codes and messages as Nango has them.
func (d *Document) fields(e *jsonschema.ValidationError) []problem.Field {
	at := slices.Clone(e.InstanceLocation)
	if at == nil {
		at = []string{}
	}
	one := func(code, format string, args ...any) []problem.Field {
		return []problem.Field{{Code: code, Message: fmt.Sprintf(format, args...), Path: at}}
	}
	switch k := e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf:
		return d.union(e, at)
	case *kind.Required:
		var out []problem.Field
		for _, name := range k.Missing {
			f := problem.Field{Code: "invalid_type", Message: "Invalid input: expected " + d.expected(e.SchemaURL, name) + ", received undefined", Path: append(slices.Clone(at), name)}
			if strings.Contains(f.Message, "expected ,") {
				f.Code, f.Message = "invalid_union", "Invalid input"
			}
			out = append(out, f)
		}
		return out
	case *kind.AdditionalProperties:
		slices.Sort(k.Properties)
		names := make([]string, len(k.Properties))
		for i, name := range k.Properties {
			names[i] = fmt.Sprintf("%q", name)
		}
		if len(names) == 1 {
			return one("unrecognized_keys", "Unrecognized key: %s", names[0])
		}
		return one("unrecognized_keys", "Unrecognized keys: %s", strings.Join(names, ", "))
	case *kind.PropertyNames:
		at = append(at, k.Property)
		return one("invalid_key", "Invalid key in record")
	case *kind.Type:
		return one("invalid_type", "Invalid input: expected %s, received %s", strings.Join(k.Want, " or "), k.Got)
	case *kind.Enum:
		options := make([]string, len(k.Want))
		for i, w := range k.Want {
			options[i] = fmt.Sprintf("%q", w)
		}
		return one("invalid_value", "Invalid option: expected one of %s", strings.Join(options, "|"))
	case *kind.Const:
		return one("invalid_value", "Invalid input: expected %q", k.Want)
	case *kind.Pattern:
		return one("invalid_format", "Invalid string: must match pattern /%s/", k.Want)
	case *kind.Format:
		return one("invalid_format", "Invalid %s", formats(k.Want))
	case *kind.MinLength:
		return one("too_small", "Too small: expected string to have >=%d characters", k.Want)
	case *kind.MaxLength:
		return one("too_big", "Too big: expected string to have <=%d characters", k.Want)
	case *kind.MinItems:
		return one("too_small", "Too small: expected array to have >=%d items", k.Want)
	case *kind.MaxItems:
		return one("too_big", "Too big: expected array to have <=%d items", k.Want)
	case *kind.UniqueItems:
		return one("custom", "Has the same item twice")
	case *kind.MinProperties:
		return one("too_small", "Too small: expected object to have >=%d keys", k.Want)
	case *kind.MaxProperties:
		return one("too_big", "Too big: expected object to have <=%d keys", k.Want)
	case *kind.Minimum:
		return one("too_small", "Too small: expected number to be >=%s", k.Want.RatString())
	case *kind.Maximum:
		return one("too_big", "Too big: expected number to be <=%s", k.Want.RatString())
	}
	var out []problem.Field
	for _, cause := range e.Causes {
		out = append(out, d.fields(cause)...)
	}
	if out == nil {
		out = one("custom", "Invalid input")
	}
	return out
}

func formats(name string) string {
	switch name {
	case "email":
		return "email address"
	case "uri":
		return "URL"
	case "date-time":
		return "ISO datetime"
	}
	return name
}

// union reports a value that fits none of several schemas: by the one that it
// says to be of (its type), or else that it fits none.
func (d *Document) union(e *jsonschema.ValidationError, at []string) []problem.Field {
	var meant []*jsonschema.ValidationError
	tagged := false
	for _, branch := range e.Causes {
		fits := true
		var look func(*jsonschema.ValidationError)
		look = func(c *jsonschema.ValidationError) {
			switch k := c.ErrorKind.(type) {
			case *kind.Const:
				if len(c.InstanceLocation) == len(at)+1 {
					fits, tagged = false, true
				}
			case *kind.Required:
				if len(c.InstanceLocation) == len(at) && slices.Contains(k.Missing, "type") {
					fits, tagged = false, true
				}
			case *kind.Type:
				fits = fits && len(c.InstanceLocation) > len(at)
			}
			for _, c := range c.Causes {
				look(c)
			}
		}
		look(branch)
		if fits {
			meant = append(meant, branch)
		}
	}
	if len(meant) == 1 {
		return d.fields(meant[0])
	}
	if tagged {
		at = append(at, "type")
	}
	return []problem.Field{{Code: "invalid_union", Message: "Invalid input", Path: at}}
}

// expected is the type that a property has; empty if it is one of several.
func (d *Document) expected(schema, property string) string {
	schema = strings.TrimSuffix(schema, "/required")
	t, _ := d.resolve(object(object(d.at(schema))["properties"])[property])["type"].(string)
	return t
}
