package caddymodule

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// Trust is how it is made sure that the person at the browser is the user that
// a connect session was opened for. Nothing is redeemed or stored before.
type Trust struct {
	// Which proofs are accepted. `app`: your backend redeems the ticket that the
	// browser brings to a return address, and names its signed-in user. `opener`:
	// a page of one of your origins has opened the window and answers. `person`:
	// whoever is there reads which user will get access, and says that it is
	// them. There is no way to accept none. Default: person, app if there is a
	// return address, opener if there is an origin
	Proofs []string `json:"proofs,omitempty"`

	// Your app's addresses that browsers may be sent back to. A session names
	// one of them, letter by letter.
	ReturnURLs []string `json:"return_urls,omitempty"`

	// The origins of your app's pages, such as `https://app.example.com`.
	AppOrigins []string `json:"app_origins,omitempty"`
}

// Integration is a provider set up with your own client.
type Integration struct {
	// The provider's id in the catalog (`caddy keycaddy providers` lists them).
	// Default: the integration's key
	Provider string `json:"provider,omitempty"`

	// The name that users see. Default: the provider's
	DisplayName string `json:"display_name,omitempty"`

	// The client id of the app that you registered with the provider.
	ClientID string `json:"client_id,omitempty"`

	// Its secret, best given as a placeholder such as
	// `{env.GITHUB_CLIENT_SECRET}` or `{file./run/secrets/github}`.
	ClientSecret string `json:"client_secret,omitempty"`

	// The scopes to ask for. Default: the catalog entry's
	Scopes []string `json:"scopes,omitempty"`

	// Parameters added to the authorization URL.
	AuthorizationParams map[string]string `json:"authorization_params,omitempty"`

	// Gives the integration a callback address of its own; see the app's
	// `own_callbacks`.
	OwnCallback bool `json:"own_callback,omitempty"`

	// Lets a connection become one of another account at the provider when it is
	// connected again. Otherwise that is refused, where the catalog's entry knows
	// how to tell accounts apart (`account`), and nothing is changed. A reconnect
	// session may allow it for itself.
	AllowAccountChange bool `json:"allow_account_change,omitempty"`

	// How its pages look, over the general look.
	Look *Look `json:"look,omitempty"`

	// How it is made sure who connects. Each of the three that is given takes
	// the place of the general one.
	Trust

	// Values for the entry's operator fields (`app_fields`), by name.
	Fields map[string]string `json:"fields,omitempty"`

	// How many token requests a second the provider allows, all nodes together,
	// such as `20` or `0.5`. Calls that would have to wait for longer than a
	// minute are answered with 503. Default: as many as are needed, until the
	// provider asks for a pause
	TokenRate string `json:"token_rate,omitempty"`

	// How long connections that are known go on working while vault or store
	// can't be reached; `0s`: not at all. Default: `1h`
	OutageGrace *caddy.Duration `json:"outage_grace,omitempty"`
}

// started is given to integrations of the configuration as their time of
// creation, which nobody has recorded.
var started = time.Now()

// over returns t with what it leaves out as in general.
func (t Trust) over(general Trust, repl *caddy.Replacer) (out connect.Trust, err error) {
	fill := func(own, general []string) (filled []string) {
		if own == nil {
			own = general
		}
		for _, raw := range own {
			v, rerr := repl.ReplaceOrErr(raw, true, true)
			if rerr != nil {
				err = rerr
			}
			filled = append(filled, v)
		}
		return filled
	}
	for _, p := range fill(t.Proofs, general.Proofs) {
		out.Proofs = append(out.Proofs, connect.Proof(p))
	}
	out.ReturnURLs = fill(t.ReturnURLs, general.ReturnURLs)
	out.AppOrigins = fill(t.AppOrigins, general.AppOrigins)
	return out, err
}

func (in *Integration) make(key string, cat *catalog.Catalog, trust Trust, repl *caddy.Replacer) (*connect.Integration, error) {
	if in == nil || key == "" {
		return nil, errors.New("it has no configuration or no key")
	}
	id := in.Provider
	if id == "" {
		id = key
	}
	p, err := cat.Provider(id)
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	out := &connect.Integration{Key: key, DisplayName: in.DisplayName, Provider: p, AllowAccountChange: in.AllowAccountChange, Created: started}
	if out.DisplayName == "" {
		out.DisplayName = p.DisplayName
	}
	replace := func(name, value string) string {
		v, rerr := repl.ReplaceOrErr(value, true, true)
		if rerr != nil && err == nil {
			err = fmt.Errorf("%s: %w", name, rerr)
		}
		return v
	}
	if out.Look, err = in.Look.load(repl); err != nil {
		return nil, err
	}
	if out.Trust, err = in.Trust.over(trust, repl); err != nil {
		return nil, err
	}
	out.App = scheme.App{
		ClientID:            replace("client_id", in.ClientID),
		ClientSecret:        scheme.Secret(replace("client_secret", in.ClientSecret)),
		Scopes:              in.Scopes,
		AuthorizationParams: in.AuthorizationParams,
		Fields:              make(map[string]string, len(in.Fields)),
	}
	for name, value := range in.Fields {
		out.App.Fields[name] = replace(name, value)
	}
	if err != nil {
		return nil, err
	}
	if in.TokenRate != "" {
		rate, err := strconv.ParseFloat(in.TokenRate, 64)
		if err != nil || !(rate >= 0.001 && rate <= 10_000) {
			return nil, fmt.Errorf("token_rate: %q is not a number of requests a second, such as 20", in.TokenRate)
		}
		out.TokenRate = rate
	}
	if in.OutageGrace != nil {
		if out.OutageGrace = time.Duration(*in.OutageGrace); out.OutageGrace <= 0 {
			out.OutageGrace = -1
		}
	}
	return out, nil
}
