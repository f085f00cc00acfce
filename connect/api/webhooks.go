package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

type endpointJSON struct {
	Name        string `json:"name"`
	Waiting     int    `json:"waiting"`
	Failures    int    `json:"failures"`
	PausedUntil string `json:"paused_until,omitempty"`
}

type eventJSON struct {
	ID                string              `json:"id"`
	Kind              connect.EventKind   `json:"kind"`
	At                string              `json:"at"`
	ProviderConfigKey string              `json:"provider_config_key"`
	ConnectionID      string              `json:"connection_id"`
	Provider          string              `json:"provider"`
	Error             *connect.EventError `json:"error,omitempty"`
}

type deliveryJSON struct {
	Event    eventJSON             `json:"event"`
	Endpoint string                `json:"endpoint"`
	State    connect.DeliveryState `json:"state"`
	Attempts int                   `json:"attempts"`
	// Next is when the next attempt is due, of one that waits; Tried when the
	// latest was made, Status what it was answered with, Error why it failed.
	Next   string `json:"next,omitempty"`
	Tried  string `json:"tried,omitempty"`
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

// listEndpoints lists where webhooks were sent, and how these endpoints fare.
func (a *API) listEndpoints(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Connector.Store.Endpoints(r.Context())
	if err != nil {
		return err
	}
	out := []endpointJSON{}
	for _, e := range all {
		j := endpointJSON{Name: e.Name, Waiting: e.Waiting, Failures: e.Failures}
		if e.PausedUntil.After(time.Now()) {
			j.PausedUntil = stamp(e.PausedUntil)
		}
		out = append(out, j)
	}
	return reply(w, http.StatusOK, map[string]any{"endpoints": out})
}

// listDeliveries lists deliveries, the newest first.
func (a *API) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	in := r.URL.Query()
	q := connect.DeliveryQuery{
		State: connect.DeliveryState(in.Get("state")), Endpoint: in.Get("endpoint"), Event: in.Get("event"),
		Integration: in.Get("provider_config_key"), Connection: in.Get("connection_id"),
	}
	var err error
	if q.Limit, q.Before, err = page(r); err != nil {
		return err
	}
	found, err := a.Connector.Store.Deliveries(r.Context(), q)
	if err != nil {
		return err
	}
	out := []deliveryJSON{}
	for i := range found {
		out = append(out, deliveryOf(&found[i]))
	}
	answer := map[string]any{"deliveries": out}
	if len(found) == q.Limit {
		answer["next_cursor"] = strconv.FormatInt(found[len(found)-1].Serial, 10)
	}
	return reply(w, http.StatusOK, answer)
}

func deliveryOf(d *connect.Delivery) deliveryJSON {
	e := &d.Event
	out := deliveryJSON{
		Event:    eventJSON{ID: e.ID, Kind: e.Kind, At: stamp(e.At), ProviderConfigKey: e.Integration, ConnectionID: e.Connection, Provider: e.Provider, Error: e.Error},
		Endpoint: d.Endpoint, State: d.State, Attempts: d.Attempts, Status: d.Status, Error: d.Error,
	}
	if d.State == connect.DeliveryWaiting {
		out.Next = stamp(d.Next)
	}
	if !d.Tried.IsZero() {
		out.Tried = stamp(d.Tried)
	}
	return out
}

// pageSize is how many rows a page of deliveries or logs has unless the caller
// says.
const pageSize = 100

// page reads the parameters of a list that is paged by serial, which are numbers
// as the document says.
func page(r *http.Request) (limit int, before int64, err error) {
	limit = pageSize
	in := r.URL.Query()
	if s := in.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil {
			return 0, 0, err
		}
	}
	if s := in.Get("cursor"); s != "" {
		if before, err = strconv.ParseInt(s, 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return limit, before, nil
}

// redeliver has an event delivered again.
func (a *API) redeliver(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Event    string `json:"event"`
		Endpoint string `json:"endpoint"`
	}
	if err := read(r, &in); err != nil {
		return err
	}
	n, err := a.Connector.Store.Redeliver(r.Context(), in.Event, in.Endpoint)
	if errors.Is(err, connect.ErrNotFound) {
		return &problem.Problem{Status: http.StatusNotFound, Code: "unknown_event", Message: "No such event was for that endpoint, or it is not kept any more.", Action: "fix_request"}
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, map[string]int{"deliveries": n})
}
