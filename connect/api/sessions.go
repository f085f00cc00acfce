package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/mail"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/language"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

type endUserJSON struct {
	ID          string            `json:"id"`
	Email       string            `json:"email"`
	DisplayName string            `json:"display_name"`
	Tags        map[string]string `json:"tags"`
}

type organizationJSON struct {
	ID          string `json:"id"`
	DisplayName string `json:"display_name"`
}

type defaultsJSON struct {
	UserScopes          string                     `json:"user_scopes"`
	AuthorizationParams map[string]string          `json:"authorization_params"`
	ConnectionConfig    map[string]json.RawMessage `json:"connection_config"`
}

type sessionRequest struct {
	EndUser       *endUserJSON                        `json:"end_user"`
	Organization  *organizationJSON                   `json:"organization"`
	Allowed       []string                            `json:"allowed_integrations"`
	Defaults      map[string]defaultsJSON             `json:"integrations_config_defaults"`
	Overrides     map[string]connect.SessionOverrides `json:"overrides"`
	WebhookURL    string                              `json:"webhook_url_override"`
	Tags          map[string]string                   `json:"tags"`
	ConnectionID  string                              `json:"connection_id"`
	IntegrationID string                              `json:"integration_id"`
	ReturnURL     string                              `json:"return_url"`
	Language      string                              `json:"language"`
	Look          *connect.Look                       `json:"look"`

	AllowAccountChange bool `json:"allow_account_change"`
}

// session makes a session of a request, and says what the document couldn't.
func (a *API) session(in *sessionRequest) (connect.Session, []problem.Field) {
	var bad []problem.Field
	fail := func(code, message string, path ...string) {
		bad = append(bad, problem.Field{Code: code, Message: message, Path: path})
	}
	s := connect.Session{
		Allowed: in.Allowed, Tags: make(map[string]string), Connection: in.ConnectionID, WebhookURL: in.WebhookURL,
		ReturnURL: in.ReturnURL, Language: in.Language, Look: in.Look, EndUser: in.EndUser.user(),
		AllowAccountChange: in.AllowAccountChange,
	}
	if in.Language != "" {
		if tag, err := language.Parse(in.Language); err != nil {
			fail("invalid_format", "Is no language tag such as de or pt-BR", "language")
		} else {
			s.Language = tag.String()
		}
	}
	if in.Look != nil {
		var le *connect.LookError
		if errors.As(in.Look.Check(), &le) {
			fail("custom", le.Reason, "look", le.Name)
		}
	}
	in.EndUser.tag(s.Tags)
	if in.EndUser != nil && in.EndUser.Email != "" && !isEmail(in.EndUser.Email) {
		fail("invalid_format", "Invalid email address", "end_user", "email")
	}
	if o := in.Organization; o != nil {
		s.Organization = &connect.Organization{ID: o.ID, DisplayName: o.DisplayName}
		s.Tags["organization_id"] = o.ID
		if o.DisplayName != "" {
			s.Tags["organization_display_name"] = o.DisplayName
		}
	}
	bad = append(bad, addTags(s.Tags, in.Tags)...)
	for i, key := range in.Allowed {
		if _, err := a.Connector.Setup.Integration(key); err != nil {
			fail("custom", "Integration does not exist", "allowed_integrations", strconv.Itoa(i))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(in.Defaults)) {
		if f, ok := a.defaults(&s, key, in.Defaults[key]); !ok {
			bad = append(bad, f)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(in.Overrides)) {
		if _, err := a.Connector.Setup.Integration(key); err != nil {
			fail("custom", "Integration does not exist", "overrides", key)
		}
	}
	if len(in.Overrides) > 0 {
		s.Overrides = in.Overrides
	}
	return s, bad
}

// Names that a connection's values have on the wire, and that are more than that.
const (
	scopesOverride = "oauth_scopes_override"
	webhookURL     = "webhook_url"
)

// defaults adds what is set beforehand for one integration.
func (a *API) defaults(s *connect.Session, key string, d defaultsJSON) (problem.Field, bool) {
	integration, err := a.Connector.Setup.Integration(key)
	if err != nil {
		return problem.Field{Code: "custom", Message: "Integration does not exist", Path: []string{"integrations_config_defaults", key}}, false
	}
	config, err := plain(d.ConnectionConfig)
	if err != nil {
		return problem.Field{Code: "too_big", Message: "Too big: expected string to have <=4096 characters", Path: []string{"integrations_config_defaults", key, "connection_config"}}, false
	}
	if url, ok := config[webhookURL]; ok { // where older apps have it
		if s.WebhookURL == "" {
			s.WebhookURL = url
		}
		delete(config, webhookURL)
	}
	for _, name := range slices.Sorted(maps.Keys(config)) {
		if f, ok := integration.Provider.Field("conn", catalog.SnakeName(name)); ok {
			if err := f.Check(config[name]); err != nil {
				return problem.Field{Code: "custom", Message: err.Error(), Path: []string{"integrations_config_defaults", key, "connection_config", name}}, false
			}
		}
	}
	out := connect.SessionDefaults{Config: integration.Provider.Named(config), AuthorizationParams: maps.Clone(d.AuthorizationParams)}
	scopes := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	}
	out.Scopes = scopes(config[scopesOverride])
	switch {
	case d.UserScopes == "":
	case integration.Provider.Vendor == "slack":
		if out.AuthorizationParams == nil {
			out.AuthorizationParams = map[string]string{}
		}
		out.AuthorizationParams["user_scope"] = strings.Join(scopes(d.UserScopes), ",")
	case len(out.Scopes) == 0:
		out.Scopes = scopes(d.UserScopes)
	}
	if s.Defaults == nil {
		s.Defaults = make(map[string]connect.SessionDefaults)
	}
	s.Defaults[key] = out
	return problem.Field{}, true
}

func isEmail(s string) bool {
	addr, err := mail.ParseAddress(s)
	return err == nil && addr.Address == s
}

func (a *API) createSession(w http.ResponseWriter, r *http.Request) error {
	var in sessionRequest
	if err := read(r, &in); err != nil {
		return err
	}
	s, bad := a.session(&in)
	if in.EndUser == nil && len(in.Tags) == 0 {
		bad = append(bad, problem.Field{Code: "invalid_type", Message: "Invalid input: expected object, received undefined", Path: []string{"end_user"}})
	}
	if len(bad) > 0 {
		return problem.Invalid("body", bad...)
	}
	return a.open(w, r, s)
}

func (a *API) createReconnectSession(w http.ResponseWriter, r *http.Request) error {
	var in sessionRequest
	if err := read(r, &in); err != nil {
		return err
	}
	s, bad := a.session(&in)
	s.Allowed, s.Reconnect = []string{in.IntegrationID}, true
	if len(bad) > 0 {
		return problem.Invalid("body", bad...)
	}
	return a.open(w, r, s)
}

var errNothingToReconnect = &problem.Problem{Status: http.StatusBadRequest, Code: "invalid_body", Message: "ConnectionID or IntegrationId does not exists", Action: "fix_request"}

func (a *API) open(w http.ResponseWriter, r *http.Request, s connect.Session) error {
	if s.Reconnect {
		if err := a.reach(r, connect.ID{Integration: s.Allowed[0], Connection: s.Connection}); err != nil && !errors.Is(err, connect.ErrNotFound) {
			return err
		} else if err != nil {
			return errNothingToReconnect
		}
	}
	if !s.Reconnect || s.UserID() != "" || len(s.Tags) > 0 {
		if err := mayOpen(r, &s); err != nil {
			return err
		}
	}
	token, s, err := a.Connector.Open(r.Context(), s)
	var unknown *connect.UnknownIntegrationError
	if errors.Is(err, connect.ErrConnectionGone) || errors.As(err, &unknown) {
		return errNothingToReconnect
	}
	if errors.Is(err, connect.ErrReturnURL) {
		return problem.Invalid("body", problem.Field{Code: "custom", Message: "Is not one of the return_url that the operator has listed for every integration of the session", Path: []string{"return_url"}})
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, map[string]any{"data": map[string]string{
		"token":        token,
		"connect_link": a.Connector.Setup.ConnectLink(token),
		"expires_at":   stamp(s.Expires),
	}})
}

// visit returns the session whose token a request carries.
func (a *API) visit(r *http.Request) (*connect.Visit, error) {
	token, err := connect.SessionToken(r.Header.Get("Authorization"))
	if err != nil {
		return nil, err
	}
	return a.Connector.Visit(r.Context(), token)
}

func (a *API) getSession(w http.ResponseWriter, r *http.Request) error {
	v, err := a.visit(r)
	if err != nil {
		return err
	}
	data := map[string]any{
		"endUser":           endUserAnswer(v.EndUser, v.Organization),
		"connectUISettings": a.uiSettings(&v.Session),
		"websocketsPath":    "/",
	}
	if len(v.Allowed) > 0 {
		data["allowed_integrations"] = v.Allowed
	}
	if len(v.Defaults) > 0 {
		defaults := make(map[string]any, len(v.Defaults))
		for key, d := range v.Defaults {
			one := map[string]any{}
			if d.Config != nil {
				one["connection_config"] = a.shown(key, d.Config)
			}
			if d.AuthorizationParams != nil {
				one["authorization_params"] = d.AuthorizationParams
			}
			if len(d.Scopes) > 0 && d.Config[scopesOverride] == "" {
				one["user_scopes"] = strings.Join(d.Scopes, ",")
			}
			defaults[key] = one
		}
		data["integrations_config_defaults"] = defaults
	}
	if len(v.Overrides) > 0 {
		data["overrides"] = v.Overrides
	}
	if v.Reconnect {
		data["isReconnecting"] = true
	}
	return reply(w, http.StatusOK, map[string]any{"data": data})
}

// shown are values that the app has set, without those that are secret: the
// answer goes to the visitor's browser.
func (a *API) shown(integration string, config map[string]string) map[string]string {
	out := maps.Clone(config)
	in, err := a.Connector.Setup.Integration(integration)
	maps.DeleteFunc(out, func(name, _ string) bool {
		if err != nil {
			return true
		}
		field, plain := in.Provider.Field("conn", name)
		_, secret := in.Provider.Field("cred", name)
		return secret || plain && field.Secret
	})
	return out
}

// uiSettings are the look, as far as Nango's pages have one.
func (a *API) uiSettings(s *connect.Session) map[string]any {
	look := a.Connector.Setup.Look
	if s.Look != nil {
		look = s.Look.Over(look)
	}
	theme := func(colors map[string]string) map[string]string {
		return map[string]string{"primary": cmp.Or(colors["accent"], look.Colors["accent"], "#00B2E3")}
	}
	return map[string]any{
		"showWatermark": false,
		"defaultTheme":  cmp.Or(look.Mode, "system"),
		"theme":         map[string]any{"light": theme(look.Colors), "dark": theme(look.DarkColors)},
	}
}

func (a *API) deleteSession(w http.ResponseWriter, r *http.Request) error {
	token, err := connect.SessionToken(r.Header.Get("Authorization"))
	if err != nil {
		return err
	}
	if _, err := a.Connector.Visit(r.Context(), token); err != nil {
		return err
	}
	if err := a.Connector.Close(r.Context(), token); err != nil {
		return fmt.Errorf("ending session: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// telemetry takes what Nango's pages report, and keeps nothing of it.
func (a *API) telemetry(w http.ResponseWriter, r *http.Request) error {
	var report struct{}
	if err := read(r, &report); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// endUserAnswer writes an end user; what isn't known is null.
func endUserAnswer(u *connect.EndUser, o *connect.Organization) any {
	if u == nil {
		return nil
	}
	if o == nil {
		o = u.Organization
	}
	out := map[string]any{"id": u.ID, "display_name": orNull(u.DisplayName), "email": orNull(u.Email), "tags": nil, "organization": nil}
	if u.Tags != nil {
		out["tags"] = u.Tags
	}
	if o != nil {
		out["organization"] = map[string]any{"id": o.ID, "display_name": orNull(o.DisplayName)}
	}
	return out
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
