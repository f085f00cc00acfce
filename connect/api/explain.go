package api

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

type explainRequest struct {
	ConnectionID      string `json:"connection_id"`
	ProviderConfigKey string `json:"provider_config_key"`
}

type explanation struct {
	Allowed  bool             `json:"allowed"`
	Provider string           `json:"provider,omitempty"`
	BaseURL  string           `json:"base_url,omitempty"`
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
	id := connect.ID{Integration: in.ProviderConfigKey, Connection: in.ConnectionID}
	integration, err := a.Connector.Setup.Integration(id.Integration)
	if err != nil {
		return reply(w, http.StatusOK, explanation{Refused: problem.Of(err)})
	}
	var b *connect.Bound
	if err = a.reach(r, id); err == nil {
		b, err = a.Connector.Refresher.Current(r.Context(), id)
	}
	if err != nil {
		return reply(w, http.StatusOK, explanation{Refused: problem.Of(err)})
	}
	out := explanation{
		Allowed: true, Provider: b.Connection.Provider, BaseURL: b.Base.String(),
		Version: uint64(b.Version), Renews: b.Renewable,
	}
	// An address may have the credential in its path, and is then shown as the
	// entry has it.
	if base := integration.Provider.Request.BaseURL; scheme.CarriesCredential(base.Refs()) {
		out.BaseURL = base.String()
	}
	out.Headers, out.Query = b.Names()
	if !b.Connection.Expires.IsZero() {
		out.Expires = stamp(b.Connection.Expires)
	}
	return reply(w, http.StatusOK, out)
}

func logFields(id connect.ID) []zap.Field {
	return []zap.Field{zap.String("integration", id.Integration), zap.String("connection", id.Connection)}
}
