package catalog

import (
	"maps"
	"testing"
)

func TestNamesThatAppsPassAreUnderstood(t *testing.T) {
	for written, want := range map[string]string{
		"apiKey": "api_key", "subdomain": "subdomain", "accountId": "account_id", "APP_ID": "app_id", "endpointURL": "endpoint_url",
		"companyUUID": "company_uuid", "regionID": "region_id", "accounts-server": "accounts_server", "installation.uuid": "installation_uuid",
		"storeURL": "store_url", "api_key": "api_key", "oauth2Host": "oauth2_host", "APIKey": "api_key", "": "",
	} {
		if got := SnakeName(written); got != want {
			t.Errorf("%s: %s", written, got)
		}
	}
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Provider("algolia")
	if err != nil {
		t.Fatal(err)
	}
	got := p.Named(map[string]string{"APP_ID": "1", "apiKey": "2", "notAField": "3"})
	if !maps.Equal(got, map[string]string{"app_id": "1", "api_key": "2", "notAField": "3"}) {
		t.Error(got)
	}
}
