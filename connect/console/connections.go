package console

import (
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

type connection struct {
	ConnectionID      string                   `json:"connection_id"`
	ProviderConfigKey string                   `json:"provider_config_key"`
	Provider          string                   `json:"provider"`
	Status            string                   `json:"status"`
	Errors            []struct{ Cause string } `json:"errors"`
	EndUser           *struct {
		ID          string `json:"id"`
		DisplayName string `json:"display_name"`
		Email       string `json:"email"`
	} `json:"end_user"`
	Tags          map[string]string           `json:"tags"`
	Metadata      json.RawMessage             `json:"metadata"`
	Account       *struct{ ID, Label string } `json:"account"`
	MissingScopes []string                    `json:"missing_scopes"`
	Created       string                      `json:"created"`
}

// At is when it was made.
func (c *connection) At() time.Time {
	t, _ := time.Parse("2006-01-02T15:04:05.000-07:00", c.Created) // the API's own
	return t
}

// User is whose it is, in the best words there are.
func (c *connection) User() string {
	if c.EndUser == nil {
		return c.Tags["end_user_id"]
	}
	for _, s := range []string{c.EndUser.DisplayName, c.EndUser.Email, c.EndUser.ID} {
		if s != "" {
			return s
		}
	}
	return ""
}

// Query names the connection in an address.
func (c *connection) Query() template.URL {
	return encoded(url.Values{"integration": {c.ProviderConfigKey}, "id": {c.ConnectionID}})
}

const connectionsShown = 50

type connectionsBody struct {
	Connections                      []connection
	Integrations                     []integration
	Search, Status, Integration, Tag string
	Page                             int
	Next, Previous                   string
}

func listConnections(v *visit) error {
	in := v.r.URL.Query()
	b := connectionsBody{Search: in.Get("search"), Status: in.Get("status"), Integration: in.Get("integration"), Tag: in.Get("tag")}
	b.Page, _ = strconv.Atoi(in.Get("page")) // a page that isn't one is the first
	b.Page = max(b.Page, 0)
	q := url.Values{"limit": {strconv.Itoa(connectionsShown)}, "page": {strconv.Itoa(b.Page)}}
	for name, value := range map[string]string{"search": b.Search, "status": b.Status, "integrationId": b.Integration} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if name, value, ok := cutTag(b.Tag); ok {
		q.Set("tags["+name+"]", value)
	}
	var found struct{ Connections []connection }
	if err := v.get("/connections", q, &found); err != nil {
		return err
	}
	b.Connections = found.Connections
	link := func(page int) string {
		in.Set("page", strconv.Itoa(page))
		return v.Path + "/connections?" + in.Encode()
	}
	if b.Page > 0 {
		b.Previous = link(b.Page - 1)
	}
	if len(b.Connections) == connectionsShown {
		b.Next = link(b.Page + 1)
	}
	var err error
	if b.Integrations, err = v.integrations(); err != nil {
		return err
	}
	return v.show("connections", "Connections", b)
}

type connectionBody struct {
	Connection connection
	Logs       []log
	Link       string // that connects it again
	Done       string
	Explained  *explained
	Metadata   string
}

type explained struct {
	Allowed bool       `json:"allowed"`
	BaseURL string     `json:"base_url"`
	Headers []string   `json:"headers"`
	Query   []string   `json:"query"`
	Version uint64     `json:"credential_version"`
	Expires *time.Time `json:"expires_at"`
	URL     string     `json:"url"`
	Rule    string     `json:"rule"`
	Caller  string     `json:"caller"`
	Renews  bool       `json:"renewable"`
	Refused *struct {
		Code, Message string
	} `json:"refused"`
}

// doneTo says what was done, by what the address says.
var doneTo = map[string]string{
	"refresh": "The credential was renewed.",
	"disable": "The connection is switched off: its calls are refused until you switch it on again.",
	"enable":  "The connection is switched on again.",
}

func showConnection(v *visit) error {
	b := connectionBody{Done: doneTo[v.r.URL.Query().Get("done")]}
	return v.connectionPage(b)
}

func (v *visit) connectionPage(b connectionBody) error {
	in := v.r.URL.Query()
	integration, id := in.Get("integration"), in.Get("id")
	// The list has no credentials, and reading it fetches none.
	var found struct{ Connections []connection }
	if err := v.get("/connections", url.Values{"integrationId": {integration}, "connectionId": {id}}, &found); err != nil {
		return err
	}
	if len(found.Connections) == 0 {
		return &Refusal{Status: http.StatusNotFound, Message: "There is no such connection (any more)."}
	}
	b.Connection = found.Connections[0]
	var logs struct{ Logs []log }
	if err := v.get("/logs", url.Values{"provider_config_key": {integration}, "connection_id": {id}, "limit": {"20"}}, &logs); err != nil {
		return err
	}
	b.Logs = logs.Logs
	b.Explained = new(explained)
	if err := v.call(http.MethodPost, "/explain", map[string]string{"provider_config_key": integration, "connection_id": id}, b.Explained); err != nil {
		return err
	}
	if data, err := json.MarshalIndent(b.Connection.Metadata, "", "  "); err == nil && string(data) != "{}" {
		b.Metadata = string(data)
	}
	return v.show("connection", b.Connection.ConnectionID, &b)
}

func changeConnection(v *visit) error {
	in := v.r.URL.Query()
	integration, id := in.Get("integration"), in.Get("id")
	of := "/connections/" + url.PathEscape(id) + "?" + url.Values{"provider_config_key": {integration}}.Encode()
	action := v.entered("action")
	var err error
	switch action {
	case "refresh":
		err = v.call(http.MethodPost, "/connections/refresh", map[string]string{"provider_config_key": integration, "connection_id": id}, nil)
	case "disable", "enable":
		err = v.call(http.MethodPatch, of, map[string]bool{"disabled": action == "disable"}, nil)
	case "reconnect":
		var made struct {
			Data struct {
				Link string `json:"connect_link"`
			}
		}
		if err := v.call(http.MethodPost, "/connect/sessions/reconnect", map[string]string{"integration_id": integration, "connection_id": id}, &made); err != nil {
			return err
		}
		return v.connectionPage(connectionBody{Link: made.Data.Link})
	case "delete":
		if err := v.call(http.MethodDelete, of, nil, nil); err != nil {
			return err
		}
		return v.to("/connections")
	default:
		return &Refusal{Status: http.StatusBadRequest, Message: "There is no such action."}
	}
	if err != nil {
		return err
	}
	in.Set("done", action)
	return v.to("/connection?" + in.Encode())
}
