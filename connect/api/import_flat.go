package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// flatImport is the import of older SDKs: the credentials are beside the rest,
// and their type is the integration's.
type flatImport struct {
	ProviderConfigKey string                     `json:"provider_config_key"`
	ConnectionID      string                     `json:"connection_id"`
	Metadata          json.RawMessage            `json:"metadata"`
	Config            map[string]json.RawMessage `json:"connection_config"`

	AccessToken      string    `json:"access_token"`
	RefreshToken     string    `json:"refresh_token"`
	ExpiresAt        time.Time `json:"expires_at"`
	ExpiresIn        int64     `json:"expires_in"` // seconds
	NoExpiration     bool      `json:"no_expiration"`
	ClientID         string    `json:"oauth_client_id_override"`
	ClientSecret     string    `json:"oauth_client_secret_override"`
	OAuthToken       string    `json:"oauth_token"`
	OAuthTokenSecret string    `json:"oauth_token_secret"`
	Username         string    `json:"username"`
	Password         string    `json:"password"`
	APIKey           string    `json:"api_key"`
	AppID            string    `json:"app_id"`
	InstallationID   string    `json:"installation_id"`
	TokenID          string    `json:"token_id"`
	TokenSecret      string    `json:"token_secret"`
}

func (a *API) importFlat(w http.ResponseWriter, r *http.Request) error {
	var echo map[string]json.RawMessage
	if err := read(r, &echo); err != nil {
		return err
	}
	var in flatImport
	again, err := json.Marshal(echo)
	if err == nil {
		err = json.Unmarshal(again, &in)
	}
	if err != nil {
		return err
	}
	whole := importRequest{ProviderConfigKey: in.ProviderConfigKey, ConnectionID: in.ConnectionID, Metadata: in.Metadata, Config: in.Config}
	if integration, err := a.Connector.Setup.Integration(in.ProviderConfigKey); err == nil {
		whole.Credentials, err = in.credentials(integration)
		if err != nil {
			return err
		}
	}
	c, _, _, err := a.bring(r, &whole)
	if err != nil {
		return err
	}
	if echo["connection_id"], err = json.Marshal(c.ID.Connection); err != nil {
		return err
	}
	return reply(w, http.StatusCreated, echo)
}

// credentials are those of the integration's type.
func (in *flatImport) credentials(integration *connect.Integration) (givenCredentials, error) {
	out := givenCredentials{Type: authModes[integration.Provider.Mode], Fields: map[string]string{}}
	need := func(values map[string]string) error {
		var bad []problem.Field
		for name, value := range values {
			if value == "" {
				bad = append(bad, problem.Field{Code: "invalid_type", Message: "Invalid input: expected string, received undefined", Path: []string{name}})
			}
		}
		if len(bad) > 0 {
			return problem.Invalid("body", bad...)
		}
		return nil
	}
	switch out.Type {
	case "OAUTH2":
		out.AccessToken, out.RefreshToken, out.ExpiresAt = in.AccessToken, in.RefreshToken, in.ExpiresAt
		switch {
		case in.NoExpiration:
			out.ExpiresAt = time.Time{}
		case out.ExpiresAt.IsZero() && in.ExpiresIn > 0:
			out.ExpiresAt = time.Now().Add(time.Duration(in.ExpiresIn) * time.Second)
		}
		if in.ClientID != "" {
			out.Override = &struct {
				ClientID     string `json:"client_id,omitempty"`
				ClientSecret string `json:"client_secret,omitempty"`
			}{in.ClientID, in.ClientSecret}
		}
		return out, need(map[string]string{"access_token": in.AccessToken})
	case "OAUTH1":
		out.OAuthToken, out.OAuthTokenSecret = in.OAuthToken, in.OAuthTokenSecret
		return out, need(map[string]string{"oauth_token": in.OAuthToken, "oauth_token_secret": in.OAuthTokenSecret})
	case "BASIC":
		out.Fields["username"], out.Fields["password"] = in.Username, in.Password
	case "API_KEY":
		out.Fields["apiKey"] = in.APIKey
		return out, need(map[string]string{"api_key": in.APIKey})
	case "TBA":
		out.Fields["token_id"], out.Fields["token_secret"] = in.TokenID, in.TokenSecret
		return out, need(map[string]string{"token_id": in.TokenID, "token_secret": in.TokenSecret})
	case "APP", "CUSTOM":
		out.AppID, out.InstallationID = in.AppID, in.InstallationID
		return out, need(map[string]string{"app_id": in.AppID, "installation_id": in.InstallationID})
	case "NONE":
	default:
		return out, problem.Invalid("body", problem.Field{Code: "custom", Message: "Connections of this type can't be imported by this call", Path: []string{"provider_config_key"}})
	}
	return out, nil
}
