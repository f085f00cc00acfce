package page_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/page"
)

const dot = "data:image/png;base64,iVBORw0KGgo="

func TestLooksLieOverEachOther(t *testing.T) {
	s := newSite(t, app)
	s.conn.Setup.AppName = "Acme"
	s.conn.Setup.Look = connect.Look{Title: "General", Logo: dot, Radius: "4", Colors: map[string]string{"accent": "#112233", "ground": "#fafafa"}}
	for _, in := range s.conn.Setup.Integrations() {
		if in.Key == "desk" {
			in.Look = connect.Look{Title: "Of desk", Mode: "dark", Font: `Inter, "Open Sans"`, Colors: map[string]string{"accent": "#445566"}}
		}
	}
	token := s.open(connect.Session{Look: &connect.Look{Title: "Of this one", Icon: dot, Radius: "0", Texts: map[string]string{"SafeChecked": "Safe with us."}}})
	a := s.get("/connect?session_token=" + token)
	a.expect(t, 200, "Choose what to connect · Of this one</title>", "Acme wants to connect to one of your accounts.", `<img src="`+dot+`" alt="Of this one">`, `<link rel="icon" href="`+dot+`">`, "--radius: 0px;", "--accent: #112233;", "--on-accent: #fff;", "color-scheme: light dark;")
	a = s.get("/connect/with/desk?session_token=" + token)
	a.expect(t, 200, "--accent: #445566;", "--ground: #fafafa;", "color-scheme: dark;", `--font: Inter, "Open Sans", system-ui`, "Safe with us.", "Acme wants to connect to your Name of desk account.")
	a = s.get("/connect/with/desk?session_token=" + s.open(connect.Session{}))
	a.expect(t, 200, "Connect Name of desk · Of desk</title>", "--radius: 4px;")
	a.refuse(t, "Safe with us.")
}

func TestPagesSpeakTheVisitorsLanguage(t *testing.T) {
	s := newSite(t, app)
	token, german := s.open(connect.Session{}), s.open(connect.Session{Language: "de"})
	for _, test := range []struct{ token, accept, want, lang string }{
		{token, "", "Choose what to connect", `<html lang="en" dir="ltr">`},
		{token, "ar", "اختر ما تريد ربطه", `<html lang="ar" dir="rtl">`},
		{german, "ar", "Was möchten Sie verbinden?", `<html lang="de" dir="ltr">`},
	} {
		r := httptest.NewRequest("GET", "/connect?session_token="+test.token, nil)
		r.Header.Set("Accept-Language", test.accept)
		s.send(r).expect(t, 200, test.want, test.lang)
	}
	// What is wrong with a field has a code, and is told in the same language.
	a := s.submit("desk", german, "subdomain", "a b", "username", "", "password", "x ")
	a.expect(t, 422, "Diese Angabe fehlt.", "Das hat nicht die erwartete Form. z. B. acme", "Am Anfang oder Ende steht ein Leerzeichen")
}

// A look is colours, names of fonts and images: nothing that could do more.
func TestS24LooksAreNothingMore(t *testing.T) {
	for _, bad := range []connect.Look{
		{Mode: "dim"}, {Radius: "4px"}, {Radius: "-1"}, {Radius: "33"}, {Radius: "1;}body{display:none"},
		{Font: "x; } body { background: url(https://evil.example/"}, {Font: `a\`}, {Font: "</style><script>"}, {Font: `"open`}, {Font: "url(x)"},
		{Colors: map[string]string{"accent": "red"}}, {Colors: map[string]string{"accent": "#fff"}}, {Colors: map[string]string{"accent": "#112233;}"}}, {Colors: map[string]string{"font": "#112233"}}, {DarkColors: map[string]string{"x": "#112233"}},
		{Logo: "https://evil.example/x.png"}, {Logo: "data:text/html;base64,PHNjcmlwdD4="}, {Logo: "data:image/svg+xml,<svg onload=alert(1)>"}, {Icon: "javascript:alert(1)"}, {Logo: `data:image/png;base64,"><script>`},
		{Logo: "data:image/png;base64," + strings.Repeat("A", 25<<10)}, {Title: strings.Repeat("x", 101)}, {Texts: map[string]string{"Yes": strings.Repeat("x", 501)}}, {Texts: map[string]string{"Nope": "x"}},
	} {
		var le *connect.LookError
		if err := page.CheckLook(bad); !errors.As(err, &le) || le.Name == "" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	good := connect.Look{Title: "A", Logo: dot, Icon: dot, Mode: "dark", Font: `Inter, "Open Sans"`, Radius: "0", Colors: map[string]string{"accent": "#FF5500"}, Texts: map[string]string{"Yes": "</script><script>alert(1)"}}
	if err := page.CheckLook(good); err != nil {
		t.Error(err)
	}
	s := newSite(t, app)
	s.conn.Setup.Look = good
	a := s.get(s.get(s.consent(s.depart("demo", s.open(connect.Session{})), "allow")).Header.Get("Location"))
	a.expect(t, 200, "&lt;/script&gt;&lt;script&gt;alert(1)")
}
