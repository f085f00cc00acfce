package webhook

import (
	"bytes"
	"encoding/json"

	"github.com/keycaddy/keycaddy/connect"
)

// Payload is the body for an event: the JSON that Nango sends for it, members in
// the order of their names, absent ones left out. It is the same for every
// attempt.
//
// What Nango has no event for comes in the shape of the one that is nearest: a
// connection that needs its user, or is degraded, as a refresh that failed; one
// that recovered as a refresh that did not. The header Keycaddy-Event tells them
// apart.
func (c *Config) Payload(e *connect.Event) ([]byte, error) {
	operation, success := operationOf(e)
	body := map[string]any{
		"from": "nango", "type": "auth", "operation": operation, "success": success,
		"connectionId": e.Connection, "providerConfigKey": e.Integration, "provider": e.Provider,
		"environment": c.Environment, "authMode": c.AuthMode(e.Provider),
	}
	if e.Kind != connect.EventConnectFailed {
		tags := e.Tags
		if tags == nil {
			tags = map[string]string{}
		}
		body["tags"] = tags
	}
	if e.EndUser != nil && success && operation != "refresh" {
		body["endUser"] = endUser(e.EndUser)
	}
	if !success {
		body["error"] = failure(e, operation)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

func operationOf(e *connect.Event) (operation string, success bool) {
	switch e.Kind {
	case connect.EventCreated:
		return "creation", true
	case connect.EventOverridden:
		return "override", true
	case connect.EventDeleted:
		return "deletion", true
	case connect.EventRecovered:
		return "refresh", true
	case connect.EventConnectFailed:
		if e.Reconnect {
			return "override", false
		}
		return "creation", false
	}
	return "refresh", false
}

func endUser(u *connect.EndUser) map[string]any {
	out := map[string]any{"endUserId": u.ID, "endUserEmail": nil, "tags": u.Tags}
	if u.Tags == nil {
		out["tags"] = map[string]string{}
	}
	if u.Email != "" {
		out["endUserEmail"] = u.Email
	}
	if u.Organization != nil {
		out["organizationId"] = u.Organization.ID
	}
	return out
}

// failure says what went wrong by Nango's codes where it has one; the
// description begins with the code that the log has.
func failure(e *connect.Event, operation string) map[string]string {
	if e.Error == nil {
		return map[string]string{"type": "unknown", "description": string(e.Kind)}
	}
	description := e.Error.Type
	if e.Error.Detail != "" {
		description += ": " + e.Error.Detail
	}
	kind := e.Error.Type
	switch {
	case operation == "refresh":
		kind = "refresh_token_external_error"
	case e.Error.Callback:
		kind = "invalid_callback"
	}
	return map[string]string{"type": kind, "description": description}
}
