package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// echoLimit is how much of a body /echo repeats.
const echoLimit = 1 << 20

// eventInterval is the time between two events of /api/events.
const eventInterval = 500 * time.Millisecond

// serveAPI is the API behind OAuth.
func (p *Provider) serveAPI(w http.ResponseWriter, r *http.Request) {
	token, presented := bearer(r)
	access, family, ok := p.ledger.use(token)
	if !ok {
		// RFC 6750 section 3.1: no error code for a caller who sent no token.
		challenge := `Bearer realm="keycaddy demo provider"`
		if presented {
			challenge += `, error="invalid_token", error_description="The access token is expired, revoked or unknown."`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		writeError(w, http.StatusUnauthorized, "invalid_token", "The access token is missing, expired, revoked or unknown.")
		return
	}
	switch path := r.URL.Path; {
	case path == "/api/me":
		p.only(w, r, func(w http.ResponseWriter, r *http.Request) {
			me := struct {
				Account
				ClientID       string  `json:"client_id"`
				Scope          string  `json:"scope"`
				TokenExpiresIn float64 `json:"token_expires_in"`
				Calls          int     `json:"calls"`     // since consent was given
				Refreshes      int     `json:"refreshes"` // likewise
			}{
				Account{family.account, family.account}, family.client, access.scope,
				time.Until(access.expires).Truncate(time.Millisecond).Seconds(), family.calls, family.refreshes,
			}
			for _, a := range Accounts() {
				if a.ID == family.account {
					me.Account = a
				}
			}
			writeJSON(w, http.StatusOK, me)
		}, http.MethodGet, http.MethodHead)
	case under(path, "/api/echo"):
		serveEcho(w, r)
	case path == "/api/events":
		p.only(w, r, func(w http.ResponseWriter, r *http.Request) { p.serveEvents(w, r, family.account) }, http.MethodGet)
	default:
		writeError(w, http.StatusNotFound, "not_found", "The API has /api/me, /api/echo and /api/events.")
	}
}

// serveKeyAPI is the API behind an API key.
func (p *Provider) serveKeyAPI(w http.ResponseWriter, r *http.Request) {
	keys := r.Header.Values("X-Api-Key")
	if len(keys) != 1 || !p.apiKeys[digestOf(keys[0])] {
		// RFC 9110 section 11.6.1 wants a challenge; there is no scheme for it.
		w.Header().Set("WWW-Authenticate", `ApiKey header="X-Api-Key"`)
		writeError(w, http.StatusUnauthorized, "invalid_api_key", "X-Api-Key is missing or isn't a key of this provider.")
		return
	}
	switch path := r.URL.Path; {
	case path == "/keys/api/whoami":
		p.only(w, r, func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, struct {
				Name   string `json:"name"`
				KeyEnd string `json:"key_ends_in"`
			}{"the holder of an API key", keys[0][max(0, len(keys[0])-4):]})
		}, http.MethodGet, http.MethodHead)
	case under(path, "/keys/api/echo"):
		serveEcho(w, r)
	default:
		writeError(w, http.StatusNotFound, "not_found", "The API has /keys/api/whoami and /keys/api/echo.")
	}
}

// bearer returns the request's bearer token (RFC 6750 section 2.1), and whether
// there was any authorization at all. Two are none.
func bearer(r *http.Request) (token string, presented bool) {
	values := r.Header.Values("Authorization")
	if len(values) == 1 {
		scheme, rest, _ := strings.Cut(values[0], " ")
		if strings.EqualFold(scheme, "Bearer") {
			token = strings.TrimSpace(rest)
		}
	}
	return token, len(values) > 0
}

// An Echo is what /echo answers: the request as it arrived, but no secret of it.
type Echo struct {
	Method  string              `json:"method"`
	Host    string              `json:"host"`
	Path    string              `json:"path"` // as sent, below the mount
	Query   string              `json:"query"`
	Headers map[string][]string `json:"headers"`
	// Body is the body's first MiB, Length and SHA256 are of all of it.
	Body   string `json:"body"`
	Length int64  `json:"body_length"`
	SHA256 string `json:"body_sha256"`
}

func serveEcho(w http.ResponseWriter, r *http.Request) {
	var head bytes.Buffer
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(sum, &limited{&head}), r.Body)
	if err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request", "The body didn't arrive whole.")
		return
	}
	e := Echo{
		Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
		Headers: make(map[string][]string, len(r.Header)),
		Body:    strings.ToValidUTF8(head.String(), "\uFFFD"), Length: n, SHA256: hex.EncodeToString(sum.Sum(nil)),
	}
	for name, values := range r.Header {
		switch name {
		case "Authorization", "Proxy-Authorization", "X-Api-Key", "Cookie":
			values = slices.Clone(values)
			for i := range values {
				values[i] = "[present]"
			}
		}
		e.Headers[name] = values
	}
	writeJSON(w, http.StatusOK, e)
}

// limited keeps the first echoLimit bytes and swallows the others.
type limited struct{ *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), echoLimit-l.Len())])
	return len(p), nil
}

// serveEvents sends an event every half second until the caller goes, or the
// provider is closed. That the token expires meanwhile doesn't matter.
func (p *Provider) serveEvents(w http.ResponseWriter, r *http.Request, account string) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	tick := time.NewTicker(eventInterval)
	defer tick.Stop()
	for n := 1; ; n++ {
		data, err := json.Marshal(struct {
			N       int       `json:"n"`
			Account string    `json:"account"`
			Time    time.Time `json:"time"`
		}{n, account, time.Now().UTC()})
		if err != nil {
			panic(err) // nothing in it can't be marshalled
		}
		if _, err := fmt.Fprintf(w, "id: %d\nevent: tick\ndata: %s\n\n", n, data); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// count serves a call of an API and counts its answer. A stream counts as soon
// as it has begun.
func (p *Provider) count(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	serve(&counted{ResponseWriter: w, count: func(status int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.api[status]++
	}}, r)
}

// counted reports the status of an answer.
type counted struct {
	http.ResponseWriter
	count func(status int)
	done  bool
}

func (c *counted) WriteHeader(status int) {
	if !c.done {
		c.done = true
		c.count(status)
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(p []byte) (int, error) {
	if !c.done {
		c.done = true
		c.count(http.StatusOK)
	}
	return c.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }
