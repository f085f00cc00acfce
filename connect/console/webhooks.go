package console

import (
	"net/http"
	"net/url"
	"time"
)

type webhooksBody struct {
	Endpoints []struct {
		Name        string     `json:"name"`
		Waiting     int        `json:"waiting"`
		Failures    int        `json:"failures"`
		PausedUntil *time.Time `json:"paused_until"`
	}
	Deliveries []struct {
		Event struct {
			ID         string    `json:"id"`
			Kind       string    `json:"kind"`
			At         time.Time `json:"at"`
			Key        string    `json:"provider_config_key"`
			Connection string    `json:"connection_id"`
		} `json:"event"`
		Endpoint string     `json:"endpoint"`
		State    string     `json:"state"`
		Attempts int        `json:"attempts"`
		Next     *time.Time `json:"next"`
		Tried    *time.Time `json:"tried"`
		Status   int        `json:"status"`
		Error    string     `json:"error"`
	}
	State, Done, Next string
}

func listWebhooks(v *visit) error {
	in := v.r.URL.Query()
	b := webhooksBody{State: in.Get("state")}
	if in.Get("done") == "redeliver" {
		b.Done = "The event is delivered again."
	}
	var endpoints struct{ Endpoints any }
	endpoints.Endpoints = &b.Endpoints
	if err := v.get("/webhooks", nil, &endpoints); err != nil {
		return err
	}
	q := url.Values{"limit": {"50"}}
	for name, value := range map[string]string{"state": b.State, "cursor": in.Get("cursor")} {
		if value != "" {
			q.Set(name, value)
		}
	}
	var answer struct {
		Deliveries any
		Next       string `json:"next_cursor"`
	}
	answer.Deliveries = &b.Deliveries
	if err := v.get("/webhooks/deliveries", q, &answer); err != nil {
		return err
	}
	if answer.Next != "" {
		in.Del("done")
		in.Set("cursor", answer.Next)
		b.Next = v.Path + "/webhooks?" + in.Encode()
	}
	return v.show("webhooks", "Webhooks", b)
}

func redeliver(v *visit) error {
	request := map[string]string{"event": v.entered("event"), "endpoint": v.entered("endpoint")}
	if err := v.call(http.MethodPost, "/webhooks/redeliver", request, nil); err != nil {
		return err
	}
	return v.to("/webhooks?done=redeliver")
}
