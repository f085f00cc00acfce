package console

import (
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
)

// functions are what templates say things with.
var functions = template.FuncMap{
	"ago": func(t time.Time) string { return ago(time.Since(t)) },
	"iso": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"parse": func(s string) time.Time {
		t, _ := time.Parse(time.RFC3339, s) // the API's own; none is zero
		return t
	},
	"ms":    func(ms float64) string { return took(time.Duration(ms * float64(time.Millisecond))) },
	"took":  took,
	"join":  strings.Join,
	"query": func(name, value string) template.URL { return encoded(url.Values{name: {value}}) },
	"status": func(s string) string {
		return map[string]string{"active": "Active", "needs_reauth": "Needs reconnecting", "disabled": "Switched off", "success": "Done", "failure": "Failed", "running": "Under way", "waiting": "Waiting", "delivered": "Delivered", "given_up": "Given up"}[s]
	},
	"tone": func(s string) string {
		switch s {
		case "active", "success", "delivered":
			return "good"
		case "needs_reauth", "failure", "given_up":
			return "bad"
		}
		return "plain"
	},
	"statuses": func() []string { return []string{"active", "needs_reauth", "disabled"} },
	"modes":    func() []string { return []string{"", "light", "dark"} },
	"results":  func() []string { return []string{"success", "failure", "running"} },
	"states":   func() []string { return []string{"waiting", "delivered", "given_up"} },
	"kinds":    func() map[string]string { return kinds },
	"rows":     func(path string, logs []log, connections []connection) rows { return rows{path, logs, connections} },
	"text":     func(id, text string) named { return named{id, text} },
	"client": func(p *provider, entered map[string]string, isNew bool) clientForm {
		return clientForm{p, entered, isNew}
	},
	"deref": func(b *bool) bool { return b != nil && *b },
	"sub":   func(a, b int) int { return a - b },
}

// What templates that others use are given.
type (
	rows struct {
		Path        string
		Logs        []log
		Connections []connection
	}
	named      struct{ ID, Text string }
	clientForm struct {
		Provider *provider
		Entered  map[string]string
		New      bool
	}
)

// encoded is a query, which templates would encode once more.
func encoded(q url.Values) template.URL { return template.URL(q.Encode()) }

// ago is a time in the past in a word or two.
func ago(d time.Duration) string {
	for _, one := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(d / one.of); n == 1 {
			return "1 " + one.name + " ago"
		} else if n > 1 {
			return fmt.Sprintf("%d %ss ago", n, one.name)
		}
	}
	return "just now"
}

func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// cutTag reads name=value.
func cutTag(s string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(s, "=")
	return strings.TrimSpace(name), strings.TrimSpace(value), ok && strings.TrimSpace(name) != ""
}
