package api

import (
	"errors"
	"net/http"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

type confirmRequest struct {
	Ticket  string      `json:"ticket"`
	EndUser endUserJSON `json:"end_user"` // who is signed in, in the browser that has brought the ticket
}

// confirmSession takes the ticket that a browser has brought to the app's
// return address, and the app's word on which of its users is signed in there.
// If that is the session's user, the connection is made; else what the browser
// has brought is thrown away, and so is the ticket (S1).
func (a *API) confirmSession(w http.ResponseWriter, r *http.Request) error {
	var in confirmRequest
	if err := read(r, &in); err != nil {
		return err
	}
	arrival, err := a.Connector.Confirm(r.Context(), in.Ticket, connect.Evidence{By: connect.ByApp, User: in.EndUser.ID})
	if err != nil {
		return confirmProblem(arrival, err)
	}
	id := arrival.Connection.ID
	return reply(w, http.StatusOK, map[string]any{"data": map[string]string{
		"connection_id": id.Connection, "provider_config_key": id.Integration, "provider": arrival.Connection.Provider,
	}})
}

// confirmProblem tells an app why there is no connection. What the provider did
// goes by the same codes as on the pages.
func confirmProblem(a connect.Arrival, err error) error {
	switch {
	case errors.Is(err, connect.ErrFlowExpired):
		return &problem.Problem{Status: http.StatusGone, Code: "ticket_expired", Message: "The ticket is unknown, was used before, or is too old. The user has to connect again.", Action: "reconnect"}
	case errors.Is(err, connect.ErrUserMismatch):
		return &problem.Problem{Status: http.StatusForbidden, Code: "link_user_mismatch", Message: "The session was opened for another user than the one that is signed in. Nothing was stored.", Action: "fix_request"}
	case errors.Is(err, connect.ErrProofRefused):
		return &problem.Problem{Status: http.StatusForbidden, Code: "proof_refused", Message: "The integration doesn't accept the app's word on who is there.", Action: "fix_integration"}
	}
	if o := a.Flow.Outcome; o != nil && o.Code != "server_error" && problem.Of(err).Code != problem.Unavailable {
		return &problem.Problem{Status: http.StatusBadGateway, Code: "connection_failed", Message: "The provider did not let the connection be made (" + o.Code + "). Nothing was stored.", Action: "reconnect"}
	}
	return err
}
