package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

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
	Created           string            `json:"created,omitempty"` // in lists only
	Status            connect.Status    `json:"status"`            // keycaddy's own

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
		Status: c.Status, Errors: []errorJSON{}, EndUser: endUserAnswer(c.EndUser, nil), Tags: c.Tags, Metadata: c.Metadata,
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
	in := r.URL.Query()
	q := connect.Query{
		Search: in.Get("search"), Status: connect.Status(in.Get("status")), Organization: in.Get("endUserOrganizationId"),
	}
	if id := in.Get("connectionId"); id != "" {
		q.Connections = []string{id}
	}
	if id := in.Get("endUserId"); id != "" {
		q.EndUsers = []string{id}
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
	q.Limit, q.Page = number(in.Get("limit")), number(in.Get("page"))
	var page []connect.Connection
	if within(r, &q) {
		var err error
		if page, err = a.Connector.Store.Connections(r.Context(), q); err != nil {
			return fmt.Errorf("listing connections: %w", err)
		}
	}
	rows := make([]connectionRow, len(page))
	for i := range page {
		rows[i] = row(&page[i])
		rows[i].Created = page[i].Created.UTC().Format(offset)
	}
	return reply(w, http.StatusOK, map[string]any{"connections": rows})
}

// number reads a number that the document has let through; none is 0.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
