package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/api/openapi"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

type importRequest struct {
	ProviderConfigKey string                     `json:"provider_config_key"`
	ConnectionID      string                     `json:"connection_id"`
	Metadata          json.RawMessage            `json:"metadata"`
	Config            map[string]json.RawMessage `json:"connection_config"`
	WebhookURL        string                     `json:"webhook_url_override"`
	EndUser           *endUserJSON               `json:"end_user"`
	Tags              map[string]string          `json:"tags"`
	Credentials       givenCredentials           `json:"credentials"`
}

// givenCredentials are those of an import; which there are depends on the type.
type givenCredentials struct {
	Type         string    `json:"type"`
	AccessToken  string    `json:"access_token,omitempty"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	Token        string    `json:"token,omitempty"`
	ExpiresAt    time.Time `json:"expires_at,omitzero"`
	Override     *struct {
		ClientID     string `json:"client_id,omitempty"`
		ClientSecret string `json:"client_secret,omitempty"`
	} `json:"config_override,omitempty"`
	OAuthToken       string `json:"oauth_token,omitempty"`
	OAuthTokenSecret string `json:"oauth_token_secret,omitempty"`
	AppID            string `json:"app_id,omitempty"`
	InstallationID   string `json:"installation_id,omitempty"`

	// Fields are what the end user would have entered.
	Fields map[string]string `json:"-"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *givenCredentials) UnmarshalJSON(data []byte) error {
	type plain givenCredentials
	if err := json.Unmarshal(data, (*plain)(c)); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	c.Fields = make(map[string]string)
	switch c.Type {
	case "TWO_STEP", "JWT", "SIGNATURE", "AWS_SIGV4":
		for name, raw := range all {
			var s string
			if json.Unmarshal(raw, &s) == nil && !slices.Contains([]string{"type", "token", "refresh_token", "expires_at"}, name) {
				c.Fields[name] = s
			}
		}
		return nil
	}
	for _, name := range []string{"apiKey", "username", "password", "client_id", "client_secret", "client_certificate", "client_private_key", "token_id", "token_secret"} {
		if raw, ok := all[name]; ok {
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			c.Fields[name] = s
		}
	}
	return nil
}

func (a *API) importConnection(w http.ResponseWriter, r *http.Request) error {
	var in importRequest
	if err := read(r, &in); err != nil {
		return err
	}
	c, cred, p, err := a.bring(r, &in)
	if err != nil {
		return err
	}
	out := whole(&c, millis)
	out.Created = ""
	if p.Mode != catalog.ModeNone {
		out.LastFetchedAt = stamp(c.Updated)
	}
	out.Credentials = credentialsJSON(p, &cred, true) // the app has just sent them
	return reply(w, http.StatusCreated, out)
}

// bring imports a connection.
func (a *API) bring(r *http.Request, in *importRequest) (connect.Connection, scheme.Credential, *catalog.Provider, error) {
	fail := func(err error) (connect.Connection, scheme.Credential, *catalog.Provider, error) {
		return connect.Connection{}, scheme.Credential{}, nil, err
	}
	integration, err := a.Connector.Setup.Integration(in.ProviderConfigKey)
	if err != nil {
		return fail(&problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "Integration does not exist", Action: "fix_request"})
	}
	p := integration.Provider
	if mode := authModes[p.Mode]; mode != in.Credentials.Type {
		wrong := problem.Invalid("body")
		wrong.Message = fmt.Sprintf("Provider %s does not support %s auth", mode, in.Credentials.Type)
		return fail(wrong)
	}
	if in.Credentials.Override != nil && p.Mode != catalog.ModeOAuth2Code {
		return fail(problem.Invalid("body", problem.Field{Code: "custom", Message: "The client is the integration's", Path: []string{"credentials", "config_override"}}))
	}
	from := connect.Import{
		Integration: integration.Key, Connection: in.ConnectionID, Metadata: in.Metadata, WebhookURL: in.WebhookURL,
		EndUser: in.EndUser.user(), Tags: map[string]string{},
	}
	if q := r.URL.Query(); q.Has("verify") {
		from.Unverified = !openapi.Flag(q.Get("verify"))
	}
	in.EndUser.tag(from.Tags)
	if bad := addTags(from.Tags, in.Tags); len(bad) > 0 {
		return fail(problem.Invalid("body", bad...))
	}
	config, err := plain(in.Config)
	if err != nil {
		return fail(err)
	}
	if in.Credentials.InstallationID != "" {
		config["installation_id"], config["app_id"] = in.Credentials.InstallationID, in.Credentials.AppID
	}
	from.Answers, from.Config = answers(p, config, in.Credentials.Fields)
	from.Credential = in.Credentials.credential(p)
	if err := a.mayBring(r, &from); err != nil {
		return fail(err)
	}
	c, cred, err := a.Connector.Import(r.Context(), from)
	if err != nil {
		return fail(importProblem(p, err))
	}
	return c, cred, p, nil
}

// plain are given values as text.
func plain(given map[string]json.RawMessage) (map[string]string, error) {
	out := make(map[string]string, len(given))
	for name, raw := range given {
		var (
			text string
			list []string
		)
		switch {
		case json.Unmarshal(raw, &text) == nil:
		case json.Unmarshal(raw, &list) == nil:
			text = strings.Join(list, ",")
		default:
			text = string(raw) // a number, or true or false
		}
		if len(text) > 4096 {
			return nil, problem.Invalid("body", problem.Field{Code: "too_big", Message: "Too big: expected string to have <=4096 characters", Path: []string{"connection_config", name}})
		}
		out[name] = text
	}
	return out, nil
}

// answers puts what is given under the names that the entry has for it; what is
// no field of the entry comes back by itself.
func answers(p *catalog.Provider, config, secrets map[string]string) (fields, rest map[string]string) {
	fields, rest = make(map[string]string), make(map[string]string)
	for name, value := range p.Named(config) {
		_, plain := p.Field("conn", name)
		_, secret := p.Field("cred", name) // some send these as plain values
		if plain || secret {
			fields[name] = value
		} else {
			rest[name] = value
		}
	}
	secrets = p.Named(secrets)
	for name, value := range secrets {
		if _, ok := p.Field("cred", name); ok {
			fields[name] = value
		}
	}
	// An entry may call its only secret otherwise than the wire does.
	if len(p.CredFields) == 1 && len(secrets) == 1 && fields[p.CredFields[0].Name] == "" {
		for _, value := range secrets {
			fields[p.CredFields[0].Name] = value
		}
	}
	return fields, rest
}

// credential is what there is of tokens.
func (c *givenCredentials) credential(p *catalog.Provider) scheme.Credential {
	out := scheme.Credential{Expires: c.ExpiresAt, RefreshToken: scheme.Secret(c.RefreshToken)}
	switch {
	case c.AccessToken != "":
		out.AccessToken = scheme.Secret(c.AccessToken)
	case c.Token != "":
		out.AccessToken = scheme.Secret(c.Token)
	case c.OAuthToken != "":
		out.AccessToken = scheme.Secret(c.OAuthToken)
		out.Fields = map[string]scheme.Secret{"oauth_token_secret": scheme.Secret(c.OAuthTokenSecret)}
	}
	if o := c.Override; o != nil && o.ClientID != "" {
		out.Client = &scheme.Client{ID: o.ClientID, Secret: scheme.Secret(o.ClientSecret)}
	}
	switch p.Mode {
	case catalog.ModeOAuth2Code, catalog.ModeClientCredentials, catalog.ModeOAuth1:
		raw := map[string]any{"type": c.Type}
		for name, value := range map[string]string{"access_token": c.AccessToken, "refresh_token": c.RefreshToken, "token": c.Token, "oauth_token": c.OAuthToken, "oauth_token_secret": c.OAuthTokenSecret} {
			if value != "" {
				raw[name] = value
			}
		}
		for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
			raw[name] = c.Fields[name]
		}
		if !c.ExpiresAt.IsZero() {
			raw["expires_at"] = stamp(c.ExpiresAt)
		}
		if text, err := json.Marshal(raw); err == nil { // of texts only: it can't fail
			out.Raw = scheme.Secret(text)
		}
	}
	return out
}

// importProblem says which part of the request an answer was in.
func importProblem(p *catalog.Provider, err error) error {
	var fields scheme.FieldErrors
	switch {
	case errors.As(err, &fields):
		var bad []problem.Field
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			at := "credentials"
			if _, ok := p.Field("conn", name); ok {
				at = "connection_config"
			}
			bad = append(bad, problem.Field{Code: "custom", Message: fields[name], Path: []string{at, name}})
		}
		return problem.Invalid("body", bad...)
	case errors.Is(err, scheme.ErrNotRenewable):
		return problem.Invalid("body", problem.Field{Code: "custom", Message: "Its user has to connect here: calls are made with a token of the user's", Path: []string{"credentials"}})
	case errors.Is(err, connect.ErrMetadataTooLarge):
		return problem.Invalid("body", errTooLarge)
	}
	return fmt.Errorf("importing a connection: %w", err)
}
