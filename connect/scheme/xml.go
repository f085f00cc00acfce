package scheme

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

const maxXMLDepth = 64

// parseXML reads an answer in XML as a map: an element with elements in it is a
// map, one that comes more than once a list, any other its text; attributes of
// an element with elements are there under "$" and their name. Names go without
// their namespace. Entities other than those of XML itself are an error.
func parseXML(body []byte) (map[string]any, error) {
	dec := xml.NewDecoder(bytes.NewReader(body))
	dec.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		if strings.EqualFold(charset, "us-ascii") {
			return in, nil
		}
		return nil, fmt.Errorf("charset %q", charset)
	}
	root := map[string]any{}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if len(root) > 0 {
				return nil, errors.New("more than one root element")
			}
			v, err := parseElement(dec, t, 0)
			if err != nil {
				return nil, err
			}
			root[t.Name.Local] = v
		case xml.Directive:
			return nil, errors.New("a document type declaration")
		}
	}
	if len(root) == 0 {
		return nil, errors.New("no element")
	}
	return root, nil
}

func parseElement(dec *xml.Decoder, start xml.StartElement, depth int) (any, error) {
	if depth > maxXMLDepth {
		return nil, errors.New("nested too deeply")
	}
	children := map[string]any{}
	var text strings.Builder
	for {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			v, err := parseElement(dec, t, depth+1)
			if err != nil {
				return nil, err
			}
			switch before := children[t.Name.Local].(type) {
			case nil:
				children[t.Name.Local] = v
			case []any:
				children[t.Name.Local] = append(before, v)
			default:
				children[t.Name.Local] = []any{before, v}
			}
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			if len(children) == 0 {
				return strings.TrimSpace(text.String()), nil
			}
			for _, a := range start.Attr {
				children["$"+a.Name.Local] = a.Value
			}
			return children, nil
		}
	}
}

// encodeXML writes parameters as XML: a map is an element with what is in it,
// keys that begin with "$" are attributes. The order is the entry's.
func encodeXML(params catalog.Params, env *catalog.Env) ([]byte, error) {
	if len(params) != 1 {
		return nil, errors.New("a body in XML has one root element")
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := encodeElement(&b, params[0], env); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func encodeElement(b *bytes.Buffer, p catalog.Pair, env *catalog.Env) error {
	if !elementName(p.Name) {
		return fmt.Errorf("%q can't be the name of an element", p.Name)
	}
	b.WriteString("<" + p.Name)
	children := p.Value.Pairs()
	for _, c := range children {
		name, isAttr := strings.CutPrefix(c.Name, "$")
		if !isAttr {
			continue
		}
		if !elementName(name) {
			return fmt.Errorf("%q can't be the name of an attribute", name)
		}
		text, err := c.Value.Text(env)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		b.WriteString(" " + name + `="`)
		if err := xml.EscapeText(b, []byte(text)); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		b.WriteString(`"`)
	}
	b.WriteString(">")
	if children == nil {
		text, err := p.Value.Text(env)
		if err != nil && !errors.Is(err, catalog.ErrMissing) {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		if err := xml.EscapeText(b, []byte(text)); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	for _, c := range children {
		if strings.HasPrefix(c.Name, "$") {
			continue
		}
		if err := encodeElement(b, c, env); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	b.WriteString("</" + p.Name + ">")
	return nil
}

// elementName tells whether a text is a plain XML name (no namespaces of its
// own; letters, digits, "-", "_", "." and one ":").
func elementName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || !(r >= '0' && r <= '9' || r == '-' || r == '.' || r == ':')) {
			return false
		}
	}
	return s != ""
}
