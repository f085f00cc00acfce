package scheme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Limits of what is fetched to find an authorization server (S33).
const (
	maxMetadata     = 256 << 10
	metadataTimeout = 5 * time.Second
	wellKnown       = "/.well-known/"
)

// resourceMetadata is RFC 9728 section 2, as far as it is of use.
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	Scopes               []string `json:"scopes_supported"`
}

// server is an authorization server's metadata (RFC 8414 section 2), and what
// it was found for.
type server struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	RegistrationEndpoint  string   `json:"registration_endpoint"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported"`
	AuthMethods           []string `json:"token_endpoint_auth_methods_supported"`
	SendsISS              bool     `json:"authorization_response_iss_parameter_supported"`

	resource string
	scopes   []string
}

// authMethod is how a client is registered to prove itself: not at all if the
// server takes that, or doesn't say.
func (s *server) authMethod() string {
	if len(s.AuthMethods) == 0 {
		return "none"
	}
	for _, how := range []string{"none", "client_secret_post", "client_secret_basic"} {
		if slices.Contains(s.AuthMethods, how) {
			return how
		}
	}
	return "none"
}

func undiscovered(code, text string) error {
	return &TokenError{Class: Transient, Code: code, Description: text}
}

// discover finds the authorization server of an MCP server. Errors: *TokenError.
func (s mcp) discover(ctx context.Context, config map[string]string) (*server, error) {
	at, err := s.provider.Request.BaseURL.Fill(s.env(Grant{Config: config}, nil))
	if err != nil {
		return nil, fmt.Errorf("address of provider %s: %w", s.provider.ID, err)
	}
	if at.Scheme != "https" {
		return nil, undiscovered("not_https", "the server's address does not begin with https://")
	}
	meta, scopes, err := s.resource(ctx, at)
	if err != nil {
		return nil, err
	}
	issuer := origin(at)
	out := &server{}
	if meta != nil {
		if len(meta.AuthorizationServers) == 0 {
			return nil, undiscovered("no_authorization_server", "the server's metadata name no authorization server")
		}
		issuer = meta.AuthorizationServers[0]
		out.resource, out.scopes = meta.Resource, meta.Scopes
	} else {
		// Servers of the protocol's first version are their own authorization
		// server, or name it at their root.
		out.resource = at.String()
	}
	if len(scopes) > 0 {
		out.scopes = scopes
	}
	if err := s.authorizationServer(ctx, issuer, out); err != nil {
		return nil, err
	}
	return out, nil
}

func origin(u *url.URL) string { return "https://" + u.Host }

// resource fetches the metadata of an MCP server, from where the server says in
// its challenge (RFC 9728 section 5.1), or else from its well-known places
// (section 3.1). Nil: it has none. Scopes are those of the challenge.
func (s mcp) resource(ctx context.Context, at *url.URL) (meta *resourceMetadata, scopes []string, err error) {
	root := &url.URL{Scheme: "https", Host: at.Host}
	// What the metadata may be of, by where they are (section 3.3).
	places := map[string]string{
		wellKnownAt(at, "oauth-protected-resource"): at.String(), wellKnownAt(root, "oauth-protected-resource"): root.String(),
	}
	tries := []string{wellKnownAt(at, "oauth-protected-resource"), wellKnownAt(root, "oauth-protected-resource")}
	named, scopes, err := s.challenge(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	if named != "" {
		tries = []string{named}
	}
	for _, place := range tries {
		var m resourceMetadata
		found, err := s.metadata(ctx, place, &m)
		if err != nil {
			return nil, nil, err
		}
		if !found {
			continue
		}
		// S32: metadata of another resource are somebody else's.
		if !sameResource(m.Resource, at.String()) && (places[place] == "" || !sameResource(m.Resource, places[place])) {
			return nil, nil, undiscovered("resource_mismatch", "the server's metadata are of another server")
		}
		return &m, scopes, nil
	}
	if named != "" {
		return nil, nil, undiscovered("no_metadata", "the metadata that the server names are not there")
	}
	return nil, scopes, nil
}

// sameResource compares identifiers byte by byte, but for the slash that the
// root may have or not.
func sameResource(a, b string) bool {
	return a != "" && strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/")
}

// wellKnownAt puts a well-known name between host and path.
func wellKnownAt(u *url.URL, name string) string {
	return "https://" + u.Host + wellKnown + name + strings.TrimRight(u.EscapedPath(), "/")
}

// challenge calls the server without a token and reads where it says that its
// metadata are.
func (s mcp) challenge(ctx context.Context, at *url.URL) (metadata string, scopes []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return "", nil, errors.New("the server's address is unusable")
	}
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("User-Agent", userAgent)
	res, err := s.client.Do(req)
	if err != nil {
		return "", nil, unreachable(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		return "", nil, nil
	}
	for _, h := range res.Header.Values("WWW-Authenticate") {
		for _, c := range parseChallenges(h) {
			if strings.EqualFold(c.scheme, "Bearer") {
				if scope := c.params["scope"]; scope != "" {
					scopes = strings.Fields(scope)
				}
				if metadata == "" {
					metadata = c.params["resource_metadata"]
				}
			}
		}
	}
	return metadata, scopes, nil
}

// authorizationServer fetches the metadata of an issuer (RFC 8414 section 3.1,
// OpenID Connect Discovery section 4).
func (s mcp) authorizationServer(ctx context.Context, issuer string, out *server) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return undiscovered("bad_issuer", "the authorization server's identifier is not an https address")
	}
	places := []string{wellKnownAt(u, "oauth-authorization-server"), wellKnownAt(u, "openid-configuration")}
	if strings.Trim(u.Path, "/") != "" {
		places = append(places, strings.TrimRight(issuer, "/")+wellKnown+"openid-configuration")
	}
	for _, place := range places {
		resource, scopes := out.resource, out.scopes
		found, err := s.metadata(ctx, place, out)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		out.resource, out.scopes = resource, scopes
		return out.check(issuer)
	}
	return undiscovered("no_metadata", "the authorization server has no metadata")
}

// check refuses metadata that can't be trusted or used.
func (s *server) check(issuer string) error {
	if s.Issuer != issuer { // S31, RFC 8414 section 3.3
		return undiscovered("issuer_mismatch", "the metadata are of another authorization server")
	}
	// RFC 8414 has it optional; the protocol doesn't: without it nobody knows
	// whether the challenge is looked at (S13).
	if !slices.Contains(s.ChallengeMethods, "S256") {
		return undiscovered("no_pkce", "the authorization server does not support PKCE with S256")
	}
	for _, endpoint := range []string{s.AuthorizationEndpoint, s.TokenEndpoint} {
		if err := checkEndpoint(endpoint); err != nil {
			return err
		}
	}
	if s.RegistrationEndpoint != "" {
		return checkEndpoint(s.RegistrationEndpoint)
	}
	return nil
}

func checkEndpoint(endpoint string) error {
	if _, err := literal(endpoint); err != nil || !strings.HasPrefix(endpoint, "https://") {
		return undiscovered("bad_endpoint", "the authorization server's metadata name an address that can't be used")
	}
	return nil
}

// metadata fetches a JSON object; false: there is none at the address. Only
// https is spoken, no redirect is followed, and no more is told of what went
// wrong than that it did (S33).
func (s mcp) metadata(ctx context.Context, at string, into any) (found bool, err error) {
	if err := checkEndpoint(at); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return false, undiscovered("bad_endpoint", "the metadata's address can't be used")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	res, err := s.client.Do(req)
	if err != nil {
		return false, unreachable(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 && res.StatusCode < 500 {
		return false, nil
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return false, undiscovered("bad_metadata", "the metadata are not what they should be")
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxMetadata+1))
	if err != nil {
		return false, unreachable(err)
	}
	if len(body) > maxMetadata {
		return false, undiscovered("too_large", "the metadata are larger than 256 KiB")
	}
	if json.Unmarshal(body, into) != nil {
		return false, undiscovered("bad_metadata", "the metadata are not what they should be")
	}
	return true, nil
}
