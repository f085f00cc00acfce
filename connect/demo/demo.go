// Package demo is a small provider to try keycaddy with, and the strict one
// that the tests need: an OAuth 2 authorization server whose refresh tokens are
// good for one use, and two little APIs behind it.
//
//	GET  /             what this is, and the API key to paste
//	GET  /authorize    consent page (RFC 6749 section 4.1.1, RFC 7636)
//	POST /authorize    the visitor's answer: a redirect with a code, or an error
//	POST /token        authorization_code, refresh_token, client_credentials
//	POST /revoke       RFC 7009
//	POST /introspect   RFC 7662
//	GET  /api/me       who the access token stands for
//	ANY  /api/echo     the request as it arrived; also /api/echo/…
//	GET  /api/events   server-sent events, two a second
//	GET  /keys/api/whoami, ANY /keys/api/echo   the same with an X-Api-Key
//
// Everything is kept in memory and forgotten with the [Provider]. The accounts
// have no passwords: nothing here protects anything.
package demo

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// What a [Provider] with no such options of its own knows.
const (
	DefaultClientID     = "keycaddy-demo"
	DefaultClientSecret = "keycaddy-demo-secret"
	DefaultAPIKey       = "demo_tryme1234"
)

// Options say how a [Provider] behaves. Only BaseURL is needed.
type Options struct {
	// BaseURL is where the provider is found from outside, without a slash at
	// the end, such as "http://localhost:8080/demo".
	BaseURL string

	// Clients holds the secrets of the OAuth clients by client id.
	// Default: DefaultClientID with DefaultClientSecret.
	Clients map[string]string

	// RedirectURIs are the addresses that codes may be sent to, compared byte
	// by byte. Default: any address on BaseURL's own origin.
	RedirectURIs []string

	// APIKeys are the keys that /keys/api takes. Default: DefaultAPIKey.
	APIKeys []string

	// AccessTTL is how long an access token lives. Default: 10 s, so that a
	// visitor sees a refresh happen. Answers give it in whole seconds, rounded
	// up.
	AccessTTL time.Duration

	// RefreshTTL is how long a refresh token lives. Default: 24 h.
	RefreshTTL time.Duration

	// GraceWindow is how long a spent refresh token may be used again, as with
	// providers that forgive a lost answer. Default: 0, the strict rule.
	GraceWindow time.Duration

	// KeepRefreshToken turns rotation off: a refresh is answered without a
	// refresh token, and the old one stays good (RFC 6749 section 6).
	KeepRefreshToken bool

	// TokenDelay, if set, is how long the token endpoint waits before it looks
	// at a request. A caller that gives up meanwhile has spent its token all
	// the same.
	TokenDelay func() time.Duration

	// TokenFault, if set, may answer a token request in the provider's place,
	// before anything is spent or made.
	TokenFault Fault

	// AfterRotate, if set, may answer a token request in the provider's place
	// when its tokens have been spent and made: the answer is then lost.
	AfterRotate Fault
}

// A Fault answers a token request itself and reports true, or does nothing and
// reports false. To drop the connection without an answer, it panics with
// [http.ErrAbortHandler]. The grant is the request's grant_type.
type Fault func(w http.ResponseWriter, r *http.Request, grant string) bool

// An Account is somebody whom a visitor can sign in as.
type Account struct {
	ID   string `json:"account"`
	Name string `json:"name"`
}

// Accounts are the demo accounts, the one that is offered first at the front.
func Accounts() []Account {
	return []Account{{"ada", "Ada Lovelace"}, {"grace", "Grace Hopper"}}
}

// A Provider is the demo provider. Its handler expects paths relative to where
// it is mounted.
type Provider struct {
	options Options
	origin  string
	apiKeys map[digest]bool
	sealKey [sha256.Size]byte
	cross   *http.CrossOriginProtection
	ledger  *ledger

	closing chan struct{}
	close   sync.Once

	mu     sync.Mutex
	grants map[string]int
	api    map[int]int
}

// New returns a provider with nothing in its memory.
func New(o Options) *Provider {
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	if len(o.Clients) == 0 {
		o.Clients = map[string]string{DefaultClientID: DefaultClientSecret}
	}
	if len(o.APIKeys) == 0 {
		o.APIKeys = []string{DefaultAPIKey}
	}
	if o.AccessTTL <= 0 {
		o.AccessTTL = 10 * time.Second
	}
	if o.RefreshTTL <= 0 {
		o.RefreshTTL = 24 * time.Hour
	}
	p := &Provider{
		options: o,
		apiKeys: make(map[digest]bool, len(o.APIKeys)),
		cross:   http.NewCrossOriginProtection(),
		ledger:  newLedger(o),
		closing: make(chan struct{}),
		grants:  map[string]int{},
		api:     map[int]int{},
	}
	if u, err := url.Parse(o.BaseURL); err == nil {
		p.origin = originOf(u)
	}
	for _, k := range o.APIKeys {
		p.apiKeys[digestOf(k)] = true
	}
	rand.Read(p.sealKey[:]) // never fails: crypto/rand crashes the program instead
	return p
}

// Close ends the event streams that are being read, which would otherwise keep
// a server from shutting down. The rest of the provider goes on working.
func (p *Provider) Close() { p.close.Do(func() { close(p.closing) }) }

// ServeHTTP routes by hand: [http.ServeMux] would redirect the unclean paths
// that /api/echo has to report as they came.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	path := r.URL.Path
	switch {
	case path == "/" || path == "":
		p.only(w, r, p.serveIndex, http.MethodGet, http.MethodHead)
	case path == "/authorize":
		switch r.Method {
		case http.MethodPost:
			p.serveDecision(w, r)
		default:
			p.only(w, r, p.serveAuthorize, http.MethodGet, http.MethodHead, http.MethodPost)
		}
	case path == "/token":
		p.only(w, r, p.serveToken, http.MethodPost)
	case path == "/revoke":
		p.only(w, r, p.serveRevoke, http.MethodPost)
	case path == "/introspect":
		p.only(w, r, p.serveIntrospect, http.MethodPost)
	case under(path, "/api"):
		p.count(w, r, p.serveAPI)
	case under(path, "/keys/api"):
		p.count(w, r, p.serveKeyAPI)
	default:
		writeError(w, http.StatusNotFound, "not_found", "There is nothing at this path.")
	}
}

// only calls serve if the request's method is one of the allowed.
func (p *Provider) only(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc, allowed ...string) {
	for _, m := range allowed {
		if r.Method == m {
			serve(w, r)
			return
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeError(w, http.StatusMethodNotAllowed, "method_not_allowed", "This path takes "+strings.Join(allowed, " or ")+".")
}

// under tells whether path is root or below it.
func under(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '/')
}

// RevokeAccess makes the access tokens of an account worthless, or those of
// all accounts if it is empty, and returns how many there were. The refresh
// tokens stay good.
func (p *Provider) RevokeAccess(account string) int { return p.ledger.revokeAccess(account) }

// Stats are counters since the provider was made, and what is good now.
type Stats struct {
	// TokenCalls counts the calls of the token endpoint by grant_type, whatever
	// came of them.
	TokenCalls map[string]int `json:"token_calls"`
	// APICalls counts the answers of both APIs by status.
	APICalls map[int]int `json:"api_calls"`

	// Refreshes were granted, ReuseDetected were refused because the refresh
	// token had been spent, and FamiliesRevoked lost all their tokens by that,
	// by a code used twice or by a revocation.
	Refreshes       int `json:"refreshes"`
	ReuseDetected   int `json:"reuse_detected"`
	FamiliesRevoked int `json:"families_revoked"`

	AccessIssued  int `json:"access_issued"`
	AccessValid   int `json:"access_valid"`
	RefreshIssued int `json:"refresh_issued"`
	RefreshValid  int `json:"refresh_valid"`
}

// Stats returns a snapshot.
func (p *Provider) Stats() Stats {
	s := p.ledger.stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.TokenCalls, s.APICalls = maps.Clone(p.grants), maps.Clone(p.api)
	return s
}

// writeJSON writes v as an answer's whole body.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.Encode(v) // the caller has gone if this fails
}

// writeError writes an error in the form that RFC 6749 section 5.2 gives the
// token endpoint; the APIs use it too.
func writeError(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{code, description})
}

var _ http.Handler = (*Provider)(nil)
