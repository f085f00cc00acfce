package page_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

// Whoever signs in with another account is told so in words, has changed
// nothing, and can go back and choose the right one.
func TestS51AnotherAccountIsRefusedInWords(t *testing.T) {
	s := newSite(t, app)
	a := s.arrive(s.consentAs("ada", s.depart("named", s.open(connect.Session{Connection: "c1"})), "allow"))
	s.get(a.Header.Get("Location")).expect(t, 200, "Name of named is connected")
	before := s.connections()[0]

	token := s.open(connect.Session{Allowed: []string{"named"}, Connection: "c1", Reconnect: true})
	a = s.arrive(s.consentAs("grace", s.depart("named", token), "allow"))
	a.expect(t, 303)
	a = s.get(a.Header.Get("Location"))
	a.expect(t, 400, "Name of named is not connected", "This is another Name of named account than the one that was connected before", "Nothing was changed", "<code>other_account</code>")
	a.refuse(t, "Ada", "ada", "Grace", "grace") // the link may be in anybody's hands
	if after := s.connections(); len(after) != 1 || after[0].Version != before.Version || after[0].Account.ID != "ada" {
		t.Errorf("the connection has become %+v", after)
	}

	again := regexp.MustCompile(`href="(/connect/with/named[^"]*)">Try again`).FindStringSubmatch(a.text)
	if again == nil {
		t.Fatalf("there is no way back:\n%s", a.main())
	}
	s.get(again[1]).expect(t, 200, "Reconnect Name of named")
	a = s.arrive(s.consentAs("ada", s.depart("named", token), "allow"))
	s.get(a.Header.Get("Location")).expect(t, 200, "Name of named is connected")
	if after := s.connections()[0]; after.Version == before.Version {
		t.Error("the right account was not connected again")
	}
}

func TestS47MissingPermissionsAreTold(t *testing.T) {
	s := newSite(t, app)
	token := s.open(connect.Session{Connection: "c1"})
	a := s.arrive(s.consent(s.depart("named", token), "allow"))
	at := a.Header.Get("Location")
	s.get(at).refuse(t, "Some permissions were not given")
	_, err := s.store.Update(t.Context(), connect.ID{Integration: "named", Connection: "c1"}, func(c *connect.Connection) error {
		c.MissingScopes = []string{"files:read", "<b>"}
		return nil
	})
	must(t, err)
	a = s.get(at)
	a.expect(t, 200, "Name of named is connected", "Some permissions were not given", "Without files:read, &lt;b&gt;, some of what the app does with Name of named will not work")
	if !strings.Contains(a.text, `href="/connect/with/named?session_token=`+token) {
		t.Error("they can't be given now")
	}
}
