package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/api/openapi"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// named reads which connection a request is about.
func named(r *http.Request) connect.ID {
	return connect.ID{Integration: r.URL.Query().Get("provider_config_key"), Connection: r.PathValue("id")}
}

type connectionJSON struct {
	connectionRow
	ConnectionConfig   map[string]string `json:"connection_config"`
	WebhookURLOverride any               `json:"webhook_url_override"`
	CreatedAt          string            `json:"created_at"`
	UpdatedAt          string            `json:"updated_at"`
	LastFetchedAt      any               `json:"last_fetched_at"`
	Credentials        map[string]any    `json:"credentials"`
	Scopes             []string          `json:"scopes,omitempty"` // that were granted; keycaddy's own
}

// whole writes a connection without its credentials, times in a layout.
func whole(c *connect.Connection, layout string) connectionJSON {
	out := connectionJSON{
		connectionRow: row(c), ConnectionConfig: make(map[string]string, len(c.Config)), WebhookURLOverride: orNull(c.WebhookURL),
		CreatedAt: c.Created.UTC().Format(layout), UpdatedAt: c.Updated.UTC().Format(layout),
		Credentials: map[string]any{},
	}
	for name, value := range c.Config {
		if name != "refresh_token" && name != "refreshToken" {
			out.ConnectionConfig[name] = value
		}
	}
	return out
}

var (
	errNoProvider   = &problem.Problem{Status: http.StatusBadRequest, Code: "unknown_provider_config", Message: "Provider does not exists", Action: "fix_request"}
	errNoConnection = &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: "Failed to find connection", Action: "fix_request"}
)

// getConnection returns a connection with its credentials. A caller that may not
// read these gets none, and is told so by their absence.
func (a *API) getConnection(w http.ResponseWriter, r *http.Request) error {
	id, q := named(r), r.URL.Query()
	fresh := connect.Freshness{Renew: openapi.Flag(q.Get("force_refresh")), Remaining: time.Duration(number(q.Get("min_validity"))) * time.Second}
	withRefreshToken := openapi.Flag(q.Get("refresh_token"))
	in, err := a.Connector.Setup.Integration(id.Integration)
	if err != nil {
		return errNoProvider
	}
	if err := a.reach(r, id); err != nil {
		return a.notFetched(r, id, err)
	}
	if hidden := a.may(r, policy.ConnectionsReadCredentials); hidden != nil {
		if fresh != (connect.Freshness{}) || withRefreshToken {
			return hidden
		}
		c, err := a.Connector.Store.Connection(r.Context(), id)
		if errors.Is(err, connect.ErrNotFound) {
			return errNoConnection
		}
		if err != nil {
			return fmt.Errorf("reading connection %s: %w", id, err)
		}
		return reply(w, http.StatusOK, whole(&c, offset))
	}
	c, cred, err := a.Connector.Refresher.Fetch(r.Context(), id, fresh)
	if err != nil {
		return a.notFetched(r, id, err)
	}
	a.Logger.Info("credential fetched by the app", logFields(id)...)
	a.noteFetch(r, &c)
	out := whole(&c, offset)
	out.LastFetchedAt, out.Credentials = time.Now().UTC().Format(offset), credentialsJSON(in.Provider, &cred, withRefreshToken)
	out.Scopes = cred.Scopes
	return reply(w, http.StatusOK, out)
}

// notFetched says why there are no credentials, with the connection beside it:
// apps look there for its metadata and errors.
func (a *API) notFetched(r *http.Request, id connect.ID, err error) error {
	var (
		needs    *connect.NeedsReauthError
		token    *scheme.TokenError
		busy     *connect.BusyError
		validity *connect.ValidityError
	)
	switch {
	case errors.Is(err, connect.ErrNotFound):
		return errNoConnection
	case errors.As(err, &validity):
		return problem.Invalid("query_params", problem.Field{Code: "too_big", Path: []string{"min_validity"},
			Message: fmt.Sprintf("The provider's tokens live %d seconds; this one has %d left", int(validity.Lifetime.Seconds()), int(validity.Remaining.Seconds()))})
	case errors.As(err, &needs), errors.As(err, &token), errors.As(err, &busy), errors.Is(err, connect.ErrFutile):
	default:
		return err
	}
	p := *problem.Of(err)
	if p.Status != http.StatusFailedDependency {
		p.Status = http.StatusBadRequest // as Nango has it; retryable says more
	}
	p.Code = "invalid_credentials"
	c, rerr := a.Connector.Store.Connection(r.Context(), id)
	if rerr != nil {
		return fmt.Errorf("reading connection %s: %w", id, rerr)
	}
	out := whole(&c, offset)
	if len(out.Errors) == 0 {
		out.Errors = append(out.Errors, errorJSON{Type: "auth", Cause: problem.Of(err).Code})
	}
	p.Payload = map[string]any{"connection": out}
	return &p
}

type updateRequest struct {
	EndUser    *endUserJSON      `json:"end_user"`
	Tags       map[string]string `json:"tags"`
	WebhookURL *string           `json:"webhook_url_override"`
	Disabled   *bool             `json:"disabled"`
}

func (a *API) updateConnection(w http.ResponseWriter, r *http.Request) error {
	id := named(r)
	var in updateRequest
	if err := read(r, &in); err != nil {
		return err
	}
	if _, err := a.Connector.Setup.Integration(id.Integration); err != nil {
		return errNoProvider
	}
	if err := a.reach(r, id); errors.Is(err, connect.ErrNotFound) {
		return errNoConnection
	} else if err != nil {
		return err
	}
	if l := limits(r); (len(l.EndUsers) > 0 || len(l.Tags) > 0) && (in.EndUser != nil || in.Tags != nil) {
		return outOfReach("whose a connection is, and its tags, decide what is in its reach")
	}
	ch := connect.Changes{WebhookURL: in.WebhookURL}
	if in.EndUser != nil {
		ch.EndUser, ch.Tags = in.EndUser.user(), map[string]string{}
		in.EndUser.tag(ch.Tags)
	}
	if in.Tags != nil {
		if ch.Tags == nil {
			ch.Tags = map[string]string{}
		}
		if bad := addTags(ch.Tags, in.Tags); len(bad) > 0 {
			return problem.Invalid("body", bad...)
		}
	}
	_, err := a.Connector.Change(r.Context(), id, ch)
	if err == nil && in.Disabled != nil {
		_, err = a.Connector.SetDisabled(r.Context(), id, *in.Disabled)
	}
	if errors.Is(err, connect.ErrNotFound) {
		return errNoConnection
	}
	if err != nil {
		return fmt.Errorf("changing connection %s: %w", id, err)
	}
	return reply(w, http.StatusOK, map[string]bool{"success": true})
}

type refreshRequest struct {
	ConnectionID      string `json:"connection_id"`
	ProviderConfigKey string `json:"provider_config_key"`
}

// refreshConnection renews credentials without returning them, so that a key
// that may not read any can do it.
func (a *API) refreshConnection(w http.ResponseWriter, r *http.Request) error {
	var in refreshRequest
	if err := read(r, &in); err != nil {
		return err
	}
	id := connect.ID{Integration: in.ProviderConfigKey, Connection: in.ConnectionID}
	if _, err := a.Connector.Setup.Integration(id.Integration); err != nil {
		return errNoProvider
	}
	if err := a.reach(r, id); err != nil {
		return a.notFetched(r, id, err)
	}
	before, err := a.Connector.Refresher.Current(r.Context(), id)
	if err != nil {
		return a.notFetched(r, id, err)
	}
	_, cred, err := a.Connector.Refresher.Fetch(r.Context(), id, connect.Freshness{Renew: true})
	if err != nil {
		return a.notFetched(r, id, err)
	}
	out := map[string]any{"success": true, "renewed": cred.Version > before.Version, "expires_at": nil}
	if !cred.Expires.IsZero() {
		out["expires_at"] = stamp(cred.Expires)
	}
	return reply(w, http.StatusOK, out)
}

func (a *API) deleteConnection(w http.ResponseWriter, r *http.Request) error {
	err := a.reach(r, named(r))
	if err == nil {
		err = a.Connector.Disconnect(r.Context(), named(r))
	}
	if errors.Is(err, connect.ErrNotFound) {
		return &problem.Problem{Status: http.StatusBadRequest, Code: "unknown_connection", Action: "fix_request"}
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, map[string]bool{"success": true})
}

// user is the end user as it is kept.
func (u *endUserJSON) user() *connect.EndUser {
	if u == nil {
		return nil
	}
	return &connect.EndUser{ID: u.ID, Email: u.Email, DisplayName: u.DisplayName, Tags: u.Tags}
}

// tag adds the tags that an end user comes with.
func (u *endUserJSON) tag(tags map[string]string) {
	if u == nil {
		return
	}
	for name, value := range u.Tags {
		tags[strings.ToLower(name)] = value
	}
	for name, value := range map[string]string{"end_user_id": u.ID, "end_user_email": u.Email, "end_user_display_name": u.DisplayName} {
		if value != "" {
			tags[name] = value
		}
	}
}

// addTags adds tags, which win over those that are there. The document has
// checked all but what it can't.
func addTags(to, tags map[string]string) []problem.Field {
	var bad []problem.Field
	for name, value := range tags {
		name = strings.ToLower(name)
		if name == "end_user_email" && !isEmail(value) {
			bad = append(bad, problem.Field{Code: "invalid_format", Message: "Invalid email address", Path: []string{"tags", name}})
		}
		to[name] = value
	}
	return bad
}
