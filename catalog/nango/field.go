package nango

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// fields translates declared fields. Titles and descriptions come along where
// they have the form that ours have.
func fields(declared object) []object {
	var out []object
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		from := declared.object(name)
		f := object{"name": catalog.SnakeName(name)}
		f.set("required", !from.flag("optional") && !from.flag("automated"))
		if t := strings.TrimSpace(from.text("title")); len(t) <= 60 && !strings.HasSuffix(t, ".") {
			f.set("label", t)
		}
		if h := strings.TrimSpace(from.text("description")); len(h) <= 199 && !strings.ContainsAny(h, "\n<") {
			f.set("help", strings.TrimSuffix(h, ".")+".")
		}
		if format := from.text("format"); slices.Contains([]string{"hostname", "uri", "uuid", "email"}, format) {
			f.set("format", format)
		}
		if expr := from.text("pattern"); expr != "" {
			if _, err := regexp.Compile(expr); err == nil { // RE2 has no look-around
				f["regex"] = expr
			}
		}
		f.set("enum", from.words("enum"))
		for _, key := range []string{"example", "prefix", "suffix"} {
			f.set(key, from.text(key))
		}
		if d, given := from["default_value"]; given {
			f["default"] = d
		}
		f.set("hidden", from.flag("hidden"))
		f.set("secret", from.flag("secret") || secretName.MatchString(catalog.SnakeName(name)))
		f.set("automatic", from.flag("automated"))
		f.set("order", from.number("order"))
		if when := from.object("visible_when"); when != nil {
			f["visible_when"] = object{"field": catalog.SnakeName(when.text("field")), "equals": when.text("equals")}
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b object) int {
		return cmp.Compare(cmp.Or(a.number("order"), 99), cmp.Or(b.number("order"), 99))
	})
	return out
}

var secretName = regexp.MustCompile(`(^|_)(password|secret|api_key|private_key|pat)$`)

func find(list []object, name string) object {
	for _, f := range list {
		if f["name"] == name {
			return f
		}
	}
	return nil
}

var reference = regexp.MustCompile(`\b(conn|cred)\.([a-z][a-z0-9_]*)`)

// references lists the fields that a translated value refers to.
func references(v any, found map[string]bool) {
	switch v := v.(type) {
	case string:
		for _, m := range reference.FindAllStringSubmatch(v, -1) {
			found[m[0]] = true
		}
	case []any:
		for _, x := range v {
			references(x, found)
		}
	case object:
		for _, x := range v {
			references(x, found)
		}
	case map[string]any:
		references(object(v), found)
	}
}

// complete declares the fields that are used and declared nowhere: Nango asks
// for those that its modes imply, and fills others as it goes.
func (e entry) complete(out object, conn, cred []object) {
	used := map[string]bool{}
	references(out, used)
	filled := map[string]string{}
	for source, captured := range map[string]any{
		"token_response": out.object("token_response")["capture"],
		"callback":       out.object("authorize")["capture_callback_params"],
	} {
		names, _ := captured.(object)
		for name := range names {
			filled[name] = source
		}
	}
	for _, f := range conn {
		if source := filled[f["name"].(string)]; source != "" {
			f["source"], f["automatic"] = source, true
			delete(f, "required")
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(used)) {
		namespace, name, _ := strings.Cut(ref, ".")
		switch {
		case namespace == "conn" && find(conn, name) == nil:
			f := object{"name": name, "implied": true}
			if source := filled[name]; source != "" {
				f["source"], f["automatic"] = source, true
			} else {
				f["required"] = true
			}
			conn = append(conn, f)
		case namespace == "cred" && find(cred, name) == nil:
			cred = append(cred, implied(name))
		}
	}
	for _, name := range modeFields[e.has.text("auth_mode")] {
		if find(cred, name) == nil {
			cred = append(cred, implied(name))
		}
	}
	if split, ok := out.object("signed")["split"].(object); ok { // parts are no fields
		for _, name := range split.list("into") {
			delete(used, "cred."+name.(string))
		}
		cred = slices.DeleteFunc(cred, func(f object) bool { return slices.Contains(split.list("into"), f["name"]) })
	}
	out.set("conn_fields", anyList(conn))
	out.set("cred_fields", anyList(cred))
}

// modeFields are what Nango asks for without being told.
var modeFields = map[string][]string{
	"API_KEY": {"api_key"}, "BASIC": {"username", "password"}, "OAUTH2_CC": {"client_id", "client_secret"},
	"SIGNATURE": {"username", "password"}, "TBA": {"token_id", "token_secret"},
	"BILL": {"username", "password", "organization_id", "dev_key"},
}

func implied(name string) object {
	f := object{"name": name, "required": true, "implied": true}
	f.set("secret", secretName.MatchString(name) || name == "dev_key" || strings.HasPrefix(name, "token_"))
	return f
}

// rewrite changes all texts of a translated value.
func rewrite(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		for i := range v {
			v[i] = rewrite(v[i], f)
		}
	case object:
		for k, x := range v {
			v[k] = rewrite(x, f)
		}
	case map[string]any:
		rewrite(object(v), f)
	}
	return v
}

func anyList(list []object) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}
