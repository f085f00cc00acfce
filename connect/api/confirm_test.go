package api_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

const returnURL = "https://app.example.com/connected"

// trusting makes the integrations believe the app, and nobody else.
func (s *service) trusting(t connect.Trust) {
	s.t.Helper()
	var all []*connect.Integration
	for _, in := range s.connector.Setup.Integrations() {
		fresh := *in
		fresh.Trust = t
		all = append(all, &fresh)
	}
	setup, err := connect.NewSetup(s.connector.Setup.Catalog, s.connector.Setup.PublicURL, s.connector.Setup.Client, all)
	must(s.t, err)
	s.connector.Setup = setup
	s.connector.Refresher.Configure(setup)
}

// ticket is what a browser brings to the app after a form was sent for a user.
func (s *service) ticket(user, key string) string {
	s.t.Helper()
	a := s.call("POST", "/connect/sessions", "", `{"end_user":{"id":"`+user+`"},"allowed_integrations":["g-apikey"],"return_url":"`+returnURL+`"}`)
	a.expect(s.t, 201, opened)
	step, err := s.connector.Submit(s.t.Context(), strings.TrimPrefix(bearer(s.t, a), "Bearer "), "g-apikey", map[string]string{"api_key": key})
	must(s.t, err)
	if step.Waiting == nil || step.Waiting.ReturnURL != returnURL {
		s.t.Fatalf("step %+v", step)
	}
	return step.Waiting.Key
}

func TestS1TheAppConfirmsItsSignedInUser(t *testing.T) {
	s := newService(t)
	s.trusting(connect.Trust{ReturnURLs: []string{returnURL}})
	ticket := s.ticket("ada", "canary-key")
	confirm := `{"ticket":"` + ticket + `","end_user":{"id":"ada"}}`
	a := s.call("POST", "/connect/sessions/confirm", "", confirm)
	a.expect(t, 200, `{"data":{"connection_id":"<UUIDV4>","provider_config_key":"g-apikey","provider":"g-apikey"}}`)
	s.call("POST", "/connect/sessions/confirm", "", confirm).fails(t, 410, "ticket_expired")

	ticket = s.ticket("mallory", "canary-key")
	s.call("POST", "/connect/sessions/confirm", "", `{"ticket":"`+ticket+`","end_user":{"id":"victim"}}`).fails(t, 403, "link_user_mismatch")
	s.call("POST", "/connect/sessions/confirm", "", `{"ticket":"`+ticket+`","end_user":{"id":"mallory"}}`).fails(t, 410, "ticket_expired")
	if rows, err := s.store.Connections(t.Context(), connect.Query{}); err != nil || len(rows) != 1 {
		t.Errorf("%d connections, %v", len(rows), err)
	}
	for _, e := range s.logs.All() {
		for _, f := range e.Context {
			if f.String == ticket {
				t.Error("S52: the log has a ticket")
			}
		}
	}
}

func TestConfirmRefusesBadRequests(t *testing.T) {
	s := newService(t)
	s.trusting(connect.Trust{ReturnURLs: []string{returnURL}})
	s.call("POST", "/connect/sessions/confirm", "", `{}`).fails(t, 400, "invalid_body", "invalid_type:ticket", "invalid_type:end_user")
	s.call("POST", "/connect/sessions/confirm", "", `{"ticket":"x","end_user":{"id":""}}`).fails(t, 400, "invalid_body", "too_small:end_user.id")
	s.call("POST", "/connect/sessions/confirm", "", `{"ticket":"x","end_user":{"id":"ada"}}`).fails(t, 410, "ticket_expired")
	s.call("POST", "/connect/sessions/confirm", "-", `{"ticket":"x","end_user":{"id":"ada"}}`).fails(t, 401, "missing_auth_header")
	s.call("POST", "/connect/sessions/confirm", "Bearer "+restricted, `{"ticket":"x","end_user":{"id":"ada"}}`).fails(t, 403, "forbidden")
	// A visitor's own token isn't the app's key.
	a := s.call("POST", "/connect/sessions", "", `{"end_user":{"id":"mallory"}}`)
	if a := s.call("POST", "/connect/sessions/confirm", bearer(t, a), `{"ticket":"x","end_user":{"id":"mallory"}}`); a.status != 401 {
		t.Errorf("status %d", a.status)
	}
}

func TestS18SessionWithAnotherReturnURL(t *testing.T) {
	s := newService(t)
	s.trusting(connect.Trust{ReturnURLs: []string{returnURL}})
	for _, u := range []string{returnURL + "/", "https://evil.example/", "javascript:alert(1)", returnURL + "?" + url.Values{"a": {"b"}}.Encode()} {
		s.call("POST", "/connect/sessions", "", `{"end_user":{"id":"u1"},"return_url":"`+u+`"}`).fails(t, 400, "invalid_body", "custom:return_url")
	}
}
