package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// Vendor plays the vendor of one entry for one account. It is safe for
// concurrent use.
type Vendor struct {
	facts   *facts
	account *Account

	mu      sync.Mutex
	told    map[string]string // connection fields that the vendor has told the client
	known   map[string]string // what steps have answered, by reference: step1.access_token
	codes   map[string]*code
	grants  []*grant
	pending *grant                   // between the first token request and the last
	client  *client                  // that has registered itself
	spent   map[string]*http.Request // nonces, and the request that each came with
	// refuseOnce makes the next token that the client has signed itself one that
	// has ended: the one after it may well be the same, if it is of the same
	// second.
	refuseOnce bool
	temporary  map[string]*code // OAuth 1: temporary credentials
	closed     bool             // the account's owner has withdrawn its consent
	signal     int              // the status for an expired token
	forbidden  []string
	faults     []string
	counts     Counts
	answers    map[string]any // of look-ups, by address
	user       string         // who has signed in
	otherwise  bool
	session    *awsSession
}

// Counts is how often a vendor was asked for what, successfully.
type Counts struct{ Authorized, Tokens, Refreshes, Verified, Lookups, Calls, Expired, Revoked int }

// Renewals is how often a token was given, in whatever way.
func (c Counts) Renewals() int { return c.Tokens + c.Refreshes }

// New makes a vendor for an account.
func New(p *catalog.Provider, a *Account) *Vendor {
	return &Vendor{
		facts: factsOf(p), account: a, signal: http.StatusUnauthorized,
		told: map[string]string{}, known: map[string]string{}, codes: map[string]*code{},
		spent: map[string]*http.Request{}, temporary: map[string]*code{}, answers: map[string]any{},
	}
}

// Counts returns what has been asked so far.
func (v *Vendor) Counts() Counts {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts
}

// Faults returns what was wrong with the requests since the last call.
func (v *Vendor) Faults() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := v.faults
	v.faults = nil
	return out
}

// Told returns the connection fields that the client has been told, by
// callbacks, token answers and look-ups.
func (v *Vendor) Told() map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[string]string{}
	for name, value := range v.told {
		out[name] = value
	}
	return out
}

// Otherwise makes the vendor do differently what entries leave open: it keeps
// refresh tokens where it could replace them, and says nothing of one that
// stays; it fails optional requests; it tells when a token ends, and not how
// long it lives; and it answers with the other kind of token where there are
// two.
func (v *Vendor) Otherwise() { v.otherwise = true }

// Forbid makes every request a fault that holds the text: the caller's own key
// must not reach a vendor.
func (v *Vendor) Forbid(text string) { v.forbidden = append(v.forbidden, text) }

// Expire ends all access tokens, and has the API say so by a status.
func (v *Vendor) Expire(status int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.signal = status
	for _, g := range v.grants {
		g.live = false
	}
	v.refuseOnce = v.selfSigned()
	if v.session != nil {
		v.session.ended = true
	}
}

// Withdraw ends the consent: no token works any more, and none is given.
func (v *Vendor) Withdraw() {
	v.Expire(http.StatusUnauthorized)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
}

// Ends returns when the newest access token ends as far as the client can know,
// zero if it can't; and whether there is a refresh token for it.
func (v *Vendor) Ends() (at time.Time, refreshable bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.grants) == 0 {
		return time.Time{}, false
	}
	g := v.grants[len(v.grants)-1]
	return g.told, g.refresh != ""
}

// Secrets returns what must not be written down anywhere.
func (v *Vendor) Secrets() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for _, g := range v.grants {
		out = append(out, g.access, g.refresh)
	}
	for c := range v.codes {
		out = append(out, c)
	}
	out = append(out, v.account.App["client_secret"])
	for _, list := range []struct {
		fields []catalog.Field
		values map[string]string
	}{{v.facts.CredFields, v.account.Cred}, {v.facts.ConnFields, v.account.Conn}, {v.facts.AppFields, v.account.App}} {
		for _, f := range list.fields {
			if f.Secret {
				out = append(out, list.values[f.Name])
			}
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return len(s) < 12 })
}

func (v *Vendor) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// endpoint is one address of the vendor.
type endpoint struct {
	name    string
	method  string // empty: any
	url     *url.URL
	prefix  bool // everything below the address too
	check   func(x *exchange) []string
	respond func(w http.ResponseWriter, x *exchange)
	// refuse answers a request with faults, if not as all do.
	refuse func(w http.ResponseWriter, x *exchange, faults []string) bool
}

const maxBody = 4 << 20

// ServeHTTP answers as the vendor's servers do, all of them at once: the
// request's URL has to be absolute.
func (v *Vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body did not arrive", http.StatusBadRequest)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.exchange(r, body)
	if leak := v.leak(x); leak != "" {
		v.fault("%s %s: the caller's own %s has reached the vendor", r.Method, r.URL.Host+r.URL.Path, leak)
	}
	var best *endpoint
	var least []string
	found := false
	for _, e := range v.endpoints(x) {
		if !e.at(r.URL) || best != nil && e.prefix && !best.prefix {
			continue
		}
		found = true
		var faults []string
		attempt := *x // what a check learns must not help the next one
		attempt.scope = &scope{made: map[string]string{}, now: x.now}
		attempt.scope.lookup, attempt.scope.assertion = attempt.value, attempt.assertion
		if e.method != "" && e.method != r.Method {
			faults = []string{"the method is " + r.Method + ", not " + e.method}
		} else {
			faults = e.check(&attempt)
		}
		if best == nil || weight(faults) < weight(least) || best.prefix && !e.prefix {
			best, least = e, faults
			*x = attempt
		}
		if len(faults) == 0 {
			break
		}
	}
	switch {
	case !found:
		v.refuse(w, x, "nothing is there: the vendor has other addresses")
	case len(least) > 0:
		if best.refuse == nil || !best.refuse(w, x, least) {
			v.refuse(w, x, best.name+": "+strings.Join(least, "; "))
		}
	default:
		best.respond(w, x)
	}
}

// notMeant is what is wrong with a request that can't have been meant for the
// endpoint. Another one's faults say more.
const notMeant = "this is not the time for it"

func weight(faults []string) int {
	if slices.Contains(faults, notMeant) {
		return 1000
	}
	return len(faults)
}

// at tells whether an address is the endpoint's.
func (e *endpoint) at(u *url.URL) bool {
	if u.Scheme != e.url.Scheme || !strings.EqualFold(u.Host, e.url.Host) {
		return false
	}
	got, want := strings.TrimRight(u.EscapedPath(), "/"), strings.TrimRight(e.url.EscapedPath(), "/")
	return samePath(got, want) || e.prefix && (strings.HasPrefix(got, want+"/") || strings.HasPrefix(unescape(got), unescape(want)+"/"))
}

func samePath(a, b string) bool { return a == b || unescape(a) == unescape(b) }

func unescape(s string) string {
	if out, err := url.PathUnescape(s); err == nil {
		return out
	}
	return s
}

// leak names what a request holds that it must not.
func (v *Vendor) leak(x *exchange) string {
	for _, text := range v.forbidden {
		if strings.Contains(x.url.String(), text) || bytes.Contains(x.body, []byte(text)) {
			return "key"
		}
		for _, values := range x.r.Header {
			for _, s := range values {
				if strings.Contains(s, text) {
					return "key"
				}
			}
		}
	}
	for _, name := range []string{"Provider-Config-Key", "Connection-Id"} {
		if x.r.Header.Get(name) != "" {
			return "header " + name
		}
	}
	return ""
}

// refuse records a fault and answers as a token endpoint does (RFC 6749
// section 5.2).
func (v *Vendor) refuse(w http.ResponseWriter, x *exchange, fault string) {
	v.fault("%s %s: %s", x.r.Method, x.url.Host+x.url.EscapedPath(), fault)
	answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_request", "error_description": "simulated: not what the entry says"})
}

func answer(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(data) // a client that has gone shows in its own error
}
