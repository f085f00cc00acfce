package proxy

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// Credentials has the credential of a connection; *connect.Refresher is one.
type Credentials interface {
	Current(ctx context.Context, id connect.ID) (*connect.Bound, error)
	// Whose returns a connection without its credential.
	Whose(ctx context.Context, id connect.ID) (*connect.Connection, error)
	Renewer
}

// Resolve finds out who calls whom. Errors: *connect.AuthError,
// *policy.ScopeError, *connect.RateError, *problem.Problem, and those of
// Credentials.Current.
func (p *Proxy) Resolve(r *http.Request, callers connect.Callers, setup *connect.Setup, c Credentials) (*Call, error) {
	now := time.Now()
	caller, err := callers.Who(r, now)
	if err != nil {
		return nil, err
	}
	if err := caller.Needs(policy.ProxyCall); err != nil {
		return nil, err
	}
	if err := caller.Count(now); err != nil {
		return nil, err
	}
	if err := acceptable(r); err != nil {
		return nil, err
	}
	id, err := named(r.Header)
	if err != nil {
		return nil, err
	}
	call, err := resolve(r.Context(), caller, id, setup, c)
	if err != nil {
		return nil, err
	}
	again, err := asksForRetries(r.Header, p.Retries)
	if err != nil {
		return nil, err
	}
	if again != nil {
		again.facts = call.integration.Provider.Retry
	}
	call.retrying = again
	if call.base, err = p.Compat.base(r.Header, call); err != nil {
		return nil, err
	}
	call.plain = first(r.Header, headerDecompress) == "true"
	return call, nil
}

// resolve finds the connection of a call and its credential, which isn't read
// before it is known that the caller reaches the connection (S99).
func resolve(ctx context.Context, caller *connect.Caller, id connect.ID, setup *connect.Setup, c Credentials) (*Call, error) {
	if !caller.Rules.Integration(id.Integration) {
		return nil, &problem.Problem{Status: http.StatusForbidden, Code: "forbidden", Message: "This API key is not for the integration.", Action: "fix_request"}
	}
	in, err := setup.Integration(id.Integration)
	if err != nil {
		return nil, err
	}
	id.Integration = in.Key // with a connection in memory the key is held, and not the request's copy of it
	if !caller.Rules.Named(id.Integration, id.Connection) {
		return nil, connect.ErrNotFound
	}
	if caller.Rules.NeedsOwner() {
		conn, err := c.Whose(ctx, id)
		if err != nil {
			return nil, err
		}
		if !caller.Reaches(conn) {
			return nil, connect.ErrNotFound // as if there were none
		}
	}
	auth, err := c.Current(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Call{Caller: caller, ID: id, Auth: auth, renewer: c, integration: in, base: auth.Base}, nil
}

// aim decides where a call goes, and whether its caller may make it: one
// canonical form of the path is what the caller's limits are held against, and
// what is sent. The rule is the one that lets it through, "" if there is none.
// Errors: *PathError, *policy.CallError, *problem.Problem.
func (p *Proxy) aim(call *Call, method, path, rawQuery string) (target url.URL, rule string, err error) {
	if p.Compat.EndpointTemplates {
		if path, err = fill(path, call.Auth, url.PathEscape); err != nil {
			return target, "", err
		}
		if rawQuery, err = fill(rawQuery, call.Auth, url.QueryEscape); err != nil {
			return target, "", err
		}
	}
	canonical, err := p.Paths.Canonical(relative(call.base, path))
	if err != nil {
		return target, "", err
	}
	if rule, err = call.Caller.Rules.Decide(method, canonical, rawQuery); err != nil {
		return target, "", err
	}
	target, err = below(call.base, canonical, rawQuery)
	return target, rule, err
}

// Aim says where a proxy without options would send a call of a caller's, and
// which of the caller's rules lets it through, "" if there is none. Nothing is
// sent. Errors: *PathError, *policy.CallError.
func Aim(caller *connect.Caller, b *connect.Bound, method, path, rawQuery string) (target url.URL, rule string, err error) {
	return new(Proxy).aim(&Call{Caller: caller, Auth: b, base: b.Base}, method, path, rawQuery)
}

// The headers that control a call beside those that name its connection.
const (
	headerBaseURL    = "Base-Url-Override"
	headerDecompress = "Decompress"
	headerForward    = "Forward-Headers-On-Redirect"
)

// named reads which connection a request is for. Errors: *problem.Problem.
func named(h http.Header) (connect.ID, error) {
	var bad []problem.Field
	one := func(name, path string) string {
		v := h[name]
		switch {
		case len(v) == 0 || len(v) == 1 && v[0] == "":
			bad = append(bad, problem.Field{Code: "invalid_type", Message: "The header " + name + " is missing", Path: []string{path}})
		case len(v) > 1:
			bad = append(bad, problem.Field{Code: "custom", Message: "The header " + name + " came more than once", Path: []string{path}})
		case len(v[0]) > 255:
			bad = append(bad, problem.Field{Code: "too_big", Message: "The header " + name + " is longer than 255 characters", Path: []string{path}})
		default:
			return v[0]
		}
		return ""
	}
	id := connect.ID{Integration: one(HeaderIntegration, "provider-config-key"), Connection: one(HeaderConnection, "connection-id")}
	for i := range len(id.Connection) {
		if !connectionIDByte(id.Connection[i]) {
			bad = append(bad, problem.Field{Code: "invalid_format", Message: "The header " + HeaderConnection + " has a character that no connection's id has", Path: []string{"connection-id"}})
			break
		}
	}
	for _, c := range []struct{ name, path string }{{headerDecompress, "decompress"}, {headerForward, "forward-headers-on-redirect"}} {
		switch first(h, c.name) {
		case "", "true", "false":
		default:
			bad = append(bad, problem.Field{Code: "invalid_value", Message: "The header " + c.name + " is neither true nor false", Path: []string{c.path}})
		}
	}
	if len(bad) > 0 {
		return id, problem.Invalid("headers", bad...)
	}
	return id, nil
}

// first is a header's first value. It saves Get's look at how the name, which is
// in canonical form, is written.
func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// connectionIDByte tells whether a connection's id may have a character.
func connectionIDByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(`,.;:=+~[]|@${}"'\/_- `, c) >= 0
}

var _ Credentials = (*connect.Refresher)(nil)
