package console

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/keycaddy/keycaddy/connect/policy"
)

type apiKey struct {
	Name      string        `json:"name"`
	Scopes    []string      `json:"scopes"`
	Limits    policy.Limits `json:"limits"`
	Config    bool          `json:"config"`
	CreatedAt string        `json:"created_at"`
	ExpiresAt string        `json:"expires_at"`
	UsedAt    string        `json:"last_used_at"`
	Former    string        `json:"former_key_until"`
	Key       string        `json:"key"`
}

// Limited tells whether it is good for some connections or calls only.
func (k *apiKey) Limited() bool { return !k.Limits.Empty() }

type scope struct {
	Name      policy.Scope
	About     string
	ByDefault bool
}

type keysBody struct {
	Keys         []apiKey
	Scopes       []scope
	Integrations []integration
	Made         *apiKey // whose key is shown, this once
	Wrong        *Refusal
	Entered      map[string]string
}

func listKeys(v *visit) error { return v.keysPage(keysBody{}) }

func (v *visit) keysPage(b keysBody) error {
	var answer struct{ Data []apiKey }
	if err := v.get("/keys", nil, &answer); err != nil {
		return err
	}
	b.Keys = answer.Data
	scopes, about := policy.About()
	for _, s := range scopes {
		b.Scopes = append(b.Scopes, scope{s, about[s], policy.DefaultScopes.Has(s)})
	}
	var err error
	if b.Integrations, err = v.integrations(); err != nil {
		return err
	}
	status := http.StatusOK
	if b.Wrong != nil {
		status = http.StatusBadRequest
	}
	return v.render(v, status, "keys", "API keys", b)
}

func changeKeys(v *visit) error {
	name := v.entered("name")
	at := "/keys/" + url.PathEscape(name)
	made := new(apiKey)
	var err error
	switch v.entered("action") {
	case "create":
		request := map[string]any{"name": name, "scopes": v.r.PostForm["scope"]}
		if request["scopes"] == nil {
			request["scopes"] = []string{}
		}
		limits := map[string]any{}
		if keys := v.r.PostForm["integration"]; len(keys) > 0 {
			limits["integrations"] = keys
		}
		if user := v.entered("end_user"); user != "" {
			limits["end_users"] = []string{user}
		}
		if calls := strings.FieldsFunc(v.entered("calls"), func(r rune) bool { return r == '\n' || r == '\r' }); len(calls) > 0 {
			limits["calls"] = calls
		}
		if rate := v.entered("rate"); rate != "" {
			limits["rate"] = rate
		}
		if len(limits) > 0 {
			request["limits"] = limits
		}
		if expires := v.entered("expires"); expires != "" {
			request["expires_at"] = expires + "T00:00:00Z"
		}
		err = v.call(http.MethodPost, "/keys", request, made)
	case "rotate":
		err = v.call(http.MethodPost, at+"/rotate", map[string]int{"overlap_seconds": 24 * 60 * 60}, made)
	case "revoke":
		if err = v.call(http.MethodDelete, at, nil, nil); err == nil {
			return v.to("/keys")
		}
	default:
		return &Refusal{Status: http.StatusBadRequest, Message: "There is no such action."}
	}
	if err == nil {
		return v.keysPage(keysBody{Made: made})
	}
	refused, err := wrong(err)
	if err != nil {
		return err
	}
	return v.keysPage(keysBody{Wrong: refused, Entered: map[string]string{"name": name, "end_user": v.entered("end_user"), "calls": v.entered("calls"), "rate": v.entered("rate")}})
}
