package page

import (
	"net/url"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
)

// fieldView is one input, as the template shows it.
type fieldView struct {
	Name, ID, Title string
	Help            string
	DocsURL         string
	Prefix, Suffix  string
	Value           string // never of a secret
	Placeholder     string
	Options         []string
	Pattern         string
	InputMode       string
	Type            string
	Required        bool
	Secret          bool
	Multiline       bool
	When            string // a condition, in words
	WhenID, Equals  string // the same, for the script
	Steers          bool   // others depend on it
	Wrong           string // what is said of a value that doesn't fit, while it is typed
	Error           string
	Describe        string // ids of what explains the input
	Focus           bool
}

// link leads to the vendor's own pages.
type link struct{ Text, URL string }

// fieldName keeps a provider's field names apart from the form's own.
func fieldName(name string) string { return "field." + name }

func (h *Handler) fields(p *catalog.Provider, fields []*catalog.Field, a attempt) []*fieldView {
	var out []*fieldView
	for _, f := range fields {
		g := p.FieldGuide(f)
		v := &fieldView{
			Name: fieldName(f.Name), ID: "field-" + f.Name, Title: f.Title(), Help: g.Text(),
			DocsURL: webURL(g.URL), Prefix: f.Prefix, Suffix: f.Suffix, Options: f.Enum,
			Required: f.Required && !f.HasDefault(), Secret: f.Secret,
			Multiline: multiline(f), Type: "text",
		}
		switch {
		case f.Secret:
			v.Type = "password"
		case f.Format == "email":
			v.Type, v.InputMode = "email", "email"
		case f.Format == "uri", f.Format == "hostname":
			v.InputMode = "url"
		}
		if !f.Secret {
			v.Value = f.Default
			if typed, ok := a.answers[f.Name]; ok {
				v.Value = typed
			}
		}
		if f.Example != "" {
			v.Placeholder = h.text.example(f.Example)
		}
		if f.Regexp != nil && len(f.Enum) == 0 && !v.Multiline {
			v.Pattern = fieldPattern(f)
		}
		if c := f.VisibleWhen; c != nil {
			v.Required = false // nothing is, without knowing the other answer
			v.When = h.text.when(titleOf(fields, c.Field), c.Equals)
			v.WhenID, v.Equals = "field-"+c.Field, c.Equals
		}
		for _, other := range fields {
			v.Steers = v.Steers || other.VisibleWhen != nil && other.VisibleWhen.Field == f.Name
		}
		if v.Pattern != "" {
			v.Wrong = h.text.fieldError(f, &catalog.FieldError{Field: f.Name, Code: catalog.CodePattern})
		}
		v.Error = h.text.answerError(f, a.answers[f.Name], a.bad[f.Name])
		v.describe()
		out = append(out, v)
	}
	return out
}

// guide is what there is to do at the vendor: what the entry says of it, or for
// secrets what can be said of all.
func guide(p *catalog.Provider, fields []*fieldView) []string {
	if len(p.UserSteps) > 0 || slices.ContainsFunc(fields, func(f *fieldView) bool { return f.Secret }) {
		return p.Guide().Steps
	}
	return nil
}

// describe lists the texts that belong to the input, what is wrong first.
func (v *fieldView) describe() {
	var ids []string
	if v.Error != "" || v.Wrong != "" {
		ids = append(ids, v.ID+"-error")
	}
	if v.Prefix != "" || v.Suffix != "" {
		ids = append(ids, v.ID+"-around")
	}
	if v.Help != "" || v.When != "" || v.DocsURL != "" {
		ids = append(ids, v.ID+"-help")
	}
	v.Describe = strings.Join(ids, " ")
}

func titleOf(fields []*catalog.Field, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Title()
		}
	}
	return (&catalog.Field{Name: name}).Title()
}

// multiline tells whether a value has line breaks, which a password input would
// throw away.
func multiline(f *catalog.Field) bool {
	return f.Format == "pem_or_base64" || f.Regexp != nil && strings.Contains(f.Regexp.String(), "-----BEGIN")
}

// links are where the vendor, or else the app (own), says how to come by what is
// asked for.
func (h *Handler) links(in *connect.Integration, redirects bool, own string) []link {
	if own = webURL(own); own != "" {
		return []link{{h.text.docsLink(in.DisplayName), own}}
	}
	var out []link
	d := in.Provider.Docs
	if console := webURL(d.Console); console != "" && !redirects { // with OAuth it is the operator's
		out = append(out, link{h.text.consoleLink(in.DisplayName), console})
	}
	host := ""
	if d.Host != "" {
		host = "https://" + d.Host
	}
	for _, u := range []string{d.Auth, d.Reference, host} {
		if u = webURL(u); u != "" {
			out = append(out, link{h.text.docsLink(in.DisplayName), u})
			break
		}
	}
	return out
}

// webURL returns an address that a link may lead to, or nothing.
func webURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return ""
	}
	return u.String()
}

// sessionQuery is the query of a page of a session, with more names and values.
func sessionQuery(token string, more ...string) string {
	q := url.Values{"session_token": {token}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return q.Encode()
}
