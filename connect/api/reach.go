package api

import (
	"errors"
	"net/http"
	"slices"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// limits are those of the caller of a request that has reached a call for
// callers with limits; empty if it is trusted.
func limits(r *http.Request) policy.Limits {
	c := callerOf(r)
	if c == nil {
		return policy.Limits{}
	}
	return c.Rules.Limits()
}

// reach returns connect.ErrNotFound for a connection that the caller may have
// nothing to do with, as if there were none.
func (a *API) reach(r *http.Request, id connect.ID) error {
	c := callerOf(r)
	if c == nil {
		return nil
	}
	return a.reaches(r, c, id)
}

// reaches is reach for a given caller.
func (a *API) reaches(r *http.Request, c *connect.Caller, id connect.ID) error {
	if !c.Rules.Named(id.Integration, id.Connection) {
		return connect.ErrNotFound
	}
	if !c.Rules.NeedsOwner() {
		return nil
	}
	conn, err := a.Connector.Store.Connection(r.Context(), id)
	if err == nil && !c.Reaches(&conn) {
		err = connect.ErrNotFound
	}
	return err
}

// outOfReach answers a call that would make something that its caller could
// have nothing to do with.
func outOfReach(what string) error {
	return &problem.Problem{Status: http.StatusForbidden, Code: "forbidden", Message: "This caller is limited: " + what + ".", Action: "fix_request"}
}

// mayOpen tells whether a session leads to nothing but what its caller reaches.
func mayOpen(r *http.Request, s *connect.Session) error {
	c := callerOf(r)
	if c == nil {
		return nil
	}
	if l := limits(r); len(l.Integrations) > 0 && len(s.Allowed) == 0 {
		return outOfReach("say with allowed_integrations which of its integrations the session is for")
	}
	keys := s.Allowed
	if len(keys) == 0 {
		keys = []string{""} // any
	}
	for _, key := range keys {
		subject := policy.Subject{Integration: key, Connection: s.Connection, EndUser: s.UserID(), Tags: s.Tags}
		if !c.Rules.Reaches(&subject) {
			return outOfReach("the session would make a connection out of its reach; look at its integrations, end user, tags and connection_id")
		}
	}
	return nil
}

// mayBring tells whether an import leads to nothing but what its caller reaches,
// also in place of what there is.
func (a *API) mayBring(r *http.Request, i *connect.Import) error {
	c := callerOf(r)
	if c == nil {
		return nil
	}
	subject := policy.Subject{Integration: i.Integration, Connection: i.Connection, Tags: i.Tags}
	if subject.EndUser = i.Tags["end_user_id"]; i.EndUser != nil {
		subject.EndUser = i.EndUser.ID
	}
	err := a.reach(r, connect.ID{Integration: i.Integration, Connection: i.Connection})
	if !c.Rules.Reaches(&subject) || err != nil && !errors.Is(err, connect.ErrNotFound) {
		return outOfReach("the connection would be out of its reach; look at its integration, end user, tags and connection_id")
	}
	if err != nil { // there is none, or it is another's
		if _, err := a.Connector.Store.Connection(r.Context(), connect.ID{Integration: i.Integration, Connection: i.Connection}); err == nil {
			return outOfReach("there is a connection of that id out of its reach")
		}
	}
	return nil
}

// within narrows a query to what its caller reaches; false if that is nothing.
func within(r *http.Request, q *connect.Query) bool {
	l := limits(r)
	for _, one := range []struct {
		asked *[]string
		may   []string
	}{{&q.Integrations, l.Integrations}, {&q.Connections, l.Connections}, {&q.EndUsers, l.EndUsers}} {
		switch {
		case len(one.may) == 0:
		case len(*one.asked) == 0:
			*one.asked = one.may
		default:
			*one.asked = slices.DeleteFunc(slices.Clone(*one.asked), func(v string) bool { return !slices.Contains(one.may, v) })
			if len(*one.asked) == 0 {
				return false
			}
		}
	}
	for name, value := range l.Tags {
		if asked, ok := q.Tags[name]; ok && asked != value {
			return false
		}
		if q.Tags == nil {
			q.Tags = make(map[string]string)
		}
		q.Tags[name] = value
	}
	return true
}
