package connect

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Proof is a way of making sure that the person at the browser is the app's
// user that a session was opened for. A link may have been passed on: whoever
// follows it and agrees at the provider would hand his account to somebody
// else's user in the app. State, PKCE and cookies don't stop that, since all of
// them are right. So nothing is redeemed before one of these (S1).
type Proof string

const (
	// ByApp: the app's backend redeems a one-time ticket, which the browser has
	// brought to the app's return address, and names its signed-in user.
	ByApp Proof = "app"
	// ByOpener: the page of a listed app origin that has opened the window, or
	// holds the frame, shows that it has the session's token.
	ByOpener Proof = "opener"
	// ByPerson: the person reads which app, and which of its users, will get
	// access, and says that it is meant so.
	ByPerson Proof = "person"
)

var (
	// ErrUserMismatch says that somebody else than the session's user is at the
	// browser, or says not to be it. Nothing is stored.
	ErrUserMismatch = errors.New("connect: the session is for another user")
	// ErrProofRefused says that the integration doesn't take this kind of proof.
	ErrProofRefused = errors.New("connect: this kind of proof is not accepted")
	// ErrReturnURL says that a return address is not one of the listed.
	ErrReturnURL = errors.New("connect: return_url is not one of the integration's")
)

// Trust is how an integration makes sure of who is at the browser.
type Trust struct {
	// Proofs are those that are accepted. Empty: ByPerson, ByApp if there are
	// return addresses, ByOpener if there are app origins. It is never none.
	Proofs []Proof
	// ReturnURLs are the app's addresses that browsers may be sent back to,
	// each exactly as a session names it (S18). The first is for sessions that
	// name none.
	ReturnURLs []string
	// AppOrigins are the origins of the app's pages.
	AppOrigins []string
}

// settle fills in what is left out, and refuses what leaves no way to connect.
func (t *Trust) settle() error {
	for _, u := range t.ReturnURLs {
		if err := checkReturnURL(u); err != nil {
			return fmt.Errorf("return_url %q: %w", u, err)
		}
	}
	for _, o := range t.AppOrigins {
		if err := CheckOrigin(o); err != nil {
			return fmt.Errorf("app_origin %q: %w", o, err)
		}
	}
	if len(t.Proofs) == 0 {
		t.Proofs = []Proof{ByPerson}
		if len(t.ReturnURLs) > 0 {
			t.Proofs = append(t.Proofs, ByApp)
		}
		if len(t.AppOrigins) > 0 {
			t.Proofs = append(t.Proofs, ByOpener)
		}
	}
	for _, p := range t.Proofs {
		switch {
		case p == ByApp && len(t.ReturnURLs) == 0:
			return errors.New("proof app needs a return_url, which the browser brings the ticket to")
		case p == ByOpener && len(t.AppOrigins) == 0:
			return errors.New("proof opener needs an app_origin, whose pages may answer")
		case p != ByApp && p != ByOpener && p != ByPerson:
			return fmt.Errorf("proof %q is none of app, opener, person", p)
		}
	}
	return nil
}

// Accepts tells whether a kind of proof is accepted.
func (t *Trust) Accepts(p Proof) bool { return slices.Contains(t.Proofs, p) }

// ReturnURL is where the app takes the ticket for a session, if it is the app
// that has to prove; else it is empty. A session that names an address wants
// this, the strongest of the proofs.
func (t *Trust) ReturnURL(s *Session) string {
	switch {
	case !t.Accepts(ByApp):
		return ""
	case s.ReturnURL != "":
		if !slices.Contains(t.ReturnURLs, s.ReturnURL) {
			return "" // it was struck off the list since
		}
		return s.ReturnURL
	case len(t.Proofs) == 1:
		return t.ReturnURLs[0]
	}
	return ""
}

// checkReturnURL accepts an address that a browser can be sent to with a ticket.
func checkReturnURL(raw string) error {
	u, err := cleanURL(raw)
	if err != nil {
		return err
	}
	if u.Fragment != "" || strings.Contains(raw, "#") {
		return errors.New("it has a fragment")
	}
	return nil
}

// CheckOrigin accepts an origin as browsers write it.
func CheckOrigin(raw string) error {
	u, err := cleanURL(raw)
	if err != nil {
		return err
	}
	if u.Scheme+"://"+u.Host != raw || strings.ToLower(raw) != raw {
		return errors.New("it is not an origin such as https://app.example.com, in lower case and without a path")
	}
	if p := u.Port(); p == "443" && u.Scheme == "https" || p == "80" && u.Scheme == "http" {
		return errors.New("it names the port that the scheme has anyway, which browsers leave out")
	}
	return nil
}

// cleanURL reads an absolute https address; http is for this machine only.
func cleanURL(raw string) (*url.URL, error) {
	for _, r := range raw {
		if r <= ' ' || r > '~' || r == '\\' || r == '"' || r == '<' || r == '>' || r == '\'' || r == ';' || r == ',' || r == '*' {
			return nil, fmt.Errorf("it has the character %q", r)
		}
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("it can't be read")
	case u.Hostname() == "" || u.User != nil || u.Opaque != "":
		return nil, errors.New("it is not an address such as https://app.example.com/connected")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLocal(u.Hostname())):
		return nil, errors.New("it is not https (http is for localhost only)")
	}
	return u, nil
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// Evidence is a proof as it is put before Confirm.
type Evidence struct {
	By Proof
	// User is the app's signed-in user, as the app names it (ByApp).
	User string
	// Origin is that of the page that has answered (ByOpener), as the browser
	// told it, and Token the session token that it has shown.
	Origin, Token string
}

// holds tells whether the evidence shows that the session's user is there. The
// kinds that are accepted, and which evidence a person gives, is for the caller
// to know.
func (e *Evidence) holds(f *Flow, s *Session, t *Trust) bool {
	switch e.By {
	case ByApp:
		user := s.UserID()
		return user != "" && user == e.User
	case ByOpener:
		return slices.Contains(t.AppOrigins, e.Origin) && equal(DigestOf(e.Token), f.Session)
	case ByPerson:
		return true
	}
	return false
}
