package scheme

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"
)

// registered is what a registration endpoint answers (RFC 7591 section 3.2.1).
type registered struct {
	ClientID          string   `json:"client_id"`
	ClientSecret      string   `json:"client_secret"`
	SecretExpires     int64    `json:"client_secret_expires_at"`
	RedirectURIs      []string `json:"redirect_uris"`
	AuthMethod        string   `json:"token_endpoint_auth_method"`
	RegistrationToken string   `json:"registration_access_token"`
	RegistrationURL   string   `json:"registration_client_uri"`
}

// register makes a client at an authorization server. How is the client's
// authentication to ask for. Errors: *TokenError.
func (s mcp) register(ctx context.Context, at, how string, f Flow) (*Client, error) {
	if err := checkEndpoint(at); err != nil {
		return nil, err
	}
	if how == "" {
		how = "none"
	}
	doc := map[string]any{
		"client_name": userAgent, "redirect_uris": []string{f.RedirectURL},
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
		"token_endpoint_auth_method": how,
	}
	if scopes := s.scopes(f.Scopes, f.Config); scopes != "" {
		doc["scope"] = scopes
	}
	if r := s.provider.Registration; r != nil {
		maps.Copy(doc, r.Params)
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("registering a client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*metadataTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return nil, undiscovered("bad_endpoint", "the registration endpoint can't be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	res, err := s.client.Do(req)
	if err != nil {
		return nil, unreachable(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxMetadata+1))
	if err != nil {
		return nil, unreachable(err)
	}
	if len(answer) > maxMetadata {
		return nil, undiscovered("too_large", "the answer to the registration is larger than 256 KiB")
	}
	// Section 3.2.1 says 201; some answer 200.
	if res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusOK {
		return nil, failure(res, answer, syntaxOf(res.Header.Get("Content-Type")))
	}
	var r registered
	if json.Unmarshal(answer, &r) != nil {
		return nil, undiscovered("bad_registration", "the answer to the registration can't be read")
	}
	return r.client(how, f.RedirectURL, time.Now())
}

// client makes sure that what was registered is what was asked for (S36).
func (r *registered) client(how, redirectURL string, now time.Time) (*Client, error) {
	if r.ClientID == "" || len(r.ClientID) > 2<<10 || !usableToken(r.ClientID) || len(r.ClientSecret) > 8<<10 {
		return nil, undiscovered("bad_registration", "the registration has no usable client id")
	}
	if r.RedirectURIs != nil && (len(r.RedirectURIs) != 1 || r.RedirectURIs[0] != redirectURL) {
		return nil, undiscovered("bad_registration", "the authorization server has registered another callback address")
	}
	if r.AuthMethod == "" {
		r.AuthMethod = how
	}
	switch r.AuthMethod {
	case "none":
		r.ClientSecret = ""
	case "client_secret_post", "client_secret_basic":
		if r.ClientSecret == "" {
			return nil, undiscovered("bad_registration", "the registration has no client secret")
		}
	default:
		return nil, undiscovered("bad_registration", "the authorization server wants clients to prove themselves in a way that isn't supported")
	}
	if r.SecretExpires != 0 && time.Unix(r.SecretExpires, 0).Before(now.Add(time.Hour)) && r.ClientSecret != "" {
		return nil, undiscovered("bad_registration", "the client's secret has ended already, or is about to")
	}
	return &Client{
		ID: r.ClientID, Secret: Secret(r.ClientSecret), AuthMethod: r.AuthMethod,
		RegistrationToken: Secret(r.RegistrationToken), RegistrationURL: r.RegistrationURL,
	}, nil
}
