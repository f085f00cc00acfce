package api

import (
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

type explainRequest struct {
	ConnectionID      string `json:"connection_id"`
	ProviderConfigKey string `json:"provider_config_key"`
	// Key is the name of the API key that the call would be made with; "": that
	// of this call, or none where the caller is trusted.
	Key string `json:"key"`
	// Method and Path are the call's. Path may have a query.
	Method string `json:"method"`
	Path   string `json:"path"`
}

type explanation struct {
	Allowed  bool             `json:"allowed"`
	Caller   string           `json:"caller,omitempty"`
	Rule     string           `json:"rule,omitempty"`
	Provider string           `json:"provider,omitempty"`
	BaseURL  string           `json:"base_url,omitempty"`
	URL      string           `json:"url,omitempty"`
	Headers  []string         `json:"headers,omitempty"`
	Query    []string         `json:"query,omitempty"`
	Version  uint64           `json:"credential_version,omitempty"`
	Expires  string           `json:"expires_at,omitempty"`
	Renews   bool             `json:"renewable"`
	Refused  *problem.Problem `json:"refused,omitempty"`
}

// explain says what a call of a connection would get, and why it would be
// refused: names, never values.
func (a *API) explain(w http.ResponseWriter, r *http.Request) error {
	var in explainRequest
	if err := read(r, &in); err != nil {
		return err
	}
	caller, err := a.explained(r, in.Key)
	if err != nil {
		return err
	}
	out := explanation{}
	if caller != nil {
		out.Caller = caller.Name
	}
	if err := a.foresee(r, caller, &in, &out); err != nil {
		out.Allowed, out.Refused = false, problem.Of(err)
	}
	return reply(w, http.StatusOK, out)
}

// explained is whose call is to be explained; nil: nobody's in particular.
func (a *API) explained(r *http.Request, key string) (*connect.Caller, error) {
	self := callerOf(r)
	if key == "" || self != nil && key == self.Name {
		return self, nil
	}
	if l := limits(r); l.Narrow() {
		return nil, outOfReach("it can have its own calls explained, and no other key's")
	}
	c, ok := a.Keys.Named(key)
	if !ok {
		return nil, problem.Invalid("body", problem.Field{Code: "custom", Message: "There is no API key of that name", Path: []string{"key"}})
	}
	return c, nil
}

// foresee goes the way of a call, as far as it gets.
func (a *API) foresee(r *http.Request, caller *connect.Caller, in *explainRequest, out *explanation) error {
	id := connect.ID{Integration: in.ProviderConfigKey, Connection: in.ConnectionID}
	if caller == nil {
		caller = connect.NewCaller("", policy.AllScopes, policy.Limits{}) // whoever may everything
	}
	if err := caller.Needs(policy.ProxyCall); err != nil {
		return err
	}
	if !caller.Rules.Integration(id.Integration) {
		return outOfReach("it is not good for the integration")
	}
	integration, err := a.Connector.Setup.Integration(id.Integration)
	if err != nil {
		return err
	}
	if err := a.reaches(r, caller, id); err != nil {
		return err
	}
	b, err := a.Connector.Refresher.Current(r.Context(), id)
	if err != nil {
		return err
	}
	out.Allowed, out.Provider, out.BaseURL, out.Version, out.Renews = true, b.Provider, b.Base.String(), uint64(b.Version), b.Renewable
	out.Headers, out.Query = b.Names()
	row, err := b.Connection()
	if err != nil {
		return err
	}
	if !row.Expires.IsZero() {
		out.Expires = stamp(row.Expires)
	}
	// An address may have the credential in its path, and is then shown as the
	// entry has it.
	base := integration.Provider.Request.BaseURL
	secret := scheme.CarriesCredential(base.Refs())
	if secret {
		out.BaseURL = base.String()
	}
	if in.Path == "" {
		return nil
	}
	path, query, _ := strings.Cut(in.Path, "?")
	target, rule, err := a.Aim(caller, b, in.Method, path, query)
	if err != nil {
		return err
	}
	if out.Rule = rule; !secret {
		out.URL = target.String()
	}
	return nil
}

func logFields(id connect.ID) []zap.Field {
	return []zap.Field{zap.String("integration", id.Integration), zap.String("connection", id.Connection)}
}
