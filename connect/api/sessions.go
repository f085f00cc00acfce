package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/text/language"

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
	UserScopes          string            `json:"user_scopes"`
	AuthorizationParams map[string]string `json:"authorization_params"`
	ConnectionConfig    map[string]string `json:"connection_config"`
}

type sessionRequest struct {
	EndUser       *endUserJSON            `json:"end_user"`
	Organization  *organizationJSON       `json:"organization"`
	Allowed       []string                `json:"allowed_integrations"`
	Defaults      map[string]defaultsJSON `json:"integrations_config_defaults"`
	Tags          map[string]string       `json:"tags"`
	ConnectionID  string                  `json:"connection_id"`
	IntegrationID string                  `json:"integration_id"`
	ReturnURL     string                  `json:"return_url"`
	Language      string                  `json:"language"`
	Look          *connect.Look           `json:"look"`

	AllowAccountChange bool `json:"allow_account_change"`
}

var tagKey = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_\-./]{0,63}$`)

// session checks a request and makes a session of it.
func (a *API) session(in *sessionRequest) (connect.Session, []problem.Field) {
	var bad []problem.Field
	fail := func(code, message string, path ...string) {
		bad = append(bad, problem.Field{Code: code, Message: message, Path: path})
	}
	s := connect.Session{Allowed: in.Allowed, Tags: make(map[string]string), ReturnURL: in.ReturnURL, Language: in.Language, Look: in.Look, AllowAccountChange: in.AllowAccountChange}
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
	if u := in.EndUser; u != nil {
		if n := len(u.ID); n == 0 || n > 255 {
			fail("too_small", "Must have 1 to 255 characters", "end_user", "id")
		}
		if u.Email != "" {
			if addr, err := mail.ParseAddress(u.Email); err != nil || addr.Address != u.Email {
				fail("invalid_format", "Invalid email address", "end_user", "email")
			}
		}
		s.EndUser = &connect.EndUser{ID: u.ID, Email: u.Email, DisplayName: u.DisplayName, Tags: u.Tags}
		s.Tags["end_user_id"] = u.ID
		if u.Email != "" {
			s.Tags["end_user_email"] = u.Email
		}
		if u.DisplayName != "" {
			s.Tags["end_user_display_name"] = u.DisplayName
		}
	}
	if o := in.Organization; o != nil {
		s.Organization = &connect.Organization{ID: o.ID, DisplayName: o.DisplayName}
		s.Tags["organization_id"] = o.ID
		if o.DisplayName != "" {
			s.Tags["organization_display_name"] = o.DisplayName
		}
	}
	for k, v := range in.Tags {
		if !tagKey.MatchString(k) {
			fail("custom", "A tag's key begins with a letter and has up to 64 letters, digits, and _-./", "tags", k)
		}
		if v == "" || len(v) > 255 {
			fail("custom", "A tag's value has 1 to 255 characters", "tags", k)
		}
		s.Tags[strings.ToLower(k)] = v
	}
	if len(in.Tags) > 10 {
		fail("too_big", "At most 10 tags", "tags")
	}
	for i, key := range in.Allowed {
		if _, err := a.Connector.Setup.Integration(key); err != nil {
			fail("custom", "Integration does not exist", "allowed_integrations", strconv.Itoa(i))
		}
	}
	for key, d := range in.Defaults {
		integration, err := a.Connector.Setup.Integration(key)
		if err != nil {
			fail("custom", "Integration does not exist", "integrations_config_defaults", key)
			continue
		}
		if s.Defaults == nil {
			s.Defaults = make(map[string]connect.SessionDefaults)
		}
		s.Defaults[key] = connect.SessionDefaults{
			Config:              integration.Provider.Named(d.ConnectionConfig),
			Scopes:              strings.FieldsFunc(d.UserScopes, func(r rune) bool { return r == ',' || r == ' ' }),
			AuthorizationParams: d.AuthorizationParams,
		}
	}
	return s, bad
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
	if in.IntegrationID != "" {
		bad = append(bad, problem.Field{Code: "unrecognized_keys", Message: `Unrecognized key: "integration_id"`, Path: []string{}})
	}
	// Beyond Nango: the app may say beforehand what the connection is called.
	s.Connection = in.ConnectionID
	if !validConnectionID(in.ConnectionID) {
		bad = append(bad, problem.Field{Code: "invalid_format", Message: connectionIDRule, Path: []string{"connection_id"}})
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
	s.Allowed, s.Connection, s.Reconnect = []string{in.IntegrationID}, in.ConnectionID, true
	for _, f := range []struct{ name, value string }{{"connection_id", in.ConnectionID}, {"integration_id", in.IntegrationID}} {
		if f.value == "" {
			bad = append(bad, problem.Field{Code: "invalid_type", Message: "Invalid input: expected string, received undefined", Path: []string{f.name}})
		}
	}
	if len(bad) > 0 {
		return problem.Invalid("body", bad...)
	}
	return a.open(w, r, s)
}

func (a *API) open(w http.ResponseWriter, r *http.Request, s connect.Session) error {
	token, s, err := a.Connector.Open(r.Context(), s)
	var unknown *connect.UnknownIntegrationError
	if errors.Is(err, connect.ErrConnectionGone) || errors.As(err, &unknown) {
		p := problem.Invalid("body")
		p.Message = "ConnectionID or IntegrationId does not exists"
		return p
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
		"endUser":        endUserAnswer(v.EndUser, v.Organization),
		"websocketsPath": "/",
	}
	if len(v.Allowed) > 0 {
		data["allowed_integrations"] = v.Allowed
	}
	if v.Reconnect {
		data["isReconnecting"] = true
	}
	return reply(w, http.StatusOK, map[string]any{"data": data})
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
