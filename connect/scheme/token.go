package scheme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/egress"
)

const (
	maxAnswer     = 1 << 20 // bytes of a provider's answer to keycaddy itself
	maxRetryAfter = time.Hour
)

// tokenCall is one request for a token, with the further ones that an entry may
// have after it. golang.org/x/oauth2 makes the request that the RFC asks for;
// as its transport, a tokenCall turns that into what the entry asks for, and the
// answer back into the standard's. Schemes that are no OAuth call run.
type tokenCall struct {
	base
	grant Grant
	// token is the entry's token block, with what it says of refreshing in
	// particular in a renewal.
	token   *catalog.Token
	steps   []catalog.TokenStep
	flow    lookup // flow.*; may be nil
	renewal bool

	assertion string
	sent      []string // what was sent that may be secret
	docs      []document
	answer    *answer
}

// newTokenCall prepares the first request for a token.
func (b base) newTokenCall(g Grant, flow lookup) *tokenCall {
	return &tokenCall{base: b, grant: g, token: b.provider.Token, steps: b.provider.TokenSteps, flow: flow}
}

// newRenewal prepares a request that renews a token in the entry's way.
func (b base) newRenewal(g Grant, flow lookup) *tokenCall {
	c := b.newTokenCall(g, flow)
	c.renewal = true
	r := b.provider.Refresh
	if r == nil {
		return c
	}
	t := *c.token
	if !r.URL.IsZero() {
		t.URL = r.URL
	}
	if r.Method != "" {
		t.Method = r.Method
	}
	if len(r.Params) > 0 {
		t.Params = r.Params
	}
	if len(r.Headers) > 0 {
		t.Headers = r.Headers
	}
	if r.Body != "" {
		t.Body = r.Body
	}
	if r.ClientAuth != "" {
		t.ClientAuth = r.ClientAuth
	}
	if r.Mode != catalog.RefreshReissue {
		t.ClientAuthNames = r.ClientAuthNames
		t.NoGrantType = r.NoGrantType
		if !r.StepsToo {
			c.steps = nil
		}
	}
	c.token = &t
	return c
}

// context is what x/oauth2 takes its transport from.
func (c *tokenCall) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: c})
}

// RoundTrip sends the standard's request the entry's way. What comes of sending
// it is a *TokenError if it isn't a token.
func (c *tokenCall) RoundTrip(std *http.Request) (*http.Response, error) {
	raw, err := io.ReadAll(std.Body)
	std.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("reading token request: %w", err)
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, fmt.Errorf("reading token request: %w", err)
	}
	if err := c.run(std.Context(), form, std.Header.Get("Authorization")); err != nil {
		return nil, err
	}
	standard, err := json.Marshal(map[string]string{
		"access_token": "in c.answer", "token_type": "Bearer",
	})
	if err != nil {
		return nil, fmt.Errorf("encoding token answer: %w", err)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: std,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(standard)),
	}, nil
}

// run sends the token request and those after it, and reads the answer. Form
// has the standard's parameters, authorization its header. Errors: *TokenError,
// *UnsupportedError, or what the entry or the grant lacks.
func (c *tokenCall) run(ctx context.Context, form url.Values, authorization string) error {
	if c.token.URL.IsZero() {
		return &UnsupportedError{Provider: c.provider.ID, Feature: "a token endpoint that its entry doesn't name"}
	}
	u, err := c.token.URL.Fill(c.env(c.grant, c.values("")))
	if err != nil {
		return fmt.Errorf("token URL of provider %s: %w", c.provider.ID, err)
	}
	if c.provider.Signed != nil {
		if c.assertion, err = c.signed(c.grant, c.values(u.String())); err != nil {
			return ofField(err)
		}
	}
	m := &message{method: c.token.Method, url: u, body: c.token.Body, params: c.token.Params, headers: c.token.Headers}
	if err := c.deviate(m, form, authorization); err != nil {
		return err
	}
	if err := c.send(ctx, m, u.String()); err != nil {
		return err
	}
	for i := range c.steps {
		if err := c.step(ctx, &c.steps[i]); err != nil {
			if c.steps[i].Optional {
				break
			}
			return err
		}
	}
	c.answer, err = readAnswer(c.provider, c.docs, c.renewal, time.Now())
	return scrubbed(err, c.secrets(c.grant, c.sent...))
}

// step sends one of the requests after the first.
func (c *tokenCall) step(ctx context.Context, s *catalog.TokenStep) error {
	u, err := s.URL.Fill(c.env(c.grant, c.values("")))
	if err != nil {
		return fmt.Errorf("step URL of provider %s: %w", c.provider.ID, err)
	}
	return c.send(ctx, &message{method: s.Method, url: u, body: s.Body, params: s.Params, query: s.Query, headers: s.Headers}, u.String())
}

func (c *tokenCall) send(ctx context.Context, m *message, url string) error {
	req, err := m.build(ctx, c.base, c.grant, c.values(url))
	if err != nil {
		return fmt.Errorf("token request of provider %s: %w", c.provider.ID, err)
	}
	whole := c.provider.TokenResponse != nil && c.provider.TokenResponse.AccessToken == "$body" && len(c.docs) == len(c.steps)
	doc, err := c.fetch(req, c.grant, whole)
	if err != nil {
		return scrubbed(err, c.secrets(c.grant, c.sent...))
	}
	c.docs = append(c.docs, doc)
	return nil
}

// values are what the templates of token requests may refer to besides the
// grant: the flow, the assertion, and the answers so far.
func (c *tokenCall) values(tokenURL string) lookup {
	return func(ns, path string) (string, bool) {
		switch {
		case ns == "flow" && path == "token_url":
			return tokenURL, tokenURL != ""
		case ns == "flow" && c.flow != nil:
			return c.flow(ns, path)
		case ns == "signed" && path == "assertion":
			return c.assertion, c.assertion != ""
		case strings.HasPrefix(ns, "step"):
			n, err := strconv.Atoi(ns[len("step"):])
			if err != nil || n < 1 || n > len(c.docs) {
				return "", false
			}
			return c.docs[n-1].text(path)
		}
		return "", false
	}
}

// deviate makes the entry's parameters of the standard's.
func (c *tokenCall) deviate(m *message, form url.Values, authorization string) error {
	t := c.token
	for name := range form {
		switch name {
		case "grant_type", "client_id", "redirect_uri", "scope":
		default:
			c.sent = append(c.sent, form.Get(name))
		}
	}
	env := c.env(c.grant, c.values(m.url.String()))
	if form != nil {
		switch {
		case t.ClientAuth == "private_key_jwt":
			form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer") // RFC 7523 section 2.2
			form.Set("client_assertion", c.assertion)
			c.sent = append(c.sent, c.assertion)
		case !t.BasicUser.IsZero():
			r := http.Request{Header: http.Header{}}
			user, err := t.BasicUser.Fill(env)
			if err != nil {
				return fmt.Errorf("basic_user of provider %s: %w", c.provider.ID, err)
			}
			password, err := t.BasicPassword.Fill(env)
			if err != nil {
				return fmt.Errorf("basic_password of provider %s: %w", c.provider.ID, err)
			}
			r.SetBasicAuth(user, password)
			authorization = r.Header.Get("Authorization")
		}
		if t.ExtraClientIDInBody {
			form.Set("client_id", c.app.ClientID)
		}
	}
	drop := func(when bool, names ...string) {
		for _, name := range names {
			if when {
				form.Del(name)
			}
		}
	}
	drop(t.NoGrantType, "grant_type")
	drop(t.NoClientID, "client_id")
	drop(t.NoRedirectURI, "redirect_uri")
	drop(t.NoCode, "code", "code_verifier", "redirect_uri")
	if t.RedirectURIInQuery && form.Has("redirect_uri") {
		addTo(m.url, url.Values{"redirect_uri": form["redirect_uri"]})
		form.Del("redirect_uri")
	}
	if t.SendsScope && c.flow != nil && !form.Has("scope") {
		if scope, ok := c.flow("flow", "scope"); ok && scope != "" {
			form.Set("scope", scope)
		}
	}
	rename(form, "code", t.CodeName)
	for name, theirs := range t.ClientAuthNames {
		rename(form, name, theirs)
	}
	m.form, m.authorization = form, authorization
	return nil
}

func rename(form url.Values, from, to string) {
	if to != "" && form.Has(from) {
		form[to] = form[from]
		form.Del(from)
	}
}

// retryAfter reads the header of RFC 9110 section 10.2.3: seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(strings.TrimSpace(s)); err == nil || errors.Is(err, strconv.ErrRange) {
		d = time.Duration(max(0, min(n, int(maxRetryAfter/time.Second)))) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}

// unreachable says what kept a request from being answered. The URL, which
// may hold secrets, is not part of it.
func unreachable(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	te := &TokenError{Class: Transient, Code: "unreachable", err: err}
	var ne net.Error
	switch {
	case errors.Is(err, egress.ErrRefused):
		te.Class, te.Code = Misconfigured, "refused_address"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		te.Code = "timeout"
	}
	return te
}

// tokenError finds the typed error in what x/oauth2 returns. Of the rest only
// what was made here is told: x/oauth2 quotes the provider's answer.
func tokenError(err error) error {
	var te *TokenError
	var unsupported *UnsupportedError
	var fields FieldErrors
	var ue *url.Error
	switch {
	case errors.As(err, &fields):
		return fields
	case errors.As(err, &te):
		return te
	case errors.As(err, &unsupported):
		return unsupported
	case errors.As(err, &ue):
		return ue.Err
	}
	return &TokenError{Class: Transient, Code: "unusable_answer"}
}
