package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

func TestLogsAreListedAndShown(t *testing.T) {
	s := newService(t)
	s.get("/logs").expect(t, 200, `{"logs":[]}`)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	must(t, s.store.WriteLogs(t.Context(), []connect.Log{
		{ID: "a1", Kind: connect.LogConnect, Status: connect.LogFailure, Integration: "g-oauth2", Connection: "c1", Provider: "g-oauth2", EndUser: "u1",
			Code: "access_denied", Message: "the provider has refused", Detail: "The <user> said no", Started: at, Took: 1500 * time.Millisecond,
			Steps: []connect.LogStep{{At: at, Name: "started"}, {At: at.Add(time.Second), Name: "failed", Message: "m", Detail: "d"}}},
		{ID: "b2", Kind: connect.LogCall, Status: connect.LogSuccess, Integration: "g-apikey", Connection: "c2", Caller: "app", Method: "GET", Path: "/a", Answer: 200, Retries: 1, Replayed: true,
			Started: at.Add(time.Hour)},
	}))
	const first = `"id":"a1","kind":"connect","status":"failure","provider_config_key":"g-oauth2","connection_id":"c1","provider":"g-oauth2","end_user_id":"u1",
		"started_at":"<ISO_MS_Z>","changed_at":"<ISO_MS_Z>","duration_ms":1500,"error":{"code":"access_denied","message":"the provider has refused","provider_message":"The <user> said no"}`
	const second = `{"id":"b2","kind":"call","status":"success","provider_config_key":"g-apikey","connection_id":"c2","caller":"app","started_at":"<ISO_MS_Z>","changed_at":"<ISO_MS_Z>",
		"call":{"method":"GET","path":"/a","status":200,"retries":1,"replayed":true}}`
	s.get("/logs").expect(t, 200, `{"logs":[`+second+`,{`+first+`}]}`)
	s.get("/logs/a1").expect(t, 200, `{`+first+`,"steps":[{"at":"<ISO_MS_Z>","name":"started"},{"at":"<ISO_MS_Z>","name":"failed","message":"m","provider_message":"d"}]}`)
	since := "&since=" + url.QueryEscape("2026-01-02T03:04:05Z") + "&until=2026-01-02T04:04:05Z&changed_since=2026-01-01T00:00:00Z"
	s.get("/logs?kind=connect&status=failure&provider_config_key=g-oauth2&connection_id=c1&text=SAID%20no"+since).expect(t, 200, `{"logs":[{`+first+`}]}`)

	var page struct {
		Logs []struct{ ID string }
		Next string `json:"next_cursor"`
	}
	must(t, json.Unmarshal([]byte(s.get("/logs?limit=1").body), &page))
	s.get("/logs?limit=2&cursor="+page.Next).expect(t, 200, `{"logs":[{`+first+`}]}`)

	s.get("/logs/nothing").fails(t, 404, "unknown_log")
	s.get("/logs?kind=song").fails(t, 400, "invalid_query_params", "invalid_value:kind")
	s.get("/logs?status=gone").fails(t, 400, "invalid_query_params", "invalid_value:status")
	s.get("/logs?since=yesterday").fails(t, 400, "invalid_query_params", "invalid_format:since")
	s.get("/logs?limit=0").fails(t, 400, "invalid_query_params", "too_small:limit")
	s.get("/logs?text="+fmt.Sprintf("%0256d", 0)).fails(t, 400, "invalid_query_params", "too_big:text")
	s.call("GET", "/logs", "-", "").fails(t, 401, "missing_auth_header")
	s.call("GET", "/logs/a1", "Bearer "+restricted, "").fails(t, 403, "forbidden")
}

func TestFetchedCredentialsAreLogged(t *testing.T) {
	s := newService(t)
	s.connector.Journal = connect.NewJournal(s.store, zap.NewNop(), nil)
	s.connect("g-apikey", "c1", &connect.EndUser{ID: "u1"}, map[string]string{"api_key": "canary-key"})
	if a := s.get("/connections/c1?provider_config_key=g-apikey"); a.status != 200 || !strings.Contains(a.body, "canary-key") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it writes what there is, and ends
	s.connector.Journal.Run(ctx)
	a := s.get("/logs?kind=fetch")
	for _, want := range []string{`"connection_id":"c1"`, `"caller":"app"`, `"end_user_id":"u1"`, `"status":"success"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s in %s", want, a.body)
		}
	}
	if strings.Count(a.body, `"kind"`) != 1 || strings.Contains(a.body, "canary") {
		t.Errorf("logs %s", a.body)
	}
}
