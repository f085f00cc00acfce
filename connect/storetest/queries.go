package storetest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
)

// expectList makes sure that q selects the connections with these ids in this
// order, with either handle.
func expectList(t *testing.T, s stores, q connect.Query, want ...string) {
	t.Helper()
	for _, s := range s {
		list, err := s.Connections(t.Context(), q)
		must(t, err)
		got := make([]string, 0, len(list))
		for _, c := range list {
			got = append(got, c.ID.Connection)
		}
		if g, w := strings.Join(got, " "), strings.Join(want, " "); g != w {
			t.Errorf("%+v selects %q, want %q", q, g, w)
		}
	}
}

func queries(t *testing.T, s stores) {
	for n, user := range []*connect.EndUser{
		nil,
		{ID: "u1"},
		{ID: "u1", Organization: &connect.Organization{ID: "o1"}},
		{ID: "u2", Organization: &connect.Organization{ID: "o1"}, Tags: map[string]string{"team": "blue"}},
		{ID: "", Organization: &connect.Organization{ID: ""}},
	} {
		c := connection([]string{"github", "slack"}[n%2], strconv.Itoa(n))
		c.EndUser = user
		if n == 2 || n == 3 {
			c.Account = &connect.Account{ID: "acct-" + strconv.Itoa(n), Label: "a2"}
		}
		if n > 0 {
			c.Tags = map[string]string{"team": []string{"red", "blue"}[n%2], "n": strconv.Itoa(n)}
		}
		create(t, s[0], c)
	}
	create(t, s[0], connection("slack", "0"))

	expectList(t, s, connect.Query{}, "0", "4", "3", "2", "1", "0")
	expectList(t, s, connect.Query{Connections: []string{"0"}}, "0", "0")
	expectList(t, s, connect.Query{Connections: []string{"none"}})
	expectList(t, s, connect.Query{Integrations: []string{"github"}}, "4", "2", "0")
	expectList(t, s, connect.Query{Integrations: []string{"none", "github"}}, "4", "2", "0")
	expectList(t, s, connect.Query{Integrations: []string{"slack", "github"}}, "0", "4", "3", "2", "1", "0")
	expectList(t, s, connect.Query{Integrations: []string{"none"}})
	expectList(t, s, connect.Query{Integrations: []string{"GitHub"}})
	expectList(t, s, connect.Query{EndUsers: []string{"u1"}}, "2", "1")
	expectList(t, s, connect.Query{EndUsers: []string{"U1"}})
	expectList(t, s, connect.Query{EndUsers: []string{"U1", "u1"}, Connections: []string{"2", "3", "none"}}, "2")
	expectList(t, s, connect.Query{Organization: "o1"}, "3", "2")
	expectList(t, s, connect.Query{Account: "acct-2"}, "2")
	expectList(t, s, connect.Query{Account: "acct-2", Integrations: []string{"slack"}})
	expectList(t, s, connect.Query{Account: "a2"}) // the label isn't searched
	expectList(t, s, connect.Query{Tags: map[string]string{"team": "blue"}}, "3", "1")
	expectList(t, s, connect.Query{Tags: map[string]string{"team": "blue", "n": "1"}}, "1")
	expectList(t, s, connect.Query{Tags: map[string]string{"team": "blue", "n": "2"}})
	expectList(t, s, connect.Query{Tags: map[string]string{"team": "b%"}})
	expectList(t, s, connect.Query{Tags: map[string]string{"team": ""}})
	// All of it together.
	expectList(t, s, connect.Query{
		Connections: []string{"3"}, Integrations: []string{"slack"}, EndUsers: []string{"u2"}, Organization: "o1",
		Tags: map[string]string{"n": "3"}, Search: "3", Limit: 5,
	}, "3")
	expectList(t, s, connect.Query{Connections: []string{"3"}, EndUsers: []string{"u1"}})

	// Queries see what Update changes.
	_, err := s[0].Update(t.Context(), connect.ID{Integration: "slack", Connection: "1"}, func(c *connect.Connection) error {
		c.EndUser = &connect.EndUser{ID: "u9", Email: "nine@example.com", Organization: &connect.Organization{ID: "o9"}}
		c.Tags = map[string]string{"team": "green"}
		return nil
	})
	must(t, err)
	expectList(t, s, connect.Query{EndUsers: []string{"u1"}}, "2")
	expectList(t, s, connect.Query{EndUsers: []string{"u9"}, Organization: "o9", Search: "NINE@", Tags: map[string]string{"team": "green"}}, "1")
}

func search(t *testing.T, s stores) {
	for _, u := range []struct{ id, name, email string }{
		{"user-1", "Ada Lovelace", "ada@example.com"},
		{"user_2", "Ärger Ünal", "uenal@example.com"},
		{"100%", `back\slash`, "o'neill@example.com"},
		{"plain", "", ""},
	} {
		c := connection("a", u.id)
		c.EndUser = &connect.EndUser{ID: "hidden-" + u.id, DisplayName: u.name, Email: u.email}
		create(t, s[0], c)
	}
	create(t, s[0], connection("a", "nobody"))
	for term, want := range map[string][]string{
		"user":          {"user_2", "user-1"},
		"USER":          {"user_2", "user-1"},
		"lovelace":      {"user-1"},
		"LOVE":          {"user-1"},
		"ada@":          {"user-1"},
		"Example.Com":   {"100%", "user_2", "user-1"},
		"ÄRGER":         {"user_2"},
		"ünal":          {"user_2"},
		"user_":         {"user_2"}, // not any character
		"%":             {"100%"},   // not anything
		"0%":            {"100%"},
		`\`:             {"100%"},
		`back\slash`:    {"100%"},
		`\%`:            {},
		"o'neill":       {"100%"},
		"body":          {"nobody"},
		"hidden":        {}, // the end user's id isn't searched
		"lovelace ada@": {}, // nothing runs across fields
		"1ada":          {},
		"a":             {"plain", "100%", "user_2", "user-1"},
	} {
		expectList(t, s, connect.Query{Search: term}, want...)
	}
}

func paging(t *testing.T, s stores) {
	for n := range 7 {
		create(t, s[n%2], connection("a", strconv.Itoa(n)))
	}
	create(t, s[0], connection("b", "other"))
	q := connect.Query{Integrations: []string{"a"}}
	expectList(t, s, q, "6", "5", "4", "3", "2", "1", "0")
	for page, want := range [][]string{{"6", "5", "4"}, {"3", "2", "1"}, {"0"}, {}} {
		q.Limit, q.Page = 3, page
		expectList(t, s, q, want...)
	}
	q.Limit, q.Page = 7, 0
	expectList(t, s, q, "6", "5", "4", "3", "2", "1", "0")
	q.Page = 1
	expectList(t, s, q)
	q.Limit, q.Page = 10_000, int(^uint(0)>>1)
	expectList(t, s, q)
	q.Limit, q.Page = 1_000_000, 0
	expectList(t, s, q, "6", "5", "4", "3", "2", "1", "0")
}
