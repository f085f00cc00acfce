package simulator

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"
)

// demand is what one request has to look like.
type demand struct {
	encoding string // form, json, query, xml, none, raw
	params   map[string]any
	query    map[string]any // besides those of a query encoding
	fixed    url.Values     // that stand in the address itself
	headers  map[string]any
	user     any // of a Basic header
	password any
	basic    bool
	raw      any // the whole body, for raw
}

// What a demand may say of a value, besides templates (string, []string) and
// plain data.
type (
	exact    string              // this text
	optional struct{ value any } // this value or none
	list     []any               // this list, not alternatives
	free     struct{}            // any value, or none
)

// unmet returns how a request differs from a demand.
func (x *exchange) unmet(d *demand) []string {
	var out []string
	got := map[string]any{}
	query := x.url.Query()
	for name, values := range d.fixed {
		if !slices.Equal(query[name], values) {
			out = append(out, fmt.Sprintf("the query's %s is %s, not %s", name, quote(query.Get(name)), quote(strings.Join(values, ","))))
		}
		delete(query, name)
	}
	wanted := maps.Clone(d.query)
	if d.encoding == "query" {
		wanted = maps.Clone(d.params)
		maps.Copy(wanted, d.query)
	}
	for name, values := range query {
		if len(values) > 1 {
			out = append(out, "the query has "+name+" twice")
		}
		got[name] = values[0]
	}
	out = append(out, x.differs("query", wanted, got, false)...)
	out = append(out, x.headersUnmet(d)...)
	return append(out, x.bodyUnmet(d)...)
}

func (x *exchange) headersUnmet(d *demand) []string {
	var out []string
	// Values that the client makes show in plain sight in one header and go into
	// a signature in another: what can't be read yet is read again.
	left := slices.Sorted(maps.Keys(d.headers))
	for len(left) > 0 {
		var later []string
		for _, name := range left {
			if name == "content-type" {
				continue // with the body
			}
			got, present := x.r.Header[headerKey(name)]
			err := x.one(d.headers[name], strings.Join(got, ", "), present, false)
			if errors.Is(err, errLater) {
				later = append(later, name)
			} else if err != nil {
				out = append(out, "the header "+name+" "+err.Error())
			}
		}
		if len(later) == len(left) {
			return append(out, "the header "+later[0]+": "+errLater.Error())
		}
		left = later
	}
	auth, sent := x.r.Header["Authorization"]
	switch _, declared := d.headers["authorization"]; {
	case d.basic:
		out = append(out, x.basicUnmet(d, strings.Join(auth, ", "))...)
	case sent && !declared:
		out = append(out, "there is an Authorization header")
	}
	return out
}

func headerKey(name string) string {
	parts := strings.Split(name, "-")
	for i, p := range parts {
		if p != "" {
			parts[i] = strings.ToUpper(p[:1]) + strings.ToLower(p[1:])
		}
	}
	return strings.Join(parts, "-")
}

func (x *exchange) basicUnmet(d *demand, header string) []string {
	encoded, ok := strings.CutPrefix(header, "Basic ")
	plain, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil {
		return []string{"the client has not identified itself with a Basic header"}
	}
	user, password, _ := strings.Cut(string(plain), ":")
	var out []string
	if err := x.oneOrEncoded(d.user, user); err != nil {
		out = append(out, "the user of the Basic header "+err.Error())
	}
	if err := x.oneOrEncoded(d.password, password); err != nil {
		out = append(out, "the password of the Basic header "+err.Error())
	}
	return out
}

// oneOrEncoded takes a client's id or secret as it is or encoded as a form's
// values are: RFC 6749 section 2.3.1 wants the latter, vendors take either.
func (x *exchange) oneOrEncoded(want any, got string) error {
	err := x.one(want, got, true, false)
	if plain, e := url.QueryUnescape(got); err != nil && e == nil && x.one(want, plain, true, false) == nil {
		return nil
	}
	return err
}

var mediaTypes = map[string]string{"form": "application/x-www-form-urlencoded", "json": "application/json", "xml": "application/xml"}

func (x *exchange) bodyUnmet(d *demand) []string {
	var out []string
	contentType := x.r.Header.Get("Content-Type")
	if len(x.body) > 0 {
		want := mediaTypes[d.encoding]
		if declared, err := x.choose(alternatives(d.headers["content-type"])); err == nil && len(declared) > 0 {
			if want, err = x.text(declared); err != nil {
				return []string{"the header content-type: " + err.Error()}
			}
		}
		if got := mediaType(contentType); want != "" && got != mediaType(want) && !(mediaType(want) == "application/xml" && got == "text/xml") {
			out = append(out, "the content type is "+quote(got)+", not "+quote(mediaType(want)))
		}
	}
	got := map[string]any{}
	typed := false
	switch d.encoding {
	case "form":
		values, err := url.ParseQuery(string(x.body))
		if err != nil {
			return append(out, "the body is no form")
		}
		for name, list := range values {
			if len(list) > 1 {
				out = append(out, "the body has "+name+" twice")
			}
			got[name] = list[0]
		}
	case "json":
		typed = true
		if len(x.body) == 0 {
			break
		}
		if err := json.Unmarshal(x.body, &got); err != nil {
			return append(out, "the body is no JSON object")
		}
	case "xml":
		var err error
		if got, err = readXML(x.body); err != nil {
			return append(out, "the body is no XML: "+err.Error())
		}
	case "raw":
		if err := x.one(d.raw, string(x.body), len(x.body) > 0, false); err != nil {
			out = append(out, "the body "+err.Error())
		}
		return out
	default:
		if len(x.body) > 0 && string(x.body) != "{}" {
			out = append(out, "there is a body: "+quote(string(x.body)))
		}
		return out
	}
	return append(out, x.differs("body", d.params, got, typed)...)
}

func mediaType(s string) string {
	if m, _, err := mime.ParseMediaType(s); err == nil {
		return m
	}
	return strings.ToLower(strings.TrimSpace(s))
}

// differs returns how a set of values differs from the one demanded, too many
// ones included.
func (x *exchange) differs(where string, want, got map[string]any, typed bool) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		v, present := got[name]
		if err := x.one(want[name], v, present, typed); err != nil {
			out = append(out, fmt.Sprintf("the %s's %s %v", where, name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			out = append(out, fmt.Sprintf("the %s has %s, which nobody asked for", where, name))
		}
	}
	return out
}

// one reports how one value differs from what is wanted.
func (x *exchange) one(want, got any, present, typed bool) error {
	switch w := want.(type) {
	case free:
		return nil
	case optional:
		if !present {
			return nil
		}
		return x.one(w.value, got, present, typed)
	case exact:
		return same(string(w), got, present, false)
	case bool, int, float64:
		return same(w, got, present, typed)
	case map[string]any:
		return x.mapDiffers(w, got, present, typed)
	case list:
		return x.listDiffers(w, got, present, typed)
	case []any:
		if !isAlternatives(w) {
			return x.listDiffers(w, got, present, typed)
		}
	}
	t, err := x.choose(alternatives(want))
	if errors.Is(err, errAbsent) {
		if present {
			return errors.New("is there, though the values it is made of are not")
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !present {
		if s, err := x.text(t); err == nil && s == "" {
			return nil
		}
		return errors.New("is missing")
	}
	s, ok := got.(string)
	if !ok {
		return fmt.Errorf("is %v, not a text", got)
	}
	return x.match(t, s)
}

func same(want, got any, present, typed bool) error {
	switch {
	case !present:
		return errors.New("is missing")
	case typed:
		if w, ok := want.(int); ok {
			want = float64(w)
		}
		if want != got {
			return fmt.Errorf("is %v (%T), not %v (%T)", got, got, want, want)
		}
	case fmt.Sprint(want) != fmt.Sprint(got):
		return fmt.Errorf("is %s, not %s", quote(fmt.Sprint(got)), quote(fmt.Sprint(want)))
	}
	return nil
}

func (x *exchange) mapDiffers(want map[string]any, got any, present, typed bool) error {
	m, ok := got.(map[string]any)
	if !present {
		m, ok = map[string]any{}, true // one whose values are all absent disappears
	}
	if !ok {
		if s, isText := got.(string); isText && s == "" && len(want) == 0 {
			return nil
		}
		return errors.New("is no map")
	}
	if diffs := x.differs("value", want, m, typed); len(diffs) > 0 {
		return errors.New(strings.Join(diffs, ", "))
	}
	return nil
}

func (x *exchange) listDiffers(want []any, got any, present, typed bool) error {
	var kept []any
	for _, w := range want {
		if _, ok := w.(string); ok {
			if _, err := x.choose(alternatives(w)); errors.Is(err, errAbsent) {
				continue
			}
		}
		kept = append(kept, w)
	}
	items, _ := got.([]any)
	if len(items) != len(kept) || !present && len(kept) > 0 {
		return fmt.Errorf("has %d elements, not %d", len(items), len(kept))
	}
	for i, w := range kept {
		if err := x.one(w, items[i], true, typed); err != nil {
			return fmt.Errorf("element %d %w", i, err)
		}
	}
	return nil
}

// plain marks the lists of a tree in which lists are lists.
func plain(tree map[string]any) map[string]any {
	out := make(map[string]any, len(tree))
	for k, v := range tree {
		switch v := v.(type) {
		case map[string]any:
			out[k] = plain(v)
		case []any:
			l := make(list, len(v))
			for i, item := range v {
				l[i] = item
				if m, ok := item.(map[string]any); ok {
					l[i] = plain(m)
				}
			}
			out[k] = l
		default:
			out[k] = v
		}
	}
	return out
}

// isAlternatives tells a list of alternative templates from a list of values.
func isAlternatives(list []any) bool {
	for _, v := range list {
		if _, ok := v.(string); !ok {
			return false
		}
	}
	return len(list) > 1
}

func alternatives(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []string:
		return v
	case []any:
		var out []string
		for _, s := range v {
			if s, ok := s.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
