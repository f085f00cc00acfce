package console

import (
	"html/template"
	"net/url"
	"time"
)

// log is what was done once.
type log struct {
	ID         string    `json:"id"`
	Kind       string    `json:"kind"`
	Status     string    `json:"status"`
	Key        string    `json:"provider_config_key"`
	Connection string    `json:"connection_id"`
	Provider   string    `json:"provider"`
	EndUser    string    `json:"end_user_id"`
	Caller     string    `json:"caller"`
	Started    time.Time `json:"started_at"`
	Changed    time.Time `json:"changed_at"`
	DurationMS float64   `json:"duration_ms"`
	Error      *struct {
		Code     string `json:"code"`
		Message  string `json:"message"`
		Provider string `json:"provider_message"`
	} `json:"error"`
	Call *struct {
		Method   string `json:"method"`
		Path     string `json:"path"`
		Status   int    `json:"status"`
		Retries  int    `json:"retries"`
		Replayed bool   `json:"replayed"`
	} `json:"call"`
	Steps []struct {
		At      time.Time `json:"at"`
		Name    string    `json:"name"`
		Message string    `json:"message"`
		Detail  string    `json:"provider_message"`
	} `json:"steps"`
}

// kinds are those of logs, in words.
var kinds = map[string]string{"connect": "Connecting", "refresh": "Renewal", "call": "Call", "fetch": "Credential fetched"}

// What is a log's kind in words.
func (l *log) What() string { return kinds[l.Kind] }

// Query names the connection that it is about.
func (l *log) Query() template.URL {
	return encoded(url.Values{"integration": {l.Key}, "id": {l.Connection}})
}

type logsBody struct {
	Logs                    []log
	Kind, Status, Text, Key string
	Next                    string
	Integrations            []integration
}

func listLogs(v *visit) error {
	in := v.r.URL.Query()
	b := logsBody{Kind: in.Get("kind"), Status: in.Get("status"), Text: in.Get("text"), Key: in.Get("integration")}
	q := url.Values{"limit": {"50"}}
	for name, value := range map[string]string{"kind": b.Kind, "status": b.Status, "text": b.Text, "provider_config_key": b.Key, "connection_id": in.Get("id"), "cursor": in.Get("cursor")} {
		if value != "" {
			q.Set(name, value)
		}
	}
	var answer struct {
		Logs []log
		Next string `json:"next_cursor"`
	}
	if err := v.get("/logs", q, &answer); err != nil {
		return err
	}
	b.Logs = answer.Logs
	if answer.Next != "" {
		in.Set("cursor", answer.Next)
		b.Next = v.Path + "/logs?" + in.Encode()
	}
	var err error
	if b.Integrations, err = v.integrations(); err != nil {
		return err
	}
	return v.show("logs", "Logs", b)
}

func showLog(v *visit) error {
	var l log
	if err := v.get("/logs/"+url.PathEscape(v.r.URL.Query().Get("id")), nil, &l); err != nil {
		return err
	}
	return v.show("log", l.What(), &l)
}
