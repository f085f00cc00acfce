package connect_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/demo"
)

// events returns what was told since the last call.
func (w *world) events() (all []connect.Event) {
	w.t.Helper()
	n, err := w.Store.Route(w.t.Context(), 1000, func(e *connect.Event) []connect.Target {
		all = append(all, *e)
		return nil
	})
	must(w.t, err)
	if n != len(all) {
		w.t.Fatalf("%d events of %d", len(all), n)
	}
	return all
}

// expectTold says the events in short: kind, connection, code.
func (w *world) expectTold(want ...string) []connect.Event {
	w.t.Helper()
	events := w.events()
	var got []string
	for _, e := range events {
		s := fmt.Sprintf("%s %s/%s", strings.TrimPrefix(string(e.Kind), "connection."), e.Integration, e.Connection)
		if e.Error != nil {
			s += " " + e.Error.Type
		}
		got = append(got, s)
	}
	if !reflect.DeepEqual(got, want) {
		w.t.Fatalf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return events
}

func TestLifeOfAConnectionIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		s := connect.Session{
			Connection: "ada", EndUser: &connect.EndUser{ID: "u1"}, Organization: &connect.Organization{ID: "o1"},
			Tags: map[string]string{"plan": "pro"}, WebhookURL: "https://app.example/hook",
		}
		c := w.authorize(s, nil)
		e := w.expectTold("created demo/ada")[0]
		if e.UID != c.UID || e.Provider != "demo" || e.Tags["plan"] != "pro" || e.EndUser.Organization.ID != "o1" || e.WebhookURL != "https://app.example/hook" {
			t.Errorf("told %+v", e)
		}
		w.authorize(connect.Session{Connection: "ada", Tags: map[string]string{"plan": "free"}}, nil)
		if e := w.expectTold("overridden demo/ada")[0]; e.Tags["plan"] != "free" || e.EndUser.ID != "u1" || e.WebhookURL != "https://app.example/hook" {
			t.Errorf("told %+v", e)
		}

		// The provider is down: that is told now and then, and once when calls
		// begin to suffer.
		w.current(c.ID)
		w.set(answer(http.StatusBadGateway, ""), nil)
		fail := func() {
			t.Helper()
			if _, err := w.Refresher.Renew(t.Context(), w.current(c.ID)); err == nil {
				t.Fatal("renewed")
			}
		}
		fail()
		w.expectTold("refresh_failed demo/ada http_502")
		time.Sleep(2 * time.Second)
		fail() // too soon to be told again
		w.expectTold()
		if tr := w.row(c.ID).Trouble; tr == nil || tr.Failures != 2 || tr.Code != "http_502" || tr.Degraded {
			t.Errorf("trouble %+v", tr)
		}
		time.Sleep(time.Hour)
		fail()
		w.expectTold("refresh_failed demo/ada http_502", "degraded demo/ada http_502")
		time.Sleep(time.Hour)
		fail()
		w.expectTold("refresh_failed demo/ada http_502")
		w.set(nil, nil)
		time.Sleep(time.Hour)
		w.current(c.ID)
		w.expectTold("recovered demo/ada")
		if tr := w.row(c.ID).Trouble; tr != nil {
			t.Errorf("trouble %+v", tr)
		}

		// Its user takes it back, and comes again.
		w.set(answer(http.StatusBadRequest, `{"error":"invalid_grant","error_description":"gone <b>"}`), nil)
		time.Sleep(2 * time.Hour)
		if _, err := w.Refresher.Current(t.Context(), c.ID); err == nil {
			t.Fatal("renewed")
		}
		if e := w.expectTold("needs_reauth demo/ada invalid_grant")[0]; e.Error.Detail != "gone <b>" {
			t.Errorf("detail %q", e.Error.Detail)
		}
		w.set(nil, nil)
		w.authorize(connect.Session{Connection: "ada"}, nil)
		w.expectTold("overridden demo/ada", "recovered demo/ada")
		must(t, w.Disconnect(t.Context(), c.ID))
		if e := w.expectTold("deleted demo/ada")[0]; e.UID != c.UID || e.Tags["plan"] != "free" {
			t.Errorf("told %+v", e)
		}
	})
}

func TestAttemptsThatFailAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, demo.Options{})
		step, err := w.Submit(t.Context(), w.open(connect.Session{EndUser: &connect.EndUser{ID: "u1"}}), "demo", nil)
		must(t, err)
		if _, err := w.Arrive(t.Context(), public+"/oauth/callback", w.consent(step.Redirect, "deny"), with(step)); err == nil {
			t.Fatal("connected")
		}
		if e := w.expectTold("connect_failed demo/" + step.Flow + " access_denied")[0]; e.EndUser.ID != "u1" || e.Provider != "demo" || e.Reconnect {
			t.Errorf("told %+v", e)
		}

		// The wrong person, for a connection that exists.
		id := w.account()
		w.expectTold("created demo/ada")
		step, err = w.Submit(t.Context(), w.open(connect.Session{Connection: "ada", Reconnect: true, Allowed: []string{"demo"}}), "demo", nil)
		must(t, err)
		a, err := w.Arrive(t.Context(), public+"/oauth/callback", w.consent(step.Redirect, "allow"), with(step))
		must(t, err)
		_, err = w.Refuse(t.Context(), a.Waiting.Key)
		must(t, err)
		if e := w.expectTold("connect_failed demo/ada link_user_mismatch")[0]; !e.Reconnect || e.Connection != id.Connection {
			t.Errorf("told %+v", e)
		}
	})
}

// A credential that was lost is told once, however many calls find it missing.
func TestS56MissingCredentialIsToldOfOnce(t *testing.T) {
	w := newWorld(t, demo.Options{})
	c := w.authorize(connect.Session{Connection: "ada"}, nil)
	must(t, w.Vault.Delete(t.Context(), c.VaultName()))
	for range 3 {
		w.Refresher.Forget(c.ID)
		if _, err := w.Refresher.Current(t.Context(), c.ID); err == nil {
			t.Fatal("served")
		}
	}
	w.expectTold("created demo/ada", "needs_reauth demo/ada credential_missing")
}
