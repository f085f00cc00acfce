package api

import (
	"net/http"
	"time"
)

// Health is what a node says of itself. Whoever asks needs no key, and so learns
// nothing but this.
type Health struct {
	// Result is ok; degraded: known connections work, and something else
	// doesn't; starting: nothing works yet.
	Result string `json:"result"`
	// Degraded are the parts that are out of reach.
	Degraded []HealthPart `json:"degraded,omitempty"`
	// Unwritten is how many renewed credentials the vault hasn't got yet. They
	// are in this node's memory and spool.
	Unwritten int `json:"unwritten,omitempty"`
}

// HealthPart is a part that is out of reach: vault or store.
type HealthPart struct {
	Part  string    `json:"part"`
	Since time.Time `json:"since"`
}

// The answers of a node that has not reached store and vault yet, and of any
// that runs at all.
var (
	Starting = Health{Result: "starting"}
	Live     = Health{Result: "live"}
)

// health tells ok and degraded apart. Both are 200: a node that can't reach its
// vault still serves known connections, and so do the others, which are no
// better off.
func (a *API) health(w http.ResponseWriter, _ *http.Request) error {
	h := Health{Result: "ok", Unwritten: a.Connector.Refresher.Unwritten()}
	o := a.Connector.Refresher.Outage()
	for _, part := range []HealthPart{{"vault", o.Vault}, {"store", o.Store}} {
		if !part.Since.IsZero() {
			part.Since = part.Since.UTC().Truncate(time.Second)
			h.Degraded = append(h.Degraded, part)
		}
	}
	if len(h.Degraded) > 0 || h.Unwritten > 0 {
		h.Result = "degraded"
	}
	return h.Write(w)
}

// live says that the process runs.
func (a *API) live(w http.ResponseWriter, _ *http.Request) error { return Live.Write(w) }

// Write answers with it.
func (h Health) Write(w http.ResponseWriter) error {
	status := http.StatusOK
	if h.Result == Starting.Result {
		status = http.StatusServiceUnavailable
	}
	return reply(w, status, h)
}
