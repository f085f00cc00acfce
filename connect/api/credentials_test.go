package api

import (
	"encoding/json"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

func TestAppsGetTheTokensOfEveryScheme(t *testing.T) {
	c := &scheme.Credential{
		AccessToken: "a", RefreshToken: "r", Fields: map[string]scheme.Secret{"user": "u"},
		Extra: map[string]scheme.Token{"bot": {AccessToken: "b", RefreshToken: "rb"}},
	}
	for mode, want := range map[catalog.Mode]string{
		catalog.ModeOAuth2Code: `{"access_token":"a","tokens":{"bot":{"access_token":"b"}},"type":"OAUTH2"}`,
		catalog.ModeMCPOAuth2:  `{"access_token":"a","tokens":{"bot":{"access_token":"b"}},"type":"MCP_OAUTH2"}`,
		catalog.ModeGitHubApp:  `{"access_token":"a","tokens":{"bot":{"access_token":"b"}},"type":"APP"}`,
		catalog.ModeTwoStep:    `{"token":"a","tokens":{"bot":{"access_token":"b"}},"type":"TWO_STEP","user":"u"}`,
		catalog.ModeJWTBearer:  `{"token":"a","tokens":{"bot":{"access_token":"b"}},"type":"JWT","user":"u"}`,
	} {
		got, err := json.Marshal(credentialsJSON(&catalog.Provider{Mode: mode}, c, false))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v", mode, got, err)
		}
	}
	one := &scheme.Credential{AccessToken: "a", Fields: map[string]scheme.Secret{"oauth_token_secret": "s"}}
	if got, err := json.Marshal(credentialsJSON(&catalog.Provider{Mode: catalog.ModeOAuth1}, one, false)); err != nil || string(got) != `{"oauth_token":"a","oauth_token_secret":"s","type":"OAUTH1"}` {
		t.Errorf("got %s, %v", got, err)
	}
}
