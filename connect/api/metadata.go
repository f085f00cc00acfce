package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

type metadataRequest struct {
	ConnectionID      idOrIDs         `json:"connection_id"`
	ProviderConfigKey string          `json:"provider_config_key"`
	Metadata          json.RawMessage `json:"metadata"`
}

// idOrIDs is one id, or several.
type idOrIDs struct {
	ids  []string
	many bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *idOrIDs) UnmarshalJSON(data []byte) error {
	i.many = len(data) > 0 && data[0] == '['
	if i.many {
		return json.Unmarshal(data, &i.ids)
	}
	i.ids = make([]string, 1)
	return json.Unmarshal(data, &i.ids[0])
}

// MarshalJSON implements json.Marshaler.
func (i idOrIDs) MarshalJSON() ([]byte, error) {
	if i.many {
		return json.Marshal(i.ids)
	}
	return json.Marshal(i.ids[0])
}

func (a *API) setMetadata(w http.ResponseWriter, r *http.Request) error {
	return a.metadata(w, r, http.StatusCreated, false)
}

func (a *API) updateMetadata(w http.ResponseWriter, r *http.Request) error {
	return a.metadata(w, r, http.StatusOK, true)
}

func (a *API) metadata(w http.ResponseWriter, r *http.Request, status int, merge bool) error {
	var in metadataRequest
	if err := read(r, &in); err != nil {
		return err
	}
	ids := make([]connect.ID, len(in.ConnectionID.ids))
	for n, id := range in.ConnectionID.ids {
		ids[n] = connect.ID{Integration: in.ProviderConfigKey, Connection: id}
	}
	if err := a.storeMetadata(r, ids, in.Metadata, merge); err != nil {
		return err
	}
	return reply(w, status, in)
}

func (a *API) setMetadataOfOne(w http.ResponseWriter, r *http.Request) error {
	return a.metadataOfOne(w, r, http.StatusCreated, false)
}

func (a *API) updateMetadataOfOne(w http.ResponseWriter, r *http.Request) error {
	return a.metadataOfOne(w, r, http.StatusOK, true)
}

// metadataOfOne is for older SDKs: the body is the metadata itself, and the
// integration may be in a header.
func (a *API) metadataOfOne(w http.ResponseWriter, r *http.Request, status int, merge bool) error {
	id := named(r)
	if id.Integration == "" {
		id.Integration = r.Header.Get("Provider-Config-Key")
	}
	if id.Integration == "" || !keepable(id.Integration) {
		return problem.Invalid("query_params", problem.Field{Code: "invalid_type", Message: "Invalid input: expected string, received undefined", Path: []string{"provider_config_key"}})
	}
	var in json.RawMessage
	if err := read(r, &in); err != nil {
		return err
	}
	if err := a.storeMetadata(r, []connect.ID{id}, in, merge); err != nil {
		return err
	}
	return reply(w, status, in)
}

func (a *API) storeMetadata(r *http.Request, ids []connect.ID, metadata json.RawMessage, merge bool) error {
	var err error
	for _, id := range ids {
		if err = a.reach(r, id); errors.Is(err, connect.ErrNotFound) {
			err = &connect.MissingError{ID: id}
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = a.Connector.SetMetadata(r.Context(), ids, metadata, merge)
	}
	var missing *connect.MissingError
	switch {
	case errors.As(err, &missing):
		p := &problem.Problem{
			Status: http.StatusNotFound, Code: "unknown_connection", Action: "fix_request",
			Message: fmt.Sprintf("There is no connection with the id %s for the provider config key %s.", missing.ID.Connection, missing.ID.Integration),
		}
		if len(ids) > 1 {
			p.Message += " None of the connections was changed."
		}
		return p
	case errors.Is(err, connect.ErrMetadataTooLarge):
		return problem.Invalid("body", errTooLarge)
	case err != nil:
		return fmt.Errorf("setting metadata: %w", err)
	}
	return nil
}

var errTooLarge = problem.Field{Code: "too_big", Message: fmt.Sprintf("Is, or would become, larger than %d bytes", connect.MaxMetadata), Path: []string{"metadata"}}
