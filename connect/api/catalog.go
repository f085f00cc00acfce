package api

import (
	"errors"
	"fmt"
	"hash/fnv"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// millis is how times are written: ISO 8601 with milliseconds.
const millis = "2006-01-02T15:04:05.000Z07:00"

func stamp(t time.Time) string { return t.UTC().Format(millis) }

// authModes are Nango's names of the schemes.
var authModes = map[catalog.Mode]string{
	catalog.ModeOAuth2Code:        "OAUTH2",
	catalog.ModeClientCredentials: "OAUTH2_CC",
	catalog.ModeAPIKey:            "API_KEY",
	catalog.ModeBasic:             "BASIC",
	catalog.ModeNone:              "NONE",
	catalog.ModeTwoStep:           "TWO_STEP",
	catalog.ModeJWTBearer:         "JWT",
	catalog.ModeAWSSigV4:          "AWS_SIGV4",
	catalog.ModeOAuth1:            "OAUTH1",
	catalog.ModeOAuth1TBA:         "TBA",
	catalog.ModeMCPOAuth2:         "MCP_OAUTH2",
	catalog.ModeMCPDiscovery:      "MCP_OAUTH2_GENERIC",
	catalog.ModeWSSE:              "SIGNATURE",
	catalog.ModeGitHubApp:         "APP",
	catalog.ModeGitHubAppOAuth:    "CUSTOM",
}

// AuthMode is Nango's name of a scheme.
func AuthMode(m catalog.Mode) string { return authModes[m] }

type providerJSON struct {
	Name             string               `json:"name"`
	DisplayName      string               `json:"display_name"`
	Categories       []string             `json:"categories"`
	AuthMode         string               `json:"auth_mode"`
	Docs             string               `json:"docs,omitempty"`
	LogoURL          string               `json:"logo_url"`
	Proxy            *proxyJSON           `json:"proxy,omitempty"`
	Credentials      map[string]fieldJSON `json:"credentials,omitempty"`
	ConnectionConfig map[string]fieldJSON `json:"connection_config,omitempty"`
	Guide            *guideJSON           `json:"guide,omitempty"` // in answers about one provider
	Setup            *guideJSON           `json:"setup,omitempty"`
}

// guideJSON says what to do at the provider: guide is for who connects, setup
// for the operator.
type guideJSON struct {
	Steps  []string             `json:"steps"`
	Links  []linkJSON           `json:"links"`
	Fields map[string]fieldJSON `json:"fields,omitempty"` // of the operator
}

type linkJSON struct {
	Text string `json:"text"`
	URL  string `json:"url"`
}

type proxyJSON struct {
	BaseURL string `json:"base_url"`
}

type fieldJSON struct {
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description,omitempty"`
	Secret      bool   `json:"secret,omitempty"`
	Optional    bool   `json:"optional,omitempty"`
	Pattern     string `json:"pattern,omitempty"`
	Example     string `json:"example,omitempty"`
	Prefix      string `json:"prefix,omitempty"`
	Suffix      string `json:"suffix,omitempty"`
	Docs        string `json:"docs,omitempty"` // the provider's page about it
}

func fieldsJSON(p *catalog.Provider, fields []catalog.Field) map[string]fieldJSON {
	out := make(map[string]fieldJSON)
	for i := range fields {
		f := &fields[i]
		if !f.Asked() {
			continue
		}
		g := p.FieldGuide(f)
		j := fieldJSON{Type: "string", Title: g.Title, Description: g.Text(), Docs: g.URL, Secret: f.Secret, Optional: !f.Required, Example: f.Example, Prefix: f.Prefix, Suffix: f.Suffix}
		if f.Regexp != nil {
			j.Pattern = f.Regexp.String()
		}
		out[f.Name] = j
	}
	return out
}

func (a *API) providerJSON(p *catalog.Provider) providerJSON {
	out := providerJSON{
		Name: p.ID, DisplayName: p.DisplayName, Categories: p.Categories, AuthMode: authModes[p.Mode], Docs: p.Docs.Page(),
		LogoURL: a.logoURL(p.ID), Credentials: fieldsJSON(p, p.CredFields), ConnectionConfig: fieldsJSON(p, p.ConnFields),
	}
	if p.Request != nil {
		out.Proxy = &proxyJSON{p.Request.BaseURL.String()}
	}
	return out
}

// explain adds the guides, which are too much for lists.
func (p *providerJSON) explain(entry *catalog.Provider, public *url.URL) {
	p.Guide = guideOf(entry.Guide())
	if s := entry.SetupGuide(); len(s.Steps)+len(s.Fields) > 0 {
		s.Steps = slices.Clone(s.Steps) // of all answers
		for i, step := range s.Steps {
			s.Steps[i] = strings.ReplaceAll(step, "<public_url>", public.String())
		}
		p.Setup = guideOf(s)
		given := slices.Clone(entry.AppFields)
		for i := range given {
			given[i].Source = "" // the operator is who is asked for them
		}
		p.Setup.Fields = fieldsJSON(entry, given)
	}
}

func guideOf(g catalog.Guide) *guideJSON {
	out := &guideJSON{Steps: g.Steps, Links: []linkJSON{}}
	for _, l := range g.Links {
		out.Links = append(out.Links, linkJSON(l))
	}
	return out
}

func (a *API) logoURL(provider string) string {
	return a.Connector.Setup.PublicURL.JoinPath("images", "template-logos", provider+".svg").String()
}

func (a *API) listProviders(w http.ResponseWriter, r *http.Request) error {
	search := strings.ToLower(r.URL.Query().Get("search"))
	cat := a.Connector.Setup.Catalog
	data := []providerJSON{}
	for _, id := range cat.IDs() {
		p, err := cat.Provider(id)
		if err != nil {
			return fmt.Errorf("reading provider %s: %w", id, err)
		}
		if strings.Contains(id, search) || strings.Contains(strings.ToLower(p.DisplayName), search) {
			data = append(data, a.providerJSON(p))
		}
	}
	return reply(w, http.StatusOK, map[string]any{"data": data})
}

// listTemplates answers for templates of code, which keycaddy doesn't run.
func (a *API) listTemplates(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.provider(r); err != nil {
		return err
	}
	return reply(w, http.StatusOK, map[string]any{"data": []any{}})
}

// listEnvironmentVariables answers the SDK's call: there are none.
func (a *API) listEnvironmentVariables(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, []any{})
}

// provider finds the one in the path.
func (a *API) provider(r *http.Request) (*catalog.Provider, error) {
	p, err := a.Connector.Setup.Catalog.Provider(r.PathValue("provider"))
	if errors.Is(err, catalog.ErrUnknown) {
		return nil, &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "Unknown provider " + r.PathValue("provider"), Action: "fix_request"}
	}
	return p, err
}

func (a *API) getProvider(w http.ResponseWriter, r *http.Request) error {
	p, err := a.provider(r)
	if err != nil {
		return err
	}
	if strings.Contains(r.Header.Get("Authorization"), connect.SessionPrefix) {
		if _, err := a.visit(r); err != nil {
			return err
		}
	}
	data := a.providerJSON(p)
	data.explain(p, a.Connector.Setup.PublicURL)
	return reply(w, http.StatusOK, map[string]any{"data": data})
}

var logoFile = regexp.MustCompile(`^[a-z0-9-]{1,80}\.svg$`)

// logo draws a monogram: a provider's first letter on a colour of its own.
func (a *API) logo(w http.ResponseWriter, r *http.Request) error {
	file := r.PathValue("file")
	p, err := a.Connector.Setup.Catalog.Provider(strings.TrimSuffix(file, ".svg"))
	if !logoFile.MatchString(file) || err != nil {
		return &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "There is no such logo.", Action: "fix_request"}
	}
	letter := "?"
	for _, c := range p.DisplayName {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			letter = string(unicode.ToUpper(c))
			break
		}
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(p.Vendor)) // never fails
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Cache-Control", "public, max-age=86400")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, err = fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14" fill="hsl(%d 45%% 40%%)"/><text x="32" y="33" fill="#fff" font-family="system-ui,sans-serif" font-size="32" font-weight="600" text-anchor="middle" dominant-baseline="central">%s</text></svg>`, sum.Sum32()%360, html.EscapeString(letter))
	return err
}
