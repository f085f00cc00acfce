package connect

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// departing is a scheme that has something to keep, and sees what it gets back.
type departing struct {
	scheme.Redirector
	kept scheme.Secret
	err  error
}

func (d departing) Depart(context.Context, scheme.Flow) (scheme.Secret, error) { return d.kept, d.err }

func TestS53WhatAFlowKeepsRestsSealed(t *testing.T) {
	const secret = "canary-request-token-secret"
	config := map[string]string{"region": "eu"}
	f := Flow{ID: "f1", Config: config}
	const password = "canary-password"
	sent, err := f.depart(t.Context(), departing{kept: secret}, "state", "binding", map[string]scheme.Secret{"password": password}, SessionDefaults{})
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(f.Config); strings.Contains(text, "canary") || len(f.Config) != 2 || len(config) != 1 {
		t.Errorf("the flow is stored as %s", text)
	}
	got := schemeFlow(&f, "state", "binding", SessionDefaults{})
	if !reflect.DeepEqual(got, sent) || got.Kept.Reveal() != secret || got.Fields["password"].Reveal() != password || !reflect.DeepEqual(got.Config, map[string]string{"region": "eu"}) {
		t.Errorf("got %q, %v", got.Kept.Reveal(), got.Config)
	}
	other := f
	other.ID = "f2"
	changed := f
	changed.Config = map[string]string{keptField: "AAAA" + f.Config[keptField]}
	for name, flow := range map[string]scheme.Flow{
		"another browser": schemeFlow(&f, "state", "other", SessionDefaults{}), "another state": schemeFlow(&f, "other", "binding", SessionDefaults{}),
		"another flow": schemeFlow(&other, "state", "binding", SessionDefaults{}), "changed": schemeFlow(&changed, "state", "binding", SessionDefaults{}),
	} {
		if flow.Kept != "" || len(flow.Fields) > 0 || flow.Config[keptField] != "" {
			t.Errorf("%s: got %q", name, flow.Kept.Reveal())
		}
	}
	want := errors.New("the provider is down")
	if _, err := f.depart(t.Context(), departing{err: want}, "state", "binding", nil, SessionDefaults{}); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func TestStateUnderTheVendorsName(t *testing.T) {
	entry := func(authorize string) *Integration {
		p, err := catalog.Parse("test.yaml", []byte("id: test\ndisplay_name: T\nvendor: v\ncategories: [test]\nauth_scheme: oauth2_code\nauthorize: "+authorize+"\ntoken: {url: 'https://a.example/t'}\nrequest: {base_url: 'https://a.example'}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return &Integration{Provider: p}
	}
	s := &Setup{integrations: map[string]*Integration{
		"a": entry("{url: 'https://a.example/', pkce: true}"), "b": entry("{url: 'https://a.example/', state_param: payload}"), "c": entry("{url: 'https://a.example/', rename_params: {state: customField}}"),
	}}
	for query, want := range map[string]string{
		"state=s": "s", "payload=s": "s", "customField=s": "s", "state=s&payload=p": "s", "state=s&state=s": "", "payload=s&payload=t": "", "payload=s&customField=t": "", "code=c": "", "other=s": "",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.stateOf(q); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}
