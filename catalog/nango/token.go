package nango

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// token is the request for a token, the ones after it, and how it is renewed.
func (e entry) token(out object) error {
	mode := catalog.Mode(out["auth_scheme"].(string))
	switch mode {
	case catalog.ModeOAuth2Code, catalog.ModeClientCredentials, catalog.ModeTwoStep, catalog.ModeOAuth1, catalog.ModeMCPOAuth2:
	default:
		return nil
	}
	if e.has.object("token_url") != nil {
		return errors.New("token_url has several addresses, which code there chooses from")
	}
	t, err := e.tokenRequest(e.has, mode)
	if err != nil {
		return err
	}
	if mode == catalog.ModeOAuth1 {
		t = object{"url": t["url"]}
	}
	out["token"] = t
	var steps []any
	for i, raw := range e.has.list("additional_steps") {
		m, ok := raw.(map[string]any)
		if o, isObject := raw.(object); isObject {
			m, ok = o, true
		}
		if !ok {
			return fmt.Errorf("additional_steps[%d] is not a map", i)
		}
		step, err := e.tokenRequest(m, catalog.ModeTwoStep)
		if err != nil {
			return fmt.Errorf("additional_steps[%d]: %w", i, err)
		}
		delete(step, "client_auth")
		if step["method"] == nil {
			step["method"] = "POST"
		}
		if step["params"] == nil {
			step["body"] = "none"
		}
		steps = append(steps, step)
	}
	out.set("token_steps", steps)
	r, err := e.refresh(mode)
	if err != nil {
		return err
	}
	out.set("refresh", r)
	return nil
}

// grants are what the schemes say by themselves.
var grants = map[catalog.Mode]string{
	catalog.ModeOAuth2Code: "authorization_code", catalog.ModeMCPOAuth2: "authorization_code", catalog.ModeClientCredentials: "client_credentials",
}

func (e entry) tokenRequest(from object, mode catalog.Mode) (object, error) {
	t := object{}
	u, err := choice(from.text("token_url"))
	if err != nil {
		return nil, fmt.Errorf("token_url: %w", err)
	}
	t.set("url", u)
	params, err := branch(from.object("token_params"))
	if err != nil {
		return nil, fmt.Errorf("token_params: %w", err)
	}
	if params["grant_type"] == grants[mode] {
		delete(params, "grant_type")
	}
	t.set("params", params)
	t.set("no_grant_type", mode == catalog.ModeClientCredentials && from.object("token_params")["grant_type"] == nil)
	headers, err := branch(from.object("token_headers"))
	if err != nil {
		return nil, fmt.Errorf("token_headers: %w", err)
	}
	t.set("headers", lowerKeys(headers))
	method := strings.ToUpper(from.text("token_request_method"))
	if method != "" && method != "POST" {
		t["method"] = method
	}
	body := from.text("body_format")
	switch {
	case method == "GET":
		body = "none"
	case mode == catalog.ModeTwoStep && body == "":
		body = "json"
	case body == "":
		body = "form"
	}
	t["body"] = body
	auth := "post"
	if from.text("authorization_method") == "header" {
		auth = "basic"
	}
	switch from.text("token_request_auth_method") {
	case "basic":
		auth = "basic"
	case "private_key_jwt":
		return nil, errors.New("the assertion of private_key_jwt is made by code there")
	case "custom":
		t["client_auth_names"] = object{"client_id": "username", "client_secret": "password"}
	}
	if mode == catalog.ModeTwoStep || mode == catalog.ModeMCPOAuth2 && e.has.text("client_registration") == "dynamic" {
		auth = "none"
	}
	t["client_auth"] = auth
	t.set("mtls", e.has.flag("require_client_certificate"))
	return t, nil
}

func lowerKeys(o object) object {
	out := object{}
	for k, v := range o {
		out[strings.ToLower(k)] = v
	}
	return out
}

func (e entry) refresh(mode catalog.Mode) (object, error) {
	r := object{}
	switch mode {
	case catalog.ModeClientCredentials, catalog.ModeTwoStep:
		r["mode"] = "reissue"
		if e.has["refresh_token_params"] == nil {
			return r, nil
		}
		r["mode"] = "refresh_token"
		params, err := branch(e.has.object("refresh_token_params"))
		if err != nil {
			return nil, fmt.Errorf("refresh_token_params: %w", err)
		}
		r.set("params", params)
		headers, err := branch(e.has.object("refresh_token_headers"))
		if err != nil {
			return nil, fmt.Errorf("refresh_token_headers: %w", err)
		}
		r.set("headers", lowerKeys(headers))
	default:
		params, err := branch(e.has.object("refresh_params"))
		if err != nil {
			return nil, fmt.Errorf("refresh_params: %w", err)
		}
		r.set("declared", len(params) > 0 || e.has["refresh_url"] != nil)
		if params["grant_type"] == "refresh_token" {
			delete(params, "grant_type")
		}
		r.set("params", params)
	}
	if u := e.has.text("refresh_url"); u != "" {
		t, err := choice(u)
		if err != nil {
			return nil, fmt.Errorf("refresh_url: %w", err)
		}
		r["url"] = t
	}
	return r, nil
}

// response says where things are in the answer.
func (e entry) response(out object) error {
	if out["token"] == nil && out["auth_scheme"] != string(catalog.ModeJWTBearer) {
		return nil
	}
	r := object{}
	has := e.has.object("token_response")
	if token, given := has["token"]; given {
		path := fmt.Sprint(token)
		if path == "" {
			path = "$body"
		}
		r["access_token"] = path
	}
	r.set("refresh_token", has.text("refresh_token"))
	switch ends := has.text("token_expiration"); has.text("token_expiration_strategy") {
	case "expireAt":
		r.set("expires_at", ends)
	default:
		r.set("expires_in", ends)
	}
	if ms := e.has.text("token_expires_in_ms"); ms != "" {
		n, err := strconv.Atoi(ms)
		if err != nil {
			return fmt.Errorf("token_expires_in_ms: %w", err)
		}
		r.set("lifetime_s", n/1000)
	}
	if e.has.text("expires_in_unit") == "milliseconds" {
		r["expires_in_unit"] = "ms"
	}
	if margin := e.has.number("token_expiration_buffer"); margin > 0 {
		r["refresh_margin_s"] = margin
	}
	r.set("alternate_root", e.has.text("alternate_access_token_response_path"))
	captured := object{}
	for _, path := range e.has.words("token_response_metadata") {
		captured[catalog.SnakeName(path)] = path
	}
	r.set("capture", captured)
	r.set("capture_cookies", e.has["token_response_headers"] != nil)
	out.set("token_response", r)
	s := object{}
	if sep := e.has.text("scope_separator"); sep != " " {
		s.set("separator", sep)
	}
	s.set("default", e.has.words("default_scopes"))
	out.set("scopes", s)
	return nil
}

// halves is the secret part of a field that holds two things.
var halves = regexp.MustCompile(`^\$\{credentials\.([A-Za-z]+)\.secret\}$`)

// signed is a JWT that the credential signs.
func (e entry) signed(out object) error {
	has := e.has.object("token")
	if has == nil {
		return nil
	}
	key, err := template(has.text("signing_key"))
	if err != nil {
		return fmt.Errorf("token.signing_key: %w", err)
	}
	s := object{"kind": "jwt", "key": key}
	header, err := branch(has.object("header"))
	if err != nil {
		return fmt.Errorf("token.header: %w", err)
	}
	s.set("alg", fmt.Sprint(header["alg"]))
	delete(header, "alg")
	delete(header, "typ")
	s.set("header", header)
	claims, err := branch(has.object("payload"))
	if err != nil {
		return fmt.Errorf("token.payload: %w", err)
	}
	s.set("claims", claims)
	s.set("lifetime_s", has.number("expires_in_ms")/1000)
	if s["alg"] == "HS256" {
		s["key_encoding"] = "utf8"
		if m := halves.FindStringSubmatch(has.text("signing_key")); m != nil { // id:secret in one field
			name := catalog.SnakeName(m[1])
			s["key_encoding"] = "hex"
			s["split"] = object{"field": name, "on": ":", "into": []any{name + "_id", name + "_secret"}}
		}
	}
	if out["auth_scheme"] == string(catalog.ModeJWTBearer) {
		out["token_response"] = object{"lifetime_s": has.number("expires_in_ms") / 1000}
	}
	out["signed"] = s
	return nil
}
