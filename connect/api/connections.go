package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

const connectionIDRule = "A connection id has up to 255 letters, digits, spaces, and ,.;:=+~[]|@${}\"'\\/_-"

var connectionID = regexp.MustCompile(`^[a-zA-Z0-9,.;:=+~[\]|@${}"'\\/_ -]{0,255}$`)

func validConnectionID(id string) bool { return connectionID.MatchString(id) }

// offset is how Nango writes a connection's times.
const offset = "2006-01-02T15:04:05.000-07:00"

type connectionRow struct {
	ID                int64             `json:"id"`
	ConnectionID      string            `json:"connection_id"`
	ProviderConfigKey string            `json:"provider_config_key"`
	Provider          string            `json:"provider"`
	Errors            []errorJSON       `json:"errors"`
	EndUser           any               `json:"end_user"`
	Tags              map[string]string `json:"tags"`
	Metadata          json.RawMessage   `json:"metadata"`
	Created           string            `json:"created,omitempty"`

	// keycaddy's own. Account is whose account it is at the provider, where that
	// can be known; MissingScopes, if there are any, make the connection a
	// degraded one.
	Account       *scheme.Account `json:"account,omitempty"`
	MissingScopes []string        `json:"missing_scopes,omitempty"`
}

type errorJSON struct {
	Type  string `json:"type"`
	LogID string `json:"log_id"`
	// Cause is keycaddy's own: the code of what happened.
	Cause string `json:"cause,omitempty"`
}

func row(c *connect.Connection) connectionRow {
	out := connectionRow{
		ID: c.Serial, ConnectionID: c.ID.Connection, ProviderConfigKey: c.Integration, Provider: c.Provider,
		Errors: []errorJSON{}, EndUser: endUserAnswer(c.EndUser, nil), Tags: c.Tags, Metadata: c.Metadata,
		Account: c.Account, MissingScopes: c.MissingScopes,
	}
	if out.Tags == nil {
		out.Tags = map[string]string{}
	}
	if out.Metadata == nil {
		out.Metadata = json.RawMessage("{}")
	}
	if c.Status != connect.StatusActive {
		out.Errors = append(out.Errors, errorJSON{Type: "auth", Cause: c.Cause})
	}
	return out
}

func (a *API) listConnections(w http.ResponseWriter, r *http.Request) error {
	if err := query(r, "connectionId", "search", "endUserId", "endUserOrganizationId", "integrationId", "limit", "page", "tags["); err != nil {
		return err
	}
	in := r.URL.Query()
	q := connect.Query{
		Connection: in.Get("connectionId"), Search: in.Get("search"),
		EndUser: in.Get("endUserId"), Organization: in.Get("endUserOrganizationId"),
	}
	if s := in.Get("integrationId"); s != "" {
		q.Integrations = strings.Split(s, ",")
	}
	for name := range in {
		if key, ok := strings.CutPrefix(name, "tags["); ok {
			if q.Tags == nil {
				q.Tags = make(map[string]string)
			}
			q.Tags[strings.ToLower(strings.TrimSuffix(key, "]"))] = in.Get(name)
		}
	}
	var bad []problem.Field
	number := func(name string, least, most int) int {
		s := in.Get(name)
		if s == "" {
			return 0
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			bad = append(bad, problem.Field{Code: "too_small", Message: fmt.Sprintf("Expected a whole number from %d to %d", least, most), Path: []string{name}})
		}
		return n
	}
	q.Limit, q.Page = number("limit", 1, 2000), number("page", 0, 1<<30)
	if len(bad) > 0 {
		return problem.Invalid("query_params", bad...)
	}
	page, err := a.Connector.Store.Connections(r.Context(), q)
	if err != nil {
		return fmt.Errorf("listing connections: %w", err)
	}
	rows := make([]connectionRow, len(page))
	for i := range page {
		rows[i] = row(&page[i])
		rows[i].Created = page[i].Created.UTC().Format(offset)
	}
	return reply(w, http.StatusOK, map[string]any{"connections": rows})
}

// named reads which connection a request is about.
func named(r *http.Request, more ...string) (connect.ID, error) {
	if err := query(r, append(more, "provider_config_key")...); err != nil {
		return connect.ID{}, err
	}
	id := connect.ID{Integration: r.URL.Query().Get("provider_config_key"), Connection: r.PathValue("id")}
	if id.Integration == "" {
		return id, problem.Invalid("query_params", problem.Field{Code: "invalid_type", Message: "Invalid input: expected string, received undefined", Path: []string{"provider_config_key"}})
	}
	return id, nil
}

type connectionJSON struct {
	connectionRow
	Status             connect.Status    `json:"status"`
	ConnectionConfig   map[string]string `json:"connection_config"`
	WebhookURLOverride *string           `json:"webhook_url_override"`
	CreatedAt          string            `json:"created_at"`
	UpdatedAt          string            `json:"updated_at"`
	LastFetchedAt      string            `json:"last_fetched_at"`
	Credentials        any               `json:"credentials"`
	Scopes             []string          `json:"scopes,omitempty"` // that were granted; keycaddy's own
}

func (a *API) getConnection(w http.ResponseWriter, r *http.Request) error {
	id, err := named(r, "force_refresh", "refresh_token", "refresh_github_app_jwt_token")
	if err != nil {
		return err
	}
	force, err := flag(r, "force_refresh")
	if err != nil {
		return err
	}
	withRefreshToken, err := flag(r, "refresh_token")
	if err != nil {
		return err
	}
	in, err := a.Connector.Setup.Integration(id.Integration)
	if err != nil {
		return &problem.Problem{Status: http.StatusBadRequest, Code: "unknown_provider_config", Message: "Provider does not exists", Action: "fix_request"}
	}
	hidden := a.may(r, policy.ConnectionsReadCredentials)
	if hidden != nil && (force || withRefreshToken) {
		return hidden
	}
	if force {
		if err := a.renew(r, id); err != nil {
			return err
		}
	}
	c, cred, err := a.Connector.Refresher.Credential(r.Context(), id)
	if errors.Is(err, connect.ErrNotFound) {
		return &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "Failed to find connection", Action: "fix_request"}
	}
	if err != nil {
		return err
	}
	credentials := map[string]any{} // without the scope the app isn't told, and sees so
	if hidden == nil {
		a.Logger.Info("credential fetched by the app", logFields(id)...)
		credentials = credentialsJSON(in.Provider, &cred, withRefreshToken)
	}
	out := connectionJSON{
		connectionRow: row(&c), Status: c.Status, ConnectionConfig: c.Config,
		CreatedAt: c.Created.UTC().Format(offset), UpdatedAt: c.Updated.UTC().Format(offset),
		LastFetchedAt: time.Now().UTC().Format(offset), Credentials: credentials,
		Scopes: cred.Scopes,
	}
	if out.ConnectionConfig == nil {
		out.ConnectionConfig = map[string]string{}
	}
	return reply(w, http.StatusOK, out)
}

// renew asks for a new credential; one that can't be renewed stays.
func (a *API) renew(r *http.Request, id connect.ID) error {
	b, err := a.Connector.Refresher.Current(r.Context(), id)
	if err != nil {
		return err
	}
	if _, err = a.Connector.Refresher.Renew(r.Context(), b); errors.Is(err, scheme.ErrNotRenewable) {
		return nil
	}
	return err
}

// flag reads a yes or no.
func flag(r *http.Request, name string) (bool, error) {
	switch strings.ToLower(r.URL.Query().Get(name)) {
	case "", "false", "0", "no", "off", "n", "disabled":
		return false, nil
	case "true", "1", "yes", "on", "y", "enabled":
		return true, nil
	}
	return false, problem.Invalid("query_params", problem.Field{Code: "invalid_value", Message: `Invalid option: expected one of "true"|"1"|"yes"|"on"|"y"|"enabled"|"false"|"0"|"no"|"off"|"n"|"disabled"`, Path: []string{name}})
}

// credentialsJSON reveals a credential to the app that it belongs to.
func credentialsJSON(p *catalog.Provider, c *scheme.Credential, withRefreshToken bool) map[string]any {
	if p.Mode == catalog.ModeNone {
		return map[string]any{}
	}
	out := map[string]any{"type": authModes[p.Mode]}
	if !c.Expires.IsZero() {
		out["expires_at"] = stamp(c.Expires)
	}
	if c.Raw != "" {
		raw := map[string]any{}
		// What was stored is JSON that had been parsed before.
		dec := json.NewDecoder(strings.NewReader(c.Raw.Reveal()))
		dec.UseNumber()
		_ = dec.Decode(&raw)
		if !withRefreshToken {
			dropRefreshTokens(raw, c)
		}
		out["raw"] = raw
	}
	if len(c.Extra) > 0 { // further tokens, by name
		tokens := make(map[string]any, len(c.Extra))
		for name, t := range c.Extra {
			one := map[string]any{"access_token": t.AccessToken.Reveal()}
			if !t.Expires.IsZero() {
				one["expires_at"] = stamp(t.Expires)
			}
			tokens[name] = one
		}
		out["tokens"] = tokens
	}
	switch p.Mode {
	case catalog.ModeOAuth1:
		out["oauth_token"], out["oauth_token_secret"] = c.AccessToken.Reveal(), c.Fields["oauth_token_secret"].Reveal()
	case catalog.ModeOAuth2Code, catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery, catalog.ModeGitHubApp, catalog.ModeGitHubAppOAuth:
		out["access_token"] = c.AccessToken.Reveal()
		if withRefreshToken && c.RefreshToken != "" {
			out["refresh_token"] = c.RefreshToken.Reveal()
		}
	case catalog.ModeClientCredentials, catalog.ModeTwoStep, catalog.ModeJWTBearer:
		out["token"] = c.AccessToken.Reveal()
		fallthrough
	default:
		for name, v := range c.Fields {
			if name == "api_key" {
				name = "apiKey"
			}
			out[name] = v.Reveal()
		}
	}
	return out
}

// dropRefreshTokens takes refresh tokens out, by what they are called and by
// what they are: some providers have a name of their own for it.
func dropRefreshTokens(v any, c *scheme.Credential) {
	switch v := v.(type) {
	case map[string]any:
		for name, child := range v {
			if name == "refresh_token" || name == "refreshToken" || isRefreshToken(child, c) {
				delete(v, name)
				continue
			}
			dropRefreshTokens(child, c)
		}
	case []any:
		for _, child := range v {
			dropRefreshTokens(child, c)
		}
	}
}

func isRefreshToken(v any, c *scheme.Credential) bool {
	s, ok := v.(string)
	return ok && s != "" && (s == c.RefreshToken.Reveal() || s == c.Previous.Reveal())
}

func (a *API) deleteConnection(w http.ResponseWriter, r *http.Request) error {
	id, err := named(r)
	if err != nil {
		return err
	}
	err = a.Connector.Disconnect(r.Context(), id)
	if errors.Is(err, connect.ErrNotFound) {
		return &problem.Problem{Status: http.StatusBadRequest, Code: "unknown_connection", Action: "fix_request"}
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, map[string]bool{"success": true})
}
