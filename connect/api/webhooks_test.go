package api_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

func TestWebhooksAreListedAndDeliveredAgain(t *testing.T) {
	s := newService(t)
	s.get("/webhooks").expect(t, 200, `{"endpoints":[]}`)
	s.get("/webhooks/deliveries").expect(t, 200, `{"deliveries":[]}`)
	for n := range 3 {
		s.connect("g-apikey", fmt.Sprint("c", n), nil, map[string]string{"api_key": "canary-key"})
	}
	_, err := s.store.Route(t.Context(), 10, func(*connect.Event) []connect.Target { return []connect.Target{{Endpoint: "app"}} })
	must(t, err)
	due, err := s.store.DueDeliveries(t.Context(), "app", 10)
	must(t, err)
	d := due[1]
	d.State, d.Attempts, d.Tried, d.Status, d.Error = connect.DeliveryGivenUp, 20, time.Now(), 503, "answered with 503"
	must(t, s.store.NoteAttempt(t.Context(), d))

	s.get("/webhooks").expect(t, 200, `{"endpoints":[{"name":"app","waiting":2,"failures":0}]}`)
	given := s.get("/webhooks/deliveries?state=given_up&endpoint=app&provider_config_key=g-apikey&connection_id=c1&event=" + d.Event.ID)
	given.expect(t, 200, `{"deliveries":[{"event":{"id":"`+d.Event.ID+`","kind":"connection.created","at":"<ISO_MS_Z>","provider_config_key":"g-apikey","connection_id":"c1","provider":"g-apikey"},
		"endpoint":"app","state":"given_up","attempts":20,"tried":"<ISO_MS_Z>","status":503,"error":"answered with 503"}]}`)

	// Page by page, the newest first.
	var seen []string
	for cursor := ""; ; {
		var page struct {
			Deliveries []struct {
				Event struct {
					Connection string `json:"connection_id"`
				}
			}
			Next string `json:"next_cursor"`
		}
		a := s.get("/webhooks/deliveries?limit=2" + cursor)
		must(t, json.Unmarshal([]byte(a.body), &page))
		for _, d := range page.Deliveries {
			seen = append(seen, d.Event.Connection)
		}
		if page.Next == "" {
			break
		}
		cursor = "&cursor=" + page.Next
	}
	if fmt.Sprint(seen) != "[c2 c1 c0]" {
		t.Errorf("saw %v", seen)
	}

	s.call("POST", "/webhooks/redeliver", "", `{"event":"`+d.Event.ID+`"}`).expect(t, 200, `{"deliveries":1}`)
	s.get("/webhooks/deliveries?state=given_up").expect(t, 200, `{"deliveries":[]}`)
	s.call("POST", "/webhooks/redeliver", "", `{"event":"`+d.Event.ID+`","endpoint":"other"}`).fails(t, 404, "unknown_event")
	s.call("POST", "/webhooks/redeliver", "", `{"event":"evt_none"}`).fails(t, 404, "unknown_event")
	s.call("POST", "/webhooks/redeliver", "", `{}`).fails(t, 400, "invalid_body", "invalid_type:event")
	s.get("/webhooks/deliveries?state=lost").fails(t, 400, "invalid_query_params", "invalid_value:state")
	s.get("/webhooks/deliveries?limit=1001").fails(t, 400, "invalid_query_params", "too_big:limit")
	s.get("/webhooks/deliveries?cursor=-1").fails(t, 400, "invalid_query_params", "too_small:cursor")
	s.get("/webhooks?x=1").fails(t, 400, "invalid_query_params", "unrecognized_keys:")
	s.call("GET", "/webhooks", "Bearer "+restricted, "").fails(t, 403, "forbidden")
	s.call("GET", "/webhooks/deliveries", "-", "").fails(t, 401, "missing_auth_header")
}
