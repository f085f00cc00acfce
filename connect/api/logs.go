package api

import (
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

type logJSON struct {
	ID                string            `json:"id"`
	Kind              connect.LogKind   `json:"kind"`
	Status            connect.LogStatus `json:"status"`
	ProviderConfigKey string            `json:"provider_config_key,omitempty"`
	ConnectionID      string            `json:"connection_id,omitempty"`
	Provider          string            `json:"provider,omitempty"`
	EndUserID         string            `json:"end_user_id,omitempty"`
	Caller            string            `json:"caller,omitempty"`
	StartedAt         string            `json:"started_at"`
	ChangedAt         string            `json:"changed_at"`
	DurationMS        float64           `json:"duration_ms,omitempty"`
	// Error is what went wrong, in keycaddy's words and in the provider's.
	Error *logErrorJSON `json:"error,omitempty"`
	Call  *callJSON     `json:"call,omitempty"`
	Steps []stepJSON    `json:"steps,omitempty"`
}

type logErrorJSON struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
	Detail  string `json:"provider_message,omitempty"`
}

type callJSON struct {
	Method   string `json:"method"`
	Path     string `json:"path"`
	Status   int    `json:"status"`
	Retries  int    `json:"retries,omitempty"`
	Replayed bool   `json:"replayed,omitempty"`
}

type stepJSON struct {
	At      string `json:"at"`
	Name    string `json:"name"`
	Message string `json:"message,omitempty"`
	Detail  string `json:"provider_message,omitempty"`
}

// noteFetch logs that an app was given a credential: with which key, never what.
func (a *API) noteFetch(r *http.Request, c *connect.Connection) {
	l := connect.Log{
		ID: rand.Text(), Kind: connect.LogFetch, Status: connect.LogSuccess, Caller: a.caller(r),
		Integration: c.Integration, Connection: c.ID.Connection, Provider: c.Provider, Started: time.Now(),
	}
	if c.EndUser != nil {
		l.EndUser = c.EndUser.ID
	}
	a.Connector.Journal.Write(r.Context(), l)
}

// listLogs lists logs, the newest first, without their steps.
func (a *API) listLogs(w http.ResponseWriter, r *http.Request) error {
	in := r.URL.Query()
	q := connect.LogQuery{
		Kind: connect.LogKind(in.Get("kind")), Status: connect.LogStatus(in.Get("status")),
		Integration: in.Get("provider_config_key"), Connection: in.Get("connection_id"), Text: in.Get("text"),
	}
	var bad []problem.Field
	for name, to := range map[string]*time.Time{"since": &q.Since, "until": &q.Until, "changed_since": &q.ChangedSince} {
		if s := in.Get(name); s != "" {
			var err error
			if *to, err = time.Parse(time.RFC3339Nano, s); err != nil {
				bad = append(bad, problem.Field{Code: "invalid_format", Message: "Is no time such as 2026-01-31T12:00:00Z", Path: []string{name}})
			}
		}
	}
	if len(bad) > 0 {
		return problem.Invalid("query_params", bad...)
	}
	var err error
	if q.Limit, q.Before, err = page(r); err != nil {
		return err
	}
	found, err := a.Connector.Store.Logs(r.Context(), q)
	if err != nil {
		return err
	}
	out := []logJSON{}
	for i := range found {
		out = append(out, logOf(&found[i]))
	}
	answer := map[string]any{"logs": out}
	if len(found) == q.Limit {
		answer["next_cursor"] = strconv.FormatInt(found[len(found)-1].Serial, 10)
	}
	return reply(w, http.StatusOK, answer)
}

// getLog returns a log with its steps.
func (a *API) getLog(w http.ResponseWriter, r *http.Request) error {
	l, err := a.Connector.Store.Log(r.Context(), r.PathValue("log"))
	if errors.Is(err, connect.ErrNotFound) {
		return &problem.Problem{Status: http.StatusNotFound, Code: "unknown_log", Message: "There is no such log, or it is not kept any more.", Action: "fix_request"}
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, logOf(&l))
}

func logOf(l *connect.Log) logJSON {
	out := logJSON{
		ID: l.ID, Kind: l.Kind, Status: l.Status, ProviderConfigKey: l.Integration, ConnectionID: l.Connection, Provider: l.Provider,
		EndUserID: l.EndUser, Caller: l.Caller, StartedAt: stamp(l.Started), ChangedAt: stamp(l.Changed), DurationMS: float64(l.Took.Microseconds()) / 1000,
	}
	if l.Code != "" {
		out.Error = &logErrorJSON{Code: l.Code, Message: l.Message, Detail: l.Detail}
	}
	if l.Kind == connect.LogCall {
		out.Call = &callJSON{Method: l.Method, Path: l.Path, Status: l.Answer, Retries: l.Retries, Replayed: l.Replayed}
	}
	for _, s := range l.Steps {
		out.Steps = append(out.Steps, stepJSON{At: stamp(s.At), Name: s.Name, Message: s.Message, Detail: s.Detail})
	}
	return out
}
