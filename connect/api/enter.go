package api

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// The calls of Nango's SDK for browsers: a page of the app's that has a connect
// session's token sends what its user has entered.

// wrongMode answers a call for another scheme than the integration's.
var wrongMode = &problem.Problem{Status: http.StatusBadRequest, Code: "invalid_auth_mode", Message: "The integration has another way to connect.", Action: "fix_request"}

// enter takes what is entered for integrations of one of the schemes, by Nango's
// names.
func (a *API) enter(modes ...string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		token, err := a.visitor(r)
		if err != nil {
			return err
		}
		in, err := a.Connector.Setup.Integration(r.PathValue("key"))
		if err != nil {
			return err
		}
		if !slices.Contains(modes, authModes[in.Provider.Mode]) {
			return wrongMode
		}
		entered, err := readEntered(r)
		if err != nil {
			return err
		}
		params := make(map[string]string)
		for name, values := range r.URL.Query() {
			if field, ok := strings.CutPrefix(name, "params["); ok && strings.HasSuffix(field, "]") {
				params[strings.TrimSuffix(field, "]")] = values[0]
			}
		}
		maps.Copy(params, entered) // which of them are secret is for the entry to say
		fields, _ := answers(in.Provider, params, entered)
		// A page of another origin gets no answer to its preflight, and whoever
		// is no browser has what it sends already.
		step, err := a.Connector.Start(r.Context(), token, in.Key, fields, connect.Opener{Origin: r.Header.Get("Origin")})
		if err != nil {
			return enterProblem(modes[0], err)
		}
		if step.Connection.UID == "" { // it waits for a proof that this call can't bring
			return &problem.Problem{Status: http.StatusForbidden, Code: "proof_required", Message: "The integration asks for a proof of who is there which this call can't give. Open the session's connect_link, or let pages of your app's origin connect (app_origin, proof opener).", Action: "contact_operator"}
		}
		return reply(w, http.StatusOK, map[string]string{"connectionId": step.Connection.ID.Connection, "providerConfigKey": in.Key})
	}
}

// visitor returns the session's token in a query, if it has an open session.
func (a *API) visitor(r *http.Request) (string, error) {
	q := r.URL.Query()
	for name, values := range q {
		if !keepable(name) || !keepable(strings.Join(values, "")) {
			return "", problem.Invalid("query_params", problem.Field{Code: "custom", Message: "Has a NUL character, or is not UTF-8", Path: []string{}})
		}
	}
	token := q.Get("connect_session_token")
	switch {
	case token == "" && q.Has("public_key"):
		return "", &connect.AuthError{Code: "deprecated_authentication", Message: "Public key authentication is deprecated. Please use connect session authentication instead."}
	case token == "":
		return "", &connect.AuthError{Code: "missing_public_key", Message: "Authentication failed. The request is missing a connect session's token (connect_session_token)."}
	}
	token, err := connect.SessionToken(token)
	if err == nil {
		_, err = a.Connector.Visit(r.Context(), token)
	}
	if err == nil && q.Has("connection_id") {
		err = problem.Invalid("query_params", problem.Field{Code: "custom", Message: "connection_id is forbidden when using session token", Path: []string{"connection_id"}})
	}
	return token, err
}

// readEntered reads a body, which may be missing where nothing is to be entered.
func readEntered(r *http.Request) (map[string]string, error) {
	entered := make(map[string]string)
	if takes, _ := operation(r).TakesBody(); !takes {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n == 0 {
			return entered, err
		}
		return nil, problem.Invalid("body", problem.Field{Code: "unrecognized_keys", Message: "Nothing is to be entered", Path: []string{}})
	}
	var body map[string]any
	if err := read(r, &body); err != nil {
		return nil, err
	}
	flat(entered, "", body)
	delete(entered, "type")
	return entered, nil
}

// flat collects the texts of a body: older apps nest some, as privateKey with id
// and secret.
func flat(into map[string]string, outer string, body map[string]any) {
	for name, v := range body {
		switch v := v.(type) {
		case string:
			switch {
			case outer == "":
				into[name] = v
			case name == "secret":
				into[outer] = v
			default:
				into[outer+strings.ToUpper(name[:1])+name[1:]] = v
			}
		case map[string]any:
			if outer == "" && name != "assertionOption" {
				flat(into, name, v)
			}
		}
	}
}

// enterProblem gives refusals the codes that apps know.
func enterProblem(mode string, err error) error {
	var (
		verify *connect.VerifyError
		token  *scheme.TokenError
		fields scheme.FieldErrors
	)
	switch {
	case errors.As(err, &verify) && verify.Status != 0, errors.As(err, &token) && (mode == "OAUTH2_CC" || mode == "TWO_STEP"):
		p := &problem.Problem{Status: http.StatusBadRequest, Code: "connection_test_failed", Message: "The given credentials were found to be invalid. Please check the credentials and try again.", Action: "fix_request"}
		if errors.As(err, &token) {
			switch mode {
			case "OAUTH2_CC":
				p.Code = "client_credentials_fetch_error"
			case "TWO_STEP":
				p.Code = "two_step_credentials_fetch_error"
			}
			p.Payload = struct{}{}
			p.Message += " The provider says: " + token.Code
			if token.Description != "" {
				p.Message += " (" + token.Description + ")"
			}
		}
		return p
	case errors.As(err, &fields) && mode == "OAUTH2_CC":
		for _, name := range []string{"client_id", "client_secret"} {
			if reason, ok := fields[name]; ok {
				return &problem.Problem{Status: http.StatusBadRequest, Code: "missing_" + name, Message: "Missing param 'oauth_" + name + "': " + reason, Action: "fix_request", Payload: struct{}{}}
			}
		}
	}
	return err
}

// browsers may call what visitors do from pages of the app's own origins and of
// those that may frame the pages.
func (a *API) browsers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !forBrowsers(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		head := w.Header()
		head.Add("Vary", "Origin")
		if origin := r.Header.Get("Origin"); origin != "" && slices.Contains(a.Connector.Setup.AppOrigins(), origin) {
			head.Set("Access-Control-Allow-Origin", origin)
			head.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
			head.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			head.Set("Access-Control-Max-Age", "600")
		}
		if r.Method == http.MethodOptions { // others' pages learn that they may nothing
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// forBrowsers tells whether a path is one of a visitor's calls.
func forBrowsers(path string) bool {
	switch path {
	case "/connect/session", "/connect/telemetry", "/integrations":
		return true
	}
	return slices.ContainsFunc([]string{"/api-auth/", "/auth/", "/oauth2/auth/", "/providers/"}, func(p string) bool { return strings.HasPrefix(path, p) })
}
