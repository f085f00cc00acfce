package api

import (
	"net/http"
	"slices"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

type hourJSON struct {
	Hour      string            `json:"hour"`
	Kind      connect.LogKind   `json:"kind"`
	Status    connect.LogStatus `json:"status"`
	Count     int               `json:"count"`
	AverageMS float64           `json:"average_ms"`
}

// getStatistics counts connections by status, and what has happened by hour.
func (a *API) getStatistics(w http.ResponseWriter, r *http.Request) error {
	hours := number(r.URL.Query().Get("hours"))
	if hours == 0 {
		hours = 24
	}
	since := time.Now().Truncate(time.Hour).Add(-time.Duration(hours-1) * time.Hour)
	s, err := a.Connector.Store.Statistics(r.Context(), since)
	if err != nil {
		return err
	}
	connections := map[connect.Status]int{connect.StatusActive: 0, connect.StatusNeedsReauth: 0, connect.StatusDisabled: 0}
	for status, n := range s.Connections {
		connections[status] = n
	}
	out := []hourJSON{}
	for _, h := range s.Hours {
		out = append(out, hourJSON{Hour: stamp(h.Hour), Kind: h.Kind, Status: h.Status, Count: h.Count, AverageMS: float64(h.Took.Microseconds()) / 1000})
	}
	slices.SortFunc(out, func(a, b hourJSON) int {
		return slices.Compare([]string{a.Hour, string(a.Kind), string(a.Status)}, []string{b.Hour, string(b.Kind), string(b.Status)})
	})
	return reply(w, http.StatusOK, map[string]any{"connections": connections, "hours": out})
}
