package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

type integrationJSON struct {
	UniqueKey       string `json:"unique_key"`
	Provider        string `json:"provider"`
	DisplayName     string `json:"display_name"`
	Logo            string `json:"logo"`
	ForwardWebhooks bool   `json:"forward_webhooks"`
	CreatedAt       string `json:"created_at"`
	UpdatedAt       string `json:"updated_at"`
}

func (a *API) integrationJSON(in *connect.Integration) integrationJSON {
	updated := in.Updated
	if updated.IsZero() {
		updated = in.Created
	}
	return integrationJSON{
		UniqueKey: in.Key, Provider: in.Provider.ID, DisplayName: in.DisplayName, Logo: a.logoURL(in.Provider.ID),
		ForwardWebhooks: in.ForwardWebhooks, CreatedAt: stamp(in.Created), UpdatedAt: stamp(updated),
	}
}

func (a *API) listIntegrations(w http.ResponseWriter, r *http.Request) error {
	allows := func(string) bool { return true }
	if c := callerOf(r); c != nil {
		allows = c.Rules.Integration
	}
	if strings.Contains(r.Header.Get("Authorization"), connect.SessionPrefix) {
		v, err := a.visit(r)
		if err != nil {
			return err
		}
		allows = v.Allows
	}
	data := []integrationJSON{}
	for _, in := range a.Connector.Setup.Integrations() {
		if allows(in.Key) {
			data = append(data, a.integrationJSON(in))
		}
	}
	return reply(w, http.StatusOK, map[string]any{"data": data})
}

func noIntegration(key string) error {
	return &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("Integration %q does not exist", key), Action: "fix_request"}
}

// getIntegration returns an integration. What else is included is a part of the
// answer only then; credentials for who may see them.
func (a *API) getIntegration(w http.ResponseWriter, r *http.Request) error {
	key, q := r.PathValue("key"), r.URL.Query()
	in, err := a.Connector.Setup.Integration(key)
	if c := callerOf(r); err != nil || c != nil && !c.Rules.Integration(key) {
		return noIntegration(key)
	}
	type included struct {
		integrationJSON
		WebhookURL  *json.RawMessage `json:"webhook_url,omitempty"`
		Credentials *json.RawMessage `json:"credentials,omitempty"`
	}
	out := included{integrationJSON: a.integrationJSON(in)}
	null := json.RawMessage("null")
	include := slices.Concat(q["include"], q["include[]"])
	if slices.Contains(include, "webhook") {
		out.WebhookURL = &null
	}
	if slices.Contains(include, "credentials") && a.may(r, policy.IntegrationsReadCredentials) == nil {
		client, err := a.Connector.IntegrationClient(r.Context(), key)
		if err != nil {
			return fmt.Errorf("reading an integration's client: %w", err)
		}
		a.Logger.Info("an integration's client fetched by the app", logFields(connect.ID{Integration: key})[0])
		data, err := json.Marshal(clientJSON(in.Provider, &client))
		if err != nil {
			return err
		}
		raw := json.RawMessage(data)
		out.Credentials = &raw
	}
	return reply(w, http.StatusOK, map[string]any{"data": out})
}

// clientJSON reveals an integration's client; nil where it is no more than what
// connections bring.
func clientJSON(p *catalog.Provider, c *connect.Client) map[string]any {
	out := map[string]any{"type": authModes[p.Mode]}
	field := func(name string) any {
		value, _ := appField(p, name)
		return orNull(c.Fields[value].Reveal())
	}
	switch p.Mode {
	case catalog.ModeGitHubApp, catalog.ModeGitHubAppOAuth:
		out["app_id"], out["app_link"], out["private_key"] = field("app_id"), field("app_link"), field("private_key")
		if p.Mode == catalog.ModeGitHubAppOAuth {
			out["client_id"], out["client_secret"] = c.ID, c.Secret.Reveal()
		}
	case catalog.ModeOAuth2Code, catalog.ModeOAuth1, catalog.ModeOAuth1TBA, catalog.ModeMCPOAuth2:
		out["client_id"], out["client_secret"] = c.ID, c.Secret.Reveal()
		out["scopes"], out["webhook_secret"] = orNull(strings.Join(c.Scopes, ",")), orNull(c.WebhookSecret.Reveal())
	default:
		return nil
	}
	return out
}

// appField finds the operator's field that a name on the wire means.
func appField(p *catalog.Provider, name string) (string, bool) {
	snake := catalog.SnakeName(name)
	if snake == "app_link" {
		snake = "public_link"
	}
	for _, candidate := range []string{name, snake, "app_" + snake, strings.TrimPrefix(snake, "app_")} {
		if _, ok := p.Field("app", candidate); ok {
			return candidate, true
		}
	}
	return snake, false
}

type integrationRequest struct {
	Provider        string                     `json:"provider"`
	UniqueKey       *string                    `json:"unique_key"`
	DisplayName     *string                    `json:"display_name"`
	Credentials     *clientRequest             `json:"credentials"`
	ForwardWebhooks *bool                      `json:"forward_webhooks"`
	Config          map[string]json.RawMessage `json:"integration_config"`
	Custom          map[string]json.RawMessage `json:"custom"`
}

type clientRequest struct {
	Type          string `json:"type"`
	ClientID      string `json:"client_id"`
	ClientSecret  string `json:"client_secret"`
	Scopes        string `json:"scopes"`
	WebhookSecret string `json:"webhook_secret"`
	AppID         string `json:"app_id"`
	AppLink       string `json:"app_link"`
	PrivateKey    string `json:"private_key"`
}

// client puts what a request has into a client.
func (in *integrationRequest) client(p *catalog.Provider, c *connect.Client) error {
	if c.Fields == nil {
		c.Fields = make(map[string]scheme.Secret)
	}
	if g := in.Credentials; g != nil {
		if g.Type != authModes[p.Mode] {
			wrong := problem.Invalid("body")
			wrong.Message = "incompatible credentials auth type and provider auth"
			return wrong
		}
		c.ID, c.Secret, c.WebhookSecret = g.ClientID, scheme.Secret(g.ClientSecret), scheme.Secret(g.WebhookSecret)
		c.Scopes = strings.FieldsFunc(g.Scopes, func(r rune) bool { return r == ',' })
		for name, value := range map[string]string{"app_id": g.AppID, "app_link": g.AppLink, "private_key": g.PrivateKey} {
			if value != "" {
				field, _ := appField(p, name)
				c.Fields[field] = scheme.Secret(value)
			}
		}
	}
	for part, given := range map[string]map[string]json.RawMessage{"integration_config": in.Config, "custom": in.Custom} {
		values, err := plain(given)
		if err != nil {
			return problem.Invalid("body", problem.Field{Code: "too_big", Message: "Too big: expected strings to have <=4096 characters", Path: []string{part}})
		}
		for name, value := range values {
			field, ok := appField(p, name)
			if !ok {
				return problem.Invalid("body", problem.Field{Code: "unrecognized_keys", Message: fmt.Sprintf("The provider has no such field: %q", name), Path: []string{part}})
			}
			c.Fields[field] = scheme.Secret(value)
		}
	}
	return nil
}

// needsClient are the schemes that can't do without.
func needsClient(p *catalog.Provider) bool {
	switch p.Mode {
	case catalog.ModeOAuth2Code, catalog.ModeOAuth1, catalog.ModeGitHubApp, catalog.ModeGitHubAppOAuth:
		return true
	}
	return false
}

func (a *API) createIntegration(w http.ResponseWriter, r *http.Request) error {
	var in integrationRequest
	if err := read(r, &in); err != nil {
		return err
	}
	p, err := a.Connector.Setup.Catalog.Provider(in.Provider)
	if errors.Is(err, catalog.ErrUnknown) {
		return problem.Invalid("body", problem.Field{Code: "invalid_string", Message: "Invalid provider", Path: []string{"provider"}})
	}
	if err != nil {
		return err
	}
	if in.Credentials == nil && needsClient(p) {
		missing := problem.Invalid("body")
		missing.Message = "Missing credentials"
		return missing
	}
	d := connect.Draft{Key: *in.UniqueKey, Provider: p.ID, ForwardWebhooks: true}
	if in.DisplayName != nil {
		d.DisplayName = *in.DisplayName
	}
	if in.ForwardWebhooks != nil {
		d.ForwardWebhooks = *in.ForwardWebhooks
	}
	if err := in.client(p, &d.Client); err != nil {
		return err
	}
	made, err := a.Connector.CreateIntegration(r.Context(), d)
	var fixed *connect.FixedError
	if errors.As(err, &fixed) {
		err = connect.ErrExists
	}
	if err != nil {
		return integrationProblem(err)
	}
	return reply(w, http.StatusOK, map[string]any{"data": a.integrationJSON(made)})
}

// createQuickstart answers for clients that Nango shares among its customers.
func (a *API) createQuickstart(http.ResponseWriter, *http.Request) error {
	p := problem.Invalid("body")
	p.Message = "There are no shared clients; register your own with the provider"
	return p
}

func (a *API) updateIntegration(w http.ResponseWriter, r *http.Request) error {
	var in integrationRequest
	if err := read(r, &in); err != nil {
		return err
	}
	key := r.PathValue("key")
	now, err := a.Connector.Setup.Integration(key)
	if err != nil {
		return noIntegration(key)
	}
	e := connect.Edit{Key: in.UniqueKey, DisplayName: in.DisplayName, ForwardWebhooks: in.ForwardWebhooks}
	if in.Credentials != nil || len(in.Config)+len(in.Custom) > 0 {
		e.Client = func(c *connect.Client) error { return in.client(now.Provider, c) }
	}
	made, err := a.Connector.EditIntegration(r.Context(), key, e)
	if err != nil {
		return integrationProblem(err)
	}
	return reply(w, http.StatusOK, map[string]any{"data": a.integrationJSON(made)})
}

func (a *API) deleteIntegration(w http.ResponseWriter, r *http.Request) error {
	err := a.Connector.RemoveIntegration(r.Context(), r.PathValue("key"))
	var unknown *connect.UnknownIntegrationError
	if errors.As(err, &unknown) {
		return &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "Integration does not exist", Action: "fix_request"}
	}
	if err != nil {
		return integrationProblem(err)
	}
	return reply(w, http.StatusOK, map[string]bool{"success": true})
}

// integrationProblem says why an integration isn't made, changed or removed.
func integrationProblem(err error) error {
	var (
		own     *problem.Problem
		fixed   *connect.FixedError
		draft   *connect.DraftError
		unknown *connect.UnknownIntegrationError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &fixed):
		return &problem.Problem{Status: http.StatusConflict, Code: "integration_in_configuration", Message: fmt.Sprintf("Integration %q is in the server's configuration, and can be changed there only.", fixed.Key), Action: "contact_operator"}
	case errors.As(err, &draft):
		p := problem.Invalid("body")
		p.Message = "The integration can't be used like that: " + draft.Reason.Error() + "."
		return p
	case errors.As(err, &unknown):
		return noIntegration(unknown.Key)
	case errors.Is(err, connect.ErrExists):
		return problem.Invalid("body", problem.Field{Code: "invalid_string", Message: "Unique key already exists", Path: []string{"uniqueKey"}})
	case errors.Is(err, connect.ErrInUse):
		return problem.Invalid("body", problem.Field{Code: "custom", Message: "The key can't be changed while there are connections", Path: []string{"unique_key"}})
	}
	return err
}

// checkClient asks the provider whether it knows an integration's client.
func (a *API) checkClient(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("key")
	if _, err := a.Connector.Setup.Integration(key); err != nil {
		return noIntegration(key)
	}
	c, err := a.Connector.CheckClient(r.Context(), key)
	if err != nil {
		return err
	}
	out := map[string]any{"accepted": nil, "code": c.Code, "message": c.Message}
	if c.Known {
		out["accepted"] = c.Accepted
	}
	return reply(w, http.StatusOK, out)
}
