package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

type integration struct {
	Key         string `json:"unique_key"`
	Provider    string `json:"provider"`
	DisplayName string `json:"display_name"`
	CreatedAt   string `json:"created_at"`
	UpdatedAt   string `json:"updated_at"`
}

type provider struct {
	Name        string   `json:"name"`
	DisplayName string   `json:"display_name"`
	Categories  []string `json:"categories"`
	AuthMode    string   `json:"auth_mode"`
	Docs        string   `json:"docs"`
	Setup       *struct {
		Steps  []string            `json:"steps"`
		Links  []providerLink      `json:"links"`
		Fields map[string]appField `json:"fields"`
	} `json:"setup"`
}

type providerLink struct {
	Text string `json:"text"`
	URL  string `json:"url"`
}

// appField is a value that the operator gives.
type appField struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	Secret      bool   `json:"secret"`
	Optional    bool   `json:"optional"`
	Example     string `json:"example"`
}

// HasClient tells whether an app is registered with the provider.
func (p *provider) HasClient() bool {
	return slices.Contains([]string{"OAUTH1", "OAUTH2", "TBA", "CUSTOM", "MCP_OAUTH2"}, p.AuthMode)
}

// IsApp tells whether it is a GitHub App, with a key.
func (p *provider) IsApp() bool { return p.AuthMode == "APP" || p.AuthMode == "CUSTOM" }

func (v *visit) integrations() ([]integration, error) {
	var answer struct{ Data []integration }
	err := v.get("/integrations", nil, &answer)
	slices.SortFunc(answer.Data, func(a, b integration) int { return strings.Compare(a.Key, b.Key) })
	return answer.Data, err
}

func (v *visit) provider(id string) (*provider, error) {
	var answer struct{ Data provider }
	err := v.get("/providers/"+url.PathEscape(id), nil, &answer)
	return &answer.Data, err
}

func listIntegrations(v *visit) error {
	all, err := v.integrations()
	if err != nil {
		return err
	}
	return v.show("integrations", "Integrations", all)
}

// providersShown is how many entries of the catalog are shown at once.
const providersShown = 60

type newBody struct {
	Search    string
	Providers []provider
	More      int
	Provider  *provider // chosen
	Callback  string
	Entered   map[string]string
	Wrong     *Refusal
}

// newIntegration chooses from the catalog, and then asks for what it takes.
func newIntegration(v *visit) error {
	in := v.r.URL.Query()
	if id := in.Get("provider"); id != "" {
		return v.newPage(id, map[string]string{"key": id}, nil)
	}
	b := newBody{Search: strings.TrimSpace(in.Get("search"))}
	var answer struct{ Data []provider }
	q := url.Values{}
	if b.Search != "" {
		q.Set("search", b.Search)
	}
	if err := v.get("/providers", q, &answer); err != nil {
		return err
	}
	b.Providers = answer.Data[:min(len(answer.Data), providersShown)]
	b.More = len(answer.Data) - len(b.Providers)
	return v.show("integration_new", "Add an integration", b)
}

func (v *visit) newPage(id string, entered map[string]string, wrong *Refusal) error {
	p, err := v.provider(id)
	if err != nil {
		return err
	}
	if entered["display_name"] == "" {
		entered["display_name"] = p.DisplayName
	}
	status := http.StatusOK
	if wrong != nil {
		status = http.StatusBadRequest
	}
	return v.render(v, status, "integration_new", "Add "+p.DisplayName, newBody{Provider: p, Callback: v.callback(entered["key"]), Entered: entered, Wrong: wrong})
}

// callback is the address that is registered with the provider.
func (v *visit) callback(key string) string {
	to := v.Setup.PublicURL.JoinPath("oauth", "callback")
	if in, err := v.Setup.Integration(key); err == nil {
		return v.Setup.CallbackURL(in)
	}
	if v.Setup.OwnCallbacks && key != "" {
		to = to.JoinPath(key)
	}
	return to.String()
}

// client is what a form has of an integration's client.
func (v *visit) client(p *provider) map[string]string {
	out := map[string]string{"type": p.AuthMode}
	names := []string{}
	if p.HasClient() {
		names = append(names, "client_id", "client_secret", "scopes")
	}
	if p.IsApp() {
		names = append(names, "app_id", "app_link", "private_key")
	}
	for _, name := range names {
		if value := v.entered(name); value != "" {
			out[name] = value
		}
	}
	return out
}

func createIntegration(v *visit) error {
	id := v.entered("provider")
	p, err := v.provider(id)
	if err != nil {
		return err
	}
	key := v.entered("key")
	request := map[string]any{"provider": id, "unique_key": key}
	if name := v.entered("display_name"); name != "" {
		request["display_name"] = name
	}
	if c := v.client(p); len(c) > 1 {
		request["credentials"] = c
	}
	fields := make(map[string]string)
	if p.Setup != nil {
		for name := range p.Setup.Fields {
			if value := v.entered("field." + name); value != "" {
				fields[name] = value
			}
		}
	}
	if len(fields) > 0 {
		request["integration_config"] = fields
	}
	err = v.call(http.MethodPost, "/integrations", request, nil)
	if err == nil {
		return v.to("/integration?" + url.Values{"key": {key}, "done": {"create"}}.Encode())
	}
	refused, err := wrong(err)
	if err != nil {
		return err
	}
	entered := make(map[string]string)
	for name := range v.r.PostForm {
		if name != "client_secret" && name != "private_key" {
			entered[name] = v.entered(name)
		}
	}
	return v.newPage(id, entered, refused)
}

type integrationBody struct {
	Integration integration
	Provider    *provider
	Callback    string
	Done        string
	Wrong       *Refusal
	Check       *clientCheck
}

// clientCheck is what the provider says of the client.
type clientCheck struct {
	Accepted *bool  `json:"accepted"`
	Code     string `json:"code"`
	Message  string `json:"message"`
}

var integrationDone = map[string]string{
	"create": "The integration is there. Open a connect session with its key, or try it from here.",
	"change": "What you entered holds now, on all nodes within a second.",
}

func showIntegration(v *visit) error {
	return v.integrationPage(integrationBody{Done: integrationDone[v.r.URL.Query().Get("done")]})
}

func (v *visit) integrationPage(b integrationBody) error {
	key := v.r.URL.Query().Get("key")
	var answer struct{ Data integration }
	if err := v.get("/integrations/"+url.PathEscape(key), nil, &answer); err != nil {
		return err
	}
	b.Integration, b.Callback = answer.Data, v.callback(key)
	var err error
	if b.Provider, err = v.provider(b.Integration.Provider); err != nil {
		return err
	}
	return v.show("integration", b.Integration.DisplayName, b)
}

func changeIntegration(v *visit) error {
	key := v.r.URL.Query().Get("key")
	at := "/integrations/" + url.PathEscape(key)
	switch v.entered("action") {
	case "delete":
		if v.entered("confirm") != key {
			return v.integrationPage(integrationBody{Wrong: &Refusal{Message: "Enter the key to say that you mean it."}})
		}
		if err := v.call(http.MethodDelete, at, nil, nil); err != nil {
			return v.integrationRefused(err)
		}
		return v.to("/integrations")
	case "check":
		b := integrationBody{Check: new(clientCheck)}
		if err := v.call(http.MethodPost, at+"/check", nil, b.Check); err != nil {
			return v.integrationRefused(err)
		}
		return v.integrationPage(b)
	case "change":
		var answer struct{ Data integration }
		if err := v.get(at, nil, &answer); err != nil {
			return err
		}
		p, err := v.provider(answer.Data.Provider)
		if err != nil {
			return err
		}
		request := map[string]any{"display_name": v.entered("display_name")}
		if c := v.client(p); len(c) > 1 {
			request["credentials"] = c
		}
		if err := v.call(http.MethodPatch, at, request, nil); err != nil {
			return v.integrationRefused(err)
		}
		return v.to("/integration?" + url.Values{"key": {key}, "done": {"change"}}.Encode())
	}
	return &Refusal{Status: http.StatusBadRequest, Message: "There is no such action."}
}

func (v *visit) integrationRefused(err error) error {
	refused, err := wrong(err)
	if err != nil {
		return err
	}
	return v.integrationPage(integrationBody{Wrong: refused})
}
