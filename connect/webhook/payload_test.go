package webhook

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

// What goes wrong is said in other words than Nango's.
var description = regexp.MustCompile(`"description":"(?:[^"\\]|\\.)*"`)

// The bodies in testdata are those that a Nango 0.71.4 has sent, byte by byte
// but for descriptions; the events are what they tell of.
func TestPayloadsAreNangos(t *testing.T) {
	f, err := os.Open("testdata/payloads.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		var v struct {
			Event connect.Event
			Mode  string
			Body  string
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		c := &Config{Environment: "dev", AuthMode: func(string) string { return v.Mode }}
		got, err := c.Payload(&v.Event)
		if err != nil {
			t.Fatal(err)
		}
		want := description.ReplaceAll([]byte(v.Body), []byte(`"description":""`))
		if got := description.ReplaceAll(got, []byte(`"description":""`)); !bytes.Equal(got, want) {
			t.Errorf("%s of %s/%s:\n%s\nwant\n%s", v.Event.Kind, v.Event.Integration, v.Event.Connection, got, want)
		}
	}
	if n < 20 {
		t.Errorf("only %d bodies", n)
	}
}

func TestPayloadsBeyondNangos(t *testing.T) {
	c := &Config{Environment: "prod", AuthMode: func(p string) string { return "MODE of " + p }}
	user := &connect.EndUser{ID: "u1"}
	for want, e := range map[string]connect.Event{
		`{"authMode":"MODE of p","connectionId":"c","endUser":{"endUserEmail":null,"endUserId":"u1","tags":{}},"environment":"prod","from":"nango","operation":"deletion","provider":"p","providerConfigKey":"i","success":true,"tags":{},"type":"auth"}`: {Kind: connect.EventDeleted, EndUser: user},
		`{"authMode":"MODE of p","connectionId":"c","environment":"prod","from":"nango","operation":"refresh","provider":"p","providerConfigKey":"i","success":true,"tags":{"a":"<&>"},"type":"auth"}`:                                                    {Kind: connect.EventRecovered, EndUser: user, Tags: map[string]string{"a": "<&>"}},
		`{"authMode":"MODE of p","connectionId":"c","environment":"prod","error":{"description":"invalid_grant: gone \"now\"","type":"refresh_token_external_error"},"from":"nango","operation":"refresh","provider":"p","providerConfigKey":"i","success":false,"tags":{},"type":"auth"}`: {Kind: connect.EventNeedsReauth,
			Error: &connect.EventError{Type: "invalid_grant", Detail: `gone "now"`}},
		`{"authMode":"MODE of p","connectionId":"c","environment":"prod","error":{"description":"link_user_mismatch","type":"link_user_mismatch"},"from":"nango","operation":"override","provider":"p","providerConfigKey":"i","success":false,"type":"auth"}`: {Kind: connect.EventConnectFailed,
			Reconnect: true, EndUser: user, Error: &connect.EventError{Type: "link_user_mismatch"}},
	} {
		e.Integration, e.Connection, e.Provider = "i", "c", "p"
		got, err := c.Payload(&e)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}
