package policy

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Limits says which connections and calls a caller is good for. All that are
// given have to hold; of several values of one, any will do. Empty ones limit
// nothing.
type Limits struct {
	// Integrations are keys of integrations.
	Integrations []string `json:"integrations,omitempty"`
	// Connections are ids of connections, in any of the integrations.
	Connections []string `json:"connections,omitempty"`
	// EndUsers are ids of end users, as the app gave them to connect sessions.
	EndUsers []string `json:"end_users,omitempty"`
	// Tags have to be on the connection, all of them.
	Tags map[string]string `json:"tags,omitempty"`
	// Calls are what may be asked of providers: `GET,HEAD /repos/*/issues/**`.
	// See ParseCall.
	Calls []string `json:"calls,omitempty"`
	// Rate is how many calls may be made in a time, such as `100/1m`; as many
	// may come at once. Each node counts for itself. See ParseRate.
	Rate string `json:"rate,omitempty"`
}

// Empty tells whether nothing is limited.
func (l *Limits) Empty() bool {
	return !l.Narrow() && l.Rate == ""
}

// Narrow tells whether some connections or calls are out of reach.
func (l *Limits) Narrow() bool {
	return len(l.Integrations)+len(l.Connections)+len(l.EndUsers)+len(l.Tags)+len(l.Calls) > 0
}

// Bounds of what limits may hold.
const (
	maxValues = 1000 // of one kind
	maxValue  = 255  // bytes of one
)

// Rules are limits made ready to decide by. Nil rules limit nothing.
type Rules struct {
	limits Limits
	calls  []Call
	rate   Rate
}

// Nothing lets no call through.
var Nothing = &Rules{limits: Limits{Calls: []string{""}}}

// Compile makes limits ready. The error names the limit that won't do.
func (l Limits) Compile() (*Rules, error) {
	if l.Empty() {
		return nil, nil
	}
	for _, list := range []struct {
		name   string
		values []string
	}{
		{"integrations", l.Integrations}, {"connections", l.Connections}, {"end_users", l.EndUsers},
		{"tags", slices.Concat(slices.Collect(maps.Keys(l.Tags)), slices.Collect(maps.Values(l.Tags)))},
	} {
		if len(list.values) > maxValues {
			return nil, &LimitError{list.name, fmt.Sprintf("there are more than %d", maxValues)}
		}
		for _, v := range list.values {
			if v == "" || len(v) > maxValue {
				return nil, &LimitError{list.name, fmt.Sprintf("each has 1 to %d characters", maxValue)}
			}
		}
	}
	r := &Rules{limits: l}
	if len(l.Calls) > maxValues {
		return nil, &LimitError{"calls", fmt.Sprintf("there are more than %d", maxValues)}
	}
	for _, text := range l.Calls {
		c, err := ParseCall(text)
		if err != nil {
			return nil, &LimitError{"calls", err.Error()}
		}
		r.calls = append(r.calls, c)
	}
	if l.Rate != "" {
		var err error
		if r.rate, err = ParseRate(l.Rate); err != nil {
			return nil, &LimitError{"rate", err.Error()}
		}
	}
	return r, nil
}

// LimitError is a limit that can't be meant. Limit is its name in JSON.
type LimitError struct{ Limit, Reason string }

func (e *LimitError) Error() string { return e.Limit + ": " + e.Reason }

// Subject is the connection that is to be called.
type Subject struct {
	Integration, Connection string
	EndUser                 string
	Tags                    map[string]string
}

// Integration tells whether any of an integration's connections is in reach.
func (r *Rules) Integration(key string) bool {
	return r == nil || allows(r.limits.Integrations, key)
}

// Named tells whether a connection is in reach as far as its name says.
func (r *Rules) Named(integration, connection string) bool {
	return r == nil || allows(r.limits.Integrations, integration) && allows(r.limits.Connections, connection)
}

// NeedsOwner tells whether it has to be known whose the connection is.
func (r *Rules) NeedsOwner() bool {
	return r != nil && len(r.limits.EndUsers)+len(r.limits.Tags) > 0
}

// Reaches tells whether a connection is in reach.
func (r *Rules) Reaches(s *Subject) bool {
	if r == nil {
		return true
	}
	if !r.Named(s.Integration, s.Connection) || !allows(r.limits.EndUsers, s.EndUser) {
		return false
	}
	for name, want := range r.limits.Tags {
		if got, ok := s.Tags[name]; !ok || got != want {
			return false
		}
	}
	return true
}

func allows(list []string, value string) bool {
	return len(list) == 0 || slices.Contains(list, value)
}

// Decide says which of the calls that are allowed a request is, as it is
// written in the limits; "" if calls aren't limited. Path is canonical, below
// the connection's address and without a leading slash. Errors: *CallError.
func (r *Rules) Decide(method, path, rawQuery string) (rule string, err error) {
	if r == nil || len(r.limits.Calls) == 0 {
		return "", nil
	}
	if rawQuery != "" && overridden(method, rawQuery) {
		return "", &CallError{"the query names another method than the request's"}
	}
	for i := range r.calls {
		if r.calls[i].Matches(method, path) {
			return r.limits.Calls[i], nil
		}
	}
	return "", &CallError{"none of the calls that it is good for is " + method + " with this path"}
}

// Rate is how often calls may be made; zero: as often as they come.
func (r *Rules) Rate() Rate {
	if r == nil {
		return Rate{}
	}
	return r.rate
}

// Limits are what the rules were made of.
func (r *Rules) Limits() Limits {
	if r == nil {
		return Limits{}
	}
	return r.limits
}

// CallError is a call that its caller may not make.
type CallError struct{ Reason string }

func (e *CallError) Error() string { return "the call is not allowed: " + e.Reason }

// Within tells whether limits reach no further than others: whoever has these
// may give those.
func (l *Limits) Within(outer *Limits) bool {
	for _, list := range [][2][]string{
		{l.Integrations, outer.Integrations}, {l.Connections, outer.Connections}, {l.EndUsers, outer.EndUsers}, {l.Calls, outer.Calls},
	} {
		inner, outer := list[0], list[1]
		if len(outer) > 0 && (len(inner) == 0 || slices.ContainsFunc(inner, func(v string) bool { return !slices.Contains(outer, v) })) {
			return false
		}
	}
	for name, v := range outer.Tags {
		if l.Tags[name] != v {
			return false
		}
	}
	if outer.Rate == "" {
		return true
	}
	inner, err := ParseRate(l.Rate)
	if err != nil {
		return false
	}
	most, err := ParseRate(outer.Rate)
	return err == nil && inner.Calls <= most.Calls && float64(inner.Calls)/float64(inner.Per) <= float64(most.Calls)/float64(most.Per)
}

// overridden tells whether a query asks the provider to take the request for one
// of another method, as some frameworks let it (S98).
func overridden(method, rawQuery string) bool {
	for pair := range strings.FieldsFuncSeq(rawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		if !isMethod(unescape(value)) || strings.EqualFold(unescape(value), method) {
			continue
		}
		switch strings.Trim(strings.ReplaceAll(strings.ToLower(unescape(name)), "-", "_"), "_$") {
		case "method", "httpmethod", "http_method", "methodoverride", "method_override", "httpmethodoverride", "http_method_override", "x_http_method", "x_http_method_override", "x_method_override":
			return true
		}
	}
	return false
}

func isMethod(s string) bool {
	switch strings.ToUpper(s) {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// maxRateTime bounds the time of a rate.
const maxRateTime = 24 * time.Hour
