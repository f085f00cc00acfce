package demo_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

func TestCodeFlow(t *testing.T) {
	v := newVisit(t, demo.Options{})
	got := v.connect("grace")
	if got.Type != "Bearer" || got.Expires != 10 || got.Scope != "read write" || got.Access == got.Refresh {
		t.Errorf("got %+v", got)
	}
	var me struct {
		Account, Name, Scope string
		Calls                int
		ExpiresIn            float64 `json:"token_expires_in"`
	}
	decode(t, v.api("GET", "/api/me", got.Access), &me)
	if me.Account != "grace" || me.Name != "Grace Hopper" || me.Scope != "read write" || me.Calls != 1 || me.ExpiresIn <= 0 || me.ExpiresIn > 10 {
		t.Errorf("got %+v", me)
	}
	if v.opens(got.Refresh) {
		t.Error("a refresh token opens the API")
	}
}

func TestCodeIsBound(t *testing.T) {
	other := map[string]string{"a": "1", demo.DefaultClientID: demo.DefaultClientSecret}
	tests := map[string]func(form url.Values){
		"wrong verifier":       func(f url.Values) { f.Set("code_verifier", strings.Repeat("x", 43)) },
		"challenge for it":     func(f url.Values) { f.Set("code_verifier", challenge(verifier)) },
		"short verifier":       func(f url.Values) { f.Set("code_verifier", verifier[:42]) },
		"other redirect URI":   func(f url.Values) { f.Set("redirect_uri", "http://demo.test/oauth/callback") },
		"other client's":       func(f url.Values) { f.Set("client_id", "a"); f.Set("client_secret", "1") },
		"refresh token's name": func(f url.Values) { f.Set("code", "demo_refresh_x") },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVisit(t, demo.Options{Clients: other})
			form := url.Values{
				"grant_type": {"authorization_code"}, "redirect_uri": {callback}, "code_verifier": {verifier},
				"code":      {v.decide(authorization(), "allow", "ada").Get("code")},
				"client_id": {demo.DefaultClientID}, "client_secret": {demo.DefaultClientSecret},
			}
			change(form)
			var got tokens
			res := v.post("/token", form)
			decode(t, res, &got)
			if res.StatusCode != 400 || got.Error != "invalid_grant" || got.Access != "" {
				t.Errorf("got %d %+v, want invalid_grant", res.StatusCode, got)
			}
		})
	}
	t.Run("no verifier", func(t *testing.T) {
		v := newVisit(t, demo.Options{})
		code := v.decide(authorization(), "allow", "ada").Get("code")
		if got := v.token("grant_type", "authorization_code", "code", code, "redirect_uri", callback); got.Error != "invalid_request" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestCodeUsedTwiceRevokesWhatCameOfIt(t *testing.T) {
	v := newVisit(t, demo.Options{})
	code := v.decide(authorization(), "allow", "ada").Get("code")
	first := v.redeem(code)
	if got := v.redeem(code); got.status != 400 || got.Error != "invalid_grant" {
		t.Errorf("second use: got %+v", got)
	}
	if v.opens(first.Access) || v.refresh(first.Refresh).Error != "invalid_grant" {
		t.Error("the first use's tokens are still good")
	}
	if s := v.Stats(); s.FamiliesRevoked != 1 || s.AccessValid != 0 || s.RefreshValid != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestRefresh(t *testing.T) {
	v := newVisit(t, demo.Options{})
	first, bystander := v.connect("ada"), v.connect("ada")
	second := v.refresh(first.Refresh)
	third := v.refresh(second.Refresh)
	if second.status != 200 || third.status != 200 || second.Refresh == first.Refresh || third.Access == second.Access {
		t.Fatalf("got %+v, then %+v", second, third)
	}
	if !v.opens(third.Access) || !v.opens(first.Access) {
		t.Error("a token of before or after the refresh doesn't open the API")
	}
	// A spent token, however old, brings all of its family down.
	if got := v.refresh(first.Refresh); got.status != 400 || got.Error != "invalid_grant" {
		t.Errorf("reuse: got %+v", got)
	}
	if v.opens(third.Access) || v.refresh(third.Refresh).Error != "invalid_grant" {
		t.Error("the family outlived a reuse")
	}
	if !v.opens(bystander.Access) || v.refresh(bystander.Refresh).status != 200 {
		t.Error("another family died with it")
	}
	s := v.Stats()
	if s.Refreshes != 3 || s.ReuseDetected != 1 || s.FamiliesRevoked != 1 || s.TokenCalls["refresh_token"] != 5 || s.TokenCalls["authorization_code"] != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestOneOfManyRefreshesWins(t *testing.T) {
	v := newVisit(t, demo.Options{})
	first := v.connect("ada")
	var wg sync.WaitGroup
	got := make([]tokens, 100)
	for i := range got {
		wg.Go(func() { got[i] = v.refresh(first.Refresh) })
	}
	wg.Wait()
	won := 0
	for _, g := range got {
		if g.status == 200 {
			won++
		} else if g.Error != "invalid_grant" {
			t.Errorf("got %+v", g)
		}
	}
	if s := v.Stats(); won != 1 || s.Refreshes != 1 || s.ReuseDetected != 99 || s.FamiliesRevoked != 1 {
		t.Errorf("%d won; %+v", won, s)
	}
}

func TestRefreshScope(t *testing.T) {
	v := newVisit(t, demo.Options{})
	first := v.connect("ada")
	if got := v.token("grant_type", "refresh_token", "refresh_token", first.Refresh, "scope", "read admin"); got.Error != "invalid_scope" {
		t.Errorf("wider: got %+v", got)
	}
	less := v.token("grant_type", "refresh_token", "refresh_token", first.Refresh, "scope", "read")
	if less.Scope != "read" {
		t.Errorf("narrower: got %+v", less)
	}
	if got := v.refresh(less.Refresh); got.Scope != "read write" {
		t.Errorf("the next: got %+v", got)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, demo.Options{AccessTTL: 1500 * time.Millisecond, RefreshTTL: time.Hour})
		first := v.connect("ada")
		if first.Expires != 2 {
			t.Errorf("expires_in is %d", first.Expires)
		}
		time.Sleep(1499 * time.Millisecond)
		if !v.opens(first.Access) {
			t.Error("the access token expired too early")
		}
		time.Sleep(time.Millisecond)
		if v.opens(first.Access) {
			t.Error("the access token outlived its time")
		}
		second := v.refresh(first.Refresh)
		if !v.opens(second.Access) {
			t.Error("the new access token isn't good")
		}
		time.Sleep(time.Hour)
		if got := v.refresh(second.Refresh); got.Error != "invalid_grant" {
			t.Errorf("an expired refresh token: got %+v", got)
		}
		code := v.decide(authorization(), "allow", "ada").Get("code")
		time.Sleep(time.Minute)
		if got := v.redeem(code); got.Error != "invalid_grant" {
			t.Errorf("an expired code: got %+v", got)
		}
	})
}

func TestGraceWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, demo.Options{GraceWindow: 5 * time.Second})
		first := v.connect("ada")
		v.refresh(first.Refresh)
		time.Sleep(4 * time.Second)
		again := v.refresh(first.Refresh)
		if again.status != 200 || again.Refresh == first.Refresh {
			t.Errorf("within: got %+v", again)
		}
		time.Sleep(time.Second)
		if got := v.refresh(first.Refresh); got.Error != "invalid_grant" {
			t.Errorf("after: got %+v", got)
		}
		if v.refresh(again.Refresh).status == 200 {
			t.Error("the family outlived a reuse")
		}
	})
}

func TestKeepRefreshToken(t *testing.T) {
	v := newVisit(t, demo.Options{KeepRefreshToken: true})
	first := v.connect("ada")
	for range 3 {
		if got := v.refresh(first.Refresh); got.status != 200 || got.Refresh != "" {
			t.Errorf("got %+v", got)
		}
	}
}

func TestFaults(t *testing.T) {
	var before, after demo.Fault
	v := newVisit(t, demo.Options{
		TokenFault: func(w http.ResponseWriter, r *http.Request, grant string) bool {
			return before != nil && before(w, r, grant)
		},
		AfterRotate: func(w http.ResponseWriter, r *http.Request, grant string) bool {
			return after != nil && after(w, r, grant)
		},
	})
	unavailable := func(w http.ResponseWriter, r *http.Request, grant string) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"error":"` + grant + `"}`))
		return true
	}
	first := v.connect("ada")
	before = unavailable
	if got := v.refresh(first.Refresh); got.status != 503 || got.Error != "refresh_token" {
		t.Errorf("before: got %+v", got)
	}
	before = nil
	second := v.refresh(first.Refresh)
	if second.status != 200 {
		t.Errorf("a fault before spent the token: %+v", second)
	}
	after = unavailable
	if got := v.refresh(second.Refresh); got.status != 503 {
		t.Errorf("after: got %+v", got)
	}
	after = nil
	if got := v.refresh(second.Refresh); got.Error != "invalid_grant" || v.Stats().ReuseDetected != 1 {
		t.Errorf("a fault after didn't spend the token: %+v", got)
	}
}

func TestClientCredentials(t *testing.T) {
	v := newVisit(t, demo.Options{})
	got := v.token("grant_type", "client_credentials", "scope", "all")
	if got.Refresh != "" || got.Scope != "all" || !v.opens(got.Access) {
		t.Errorf("got %+v", got)
	}
}

func TestClientAuthentication(t *testing.T) {
	v := newVisit(t, demo.Options{Clients: map[string]string{"a b:c": "p%+:ö"}})
	basic := func(id, secret string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
	}
	encoded := basic(url.QueryEscape("a b:c"), url.QueryEscape("p%+:ö"))
	tests := map[string]struct {
		authorization string
		form          url.Values
		status        int
		want          string
	}{
		"Basic, encoded":        {encoded, url.Values{}, 200, ""},
		"Basic, same client_id": {encoded, url.Values{"client_id": {"a b:c"}}, 200, ""},
		"post":                  {"", url.Values{"client_id": {"a b:c"}, "client_secret": {"p%+:ö"}}, 200, ""},
		"Basic, not encoded":    {basic("a b:c", "p%+:ö"), url.Values{}, 401, "invalid_client"},
		"both":                  {encoded, url.Values{"client_secret": {"p%+:ö"}}, 400, "invalid_request"},
		"two clients":           {encoded, url.Values{"client_id": {"x"}}, 400, "invalid_request"},
		"another scheme":        {"Bearer x", url.Values{"client_id": {"a b:c"}}, 401, "invalid_client"},
		"wrong secret":          {"", url.Values{"client_id": {"a b:c"}, "client_secret": {"x"}}, 401, "invalid_client"},
		"no secret":             {"", url.Values{"client_id": {"a b:c"}}, 401, "invalid_client"},
		"unknown":               {"", url.Values{"client_id": {"x"}, "client_secret": {""}}, 401, "invalid_client"},
		"nobody":                {"", url.Values{}, 401, "invalid_client"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.form.Set("grant_type", "client_credentials")
			header := []string{}
			if test.authorization != "" {
				header = []string{"Authorization", test.authorization}
			}
			res := v.post("/token", test.form, header...)
			var got tokens
			decode(t, res, &got)
			if res.StatusCode != test.status || got.Error != test.want {
				t.Errorf("got %d %q, want %d %q", res.StatusCode, got.Error, test.status, test.want)
			}
			if res.StatusCode == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic ") {
				t.Error("no challenge")
			}
		})
	}
}

func TestTokenRequestErrors(t *testing.T) {
	v := newVisit(t, demo.Options{})
	if got := v.token("grant_type", "password"); got.status != 400 || got.Error != "unsupported_grant_type" {
		t.Errorf("another grant: got %+v", got)
	}
	if got := v.token(); got.Error != "invalid_request" {
		t.Errorf("no grant: got %+v", got)
	}
	if got := v.token("grant_type", "refresh_token"); got.Error != "invalid_request" {
		t.Errorf("no token: got %+v", got)
	}
	for name, r := range map[string]*http.Request{
		"a parameter twice": httptest.NewRequest("POST", "/token", strings.NewReader("grant_type=client_credentials&grant_type=password")),
		"too long":          httptest.NewRequest("POST", "/token", strings.NewReader("x="+strings.Repeat("x", 65<<10))),
		"in the query":      httptest.NewRequest("POST", "/token?grant_type=client_credentials", nil),
	} {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		r.SetBasicAuth(demo.DefaultClientID, demo.DefaultClientSecret)
		var got tokens
		res := v.send(r)
		decode(t, res, &got)
		if res.StatusCode != 400 || got.Error != "invalid_request" {
			t.Errorf("%s: got %d %+v", name, res.StatusCode, got)
		}
	}
	r := httptest.NewRequest("POST", "/token", strings.NewReader(`{"grant_type":"client_credentials"}`))
	r.Header.Set("Content-Type", "application/json")
	if res := v.send(r); res.StatusCode != 400 {
		t.Errorf("JSON: got %d", res.StatusCode)
	}
	if res := v.send(httptest.NewRequest("GET", "/token", nil)); res.StatusCode != 405 {
		t.Errorf("GET: got %d", res.StatusCode)
	}
}
