package nango

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keycaddy/keycaddy/catalog"
)

// modes are the schemes that the file describes. For the others Nango has code.
var modes = map[string]catalog.Mode{
	"OAUTH2": catalog.ModeOAuth2Code, "OAUTH2_CC": catalog.ModeClientCredentials, "API_KEY": catalog.ModeAPIKey,
	"BASIC": catalog.ModeBasic, "NONE": catalog.ModeNone, "TWO_STEP": catalog.ModeTwoStep, "JWT": catalog.ModeJWTBearer,
	"OAUTH1": catalog.ModeOAuth1, "MCP_OAUTH2": catalog.ModeMCPOAuth2, "MCP_OAUTH2_GENERIC": catalog.ModeMCPDiscovery,
}

// provider translates the entry and reads it as strictly as any other.
func (e entry) provider() (*catalog.Provider, error) {
	out, err := e.translate()
	if err != nil {
		return nil, err
	}
	data, err := yaml.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("writing it as YAML: %w", err)
	}
	p, err := catalog.Parse(e.id+".yaml", data)
	if err != nil {
		return nil, errors.New(strings.Join(messages(err), "; "))
	}
	return p, nil
}

// messages are the faults of a file without the lines of one that nobody has
// written.
func messages(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []string
		for _, e := range joined.Unwrap() {
			out = append(out, messages(e)...)
		}
		return out
	}
	var fault *catalog.ParseError
	if errors.As(err, &fault) {
		return []string{fault.Msg}
	}
	return []string{err.Error()}
}

func (e entry) translate() (object, error) {
	mode, ok := modes[e.has.text("auth_mode")]
	switch {
	case !ok:
		return nil, fmt.Errorf("auth_mode %q is done by code there, and not told in the file", e.has.text("auth_mode"))
	case e.has["assertion"] != nil:
		return nil, errors.New("assertion is made by code there")
	case e.has["installation"] != nil:
		return nil, errors.New("an installation that begins at the vendor is done by code there")
	case e.has["integration_config"] != nil && mode != catalog.ModeTwoStep:
		return nil, errors.New("integration_config is put to use by code there")
	}
	out := object{
		"id": e.id, "display_name": e.has.text("display_name"), "vendor": e.vendor(), "auth_scheme": string(mode),
		"categories": e.categories(),
	}
	if out["display_name"] == "" {
		out["display_name"] = e.id
	}
	for _, block := range []func(object) error{e.authorize, e.token, e.response, e.signed, e.request, e.hints} {
		if err := block(out); err != nil {
			return nil, err
		}
	}
	if docs := e.has.text("docs"); strings.HasPrefix(docs, "https://") {
		out["docs"] = object{"reference": docs}
	}
	config := fields(e.has.object("integration_config"))
	out.set("app_fields", anyList(config))
	conn := fields(e.has.object("connection_config"))
	cred := append(fields(e.has.object("credentials")), fields(e.has.object("assertion_option"))...)
	rewrite(out, func(s string) string {
		return reference.ReplaceAllStringFunc(s, func(ref string) string {
			namespace, name, _ := strings.Cut(ref, ".")
			switch {
			case namespace != "cred" || find(cred, name) != nil:
			case find(config, name) != nil: // of the operator, called a credential too
				return "app." + name
			case name == "token" && mode == catalog.ModeTwoStep: // what the request for it has brought
				return "token.access_token"
			}
			return ref
		})
	})
	e.complete(out, conn, cred)
	return out, nil
}

func (e entry) vendor() string {
	if base := e.has.text("alias"); base != "" {
		return base
	}
	return e.id
}

func (e entry) categories() []string {
	var out []string
	for _, c := range e.has.words("categories") {
		if c != "popular" {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return []string{"other"}
	}
	return out
}

// authorize is the leg in the browser, and how a client comes to be known.
func (e entry) authorize(out object) error {
	mode := catalog.Mode(out["auth_scheme"].(string))
	switch mode {
	case catalog.ModeOAuth2Code, catalog.ModeOAuth1, catalog.ModeMCPOAuth2, catalog.ModeMCPDiscovery:
	default:
		return nil
	}
	a := object{}
	if mode != catalog.ModeOAuth1 {
		a["pkce"] = !e.has.flag("disable_pkce")
	}
	if u := e.has.text("authorization_url"); u != "" {
		t, err := choice(u)
		if err != nil {
			return fmt.Errorf("authorization_url: %w", err)
		}
		a["url"] = t
	}
	params, err := branch(e.has.object("authorization_params"))
	if err != nil {
		return fmt.Errorf("authorization_params: %w", err)
	}
	if params["response_type"] == "code" {
		delete(params, "response_type")
	}
	a.set("params", params)
	rename := object{}
	for from, to := range e.has.object("authorization_url_replacements") {
		rename[strings.TrimSuffix(from, "=")] = strings.TrimSuffix(fmt.Sprint(to), "=")
	}
	a.set("rename_params", rename)
	a.set("omit_empty_params", e.has.words("authorization_url_skip_empty") != nil || e.has.flag("authorization_url_skip_empty"))
	a.set("fragment_path", e.has.text("authorization_url_fragment"))
	a.set("raw_scope", slices.Contains(e.has.words("authorization_url_skip_encode"), "scopes"))
	a.set("code_param", e.has.text("authorization_code_param_in_callback"))
	a.set("code_is_url_encoded", e.has.flag("decode_url"))
	captured := object{}
	for _, name := range e.has.words("redirect_uri_metadata") {
		captured[catalog.SnakeName(name)] = name
	}
	a.set("capture_callback_params", captured)
	if mode == catalog.ModeOAuth1 {
		u, err := choice(e.has.text("request_url"))
		if err != nil {
			return fmt.Errorf("request_url: %w", err)
		}
		a.set("request_token_url", u)
		params, err := branch(e.has.object("request_params"))
		if err != nil {
			return fmt.Errorf("request_params: %w", err)
		}
		a.set("request_token_params", params)
		sign := object{"kind": "oauth1"}
		sign.set("signature_method", e.has.text("signature_method"))
		out["sign_request"] = sign
	}
	out["authorize"] = a
	return e.registration(out, mode)
}

func (e entry) registration(out object, mode catalog.Mode) error {
	switch mode {
	case catalog.ModeMCPDiscovery:
		out["registration"] = object{"mode": "discovery"}
	case catalog.ModeMCPOAuth2:
		r := object{"mode": "manual"}
		if e.has.text("client_registration") == "dynamic" {
			r["mode"] = "rfc7591"
			r.set("url", e.has.text("registration_url"))
			r.set("params", e.has.object("registration_params"))
		} else if e.has.text("client_registration") == "metadata_document" {
			r["mode"] = "cimd"
		}
		out["registration"] = r
	}
	return nil
}

// origin is what a base URL is when the file has none: that of the token.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || strings.Contains(raw, "${") {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
