// Package identity finds out who makes a request: by an API key, by a token that
// somebody else has issued (JWT), or by the client certificate of its TLS
// connection.
//
// It may import connect, connect/policy, golang-jwt, keyfunc and x/time.
package identity

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// Callers knows callers by whatever they prove themselves with. It implements
// connect.Callers.
type Callers struct {
	Keys         *connect.Keyring
	Tokens       []*Tokens
	Certificates []*Certificates
}

// Who returns who makes a request. What is in its Authorization header counts,
// if there is anything; else the certificate. Errors: *connect.AuthError.
func (c *Callers) Who(r *http.Request, now time.Time) (*connect.Caller, error) {
	authorization := r.Header.Get("Authorization")
	if token, ok := strings.CutPrefix(authorization, "Bearer "); ok && len(c.Tokens) > 0 && strings.Count(token, ".") == 2 {
		return c.bearer(r, token, now)
	}
	if authorization == "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		for _, known := range c.Certificates {
			if caller, ok := known.who(r.TLS.PeerCertificates, now); ok {
				return caller, nil
			}
		}
		if len(c.Certificates) > 0 {
			return nil, &connect.AuthError{Code: "unknown_certificate", Message: "Authentication failed. The client certificate is not one that may call."}
		}
	}
	return c.Keys.Who(r, now)
}

func (c *Callers) bearer(r *http.Request, token string, now time.Time) (*connect.Caller, error) {
	issuer := issuerOf(token)
	for _, known := range c.Tokens {
		if known.Issuer == issuer {
			return known.who(r.Context(), token, now)
		}
	}
	return nil, refused("it is of no issuer that is known here")
}

func refused(why string) error {
	return &connect.AuthError{Code: "invalid_token", Message: "Authentication failed. The token is refused: " + why + "."}
}

// maxKnown bounds what is remembered of those who have proved themselves. Beyond
// it they do so again.
const maxKnown = 10_000

// known remembers callers: by what they have proved themselves with until that
// ends, which takes no lock to look up, and by what they are, so that their rate
// is counted over all of it.
type known struct {
	proved sync.Map // connect.Digest → proof

	mu      sync.Mutex
	proofs  int
	callers map[string]*connect.Caller
}

type proof struct {
	caller *connect.Caller
	until  time.Time
}

func (k *known) get(by connect.Digest, now time.Time) (*connect.Caller, bool) {
	v, ok := k.proved.Load(by)
	if !ok {
		return nil, false
	}
	p := v.(proof)
	return p.caller, now.Before(p.until)
}

// add remembers a caller that has proved itself. It is the same as before if
// there was one under the name.
func (k *known) add(by connect.Digest, until time.Time, name string, made func() *connect.Caller) *connect.Caller {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.callers == nil || k.proofs >= maxKnown || len(k.callers) >= maxKnown {
		k.proved.Clear()
		k.proofs, k.callers = 0, make(map[string]*connect.Caller)
	}
	caller := k.callers[name]
	if caller == nil {
		caller = made()
		k.callers[name] = caller
	}
	k.proved.Store(by, proof{caller, until})
	k.proofs++
	return caller
}
