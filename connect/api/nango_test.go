package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

// vector is a call of Nango's API and what became of it there. They build on
// those before them.
type vector struct {
	Name, Method, Path string
	Auth               string          // the header; "": an API key, "-": none
	Body, Type         string          // Type "-": none
	Session            json.RawMessage // what is opened before; "gone", "reconnect"
	Provider           string          // how the provider behaves
	Keeps              bool            // the connection that it makes is for later ones
	Connect            string          // not a call: an integration that is connected
	User               *connect.EndUser
	Status             int
	Answer             any
	// Why, a line of docs/nango.md, is the reason for which Ours differs.
	Why  string
	Ours *struct {
		Status int
		Answer any // nil: it is not compared
	}
}

// nangoEntries are the providers that the calls were recorded with.
var nangoEntries = map[string]string{
	"golden-oauth2": `
auth_scheme: oauth2_code
authorize: {url: 'BASE/authorize', pkce: true}
token: {url: 'BASE/token'}
token_response: {capture: {account_id: account_id}}
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`,
	"golden-perf-oauth2": `
auth_scheme: oauth2_code
authorize: {url: 'BASE/authorize', pkce: true}
token: {url: 'BASE/token'}
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`,
	"github": `
auth_scheme: oauth2_code
authorize: {url: 'BASE/authorize', pkce: true}
token: {url: 'BASE/token'}
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`,
	"golden-cc": `
auth_scheme: oauth2_client_credentials
token: {url: 'BASE/token'}
cred_fields: [{name: client_id, required: true}, {name: client_secret, required: true, secret: true}]
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`,
	"golden-apikey": `
auth_scheme: api_key
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: 'BASE', headers: {x-api-key: '{cred.api_key}'}}
`,
	"golden-perf-apikey": `
auth_scheme: api_key
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: 'BASE', headers: {x-api-key: '{cred.api_key}'}}
`,
	"golden-retry": `
auth_scheme: api_key
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: 'BASE', headers: {x-api-key: '{cred.api_key}'}}
`,
	"golden-apikey-verify": `
auth_scheme: api_key
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: 'BASE', headers: {x-api-key: '{cred.api_key}'}}
verify: {method: GET, paths: [/whoami]}
`,
	"golden-apikey-domain": `
auth_scheme: api_key
conn_fields: [{name: domain, required: true}]
cred_fields: [{name: api_key, required: true, secret: true}]
request: {base_url: 'https://{conn.domain}', headers: {x-api-key: '{cred.api_key}'}}
`,
	"golden-basic": `
auth_scheme: basic
cred_fields: [{name: username}, {name: password, secret: true}]
request: {base_url: 'BASE', headers: {authorization: "Basic {base64(cred.username, ':', cred.password)}"}}
`,
	"golden-none": `
auth_scheme: none
request: {base_url: 'BASE'}
`,
	"golden-twostep": `
auth_scheme: two_step
token: {url: 'BASE/login', body: json, client_auth: none, params: {user: '{cred.user}', pass: '{cred.pass}'}}
refresh: {mode: reissue}
token_response: {access_token: token, lifetime_s: 3600}
cred_fields: [{name: user, required: true}, {name: pass, required: true, secret: true}]
request: {base_url: 'BASE', headers: {authorization: 'Bearer {token.access_token}'}}
`,
}

// nangoProvider behaves as the one of the recording.
func nangoProvider(how string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case how == "unavailable":
			w.WriteHeader(http.StatusServiceUnavailable)
		case how == "drops":
			panic(http.ErrAbortHandler)
		case how == "refuses":
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"mock says invalid_client"}`)
		case how == "revoked":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_grant"}`)
		case r.URL.Path == "/whoami" && r.Header.Get("X-Api-Key") != "good":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/login":
			fmt.Fprint(w, `{"token":"ts"}`)
		case r.FormValue("grant_type") == "client_credentials":
			fmt.Fprint(w, `{"access_token":"at","token_type":"Bearer","expires_in":3600}`)
		default:
			fmt.Fprint(w, `{"access_token":"at","token_type":"Bearer","refresh_token":"rt","expires_in":3600,"scope":"a b","account_id":"acct_1"}`)
		}
	}
}

// TestNangosCallsAreAnsweredAsThere makes the calls that a running Nango was
// sent, in their order, and compares status and answer: the same members, of the
// same types, and the same codes and paths in errors. What differs is said in
// docs/nango.md.
func TestNangosCallsAreAnsweredAsThere(t *testing.T) {
	docs, err := os.ReadFile("../../docs/nango.md")
	must(t, err)
	file, err := os.ReadFile("testdata/nango.jsonl")
	must(t, err)
	s := serve(t, nangoEntries, false)
	made := make(map[string]string) // integration to connection
	for line := range bytes.Lines(file) {
		var v vector
		must(t, json.Unmarshal(line, &v))
		t.Run(v.Name, func(t *testing.T) {
			s.t = t
			s.token = nangoProvider(v.Provider)
			if v.Connect != "" {
				made[v.Connect] = s.connect(v.Connect, "", v.User, nil).ID.Connection
				return
			}
			if (v.Ours == nil) != (v.Why == "") || !strings.Contains(string(docs), "\n- "+v.Why) {
				t.Errorf("docs/nango.md doesn't say why: %q", v.Why)
			}
			got := s.replay(&v, made)
			status, want := v.Status, v.Answer
			if v.Ours != nil {
				status, want = v.Ours.Status, v.Ours.Answer
			}
			if got.status != status {
				t.Fatalf("got %d, want %d: %s", got.status, status, got.body)
			}
			if v.Keeps {
				var answer struct{ ConnectionID, ProviderConfigKey string }
				must(t, json.Unmarshal([]byte(got.body), &answer))
				made[answer.ProviderConfigKey] = answer.ConnectionID
			}
			if want == nil || want == "<TEXT>" {
				return
			}
			var answer any
			must(t, json.Unmarshal([]byte(got.body), &answer))
			alike(t, "", answer, want)
		})
	}
}

// replay makes a vector's call.
func (s *service) replay(v *vector, made map[string]string) answer {
	s.t.Helper()
	token := connect.SessionPrefix + strings.Repeat("0", 64)
	switch text := string(v.Session); text {
	case "", `"gone"`:
	default:
		to := "/connect/sessions"
		if text == `"reconnect"` {
			to, text = to+"/reconnect", `{"connection_id":"`+made["g-apikey"]+`","integration_id":"g-apikey","end_user":{"id":"u1","email":"u1@example.com"}}`
		}
		var answer struct{ Data struct{ Token string } }
		must(s.t, json.Unmarshal([]byte(s.post(to, text).body), &answer))
		token = answer.Data.Token
	}
	id := made["g-apikey"]
	for _, key := range slices.SortedFunc(maps.Keys(made), func(a, b string) int { return len(b) - len(a) }) {
		if strings.Contains(v.Path+v.Body, key+"&") || strings.HasSuffix(v.Path, "="+key) || strings.Contains(v.Body, `"`+key+`"`) {
			id = made[key]
			break
		}
	}
	fill := strings.NewReplacer("<ID:g-apikey>", made["g-apikey"], "<ID:g-oauth2>", made["g-oauth2"], "<CONNECT_SESSION_TOKEN>", token, "<UNKNOWN_CONNECT_SESSION_TOKEN>", connect.SessionPrefix+strings.Repeat("0", 64),
		"<UNKNOWN_UUID4>", "0d9b2c1e-4f3a-4b5c-8d7e-6f5a4b3c2d1e", "<UUIDV4_1>", id, "<PUBLIC_KEY>", "p", "<ISO_MS_Z>", "2026-01-02T03:04:05.000Z")
	var headers []string
	switch v.Type {
	case "":
	case "-":
		headers = []string{"Content-Type", ""}
	default:
		headers = []string{"Content-Type", v.Type}
	}
	return s.call(v.Method, fill.Replace(v.Path), fill.Replace(v.Auth), fill.Replace(v.Body), headers...)
}

// own are members that keycaddy's answers have beside Nango's.
var own = map[string]bool{
	"retryable": true, "action": true, "request_id": true, "message": true, "errors": true, "status": true, "account": true, "scopes": true, "missing_scopes": true, "cause": true, "payload": true,
}

// free are members that have what was put there; they may be null, as may be
// what isn't known of a user.
var (
	free    = map[string]bool{"tags": true, "metadata": true, "raw": true, "connection_config": true, "integrations_config_defaults": true, "overrides": true}
	unknown = map[string]bool{"email": true, "display_name": true, "webhook_url_override": true, "last_fetched_at": true, "tags": true, "metadata": true, "organization": true}
)

// alike compares an answer with a recorded one.
func alike(t *testing.T, at string, got, want any) {
	t.Helper()
	name := at[strings.LastIndex(at, ".")+1:]
	if reflect.TypeOf(got) != reflect.TypeOf(want) {
		if !unknown[name] || got != nil && want != nil {
			t.Errorf("%s: got %v (%T), want %v", at, got, got, want)
		}
		return
	}
	switch want := want.(type) {
	case map[string]any:
		got := got.(map[string]any)
		if free[name] {
			return
		}
		for name := range got {
			if _, ok := want[name]; !ok && !own[name] {
				t.Errorf("%s.%s: Nango has none, got %v", at, name, got[name])
			}
		}
		for name, w := range want {
			if g, ok := got[name]; ok {
				alike(t, at+"."+name, g, w)
			} else if name != "message" || want["code"] == nil {
				t.Errorf("%s.%s: missing; Nango has %v", at, name, w)
			}
		}
	case []any:
		got := got.([]any)
		if name == "errors" && strings.HasPrefix(at, ".error.") {
			sorted(got)
			sorted(want)
			if len(got) != len(want) {
				t.Errorf("%s: got %v, want %v", at, got, want)
			}
		}
		if (len(got) == 0) != (len(want) == 0) {
			t.Errorf("%s: got %v, want %v", at, got, want)
		}
		for i := range min(len(got), len(want)) {
			alike(t, at, got[i], want[i])
		}
	default:
		if (name == "code" || name == "path" || name == "success") && got != want {
			t.Errorf("%s: got %v, want %v", at, got, want)
		}
	}
}

// sorted puts an error's fields in order: Nango names them in that of its schema.
func sorted(fields []any) {
	slices.SortFunc(fields, func(a, b any) int {
		return strings.Compare(fmt.Sprint(a.(map[string]any)["path"]), fmt.Sprint(b.(map[string]any)["path"]))
	})
}

func TestWhatIsOutOfScopeSaysSoToPages(t *testing.T) {
	s := newService(t)
	for _, target := range []string{"POST /auth/oauth-outbound/g-oauth2?connect_session_token=x", "GET /app-auth/connect"} {
		method, path, _ := strings.Cut(target, " ")
		s.call(method, path, "-", "").fails(t, 501, "not_implemented")
	}
}
