package scheme

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"
}

func TestS44S48LifetimeOfATokenIsReadAndClamped(t *testing.T) {
	hour := noon.Add(time.Hour)
	unix := func(d time.Duration) string { return strconv.FormatInt(noon.Add(d).Unix(), 10) }
	long := noon.Add(maxLifetime)
	tests := map[string]struct {
		body, spec string
		want       time.Time
	}{
		"number":              {`"expires_in":3600`, "", hour},
		"text":                {`"expires_in":"3600"`, "", hour},
		"fraction":            {`"expires_in":3600.0`, "", hour},
		"exponent":            {`"expires_in":3.6e3`, "", hour},
		"in words":            {`"expires_in":"1h"`, "", hour},
		"none":                {`"x":1`, "", time.Time{}},
		"null":                {`"expires_in":null`, "", time.Time{}},
		"empty":               {`"expires_in":""`, "", time.Time{}},
		"zero":                {`"expires_in":0`, "", time.Time{}},
		"negative":            {`"expires_in":-1`, "", time.Time{}},
		"a billionth":         {`"expires_in":1e-9`, "", time.Time{}},
		"1e309":               {`"expires_in":1e309`, "", time.Time{}},
		"NaN":                 {`"expires_in":"NaN"`, "", time.Time{}},
		"infinite":            {`"expires_in":"inf"`, "", long},
		"a thousand years":    {`"expires_in":31536000000`, "", long},
		"overflows":           {`"expires_in":9223372036854775807`, "", long},
		"list":                {`"expires_in":[3600]`, "", time.Time{}},
		"object":              {`"expires_in":{"a":1}`, "", time.Time{}},
		"bool":                {`"expires_in":true`, "", time.Time{}},
		"milliseconds":        {`"expires_in":3600000`, "{expires_in_unit: ms}", hour},
		"elsewhere":           {`"data":{"ttl":"3600"},"expires_in":1`, "{expires_in: data.ttl}", hour},
		"in a list":           {`"data":[{"ttl":3600}]`, "{expires_in: data.0.ttl}", hour},
		"fixed":               {`"expires_in":1`, "{lifetime_s: 3600}", hour},
		"not to be believed":  {`"expires_in":1`, "{no_expiry_given: true}", time.Time{}},
		"instant":             {`"expires_at":` + unix(time.Hour), "", hour},
		"instant in ms":       {`"expires_at":` + unix(time.Hour) + `000`, "", hour},
		"instant as text":     {`"expires_at":"2026-07-01T13:00:00Z"`, "", hour},
		"instant with offset": {`"expires_at":"2026-07-01T15:00:00+02:00"`, "", hour},
		"instant in the past": {`"expires_at":` + unix(-time.Hour), "", time.Time{}},
		"past, but lifetime":  {`"expires_in":3600,"expires_at":` + unix(-time.Hour), "", hour},
		"instant far away":    {`"expires_at":"9999-01-01T00:00:00Z"`, "", long},
		"instant is nonsense": {`"expires_at":"tomorrow"`, "", time.Time{}},
		"JWT":                 {`"access_token":"` + jwt(`{"exp":`+unix(time.Hour)+`}`) + `"`, "", hour},
		"JWT in the past":     {`"access_token":"` + jwt(`{"exp":`+unix(-time.Hour)+`}`) + `"`, "", time.Time{}},
		"JWT without exp":     {`"access_token":"` + jwt(`{}`) + `"`, "", time.Time{}},
		"JWT of nonsense":     {`"access_token":"a.b.c"`, "", time.Time{}},
		"lifetime beats JWT":  {`"expires_in":3600,"access_token":"` + jwt(`{"exp":`+unix(time.Minute)+`}`) + `"`, "", hour},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := oauth(t, "https://api.example", "")
			if test.spec != "" {
				p = oauth(t, "https://api.example", "token_response: "+test.spec+"\n")
			}
			a, err := parseAnswer(p, []byte(`{"access_token":"t",`+test.body+`}`), false, noon)
			if err != nil || !a.expires.Equal(test.want) {
				t.Errorf("got %v, %v; want %v", a, err, test.want)
			}
		})
	}
	p := provider(t, "https://api.example", "auth_scheme: oauth2_client_credentials\ntoken: {url: 'BASE/token'}\ncred_fields: [{name: client_id}, {name: client_secret, secret: true}]\nrequest: {base_url: 'BASE'}\n")
	if a, err := parseAnswer(p, []byte(`{"access_token":"t"}`), false, noon); err != nil || !a.expires.Equal(hour) {
		t.Errorf("client credentials without a lifetime: %v, %v", a, err)
	}
}

func TestS44S45S46AnswersThatAreNoToken(t *testing.T) {
	const ok = `{"access_token":"` + accessToken + `"`
	tests := map[string]struct {
		body string
		form bool
		code string
		want Class
	}{
		"nothing":                     {"", false, "not_json", Transient},
		"spaces":                      {" \n", false, "not_json", Transient},
		"HTML":                        {"<html><body>" + accessToken, false, "not_json", Transient},
		"HTML as text":                {"<html>", true, "no_access_token", Transient},
		"list":                        {`["` + accessToken + `"]`, false, "not_json", Transient},
		"number":                      {`1`, false, "not_json", Transient},
		"null":                        {`null`, false, "not_json", Transient},
		"cut":                         {ok, false, "not_json", Transient},
		"more behind it":              {ok + `} {"x":1}`, false, "not_json", Transient},
		"rubbish behind it":           {ok + `}<!-- -->`, false, "not_json", Transient},
		"deeper than deep":            {strings.Repeat(`{"a":`, 20000), false, "not_json", Transient},
		"form of nonsense":            {"%zz", true, "not_json", Transient},
		"no token":                    {`{"expires_in":3600}`, false, "no_access_token", Transient},
		"empty token":                 {`{"access_token":""}`, false, "no_access_token", Transient},
		"null token":                  {`{"access_token":null}`, false, "no_access_token", Transient},
		"token in a list":             {`{"access_token":["` + accessToken + `"]}`, false, "no_access_token", Transient},
		"token in an object":          {`{"access_token":{"a":"` + accessToken + `"}}`, false, "no_access_token", Transient},
		"S46 line break":              {`{"access_token":"` + accessToken + `\r\nX: y"}`, false, "bad_token", Transient},
		"S46 line feed":               {`{"access_token":"a\n"}`, false, "bad_token", Transient},
		"S46 space":                   {`{"access_token":"a b"}`, false, "bad_token", Transient},
		"S46 quote":                   {`{"access_token":"a\"b"}`, false, "bad_token", Transient},
		"S46 NUL":                     {`{"access_token":"a\u0000b"}`, false, "bad_token", Transient},
		"S46 DEL":                     {`{"access_token":"a\u007fb"}`, false, "bad_token", Transient},
		"S46 letters beyond":          {`{"access_token":"ä"}`, false, "bad_token", Transient},
		"S46 bytes that are no UTF-8": {"{\"access_token\":\"a\xff\"}", false, "bad_token", Transient},
		"S46 in the refresh token":    {ok + `,"refresh_token":"a\nb"}`, false, "bad_token", Transient},
		"S45 mac":                     {ok + `,"token_type":"mac"}`, false, "token_type", Misconfigured},
		"S45 MAC":                     {ok + `,"token_type":"MAC"}`, false, "token_type", Misconfigured},
		"S45 DPoP":                    {ok + `,"token_type":"DPoP"}`, false, "token_type", Misconfigured},
		"error with status 200":       {`{"error":"bad_refresh_token","error_description":"gone"}`, false, "bad_refresh_token", Revoked},
		"error in a form":             {`error=bad_verification_code`, true, "bad_verification_code", Transient},
		"error beside a token":        {ok + `,"error":"invalid_grant"}`, false, "invalid_grant", Revoked},
		"error as an object":          {`{"error":{"code":"invalid_grant","message":"gone"}}`, false, "invalid_grant", Revoked},
		"error as an empty object":    {`{"error":{}}`, false, "http_200", Transient},
		"error as a number":           {`{"error":190}`, false, "190", Transient},
		"error in a list":             {`{"error":["invalid_grant"]}`, false, "no_access_token", Transient},
		"error of strange characters": {`{"error":"<b>invalid_client</b>"}`, false, "binvalid_clientb", Transient},
	}
	p := oauth(t, "https://api.example", "")
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, err := parseAnswer(p, []byte(test.body), test.form, noon)
			var te *TokenError
			if a != nil || !errors.As(err, &te) || te.Code != test.code || te.Class != test.want {
				t.Errorf("got %v, %v; want %s, %v", a, err, test.code, test.want)
			}
			clear(t, "the error", err)
		})
	}
}

func TestS44S45S47AnswersThatAreGood(t *testing.T) {
	tests := map[string]struct {
		body, spec string
		form       bool
		want       answer
	}{
		"plain":            {`{"access_token":"a","refresh_token":"r","token_type":"Bearer","scope":"x y"}`, "", false, answer{access: "a", refresh: "r", scopes: []string{"x", "y"}}},
		"S45 any case":     {`{"access_token":"a","token_type":"BEARER"}`, "", false, answer{access: "a"}},
		"S45 odd type":     {`{"access_token":"a","token_type":"bot"}`, "", false, answer{access: "a"}},
		"GitHub's form":    {`access_token=gho_a%2Bb&scope=repo%2Cgist&token_type=bearer`, "", true, answer{access: "gho_a+b", scopes: []string{"repo", "gist"}}},
		"JSON called text": {` {"access_token":"a"}`, "", true, answer{access: "a"}},
		"numeric token":    {`{"access_token":12345}`, "", false, answer{access: "12345"}},
		"no error":         {`{"access_token":"a","error":null}`, "", false, answer{access: "a"}},
		"error false":      {`{"access_token":"a","error":false}`, "", false, answer{access: "a"}},
		"error empty":      {`{"access_token":"a","error":""}`, "", false, answer{access: "a"}},
		"error 0":          {`{"access_token":"a","error":0}`, "", false, answer{access: "a"}},
		"S47 no scope":     {`{"access_token":"a","scope":""}`, "", false, answer{access: "a"}},
		"S47 list":         {`{"access_token":"a","scope":["x"]}`, "", false, answer{access: "a", scopes: []string{"x"}}},
		"other names":      {`{"d":{"t":"a","r":"r"}}`, "{access_token: d.t, refresh_token: d.r}", false, answer{access: "a", refresh: "r"}},
		"other root":       {`{"authed_user":{"access_token":"a"}}`, "{alternate_root: authed_user}", false, answer{access: "a"}},
		"ok":               {`{"ok":true,"access_token":"a"}`, "{ok: {path: ok, equals: true}}", false, answer{access: "a"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			more := ""
			if test.spec != "" {
				more = "token_response: " + test.spec + "\n"
			}
			a, err := parseAnswer(oauth(t, "https://api.example", more), []byte(test.body), test.form, noon)
			must(t, err)
			if a.access != test.want.access || a.refresh != test.want.refresh || !reflect.DeepEqual(a.scopes, test.want.scopes) {
				t.Errorf("got %q %q %q", a.access, a.refresh, a.scopes)
			}
			if len(a.raw) == 0 || a.raw[0] != '{' {
				t.Errorf("raw is %q", a.raw)
			}
		})
	}
	p := oauth(t, "https://api.example", "token_response: {ok: {path: ok, equals: true}}\n")
	var te *TokenError
	if _, err := parseAnswer(p, []byte(`{"ok":false,"error":"token_revoked","access_token":"a"}`), false, noon); !errors.As(err, &te) || te.Class != Revoked {
		t.Errorf("not ok: %v", err)
	}
}

func TestS44WholeBodyIsTheToken(t *testing.T) {
	p := oauth(t, "https://api.example", "token_response: {access_token: $body}\n")
	if a, err := parseAnswer(p, []byte(`"abc"`), false, noon); err != nil || a.access != "abc" {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestS44EndpointZoo(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	io.WriteString(z, `{"access_token":"`)
	for range 50 {
		z.Write(bytes.Repeat([]byte("a"), 1<<20))
	}
	z.Close()
	tests := map[string]struct {
		answer http.HandlerFunc
		code   string
		class  Class
	}{
		"50 MiB": {func(w http.ResponseWriter, _ *http.Request) {
			for range 50 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
					return
				}
			}
		}, "too_large", Transient},
		"gzip bomb": {say(200, bomb.String(), "Content-Encoding", "gzip"), "too_large", Transient},
		"no gzip":   {say(200, "nope", "Content-Encoding", "gzip"), "unreachable", Transient},
		"slow drip": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}, "timeout", Transient},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"access_token":"`+accessToken+`"}`)
		}, "unreachable", Transient},
		"dropped":              {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "unreachable", Transient},
		"401 invalid_client":   {say(401, `{"error":"invalid_client"}`), "invalid_client", Misconfigured},
		"400 invalid_grant":    {say(400, `{"error":"invalid_grant"}`), "invalid_grant", Revoked},
		"400 in a form":        {say(400, `error=invalid_grant`, "Content-Type", "text/plain; charset=utf-8"), "invalid_grant", Revoked},
		"500 invalid_grant":    {say(500, `{"error":"invalid_grant"}`), "http_500", Transient},
		"429 invalid_grant":    {say(429, `{"error":"invalid_grant"}`), "http_429", Transient},
		"403 HTML":             {say(403, `<html>`, "Content-Type", "text/html"), "http_403", Transient},
		"204":                  {say(204, ``), "not_json", Transient},
		"S50 302":              {say(302, ``, "Location", "/elsewhere"), "redirect", Transient},
		"S50 307":              {say(307, `{"access_token":"x"}`, "Location", "/elsewhere"), "redirect", Transient},
		"S50 308 elsewhere":    {say(308, ``, "Location", "http://evil.invalid/"), "redirect", Transient},
		"S50 without Location": {say(302, ``), "redirect", Transient},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t, test.answer)
			e.Config.ErrorLog = nil
			g, err := renew(t, e, "")
			var te *TokenError
			if !errors.As(err, &te) || te.Code != test.code || te.Class != test.class {
				t.Errorf("got %v, want %s", err, test.code)
			}
			if !reflect.DeepEqual(g, Grant{}) {
				t.Error("S44: there is something beside the error")
			}
			if r, _, n := e.last(t); n != 1 || r.URL.Path != "/token" {
				t.Errorf("%d requests, the last one to %s", n, r.URL.Path)
			}
			clear(t, "the error", err)
		})
	}
}

func TestUnreachableEndpointsTellNoSecrets(t *testing.T) {
	e := newEndpoint(t, say(200, ""))
	e.Close()
	_, err := renew(t, e, "token: {url: 'BASE/token', body: query}\n")
	var te *TokenError
	if !errors.As(err, &te) || te.Code != "unreachable" {
		t.Errorf("got %v", err)
	}
	clear(t, "the error", err, url.QueryEscape(err.Error()))
}

func TestErrorsThatQuoteWhatWasSent(t *testing.T) {
	for _, auth := range []string{"post", "basic"} {
		e := newEndpoint(t, nil)
		e.answer = func(w http.ResponseWriter, r *http.Request) {
			_, body, _ := e.last(t)
			say(400, `{"error":"invalid_grant","error_description":"bad: `+body+` `+clientSecret+`"}`)(w, r)
		}
		_, err := renew(t, e, "token: {url: 'BASE/token', client_auth: "+auth+"}\n")
		var te *TokenError
		if !errors.As(err, &te) || te.Class != Revoked {
			t.Errorf("got %v", err)
		}
		clear(t, "the error", err, te.Description)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"access_token":"a","refresh_token":"b","expires_in":3600,"scope":"x"}`, `"abc"`, `access_token=a&expires_in=1`, `{"error":{"code":"x"}}`, `{"a":[{"b":1}]}`, jwt(`{"exp":1e400}`)} {
		f.Add([]byte(s), true, uint8(0))
		f.Add([]byte(s), false, uint8(1))
	}
	var entries []*catalog.Provider
	for _, spec := range []string{"{}", "{access_token: $body}", "{alternate_root: a, expires_in_unit: ms}", "{access_token: a.0.b, expires_at: e, ok: {path: ok, equals: true}}"} {
		entries = append(entries, oauth(f, "https://api.example", "token_response: "+spec+"\n"))
	}
	f.Fuzz(func(t *testing.T, body []byte, form bool, entry uint8) {
		a, err := parseAnswer(entries[int(entry)%len(entries)], body, form, noon)
		if err != nil {
			var te *TokenError
			if a != nil || !errors.As(err, &te) || len(te.Description) > 800 || strings.ContainsAny(te.Error(), "\r\n\x1b\x00") {
				t.Errorf("got %v, %v", a, err)
			}
			return
		}
		if a.access == "" || !usableToken(a.access) || !usableToken(a.refresh) {
			t.Errorf("unusable token %q, %q", a.access, a.refresh)
		}
		if !a.expires.IsZero() && (a.expires.Before(noon) || a.expires.After(noon.Add(maxLifetime))) {
			t.Errorf("expires %v", a.expires)
		}
		if g := a.grant(Grant{}, noon); g.AccessToken == "" {
			t.Error("no token in the grant")
		}
	})
}
