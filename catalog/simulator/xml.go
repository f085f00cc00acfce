package simulator

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// readXML reads a document as entries write one: nested maps are elements, keys
// beginning with $ are attributes.
func readXML(data []byte) (map[string]any, error) {
	dec := xml.NewDecoder(bytes.NewReader(data))
	out := map[string]any{}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if start, ok := token.(xml.StartElement); ok {
			if out[start.Name.Local], err = readElement(dec, start); err != nil {
				return nil, err
			}
		}
	}
}

func readElement(dec *xml.Decoder, start xml.StartElement) (any, error) {
	m := map[string]any{}
	for _, a := range start.Attr {
		m["$"+a.Name.Local] = a.Value
	}
	var text strings.Builder
	for {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			v, err := readElement(dec, t)
			if err != nil {
				return nil, err
			}
			if _, twice := m[t.Name.Local]; twice {
				return nil, fmt.Errorf("the element %s is there twice", t.Name.Local)
			}
			m[t.Name.Local] = v
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			if len(m) == 0 {
				return text.String(), nil
			}
			return m, nil
		}
	}
}

// writeXML is the other way.
func writeXML(b *strings.Builder, m map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		b.WriteString("<" + name + ">")
		switch v := m[name].(type) {
		case map[string]any:
			writeXML(b, v)
		default:
			_ = xml.EscapeText(b, []byte(fmt.Sprint(v))) // a strings.Builder takes everything
		}
		b.WriteString("</" + name + ">")
	}
}
