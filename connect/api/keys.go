package api

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

var keyName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,63}$`)

type keyJSON struct {
	Name   string        `json:"name"`
	Scopes []string      `json:"scopes"`
	Limits policy.Limits `json:"limits"`
	// Config tells a key of the configuration, of which no more is told.
	Config      bool   `json:"config,omitempty"`
	CreatedAt   string `json:"created_at,omitempty"`
	ExpiresAt   string `json:"expires_at,omitempty"`
	LastUsedAt  string `json:"last_used_at,omitempty"`
	FormerUntil string `json:"former_key_until,omitempty"`
	// Key is the key itself, which is told once, to who has made it.
	Key string `json:"key,omitempty"`
}

func keyAnswer(k *connect.APIKey) keyJSON {
	out := keyJSON{Name: k.Name, Scopes: k.Scopes.Names(), Limits: k.Limits}
	if out.Scopes == nil {
		out.Scopes = []string{}
	}
	for into, at := range map[*string]time.Time{&out.CreatedAt: k.Created, &out.ExpiresAt: k.Expires, &out.LastUsedAt: k.Used, &out.FormerUntil: k.FormerUntil} {
		if !at.IsZero() {
			*into = stamp(at)
		}
	}
	return out
}

func (a *API) listKeys(w http.ResponseWriter, r *http.Request) error {
	keys, _, err := a.APIKeys.Store.APIKeys(r.Context())
	if err != nil {
		return err
	}
	all := []keyJSON{}
	for _, name := range a.Keys.Fixed() {
		if c, ok := a.Keys.Named(name); ok {
			all = append(all, keyJSON{Name: name, Scopes: c.Scopes.Names(), Limits: c.Rules.Limits(), Config: true})
		}
	}
	for i := range keys {
		all = append(all, keyAnswer(&keys[i]))
	}
	return reply(w, http.StatusOK, map[string]any{"data": all})
}

type keyRequest struct {
	Name      string         `json:"name"`
	Key       string         `json:"key"`
	Scopes    *[]string      `json:"scopes"`
	Limits    *policy.Limits `json:"limits"`
	ExpiresAt *string        `json:"expires_at"`
}

// apply puts what a request says into a key; what it leaves out stays.
func (in *keyRequest) apply(k *connect.APIKey) (bad []problem.Field) {
	if in.Scopes != nil {
		scopes, err := policy.ParseScopes(*in.Scopes...)
		if err != nil {
			bad = append(bad, problem.Field{Code: "custom", Message: err.Error(), Path: []string{"scopes"}})
		}
		k.Scopes = scopes
	}
	if in.Limits != nil {
		k.Limits = *in.Limits
	}
	if in.ExpiresAt != nil {
		k.Expires = time.Time{}
		if *in.ExpiresAt != "" {
			at, err := time.Parse(time.RFC3339, *in.ExpiresAt)
			if err != nil {
				bad = append(bad, problem.Field{Code: "custom", Message: "Expected a time such as 2027-01-31T12:00:00Z", Path: []string{"expires_at"}})
			}
			k.Expires = at.UTC()
		}
	}
	return bad
}

func (a *API) createKey(w http.ResponseWriter, r *http.Request) error {
	var in keyRequest
	if err := read(r, &in); err != nil {
		return err
	}
	k := connect.APIKey{Name: in.Name, Scopes: policy.DefaultScopes, Created: time.Now()}
	bad := in.apply(&k)
	if !keyName.MatchString(in.Name) {
		bad = append(bad, problem.Field{Code: "custom", Message: "A name has up to 64 letters, digits, spaces, and ._-", Path: []string{"name"}})
	}
	if in.Key == "" {
		in.Key = uuid.NewString()
	} else if !connect.IsAPIKey(in.Key) {
		bad = append(bad, problem.Field{Code: "custom", Message: "A key is a UUID of version 4", Path: []string{"key"}})
	}
	if len(bad) > 0 {
		return problem.Invalid("body", bad...)
	}
	if err := a.mayGive(r, &k); err != nil {
		return err
	}
	k.Key = connect.DigestOf(in.Key)
	if slices.Contains(a.Keys.Fixed(), k.Name) {
		return keyExists
	}
	if err := a.APIKeys.Make(r.Context(), k, a.caller(r)); err != nil {
		if errors.Is(err, connect.ErrExists) {
			return keyExists
		}
		return err
	}
	out := keyAnswer(&k)
	out.Key = in.Key
	return reply(w, http.StatusCreated, map[string]any{"data": out})
}

var keyExists = problem.Invalid("body", problem.Field{Code: "custom", Message: "There is a key of this name, or this key, already", Path: []string{"name"}})

// mayGive returns an error if the caller asks for a key that may do what its own
// may not. Errors: *policy.ScopeError, *problem.Problem.
func (a *API) mayGive(r *http.Request, k *connect.APIKey) error {
	if a.Trusted {
		return nil
	}
	c := callerOf(r)
	if missing, ok := c.Scopes.Lacks(k.Scopes); ok {
		return &policy.ScopeError{Required: missing}
	}
	if own := c.Rules.Limits(); !k.Limits.Within(&own) {
		return &problem.Problem{Status: http.StatusForbidden, Code: "forbidden", Message: "A key can't be given more than the caller's own key has: its limits.", Action: "fix_request"}
	}
	return nil
}

// caller is who makes a call, for the log.
func (a *API) caller(r *http.Request) string {
	if c := callerOf(r); c != nil {
		return c.Name
	}
	return "admin"
}

func (a *API) updateKey(w http.ResponseWriter, r *http.Request) error {
	var in keyRequest
	if err := read(r, &in); err != nil {
		return err
	}
	k, err := a.APIKeys.Change(r.Context(), r.PathValue("name"), func(k *connect.APIKey) error {
		if err := a.mayGive(r, k); err != nil {
			return err
		}
		if bad := in.apply(k); len(bad) > 0 {
			return problem.Invalid("body", bad...)
		}
		return a.mayGive(r, k)
	}, a.caller(r))
	if err != nil {
		return a.noKey(r, err)
	}
	return reply(w, http.StatusOK, map[string]any{"data": keyAnswer(&k)})
}

func (a *API) rotateKey(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Key     string `json:"key"`
		Overlap int64  `json:"overlap_seconds"`
	}
	if err := read(r, &in); err != nil {
		return err
	}
	if in.Key == "" {
		in.Key = uuid.NewString()
	} else if !connect.IsAPIKey(in.Key) {
		return problem.Invalid("body", problem.Field{Code: "custom", Message: "A key is a UUID of version 4", Path: []string{"key"}})
	}
	k, err := a.APIKeys.Rotate(r.Context(), r.PathValue("name"), connect.DigestOf(in.Key), time.Duration(in.Overlap)*time.Second,
		func(k *connect.APIKey) error { return a.mayGive(r, k) }, a.caller(r))
	if errors.Is(err, connect.ErrExists) {
		return problem.Invalid("body", problem.Field{Code: "custom", Message: "There is this key already", Path: []string{"key"}})
	}
	if err != nil {
		return a.noKey(r, err)
	}
	out := keyAnswer(&k)
	out.Key = in.Key
	return reply(w, http.StatusOK, map[string]any{"data": out})
}

func (a *API) revokeKey(w http.ResponseWriter, r *http.Request) error {
	if err := a.APIKeys.Revoke(r.Context(), r.PathValue("name"), a.caller(r)); err != nil {
		return a.noKey(r, err)
	}
	return reply(w, http.StatusOK, map[string]bool{"success": true})
}

// noKey says which key there is not, or why it can't be changed here.
func (a *API) noKey(r *http.Request, err error) error {
	if !errors.Is(err, connect.ErrNotFound) {
		return err
	}
	name := r.PathValue("name")
	if slices.Contains(a.Keys.Fixed(), name) {
		return &problem.Problem{Status: http.StatusConflict, Code: "conflict", Message: fmt.Sprintf("The API key %q is in the configuration, and can be changed there only.", name), Action: "contact_operator"}
	}
	return &problem.Problem{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("There is no API key %q.", name), Action: "fix_request"}
}
